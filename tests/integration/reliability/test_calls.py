"""Every call against every fault, as the matrix has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches._task import airflow_errors
from airflow_provider_batches.api import AsyncBatchesClient, NotFoundError
from airflow_provider_batches.hooks.batches import BatchesHook
from tests.integration.reliability.matrix import (
    AT_ONCE,
    CALLS,
    ERRORS,
    IN_DOUBT,
    ONCE,
    OTHER_ADVICE,
    Row,
    Seen,
)
from tests.integration.reliability.stage import REQUEST, Stage, experiments

PARAMS = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
#: Seconds by which sums of times this large may be wrong.
TINY = 0.001
REQUESTS = [{"custom_id": f"r{number}", "params": PARAMS} for number in range(3)]


def make(call: str, hook: BatchesHook, batch_id: str) -> Any:
    method = getattr(hook, CALLS[call])
    if call == "create":
        return method(REQUESTS)
    return list(method()) if call == "list" else list(method(batch_id)) if call == "results" else method(batch_id)


def make_async(call: str, hook: BatchesHook, batch_id: str) -> Any:
    async def answer() -> Any:
        async with AsyncBatchesClient(hook.settings) as client:
            match call:
                case "create":
                    return await client.create(REQUESTS)
                case "list":
                    return [batch async for batch in client.list()]
                case "results":
                    return [result async for result in client.results(batch_id)]
                case "retrieve":
                    return await client.find(batch_id)
                case _:
                    return await getattr(client, call)(batch_id)

    return asyncio.run(answer())


@pytest.mark.parametrize("made", [make, make_async], ids=["sync", "async"])
@pytest.mark.parametrize(("row", "call", "length"), experiments("calls", CALLS))
def test_a_call_does_about_a_fault_what_the_matrix_says(
    row: Row, call: str, length: str, made: Callable[..., Any], stage: Callable[[Row, str], Stage]
) -> None:
    set_up = stage(row, length)
    api, clock = set_up.api, set_up.clock
    running = call in ("create", "cancel")
    batch_id = "" if call == "create" else api.add_batch(3, status="in_progress" if running else "ended")
    set_up.strike(call)
    begun, really = clock.now, time.monotonic()
    error: Exception | None = None

    hook = BatchesHook()
    try:
        with airflow_errors():
            answer = made(call, hook, batch_id)
    except AirflowException as raised:
        error = raised
    finally:
        hook.close()

    term = row.calls[call]
    seen = term.once if length == ONCE else term.lasting
    passed = clock.now - begun - REQUEST * sum(set_up.requests.values()) - row.each * set_up.struck
    assert ("error" if error else "success") == seen.ends, error
    assert dict(set_up.requests) == _expected(call, seen)
    if error:
        low, high = (term.seconds or row.seconds) if length != ONCE else AT_ONCE
        # An event loop's clock moves on while it waits for an answer.
        really = time.monotonic() - really
        assert low - TINY - row.slack <= passed <= high + TINY + really
        _check_error(error, row, call, batch_id, seen)
    else:
        _check_answer(answer, call, batch_id, set_up)
    if call == "create":
        assert len(api.ids()) <= 1
        if term is IN_DOUBT:
            assert "look into the list of batches before you try again" in str(error)
            assert len(api.ids()) == row.applied
        elif error:
            assert ("list of batches" in str(error), api.ids()) == (False, [])


def _expected(call: str, seen: Seen) -> dict[str, int]:
    looks = seen.looks + (call == "results")
    return {call: seen.requests or 0, **({"retrieve": looks} if looks else {})}


def _check_error(error: Exception, row: Row, call: str, batch_id: str, seen: Seen) -> None:
    kind, says = row.error_of(call)
    text = str(error)
    advice = OTHER_ADVICE.get((kind, call), ERRORS[kind].says)
    named = "" if call == "list" else batch_id
    assert type(error.__cause__) is kind
    assert [part for part in (says, advice, named) if part not in text] == [], text
    assert isinstance(error, AirflowFailException) is not ERRORS[kind].retried
    repeated = seen.requests or 0
    # What a 404 says is another text.
    assert (f"Given up after {repeated} attempts." in text) == (repeated > 1 and kind is not NotFoundError), text
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
