"""The two calls beside batches that batch tools make: the catalog of models, and the count of a request's tokens."""

from __future__ import annotations

from typing import Any

from airflow_provider_batches.emulator.messages import compact
from airflow_provider_batches.emulator.validation import Refusal

#: Names that the official SDK's types list; the rest of each entry is the emulator's own.
MODELS = (
    "claude-haiku-5-5",
    "claude-sonnet-5-5",
    "claude-opus-5-5",
    "claude-sonnet-5",
    "claude-opus-5",
    "claude-haiku-4-5",
    "claude-sonnet-4-5",
)
#: About how many characters a token has.
CHARACTERS = 4


def model(id_: str) -> dict[str, Any]:
    """Return the entry of a model.

    :raises Refusal: there is none of this name.
    """
    if id_ not in MODELS:
        raise Refusal(404, f"model: {id_}")
    supported = {"supported": True}
    names = ("batch", "citations", "code_execution", "image_input", "pdf_input", "structured_outputs")
    levels = dict.fromkeys(("low", "medium", "high", "xhigh", "max"), supported)
    capabilities: dict[str, Any] = {
        **dict.fromkeys(names, supported),
        "context_management": supported,
        "effort": {**supported, **levels},
        "server_tools": {**supported, "code_execution": supported, "web_search": supported},
        "thinking": {
            **supported,
            "types": dict.fromkeys(("adaptive", "between_tools", "disabled", "enabled"), supported),
        },
    }
    return {
        "type": "model",
        "id": id_,
        "display_name": id_.replace("-", " ").title(),
        "created_at": "2026-01-01T00:00:00Z",
        "capabilities": capabilities,
        "deprecated_at": None,
        "lifecycle": "active",
        "line": id_.split("-")[1],
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
        "retires_at": None,
    }


def models(query: dict[str, str], limit: int) -> dict[str, Any]:
    """Return a page of the models."""
    names: tuple[str, ...] = MODELS
    for cursor in ("after_id", "before_id"):
        if cursor in query:
            if query[cursor] not in names:
                raise Refusal(404, f"{cursor}: {query[cursor]}")
            place = names.index(query[cursor])
            names = names[place + 1 :] if cursor == "after_id" else names[:place]
    page = names[:limit]
    ends = {"first_id": page[0] if page else None, "last_id": page[-1] if page else None}
    return {"data": [model(name) for name in page], "has_more": len(names) > limit, **ends}


def count_tokens(params: dict[str, Any]) -> dict[str, Any]:
    """Return about how many tokens a request's input has."""
    for name in ("model", "messages"):
        if not params.get(name):
            raise Refusal(400, f"{name}: Field required")
    counted = {name: params[name] for name in ("messages", "system", "tools") if name in params}
    return {"input_tokens": max(1, len(compact(counted)) // CHARACTERS), "context_management": None}
