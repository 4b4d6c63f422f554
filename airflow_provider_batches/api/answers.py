"""Reads an answer of the API: the object it holds, or the error it stands for. No I/O."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

from pydantic import ValidationError

from airflow_provider_batches.api.endpoints import Call, T, shown
from airflow_provider_batches.api.errors import (
    AccessDeniedError,
    APIStatusError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    SpendLimitError,
)
from airflow_provider_batches.api.models import DeletedBatch, ErrorEnvelope

_SPEND_LIMIT = "enforced_spend_limit_reached"
_EXCERPT = 200
_TRANSIENT = frozenset({408, 409})
_HINTS: dict[type[APIStatusError], str] = {
    AccessDeniedError: "Check the API key in the connection's password, and that it may use batches.",
    SpendLimitError: "It goes on until somebody raises the limit or pays.",
    NotFoundError: "Check first that the key belongs to the batch's workspace, then the ID.",
    RequestTooLargeError: "Split the batch.",
    RateLimitError: "All batch calls of the organization share one limit of requests a minute.",
}
_NO_BATCHES_HINT = "Check the connection's host: it has no batches there."
_NO_BODY_HINT = "This call is small: check the proxy on the way to the API."
_REDIRECT_HINT = "Redirects are not followed, so that no other host sees the key: set the API's own URL."


def read_answer(
    call: Call[T], status: int, headers: Mapping[str, str], body: bytes, hide: Callable[[str], str] = str
) -> T:
    """Return what the API answered.

    :param hide: Takes secrets out of a body before an excerpt of it is shown: half a secret is no longer recognized.

    :raises APIStatusError: The API refused; the subclass says how.
    :raises InvalidResponseError: The API agreed, but the body cannot be read, or is about another batch.
    """
    if not 200 <= status < 300:
        raise refusal(call, status, headers, body, hide)
    request_id = headers.get("request-id")
    model: Any = call.model
    if model is DeletedBatch and not body.strip():
        answer: Any = DeletedBatch(id=call.batch_id)
    else:
        try:
            answer = model.model_validate_json(body)
        except ValidationError as error:
            raise InvalidResponseError(
                f"Could not {call.action}: status {status} with an unreadable body: {_problems(error)}; "
                f"it begins {excerpt(body, hide)!r} (request-id {request_id}).",
                request_id=request_id,
            ) from None
    if call.batch_id and answer.id != call.batch_id:
        # Or the results of one batch would be saved, and another one deleted.
        raise InvalidResponseError(
            f"Could not {call.action}: the answer is about another batch, {shown(answer.id)} "
            f"(request-id {request_id}).",
            request_id=request_id,
        )
    answer._request_id = request_id
    return cast(T, answer)


def refusal(
    call: Call[T], status: int, headers: Mapping[str, str], body: bytes, hide: Callable[[str], str] = str
) -> APIStatusError:
    """Return the error that an answer other than 2xx stands for."""
    error_type, message, code, request_id = None, excerpt(body, hide), None, headers.get("request-id")
    try:
        envelope = ErrorEnvelope.model_validate_json(body)
    except ValidationError:
        pass
    else:
        error_type, message = envelope.error.type, envelope.error.message or message
        details = envelope.error.details
        code = details.get("error_code") if isinstance(details, dict) else None
        request_id = request_id or envelope.request_id
    kind = _kind(status, code)
    name = error_type or (HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "unknown")
    return kind(
        f"Could not {call.action}: {status} {name}: {message or 'no text'} (request-id {request_id}). "
        f"{_hint(call, kind, status)}".strip(),
        status=status,
        error_type=error_type,
        message=message,
        request_id=request_id,
        retry_after=retry_after(headers, datetime.now(timezone.utc)),
        should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "").lower()),
    )


def _kind(status: int, code: object) -> type[APIStatusError]:
    if status in (401, 403):
        return AccessDeniedError
    if status == 402 or (status == 429 and code == _SPEND_LIMIT):
        return SpendLimitError
    if status in _TRANSIENT or status >= 500:
        return ServerError
    return {404: NotFoundError, 413: RequestTooLargeError, 429: RateLimitError}.get(status, APIStatusError)


def _hint(call: Call[Any], kind: type[APIStatusError], status: int) -> str:
    if 300 <= status < 400:
        return _REDIRECT_HINT
    if kind is NotFoundError and not call.batch_id:
        return _NO_BATCHES_HINT
    if kind is RequestTooLargeError and call.body is None:
        return _NO_BODY_HINT
    return _HINTS.get(kind, "")


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that an answer asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - now).total_seconds())


def excerpt(body: bytes, hide: Callable[[str], str] = str) -> str:
    """Return the beginning of a body as one line for people, without HTML tags."""
    text = hide(body.decode("utf-8", errors="replace"))[: 20 * _EXCERPT]
    if "<" in text:
        text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", text)
        text = html.unescape(text)
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}..."


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in found[:3])
