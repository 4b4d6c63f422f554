"""Builds the answers to requests: messages as the API documents them, made from a request or set by a test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from airflow_provider_batches.emulator.faults import error_type
from airflow_provider_batches.emulator.schemas import sample

#: An answer to one request: the text; a list of content blocks; a dict with `error` (`{"type", "message"}`, or its
#: text), or with fields of the message, such as `content`, `stop_reason`, `usage`; None for the default.
Answer = str | list[Any] | dict[str, Any] | None
#: The answers by `custom_id`, or a function of the request (`custom_id`, `params`).
Answers = Mapping[str, Answer] | Callable[[dict[str, Any]], Answer]

# U+2028 and U+0085 are valid in JSON strings, but `str.splitlines` splits lines at them.
TEXT = "An answer of the emulator.\u2028It has\u0085odd line separators."
#: The fields that the official SDK's types declare; those without a value are null.
USAGE: dict[str, Any] = {
    "cache_creation": None,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "inference_geo": None,
    "input_tokens": 10,
    "output_tokens": 20,
    "output_tokens_details": None,
    "server_tool_use": None,
    "service_tier": "batch",
    "speed": None,
}
_BLOCKS: dict[str, dict[str, Any]] = {
    "text": {"citations": None},
    "tool_use": {"caller": None, "input": {}, "toolset_name": None},
}
#: The parameters of a request that require an answer other than text.
ASKS = frozenset({"output_config", "output_format", "tool_choice"})
OTHER_RESULTS: dict[str, dict[str, Any]] = {"canceled": {"type": "canceled"}, "expired": {"type": "expired"}}


def compact(value: object) -> str:
    """Return JSON as the API writes it; a lone surrogate, which is not valid UTF-8, is escaped.

    :raises ValueError: If it contains NaN or an infinity.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace").decode()


def message(model: str, id_: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message that answers a request.

    :param fields: Fields that differ from the default; `content` may be a text, and `usage` is merged into the default.
    """
    content = fields.get("content", TEXT)
    given = [{"type": "text", "text": content}] if isinstance(content, str) else content
    blocks = [{**_BLOCKS.get(block.get("type", ""), {}), **block} for block in given]
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    for i, block in enumerate(calls):
        block.setdefault("id", f"toolu_{id_.removeprefix('msg_')}{i:02d}")
    return {
        "id": id_,
        "type": "message",
        "role": "assistant",
        "model": model,
        "container": None,
        "diagnostics": None,
        "stop_details": None,
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        **fields,
        "content": blocks,
        "usage": {**USAGE, **fields.get("usage", {})},
    }


def errored(text: str, type_: str = "invalid_request_error", request_id: str = "REQUEST_ID") -> dict[str, Any]:
    """Return the result of an errored request."""
    error = {"type": "error", "error": {"type": type_, "message": text}, "request_id": request_id}
    return {"type": "errored", "error": error}


def result(answer: Answer, model: str, id_: str) -> dict[str, Any]:
    """Return the result of a request for its answer.

    :raises ValueError: If `answer` is not an `Answer`.
    """
    if isinstance(answer, dict) and "error" in answer:
        error = answer["error"]
        error = {"message": error} if isinstance(error, str) else error
        return errored(str(error.get("message", "")), str(error.get("type", error_type(500))))
    fields = {"content": answer} if isinstance(answer, (str, list)) else answer
    content = fields.get("content", "") if isinstance(fields, dict) else None
    if not isinstance(content, str) and not (isinstance(content, list) and all(isinstance(b, dict) for b in content)):
        raise ValueError(f"An answer must be a text, a list of content blocks, or a dict, not {answer!r}.")
    made = message(model, id_, cast("dict[str, Any]", fields))
    if unknown := made.keys() - message(model, id_, {}).keys():
        raise ValueError(f"An answer has unknown fields: {', '.join(sorted(unknown))}. Supported: {', '.join(made)}.")
    return {"type": "succeeded", "message": made}


def answer_to(params: dict[str, Any]) -> Answer:
    """Return the answer that a request's own parameters require: a tool call, or JSON; None if any text will do."""
    choice, tools, config = params.get("tool_choice"), params.get("tools"), params.get("output_config")
    format_ = config.get("format") if isinstance(config, dict) else params.get("output_format")
    try:
        if isinstance(choice, dict) and choice.get("type") in ("tool", "any"):
            for tool in tools or ():
                if choice["type"] == "any" or tool["name"] == choice.get("name"):
                    return [{"type": "tool_use", "name": tool["name"], "input": sample(tool.get("input_schema", {}))}]
            return {"error": _invalid("tool_choice: no such tool in tools")}
        if isinstance(format_, dict) and format_.get("type") == "json_schema":
            return compact(sample(format_["schema"]))
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as e:
        return {"error": _invalid(f"schema: cannot be used: {type(e).__name__} {e}")}
    return None


def _invalid(text: str) -> dict[str, str]:
    return {"type": "invalid_request_error", "message": text}
