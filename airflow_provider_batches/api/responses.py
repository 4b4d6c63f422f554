"""Turns a response into an object or an error, without secrets. No I/O."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

import httpx
from pydantic import ValidationError

from airflow_provider_batches.api.endpoints import PATH, Call, T
from airflow_provider_batches.api.errors import (
    AccessDeniedError,
    APIStatusError,
    BatchesError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    SpendLimitError,
    shown,
)
from airflow_provider_batches.api.evidence import Proof, judge
from airflow_provider_batches.api.models import DeletedBatch, read_json, read_model
from airflow_provider_batches.api.settings import ClientSettings

#: The most characters shown of a body, and of an error's message.
_EXCERPT = 200
_MESSAGE = 2000
_REFUSALS = (ServerError, NotFoundError, AccessDeniedError, SpendLimitError, RateLimitError, RequestTooLargeError)
_KINDS: dict[Proof, type[APIStatusError]] = {kind.evidence.proof: kind for kind in _REFUSALS}
_STATE_KINDS = {403: AccessDeniedError, 409: ServerError}
_FOREIGN = "The answer is not from the API: a proxy or firewall answered."


def read_response(
    call: Call[T],
    response: httpx.Response,
    settings: ClientSettings,
    *,
    has_answered: bool = False,
    redact: Callable[[str], str] | None = None,
) -> T:
    """Return the object in a response.

    :param has_answered: Whether this base URL has answered correctly before. Default False.
    :param redact: Removes secrets from a text. Default: those of the settings.
    :raises APIStatusError: The API refused the call. The subclass names the reason.
    :raises InvalidResponseError: The answer is not from the API, cannot be read, or is about another batch.
    """
    redact, body, status = redact or settings.redact, response.content, response.status_code
    if not 200 <= status < 300:
        raise _read_refusal(call, response, settings, has_answered, redact)
    model: Any = call.model
    problem, request_id = None, response.headers.get("request-id")
    try:
        if status == 204 and model is DeletedBatch and request_id:
            body = b'{"id": "%s", "type": "message_batch_deleted"}' % call.batch_id.encode()
        answer = read_model(model, body)
        # Otherwise a caller could save one batch and delete another.
        if call.batch_id and answer.id != call.batch_id:
            problem = f"the answer is about another batch, {shown(answer.id)}"
    except ValidationError as error:
        if reported := error_in(body, redact):
            problem = f"status {status} with an error, {reported}"
        else:
            begins = _excerpt(_decoded(response), redact)
            problem = f"status {status} with an unreadable body: {_problems(error)}; it begins {begins!r}"
    if problem:
        request_id = _line(request_id, redact)
        text = _text(call, settings, problem, request_id, "" if request_id else _FOREIGN)
        raise InvalidResponseError(redact(text), request_id=request_id)
    answer._request_id = request_id
    return cast(T, answer)


def _read_refusal(
    call: Call[Any],
    response: httpx.Response,
    settings: ClientSettings,
    has_answered: bool,
    redact: Callable[[str], str],
) -> BatchesError:
    """Return the error for a response other than 2xx."""
    headers, status, body = response.headers, response.status_code, _decoded(response)
    envelope = _read_object(body)
    error_type, message, details = _detail(envelope, redact)
    message = message or _excerpt(body, redact)
    code = details.get("error_code") if isinstance(details, dict) else None
    request_id = _line(headers.get("request-id") or envelope.get("request_id"), redact)
    is_whole = isinstance(envelope.get("error"), dict) and envelope.get("type") == "error" and error_type
    own = bool(is_whole and request_id) and status >= 400
    evidence = judge(call, status, own=own, direct=settings.is_direct, has_answered=has_answered, error_code=code)

    kind: type[BatchesError] = _KINDS.get(evidence.proof) or _STATE_KINDS.get(status, APIStatusError)
    if not own and status < 500 and status not in (408, 413, 429):
        kind = InvalidResponseError
    name = error_type or (HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "unknown")
    hints = ("" if own else _FOREIGN, _hint(call, status, kind, settings))
    text = redact(_text(call, settings, f"{status} {name}: {message or 'no text'}", request_id, *hints))
    error: BatchesError
    if issubclass(kind, APIStatusError):
        should_retry = headers.get("x-should-retry", "").lower() if own else ""
        error = kind(
            text,
            status=status,
            error_type=error_type,
            message=message,
            request_id=request_id,
            retry_after=read_retry_after(headers, datetime.now(timezone.utc)),
            should_retry={"true": True, "false": False}.get(should_retry),
        )
    else:
        error = InvalidResponseError(text, request_id=request_id)
    error.evidence = evidence
    return error


def _text(call: Call[Any], settings: ClientSettings, what: str, request_id: str | None, *hints: str) -> str:
    request = f"{call.method} {settings.base_url}{call.path}, request-id {request_id}"
    return " ".join(filter(None, (f"Could not {call.action}: {what} ({request}).", *hints)))


def _hint(call: Call[Any], status: int, kind: type[BatchesError], settings: ClientSettings) -> str:
    hint = kind.hint
    if status < 400:
        hint = "Redirects are not followed, so that no other host receives the key. Correct {base_url}."
    elif kind is RequestTooLargeError and not call.body:
        hint = "This request is small, so a proxy may limit its size. Check {proxy}."
    elif status == 404 and kind is APIStatusError and call.path == PATH:
        hint = "Check {base_url}: it does not serve the Message Batches API."
    return hint.format_map({name: settings.label(name) for name in ("api_key", "base_url", "proxy")})


def read_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds to wait according to `retry-after-ms`, or to `retry-after` in seconds or as a date."""
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


def error_in(body: bytes, redact: Callable[[str], str]) -> str | None:
    """Return type and message of an error that was sent with a 2xx status; None if the body is not an error."""
    error_type, message, _ = _detail(_read_object(body.decode(json.detect_encoding(body), "replace")), redact)
    return f"{error_type or 'unknown'}: {message}" if message else None


def _detail(envelope: dict[str, Any], redact: Callable[[str], str]) -> tuple[str | None, str | None, Any]:
    """Return type, message and details of an error, in the API's envelope or in another format."""
    inner = envelope.get("error")
    # Gateways use other formats: a flat object, a string, or a code instead of a type.
    detail = inner if isinstance(inner, dict) else {**envelope, "message": inner or envelope.get("message")}
    error_type = _line(detail.get("type") or detail.get("code"), redact)
    return error_type, _line(detail.get("message"), redact, _MESSAGE), detail.get("details")


def _read_object(text: str) -> dict[str, Any]:
    """Parse a JSON object; {} if it is not one. More lenient than the models, because it only explains an error."""
    try:
        found = read_json(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _decoded(response: httpx.Response) -> str:
    """Decode the body, with the encoding from its first bytes or its header."""
    found = json.detect_encoding(response.content)
    try:
        return response.content.decode(found if found != "utf-8" else response.encoding or found, "replace")
    except (LookupError, UnicodeError):
        # The header may name an encoding that does not exist.
        return response.content.decode("utf-8", "replace")


def _excerpt(body: str, redact: Callable[[str], str]) -> str:
    """Return the start of a body as one line, without HTML tags."""
    # Redact before truncating, because half a secret is not recognized.
    text = redact(body)[: 20 * _EXCERPT]
    if "<" in text:
        text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", text)
        text = html.unescape(text)
    return _line(text, redact) or ""


def _line(value: object, redact: Callable[[str], str], most: int = _EXCERPT) -> str | None:
    """Return a text as one line without secrets; None if it is empty or not a string."""
    if not isinstance(value, str):
        return None
    text = redact(" ".join("".join(char if char.isprintable() else " " for char in value).split()))
    return (text if len(text) <= most else f"{text[:most]}...") or None


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in found[:3])
