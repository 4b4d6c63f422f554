"""The body of a create: checked and encoded before the first byte is sent, and streamed."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from typing import Any

from pydantic import ValidationError

from airflow_provider_batches.api.errors import InvalidArgumentError, shown
from airflow_provider_batches.api.models import BatchRequest

MAX_REQUESTS = 100_000
MAX_BYTES = 256_000_000
#: What stands before the requests, and after them.
START, END = b'{"requests":[', b"]}"
#: Seconds to wait for the answer to a create of more than 1 MiB, which may take the API minutes.
ANSWER_SECONDS = 600.0
LARGE = 1024 * 1024
_PIECE = 1024 * 1024
#: Bytes of a body that are kept in memory instead of in a temporary file.
_IN_MEMORY = 8 * 1024 * 1024
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
# NaN is not JSON. A circular reference raises RecursionError.
encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Body:
    """A request body that is streamed.

    :param size: Its bytes.
    :param sha256: Its SHA-256, for an auth class that signs it.
    :param pieces: Returns its pieces. Called once for each attempt.
    """

    size: int
    sha256: str
    pieces: Callable[[], Iterator[bytes]]

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.pieces())


def encode_request(request: Mapping[str, Any] | BatchRequest, field: str) -> tuple[str, bytes]:
    """Return the `custom_id` of a request, and the request as compact JSON.

    :param field: The place of the request, for errors.
    :raises InvalidArgumentError: The request is not valid.
    """
    raw = request.model_dump() if isinstance(request, BatchRequest) else request
    try:
        custom_id = raw["custom_id"]
        valid = isinstance(raw["params"], dict) and _CUSTOM_ID.match(custom_id) is not None
    except (KeyError, TypeError):
        valid = False
    if not valid:
        raise _invalid(raw, field)
    try:
        return custom_id, encode_json(raw if isinstance(raw, dict) else dict(raw)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(
            f"{field}.params", f"cannot be encoded as JSON: {error} (custom_id: {custom_id!r})."
        ) from None


def encode_requests(requests: Iterable[Mapping[str, Any] | BatchRequest]) -> Body:
    """Return the body of a create, in a temporary file if it is large.

    :raises InvalidArgumentError: A request is not valid, or there are none or too many.
    """
    if isinstance(requests, (str, bytes, Mapping)) or not isinstance(requests, Iterable):
        raise InvalidArgumentError(
            "requests", f"expected a list of {{'custom_id', 'params'}}, got {type(requests).__name__}."
        )
    spool = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (the body reads it later)
    seen, digest, size = set[str](), sha256(), 0

    def write(data: bytes) -> None:
        nonlocal size
        size += len(data)
        digest.update(data)
        spool.write(data)
        if size > MAX_BYTES:
            raise InvalidArgumentError("requests", f"more than {MAX_BYTES:,} bytes, the limit of a batch. Split it.")

    try:
        write(START)
        for index, request in enumerate(requests):
            if index == MAX_REQUESTS:
                raise InvalidArgumentError(
                    "requests", f"got more than {MAX_REQUESTS:,}, the limit of a batch. Split it."
                )
            custom_id, line = encode_request(request, f"requests[{index}]")
            if custom_id in seen:
                raise InvalidArgumentError(
                    f"requests[{index}].custom_id", f"{custom_id!r} is used twice; it must be unique in the batch."
                )
            seen.add(custom_id)
            write(b"," + line if index else line)
        if not seen:
            raise InvalidArgumentError("requests", f"got 0; a batch holds 1 to {MAX_REQUESTS:,}.")
        write(END)
    except BaseException:
        spool.close()
        raise

    def pieces() -> Iterator[bytes]:
        spool.seek(0)
        while piece := spool.read(_PIECE):
            yield piece

    body = Body(size, digest.hexdigest(), pieces)
    weakref.finalize(body, spool.close)
    return body


def _invalid(request: object, field: str) -> InvalidArgumentError:
    try:
        BatchRequest.model_validate(request)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    else:
        problem = {"loc": (), "msg": "not a request"}  # type: ignore[typeddict-item]
    given = request.get("custom_id") if isinstance(request, Mapping) else None
    return InvalidArgumentError(
        ".".join([field, *map(str, problem["loc"])]),
        f"{problem['msg']} (custom_id: {shown(given)}). "
        "A request is {'custom_id': 1 to 64 of a-z A-Z 0-9 _ -, 'params': {...}}.",
    )
