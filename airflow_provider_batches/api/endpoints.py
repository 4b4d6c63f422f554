"""Each endpoint of the Message Batches API, described once for both clients."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from airflow_provider_batches.api.errors import InvalidArgumentError
from airflow_provider_batches.api.models import BatchPage, BatchRequest, DeletedBatch, MessageBatch, RawPage

T = TypeVar("T")

PATH = "/v1/messages/batches"
MAX_REQUESTS = 100_000
MAX_BYTES = 256 * 1024 * 1024
MAX_PAGE = 1000
_MAX_ID = 256


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call of an endpoint: what is sent, and what the answer is read as."""

    action: str
    method: str
    path: str
    #: What the answer is read as; None where it is a stream.
    model: type[T] | None
    batch_id: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    #: Whether the call may be made again although it may have reached the API.
    repeatable: bool = True
    #: Whether a refusal is explained by looking at the batch, so that repeating it blindly is no use.
    settles: bool = False


def check_batch_id(batch_id: object) -> str:
    """Return the ID where it can be one.

    :raises InvalidArgumentError: The ID is no text, empty, or holds a comma or what could change the URL.
    """
    if not isinstance(batch_id, str):
        raise InvalidArgumentError(
            f"batch_id: expected the ID of one batch, a string, but got {shown(batch_id)} "
            f"({type(batch_id).__name__}). For several batches use .expand(batch_id=[...])."
        )
    if batch_id.strip() in ("", "None"):
        raise InvalidArgumentError(
            f"batch_id: got {shown(batch_id)}, which is no ID. Check that the task, Param or template that it "
            "comes from gives one."
        )
    if "," in batch_id:
        raise InvalidArgumentError(
            f"batch_id: {shown(batch_id)} holds a comma, which no batch ID has. Where a task takes several batches, "
            """give a list, or one as text (["a", "b"]); where it takes one, use .expand(batch_id=[...])."""
        )
    if len(batch_id) > _MAX_ID:
        raise InvalidArgumentError(
            f"batch_id: got {len(batch_id)} characters ({shown(batch_id)}); an ID has at most {_MAX_ID}. "
            "Pass the batch's `id` as the API gave it."
        )
    wrong = [char for char in batch_id if char in "/\\?#%" or not char.isprintable() or char.isspace()]
    if wrong or ".." in batch_id or batch_id == "." or not batch_id.isascii():
        culprit = repr(wrong[0]) if wrong else "'..'" if batch_id.isascii() else "a non-ASCII character"
        raise InvalidArgumentError(
            f"batch_id: {shown(batch_id)} holds {culprit}, which no batch ID has. "
            "Pass the batch's `id` as the API gave it, for example msgbatch_01Example."
        )
    return batch_id


def check_batch_ids(batch_ids: object) -> list[str]:
    """Return the IDs, each once, in their order: of one batch, of a list of them, or of a text that shows a list.

    :raises InvalidArgumentError: One of them can be no ID.
    """
    if isinstance(batch_ids, str) and batch_ids.lstrip().startswith("["):
        text, batch_ids = batch_ids, listed(batch_ids)
        if batch_ids is None:
            raise InvalidArgumentError(f"batch_id: {shown(text)} is no list of IDs.")
    if isinstance(batch_ids, Sequence) and not isinstance(batch_ids, (str, bytes)):
        batch_ids = _items(batch_ids)
    if isinstance(batch_ids, (list, set)):
        return list(dict.fromkeys(map(check_batch_id, batch_ids)))
    return [check_batch_id(batch_ids)]


def _items(sequence: Sequence[object]) -> list[object]:
    """Return what a sequence holds, which may be fetched only now, as the output of a mapped task is."""
    try:
        return list(sequence[:])
    except TypeError:
        # Not every such sequence takes a slice, and where fetching an item fails, an iterator may end as if it were
        # the last: an index does not.
        return [sequence[index] for index in range(len(sequence))]


def listed(text: str) -> object:
    """Return the list that a text shows, as a template renders one to text; None where it shows nothing."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        # The last two are what Python makes of thousands of signs or brackets.
        return None


def create(requests: Iterable[Mapping[str, Any] | BatchRequest]) -> Call[MessageBatch]:
    """Create a batch; never made twice, since each time would be a batch to pay for."""
    body = _create_body(requests)
    return Call("create a batch", "POST", PATH, MessageBatch, body=body, repeatable=False)


def retrieve(batch_id: str) -> Call[MessageBatch]:
    """Ask how a batch is."""
    return Call(f"retrieve batch {batch_id}", "GET", _path(batch_id), MessageBatch, batch_id)


def raw_page(after_id: str | None) -> Call[RawPage]:
    """List batches, newest first: one page, whose batches are left as they came."""
    return replace(page(MAX_PAGE, after_id), model=RawPage)  # type: ignore[arg-type, return-value]


def page(limit: int = MAX_PAGE, after_id: str | None = None, before_id: str | None = None) -> Call[BatchPage]:
    """List batches, newest first: one page."""
    if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
        raise InvalidArgumentError(f"limit: got {limit!r}; a page holds 1 to {MAX_PAGE} batches.")
    if after_id is not None and before_id is not None:
        raise InvalidArgumentError("after_id, before_id: give one of them, not both.")
    params = {"limit": str(limit)}
    if after_id is not None:
        params["after_id"] = check_batch_id(after_id)
    if before_id is not None:
        params["before_id"] = check_batch_id(before_id)
    return Call("list batches", "GET", PATH, BatchPage, params=params)


def cancel(batch_id: str) -> Call[MessageBatch]:
    """Ask the API to cancel a batch."""
    path = f"{_path(batch_id)}/cancel"
    return Call(f"cancel batch {batch_id}", "POST", path, MessageBatch, batch_id, settles=True)


def delete(batch_id: str) -> Call[DeletedBatch]:
    """Delete a batch with its results."""
    return Call(f"delete batch {batch_id}", "DELETE", _path(batch_id), DeletedBatch, batch_id, settles=True)


def results(batch_id: str) -> Call[Any]:
    """Open the stream of a batch's results. The path is built here: no host that an answer names gets the key."""
    path = f"{_path(batch_id)}/results"
    return Call(f"read the results of batch {batch_id}", "GET", path, None, batch_id, settles=True)


def _path(batch_id: str) -> str:
    return f"{PATH}/{quote(check_batch_id(batch_id), safe='')}"


def shown(value: object) -> str:
    """Return a value for an error text, without the middle where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"


def _create_body(requests: Iterable[Mapping[str, Any] | BatchRequest]) -> bytes:
    if isinstance(requests, (str, bytes, Mapping)) or not isinstance(requests, Iterable):
        raise InvalidArgumentError(
            f"requests: expected a list of {{'custom_id', 'params'}}, got {type(requests).__name__}."
        )
    rendered: list[bytes] = []
    seen: set[str] = set()
    for index, request in enumerate(requests):
        where = f"requests[{index}]"
        if index == MAX_REQUESTS:
            raise InvalidArgumentError(f"requests: got more than {MAX_REQUESTS:,}; a batch holds no more. Split it.")
        try:
            checked = request if isinstance(request, BatchRequest) else BatchRequest.model_validate(request)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
            given = request.get("custom_id") if isinstance(request, Mapping) else None
            raise InvalidArgumentError(
                f"{where}.{'.'.join(map(str, problem['loc']))}: {problem['msg']} (custom_id: {shown(given)}). "
                "A request is {'custom_id': 1 to 64 of a-z A-Z 0-9 _ -, 'params': {...}}."
            ) from None
        if checked.custom_id in seen:
            raise InvalidArgumentError(
                f"{where}.custom_id: {checked.custom_id!r} is there twice; it must be unique in its batch."
            )
        seen.add(checked.custom_id)
        try:
            # As bytes, so that the request is not held twice as objects; NaN is no JSON.
            rendered.append(
                json.dumps(checked.model_dump(), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgumentError(
                f"{where}.params of {checked.custom_id!r} cannot be sent as JSON: {error}."
            ) from None
    if not rendered:
        raise InvalidArgumentError(f"requests: got 0; a batch holds 1 to {MAX_REQUESTS:,}.")
    body = b'{"requests":[%b]}' % b",".join(rendered)
    if len(body) > MAX_BYTES:
        raise InvalidArgumentError(f"requests: {len(body):,} bytes; a batch holds at most {MAX_BYTES:,}. Split it.")
    return body
