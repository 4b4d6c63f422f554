"""Each endpoint of the Message Batches API, described once for both clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from airflow_provider_batches.api.bodies import Body, encode_json, encode_requests
from airflow_provider_batches.api.errors import InvalidArgumentError, shown
from airflow_provider_batches.api.models import BatchPage, BatchRequest, DeletedBatch, MessageBatch, TokenCount

T = TypeVar("T")

PATH = "/v1/messages/batches"
MAX_PAGE = 1000
_MAX_ID = 256
#: What the input of a request consists of.
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking")
_EMPTY_SHA256 = sha256().hexdigest()


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call of an endpoint.

    :param model: The model that parses the answer; None for a stream.
    :param creates: Whether the call is not idempotent: it costs money each time it reaches the API.
    :param depends_on_state: Whether the state of the batch can explain a refusal.
    """

    action: str
    method: str
    path: str
    model: type[T] | None
    batch_id: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    creates: bool = False
    depends_on_state: bool = False

    @property
    def body_sha256(self) -> str:
        """The SHA-256 of the body, for an auth class that signs it."""
        return self.body.sha256 if self.body else _EMPTY_SHA256


def check_batch_id(batch_id: object, field: str = "batch_id") -> str:
    """Return the ID if it can be a batch's ID.

    :param field: The argument's name in an error text.
    :raises InvalidArgumentError: The ID is not a string, is empty, or contains a comma or a URL delimiter.
    """
    if not isinstance(batch_id, str):
        kind = type(batch_id).__name__
        raise InvalidArgumentError(field, f"expected a batch ID (a string), got {shown(batch_id)} ({kind}).")
    if batch_id.strip() in ("", "None"):
        raise InvalidArgumentError(
            field, f"got {shown(batch_id)}, which is not a batch ID. Check the task or variable that supplies it."
        )
    wrong = [char for char in batch_id if char in "/\\?#%," or not char.isprintable() or char.isspace()]
    if len(batch_id) > _MAX_ID:
        problem = f"got {len(batch_id)} characters ({shown(batch_id)}); an ID has at most {_MAX_ID}."
    elif wrong:
        problem = f"{shown(batch_id)} contains {wrong[0]!r}, which is not allowed in a batch ID."
    elif ".." in batch_id or batch_id == ".":
        problem = f"{shown(batch_id)} contains '..', which is not allowed in a batch ID."
    elif not batch_id.isascii():
        problem = f"{shown(batch_id)} contains a non-ASCII character, which is not allowed in a batch ID."
    else:
        return batch_id
    raise InvalidArgumentError(
        field, f"{problem} Pass the batch's `id` as the API returned it, for example msgbatch_01Example."
    )


def create(requests: Iterable[Mapping[str, Any] | BatchRequest]) -> Call[MessageBatch]:
    """Create a batch."""
    return create_from(encode_requests(requests))


def create_from(body: Body) -> Call[MessageBatch]:
    """Create a batch from an encoded body."""
    return Call("create a batch", "POST", PATH, MessageBatch, body=body, creates=True)


def count_tokens(params: Mapping[str, Any]) -> Call[TokenCount]:
    """Count the input tokens of a request, which costs nothing."""
    content = encode_json({name: params[name] for name in _COUNTED if name in params}).encode()
    body = Body(len(content), sha256(content).hexdigest(), lambda: iter([content]))
    return Call("count tokens", "POST", "/v1/messages/count_tokens", TokenCount, body=body)


def retrieve(batch_id: str) -> Call[MessageBatch]:
    """Retrieve a batch."""
    return Call(f"retrieve batch {batch_id}", "GET", _path(batch_id), MessageBatch, batch_id)


def page(page_size: int = MAX_PAGE, after_id: str | None = None, before_id: str | None = None) -> Call[BatchPage]:
    """List one page of batches, newest first."""
    if type(page_size) is not int or not 1 <= page_size <= MAX_PAGE:
        raise InvalidArgumentError("page_size", f"got {page_size!r}; a page holds 1 to {MAX_PAGE} batches.")
    if after_id is not None and before_id is not None:
        raise InvalidArgumentError("after_id, before_id", "set only one of them, not both.")
    params = {"limit": str(page_size)}
    for name, cursor in (("after_id", after_id), ("before_id", before_id)):
        if cursor is not None:
            params[name] = check_batch_id(cursor, name)
    return Call("list batches", "GET", PATH, BatchPage, params=params)


def cancel(batch_id: str) -> Call[MessageBatch]:
    """Cancel a batch."""
    path = f"{_path(batch_id)}/cancel"
    return Call(f"cancel batch {batch_id}", "POST", path, MessageBatch, batch_id, depends_on_state=True)


def delete(batch_id: str) -> Call[DeletedBatch]:
    """Delete a batch with its results."""
    return Call(f"delete batch {batch_id}", "DELETE", _path(batch_id), DeletedBatch, batch_id, depends_on_state=True)


def results(batch_id: str) -> Call[Any]:
    """Open the stream of a batch's results. Ignores `results_url`, which could send the key to another host."""
    path = f"{_path(batch_id)}/results"
    return Call(f"read the results of batch {batch_id}", "GET", path, None, batch_id, depends_on_state=True)


def _path(batch_id: str) -> str:
    return f"{PATH}/{quote(check_batch_id(batch_id), safe='')}"
