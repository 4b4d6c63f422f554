from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_batches.emulator.batch import OUTCOMES, Batch
from airflow_provider_batches.emulator.messages import ASKS, Answer, Answers, answer_to, compact, result
from airflow_provider_batches.emulator.settings import Settings
from airflow_provider_batches.emulator.store import Store, new_batch_id
from airflow_provider_batches.emulator.validation import Accepted

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
    """Put a batch into the store without HTTP; see `Emulator.add_batch`."""
    now = store.clock.now()
    if id is not None and store.get(id) is not None:
        raise ValueError(f"id: there is a batch {id} already.")
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
    given = [] if isinstance(requests, int) else [_accepted(request) for request in requests]
    by_id = outcomes and all(isinstance(outcome, str) for outcome in outcomes.values())
    if given:
        batch.custom_ids = [request.custom_id for request in given]
    elif by_id or isinstance(answers, Mapping):
        batch.custom_ids = [f"req-{i:06d}" for i in range(total)]
        given = [Accepted(custom_id, {}, None) for custom_id in batch.custom_ids]
    if outcomes and not by_id:
        if not set(outcomes) <= set(_LETTERS) or sum(outcomes.values()) != total:
            raise ValueError(f"outcomes must say how each of the {total} requests ends, not {dict(outcomes)}.")
        batch.ends = spread(total, **outcomes)
    else:
        batch.ends = spread(total, errored=round(total * settings.error_fraction))
    fill(batch, given, settings.answers if answers is None else answers, outcomes if by_id else settings.outcomes)
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
    """Return how each request ends: those that err evenly among those that finish, the others behind them."""
    done = total - canceled - expired
    kinds = ("se"[(i + 1) * errored // done > i * errored // done] for i in range(done)) if errored else "s" * done
    return "".join(kinds) + "c" * canceled + "x" * expired


def fill(
    batch: Batch, requests: Sequence[Accepted], answers: Answers | None, outcomes: Mapping[str, str] | None
) -> None:
    """Set what a batch's requests are answered with, and how each ends.

    :param answers: see `Emulator`; where there is none, a request gets what its own parameters ask for.
    :param outcomes: how requests end, by custom ID.
    :raises ValueError: an answer or an outcome is none.
    """
    models = [str(request.params.get("model") or "claude-haiku-5-5") for request in requests]
    if models:
        batch.models = models[0] if len(set(models)) == 1 else models
    ends = list(batch.ends)
    for i, request in enumerate(requests):
        if not (answers or outcomes or request.problem or ASKS & request.params.keys()):
            continue
        outcome = outcomes.get(request.custom_id) if outcomes else None
        if outcome is not None:
            if outcome not in _LETTERS:
                raise ValueError(f"outcomes: {outcome!r} is none of {', '.join(_LETTERS)}.")
            ends[i] = _LETTERS[outcome]
        answer: Answer = None
        if request.problem:
            answer = {"error": {"type": "invalid_request_error", "message": request.problem}}
        elif ends[i] == "s":
            answer = _given(answers, request)
            answer = answer_to(request.params) if answer is None else answer
        if answer is None:
            continue
        made = result(answer, models[i], batch.message_id(i))
        if made["type"] == "errored":
            ends[i] = "e"
            made["error"]["request_id"] = batch.message_id(i).replace("msg_", "req_")
        batch.given[request.custom_id] = compact(made)
    batch.ends = "".join(ends)


def _given(answers: Answers | None, request: Accepted) -> Answer:
    if answers is None:
        return None
    if callable(answers):
        return answers({"custom_id": request.custom_id, "params": request.params})
    return answers.get(request.custom_id)


def _accepted(request: Any) -> Accepted:
    return (
        Accepted(request, {}, None)
        if isinstance(request, str)
        else Accepted(request["custom_id"], request.get("params", {}), None)
    )
