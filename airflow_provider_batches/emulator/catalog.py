"""Calls that batch tools make besides those on batches: list models, and count the tokens of a request."""

from __future__ import annotations

from typing import Any

from airflow_provider_batches.emulator.messages import compact
from airflow_provider_batches.emulator.validation import Refusal

#: Names from the official SDK's types; the emulator makes up the rest of each entry.
MODELS = """
    claude-fable-5-2 claude-mythos-5-2 claude-haiku-5-5 claude-sonnet-5-5 claude-fable-5-1 claude-opus-5-5
    claude-mythos-5-1 claude-sonnet-5 claude-fable-5 claude-mythos-5 claude-opus-5 claude-opus-4-8 claude-opus-4-7
    claude-mythos-preview claude-opus-4-6 claude-sonnet-4-6 claude-haiku-4-5 claude-haiku-4-5-20251001
    claude-opus-4-5 claude-opus-4-5-20251101 claude-sonnet-4-5 claude-sonnet-4-5-20250929
""".split()  # noqa: SIM905
#: The flags for `anthropic-beta` from the official SDK's types.
BETAS = """
    admin-user-sign-out-2026-10-08 advisor-tool-2026-03-01 agent-memory-2026-07-22 analytics-usage-cost-2026-08-24
    cache-diagnosis-2026-04-07 ce-claude-code-managed-settings-2026-10-06 ce-plugins-2026-09-01
    ce-user-management-2026-07-13 code-execution-2025-05-22 compact-2026-01-12 compact-2026-09-04
    computer-use-2024-10-22 computer-use-2025-01-24 computer-use-2025-11-24 context-1m-2025-08-07
    context-management-2025-06-27 dev-full-thinking-2025-05-14 dreaming-2026-04-21 efs-2026-10-01
    experimental-claude-tag-2026-10-21 extended-cache-ttl-2025-04-11 fallback-credit-2026-06-01
    fallback-credit-2026-07-01 fast-mode-2026-02-01 files-api-2025-04-14 google-managed-data-controls-2026-09-01
    inline-tools-2026-09-15 interleaved-thinking-2025-05-14 managed-agents-2026-04-01 mcp-client-2025-04-04
    mcp-client-2025-11-20 mcp-client-2026-09-15 mcp-tunnels-2026-06-22 message-batches-2024-09-24
    message-threads-2026-08-12 mid-conversation-output-config-2026-07-01 mid-conversation-system-clear-at-2026-08-21
    mid-conversation-tool-changes-2026-07-01 model-context-window-exceeded-2025-08-26 output-128k-2025-02-19
    output-300k-2026-03-24 pdfs-2024-09-25 prompt-caching-2024-07-31 server-side-fallback-2026-06-01
    server-side-fallback-2026-07-01 skills-2025-10-02 spend-limit-reads-2026-09-26 structured-outputs-2025-11-13
    task-budgets-2026-03-13 telemetry-destinations-2026-08-11 thinking-binding-controls-2026-08-01
    thinking-display-updates-2026-08-18 thinking-token-count-2026-05-13 token-counting-2024-11-01
    token-efficient-tools-2025-02-19 user-profiles-2026-03-24 user-profiles-2026-08-18 user-profiles-2026-09-04
    user-profiles-billing-2026-10-01 webhooks-2026-10-07
""".split()  # noqa: SIM905
#: Characters per token, roughly.
CHARACTERS = 4


def model(id_: str) -> dict[str, Any]:
    """Return a model's entry.

    :raises Refusal: If no model has this name.
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
    names = MODELS
    for cursor in ("after_id", "before_id"):
        if cursor in query:
            if query[cursor] not in names:
                raise Refusal(404, f"{cursor}: {query[cursor]}")
            place = names.index(query[cursor])
            names = names[place + 1 :] if cursor == "after_id" else names[:place]
    page = names[-limit:] if "before_id" in query else names[:limit]
    ends = {"first_id": page[0] if page else None, "last_id": page[-1] if page else None}
    return {"data": [model(name) for name in page], "has_more": len(names) > limit, **ends}


def count_tokens(params: dict[str, Any]) -> dict[str, Any]:
    """Return an estimate of the number of input tokens of a request."""
    for name in ("model", "messages"):
        if not params.get(name):
            raise Refusal(400, f"{name}: Field required")
    counted = {name: params[name] for name in ("messages", "system", "tools") if name in params}
    return {"input_tokens": max(1, len(compact(counted)) // CHARACTERS), "context_management": None}
