"""What requests are answered with: messages as the API documents them, made from a request or given by a test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_batches.emulator.faults import error_type

#: An answer to one request: the text; a list of content blocks; a dict with `error` (`{"type", "message"}`, or its
#: text), or with fields of the message, such as `content`, `stop_reason`, `usage`; None for the default.
Answer = str | list[Any] | dict[str, Any] | None
#: The answers by `custom_id`, or a function of the request (`custom_id`, `params`).
Answers = Mapping[str, Answer] | Callable[[dict[str, Any]], Answer]

# U+2028 and U+0085 are valid in JSON strings, and a trap for readers that split lines on them.
TEXT = "An answer of the emulator.\u2028It has\u0085odd line separators."
#: As the types of the official SDK declare it; what has no value is null.
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
#: The parameters of a request that ask for another answer than text.
ASKS = frozenset({"output_config", "output_format", "tool_choice"})
OTHER_RESULTS: dict[str, dict[str, Any]] = {"canceled": {"type": "canceled"}, "expired": {"type": "expired"}}


def compact(value: object) -> str:
    """Return JSON as the API writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def message(model: str, id_: str, text: str = TEXT, **fields: Any) -> dict[str, Any]:
    """Return a message that answers a request.

    :param fields: Fields that are not the default's; `usage` is merged into it.
    """
    usage = {**USAGE, **fields.pop("usage", {})}
    content = fields.pop("content", text)
    blocks = [{"citations": None, "text": content, "type": "text"}] if isinstance(content, str) else content
    return {
        "id": id_,
        "type": "message",
        "role": "assistant",
        "model": model,
        "container": None,
        "content": blocks,
        "diagnostics": None,
        "stop_details": None,
        "stop_reason": "tool_use" if any(block.get("type") == "tool_use" for block in blocks) else "end_turn",
        "stop_sequence": None,
        "usage": usage,
        **fields,
    }


def errored(text: str, type_: str = "invalid_request_error", request_id: str = "REQUEST_ID") -> dict[str, Any]:
    """Return the result of a request that errored."""
    error = {"type": "error", "error": {"type": type_, "message": text}, "request_id": request_id}
    return {"type": "errored", "error": error}


def result(answer: Answer, model: str, id_: str) -> dict[str, Any]:
    """Return the result of a request whose answer is given.

    :raises ValueError: It is not an `Answer`.
    """
    if isinstance(answer, dict) and "error" in answer:
        error = answer["error"]
        if isinstance(error, str):
            return errored(error, error_type(500))
        return errored(str(error.get("message", "")), str(error.get("type", error_type(500))))
    if isinstance(answer, (str, list)):
        answer = {"content": answer}
    if not isinstance(answer, dict):
        raise ValueError(f"An answer is a text, a list of content blocks, or a dict, not {answer!r}.")
    return {"type": "succeeded", "message": message(model, id_, **answer)}


def answer_to(params: dict[str, Any]) -> Answer:
    """Return the answer that a request's own parameters ask for: a call of a tool, or JSON; None for any text."""
    choice, tools = params.get("tool_choice"), params.get("tools")
    if isinstance(choice, dict) and choice.get("type") in ("tool", "any") and isinstance(tools, list):
        named = [tool for tool in tools if choice["type"] == "any" or tool.get("name") == choice.get("name")]
        if named:
            arguments = sample(named[0].get("input_schema", {}))
            return [{"type": "tool_use", "id": "toolu_01EMULATED", "name": named[0].get("name"), "input": arguments}]
    config = params.get("output_config")
    format_ = config.get("format") if isinstance(config, dict) else params.get("output_format")
    if isinstance(format_, dict) and format_.get("type") == "json_schema":
        return compact(sample(format_.get("schema", {})))
    return None


def sample(schema: Any, root: Any = None) -> Any:
    """Return a value that fits a JSON schema; the same one for the same schema."""
    root = schema if root is None else root
    if not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        found = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found[part]
        return sample(found, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return sample(schema[key][0], root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return {name: sample(each, root) for name, each in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema.get("items", {}), root)] * max(1, schema.get("minItems", 1))
    samples: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True}
    return schema.get("minimum", samples.get(kind)) if kind in ("integer", "number") else samples.get(kind)
