from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_batches.emulator.batch import OUTCOMES, Batch
from airflow_provider_batches.emulator.messages import ASKS, Answer, Answers, answer_to, compact, result
from airflow_provider_batches.emulator.settings import Settings
from airflow_provider_batches.emulator.store import Store, new_batch_id

_LETTERS = {name: letter for letter, name in OUTCOMES.items()}


def seed(
    store: Store,
    settings: Settings,
    requests: int | Sequence[Any] = 100,
    *,
    id: str | None = None,
    status: str | None = None,
    age_seconds: float = 0.0,
    outcomes: Mapping[str, Any] | None = None,
    answers: Answers | None = None,
    result_bytes: int = 0,
    batch_seconds: float | None = None,
    cancel_seconds: float | None = None,
    foreign: bool = False,
) -> Batch:
    """Add a batch to the store without HTTP; see `Emulator.add_batch`."""
    now = store.clock.now()
    existing = None if id is None else store.get(id)
    if existing is not None and not existing.deleted:
        raise ValueError(f"id: batch {id} already exists.")
    total = requests if isinstance(requests, int) else len(requests)
    batch = Batch(
        id=id or new_batch_id(),
        created_at=now - age_seconds,
        total=total,
        batch_seconds=settings.batch_seconds if batch_seconds is None else batch_seconds,
        cancel_seconds=settings.cancel_seconds if cancel_seconds is None else cancel_seconds,
        result_bytes=result_bytes,
        foreign=foreign,
    )
    by_id = any(isinstance(outcome, str) for outcome in (outcomes or {}).values())
    answers = settings.answers if answers is None else answers
    ends_by_id = outcomes if by_id else settings.outcomes
    if isinstance(requests, int):
        requests = [f"req-{i:06d}" for i in range(total)] if answers or ends_by_id else []
    given: list[dict[str, Any]] = [
        {"custom_id": each, "params": {}} if isinstance(each, str) else each for each in requests
    ]
    if given:
        batch.custom_ids = [request["custom_id"] for request in given]
    if outcomes and not by_id:
        if not set(outcomes) <= set(_LETTERS) or sum(outcomes.values()) != total:
            raise ValueError(f"outcomes must add up to {total} requests, not {dict(outcomes)}.")
        batch.ends = spread(total, **outcomes)
    else:
        batch.ends = spread(total, errored=round(total * settings.error_fraction))
    fill(batch, given, answers, ends_by_id)
    if status == "ended":
        batch.batch_seconds = min(batch.batch_seconds, age_seconds)
        if "c" in batch.ends:
            batch.cancel_at, batch.cancel_seconds = batch.ended_at, 0.0
    elif status is not None:
        batch.batch_seconds += age_seconds
        if status == "canceling":
            batch.cancel_at, batch.cancel_seconds = now, batch.cancel_seconds or 3600.0
    if status is not None and batch.phase(now) not in (status, "archived" if status == "ended" else status):
        raise ValueError(f"A batch {age_seconds} s old cannot be {status}.")
    return store.add(batch)


def spread(total: int, succeeded: int = 0, errored: int = 0, canceled: int = 0, expired: int = 0) -> str:
    """Return how each request ends: errored ones evenly among those that finish, then canceled and expired ones."""
    done = total - canceled - expired
    kinds = ("se"[(i + 1) * errored // done > i * errored // done] for i in range(done)) if errored else "s" * done
    return "".join(kinds) + "c" * canceled + "x" * expired


def fill(
    batch: Batch,
    requests: Sequence[dict[str, Any]],
    answers: Answers | None,
    outcomes: Mapping[str, str] | None,
    problems: Mapping[int, str] | None = None,
) -> None:
    """Set the answers to a batch's requests, and how each request ends.

    :param answers: See `Emulator`; without one, a request's own parameters determine the answer.
    :param outcomes: How requests end, by custom ID.
    :param problems: The errors in the `params` of some requests, by index; these requests end as errored.
    :raises ValueError: If an answer or an outcome is not valid.
    """
    problems = problems or {}
    models = [str(request.get("params", {}).get("model") or "claude-haiku-5-5") for request in requests]
    if models:
        batch.models = models[0] if len(set(models)) == 1 else models
    ends = list(batch.ends)
    for i, request in enumerate(requests):
        custom_id, params = request["custom_id"], request.get("params", {})
        if not (answers or outcomes or i in problems or not ASKS.isdisjoint(params)):
            continue
        outcome = _by_id(outcomes, custom_id) if outcomes else None
        if outcome is not None:
            if outcome not in _LETTERS:
                raise ValueError(f"outcomes: {outcome!r} is not one of {', '.join(_LETTERS)}.")
            ends[i] = _LETTERS[outcome]
        answer: Answer = None
        if i in problems:
            answer = {"error": {"type": "invalid_request_error", "message": problems[i]}}
        elif ends[i] == "s":
            if answers:
                answer = answers(request) if callable(answers) else _by_id(answers, custom_id)
            answer = answer_to(params) if answer is None else answer
        if answer is None:
            continue
        made = result(answer, models[i], batch.message_id(i))
        if made["type"] == "errored":
            ends[i] = "e"
            made["error"]["request_id"] = batch.message_id(i).replace("msg_", "req_")
        batch.given[custom_id] = compact(made)
    batch.ends = "".join(ends)


def _by_id(given: Mapping[str, Any], custom_id: str) -> Any:
    # SubmitBatchesOperator puts a tag of eight hexadecimal digits in front of a custom ID.
    tagged = re.match(r"[0-9a-f]{8}-", custom_id)
    return given.get(custom_id, given.get(custom_id[9:]) if tagged else None)
