from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from airflow_provider_batches.emulator.app import App
from airflow_provider_batches.emulator.asgi import Answer
from airflow_provider_batches.emulator.behavior import Behavior
from airflow_provider_batches.emulator.faults import Fault
from airflow_provider_batches.emulator.seeding import seed

MAX_SEEDED = 100_000


def control(app: App, method: str, path: str, query: dict[str, str], body: bytes | bytearray) -> Answer:
    """Answer a request to ``/_emulator/...``, which controls an emulator in another process."""
    action = _ACTIONS.get((method, path.removeprefix("/_emulator/")))
    if action is None:
        return _json({"error": f"Unknown control endpoint: {method} {path}."}, 404)
    try:
        return _json(action(app, query, json.loads(body or b"{}")))
    except (AttributeError, LookupError, TypeError, ValueError) as e:
        return _json({"error": f"{type(e).__name__}: {e}"}, 400)


def _json(content: dict[str, Any], status: int = 200) -> Answer:
    return Answer(json.dumps(content).encode(), status)


def _health(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    return {"status": "ok", "now": app.store.clock.now(), "batches": len(app.store.ids())}


def _requests(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    wanted = query.get("endpoint")
    entries = [asdict(entry) for entry in list(app.log.entries) if wanted in (entry.endpoint, None)]
    limit = int(query.get("limit", len(entries)))
    return {"counts": dict(app.log.counts), "requests": entries[max(0, len(entries) - limit) :]}


def _clear_requests(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    app.log.clear()
    return {}


def _faults(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    return {"faults": [{"fault": repr(armed.fault), "hits": armed.hits} for armed in app.faults.armed()]}


def _add_faults(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    for fault in [Fault(**item) for item in (data if isinstance(data, list) else [data])]:
        app.faults.add(fault)
    return _faults(app, query, data)


def _clear_faults(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    app.faults.clear()
    return {}


def _clock(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    if data.keys() - {"advance", "freeze"}:
        raise ValueError(f"The clock supports advance and freeze, not {sorted(data)}.")
    clock = app.store.clock
    if "freeze" in data:
        (clock.freeze if data["freeze"] else clock.unfreeze)()
    clock.advance(float(data.get("advance", 0)))
    return {"now": clock.now()}


def _answers(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError("The answers must be an object with an answer for each custom_id.")
    app.settings.answers = data or None
    return {"answers": len(data)}


def _outcomes(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    app.settings.outcomes = dict(data) or None
    return {"outcomes": len(data)}


def _revoke_tokens(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    return {"tokens": app.access.revoke()}


def _behavior(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    return asdict(app.behavior)


def _change_behavior(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    app.behavior = replace(app.behavior, **data)
    return asdict(app.behavior)


def _reset_behavior(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    app.behavior = Behavior()
    return asdict(app.behavior)


def _batches(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    return {"ids": app.store.ids()}


def _add_batches(app: App, query: dict[str, str], data: Any) -> dict[str, Any]:
    count = data.pop("count", 1)
    if not 1 <= count <= MAX_SEEDED:
        raise ValueError(f"count must be from 1 to {MAX_SEEDED}, not {count}.")
    return {"ids": [seed(app.store, app.settings, **data).id for _ in range(count)]}


_ACTIONS: dict[tuple[str, str], Callable[[App, dict[str, str], Any], dict[str, Any]]] = {
    ("GET", "health"): _health,
    ("GET", "requests"): _requests,
    ("DELETE", "requests"): _clear_requests,
    ("GET", "faults"): _faults,
    ("POST", "faults"): _add_faults,
    ("DELETE", "faults"): _clear_faults,
    ("POST", "clock"): _clock,
    ("POST", "answers"): _answers,
    ("POST", "outcomes"): _outcomes,
    ("DELETE", "tokens"): _revoke_tokens,
    ("GET", "behavior"): _behavior,
    ("POST", "behavior"): _change_behavior,
    ("DELETE", "behavior"): _reset_behavior,
    ("GET", "batches"): _batches,
    ("POST", "batches"): _add_batches,
}
