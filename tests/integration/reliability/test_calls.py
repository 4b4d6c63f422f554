"""Every call under every fault of the matrix."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_batches._base import airflow_errors
from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches.api import AsyncBatchesClient, BatchesError, ClientSettings
from airflow_provider_batches.hooks.batches import BatchesHook
from tests.integration.reliability.matrix import (
    AT_ONCE,
    CALLS,
    ERRORS,
    IN_DOUBT,
    ONCE,
    OTHER_ADVICE,
    OUTAGE,
    ROWS,
    SMOKE,
    Row,
    Seen,
)
from tests.integration.reliability.stage import REQUEST, Stage, experiments

PARAMS = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
REQUESTS = [{"custom_id": f"r{number}", "params": PARAMS} for number in range(3)]
#: Rounding error in seconds of sums of such times.
TINY = 0.001
#: The calls that are tested with the async client: their steps differ most.
ASYNC_CALLS = ("create", "delete", "results")


def make(call: str, hook: BatchesHook, batch_id: str, answered: int) -> Any:
    if answered:
        hook.get_conn().page()
    method = getattr(hook, CALLS[call])
    if call == "create":
        return method(REQUESTS)
    return list(method()) if call == "list" else list(method(batch_id)) if call == "results" else method(batch_id)


def make_async(call: str, hook: BatchesHook, batch_id: str, answered: int) -> Any:
    async def answer() -> Any:
        async with AsyncBatchesClient(hook.settings) as client:
            if answered:
                await client.page()
            match call:
                case "create":
                    return await client.create(REQUESTS)
                case "results":
                    return [result async for result in client.results(batch_id)]
                case _:
                    return await getattr(client, call)(batch_id)

    return asyncio.run(answer())


@pytest.mark.parametrize(("row", "call", "length"), experiments("calls", CALLS))
def test_a_call_behaves_under_a_fault_as_the_matrix_says(
    row: Row, call: str, length: str, stage: Callable[..., Stage]
) -> None:
    _hold_against_the_matrix(row, call, length, make, stage)


@pytest.mark.parametrize(("row", "call", "length"), experiments("calls", ASYNC_CALLS, SMOKE, once=OUTAGE))
def test_the_async_client_does_the_same(row: Row, call: str, length: str, stage: Callable[..., Stage]) -> None:
    _hold_against_the_matrix(row, call, length, make_async, stage)


@pytest.mark.parametrize("status", ["400", "401", "413", "429 without `retry-after`"])
def test_a_create_that_a_gateway_refuses_is_in_doubt_and_not_retried(
    status: str, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClientSettings, "is_direct", False)
    set_up = stage(next(row for row in ROWS if row.faults[0].name == status), ONCE)
    set_up.strike("create")
    hook = BatchesHook()

    with pytest.raises(BatchesError, match="Check the list of batches before you retry"):
        hook.create_batch(REQUESTS)
    hook.close()

    assert set_up.requests["create"] == 1


def _hold_against_the_matrix(row: Row, call: str, length: str, made: Any, stage: Callable[..., Stage]) -> None:
    # Each column starts with a different fault of the row.
    set_up = stage(row, length, list(CALLS).index(call))
    api, clock = set_up.api, set_up.clock
    is_running = call in ("create", "cancel")
    batch_id = "" if call == "create" else api.add_batch(3, status="in_progress" if is_running else "ended")
    answered = int(row.answered or 0)
    set_up.strike(call, after=answered if call == "list" else 0)
    begun, really = clock.now, time.monotonic()
    error: Exception | None = None

    hook = BatchesHook()
    try:
        with airflow_errors():
            answer = made(call, hook, batch_id, answered)
    except AirflowException as raised:
        error = raised
    finally:
        hook.close()

    term = row.calls[call]
    seen = term.once if length == ONCE else term.lasting
    passed = clock.now - begun - REQUEST * set_up.requests.total() - sum(fault.seconds for fault in set_up.met)
    assert ("error" if error else "success") == seen.ends, error
    assert set_up.requests == Counter({"list": answered}) + _requests(call, seen)
    if error:
        low, high = (term.seconds or row.seconds) if length != ONCE else AT_ONCE
        # The clock of an event loop also advances while it waits for an answer.
        really = time.monotonic() - really
        assert low - TINY - row.slack <= passed <= high + TINY + really
        _check_error(error, row, call, batch_id, seen, set_up)
    else:
        _check_answer(answer, call, batch_id, set_up)
    if call == "create":
        assert len(api.ids()) <= 1
        if term is IN_DOUBT:
            assert "Check the list of batches before you retry" in str(error)
            assert len(api.ids()) == row.is_applied
        elif error:
            assert ("list of batches" in str(error), api.ids()) == (False, [])


def _requests(call: str, seen: Seen) -> Counter[str]:
    return Counter({"retrieve": seen.retrievals + (call == "results")}) + Counter(
        {"list": seen.lists, call: seen.requests or 0}
    )


def _check_error(error: Exception, row: Row, call: str, batch_id: str, seen: Seen, set_up: Stage) -> None:
    kind, text = row.error_of(call), str(error)
    says = row.errors[call][1] if call in row.errors else set_up.met[-1].says
    named = "" if call == "list" else batch_id
    retryable = kind.retryable if row.retryable is None else row.retryable
    assert type(error.__cause__) is kind
    assert [
        part for part in (says, ERRORS[kind].says, OTHER_ADVICE.get((kind, call), ""), named) if part not in text
    ] == [], text
    assert isinstance(error, AirflowFailException) is not retryable
    if seen.requests == 1:
        assert "Gave up" not in text
    else:
        assert f"{seen.requests} attempts" in text
    assert ".." not in text


def _check_answer(answer: Any, call: str, batch_id: str, set_up: Stage) -> None:
    api = set_up.api
    found = api.batch(batch_id)
    if call == "create":
        assert api.ids() == [answer.id]
    elif call == "list":
        assert [batch.id for batch in answer] == [batch_id]
    elif call == "results":
        assert len(answer) == 3
    elif call == "delete":
        assert (answer.id, found) == (batch_id, None)
    else:
        assert answer.id == batch_id
        assert found
        assert call == "retrieve" or found["cancel_initiated_at"]
