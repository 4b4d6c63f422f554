"""What a result becomes in a table: its columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from airflow_provider_batches.api import InvalidArgumentError

USAGE = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
COLUMNS = ("status", "text", "parsed", "stop_reason", "error_type", "error_message", *USAGE, "service_tier")
#: Why an answer ended that is not what was asked for.
_UNUSABLE = ("refusal", "max_tokens", "model_context_window_exceeded")

Check = Callable[[Any], bool]


def compile_schema(schema: Mapping[str, Any] | None) -> Check | None:
    """Return a function that says whether a value fits a JSON schema, None if there is no schema.

    :raises InvalidArgumentError: The schema is not valid, or the package that checks it is not installed.
    """
    if schema is None:
        return None
    if not find_spec("fastjsonschema"):
        raise InvalidArgumentError("schema", "it requires pip install 'airflow-provider-batches[schema]'.")
    from fastjsonschema import JsonSchemaException, compile

    try:
        validate = compile(dict(schema))
    except JsonSchemaException as error:
        raise InvalidArgumentError("schema", f"it is not a valid JSON schema: {error}") from None

    def fits(value: Any) -> bool:
        try:
            validate(value)
        except JsonSchemaException:
            return False
        return True

    return fits


def columns_of(result: Mapping[str, Any], fits: Check | None) -> dict[str, Any]:
    """Return the columns of a result.

    :param result: The `result` of a line of results.
    :param fits: Whether a parsed answer fits the schema. None: there is no schema.
    """
    found: dict[str, Any] = dict.fromkeys(COLUMNS)
    found["status"] = result.get("type")
    message = result.get("message")
    if found["status"] == "succeeded" and isinstance(message, dict):
        found["text"], found["parsed"] = _answer(message.get("content"))
        found["stop_reason"] = message.get("stop_reason")
        usage = message.get("usage")
        if isinstance(usage, dict):
            found |= {name: usage.get(name) for name in (*USAGE, "service_tier")}
        if found["stop_reason"] in _UNUSABLE or (fits and not fits(found["parsed"])):
            found["status"] = "unusable"
    error = result.get("error")
    error = error.get("error") if isinstance(error, dict) else None
    if isinstance(error, dict):
        found["error_type"], found["error_message"] = error.get("type"), error.get("message")
    return found


def is_worth_another_try(columns: Mapping[str, Any]) -> bool:
    """Return whether a request that failed may succeed if it is sent again, unchanged."""
    if columns["status"] != "errored":
        return columns["status"] in ("expired", "canceled")
    # It is reported as an error of the request, and passes once somebody pays.
    unpaid = "credit balance" in str(columns["error_message"]).lower()
    return unpaid or columns["error_type"] != "invalid_request_error"


def _answer(content: Any) -> tuple[str, Any]:
    """Return the text of an answer, and the JSON in it: the input of a tool call, or of a structured output."""
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    text = "".join(str(block.get("text") or "") for block in blocks if block.get("type") == "text")
    for block in blocks:
        if block.get("type") == "tool_use":
            return text, block.get("input")
    if text.lstrip()[:1] not in ("{", "["):
        return text, None
    try:
        return text, json.loads(text)
    except (ValueError, RecursionError):
        return text, None
