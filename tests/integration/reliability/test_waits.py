"""Every way to wait against every fault, as the matrix has it: it begins in the middle of the wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowException, AirflowFailException, AirflowSensorTimeout
from airflow_provider_batches.api import BatchesError, BatchTimeoutError
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.operators.batches import CancelBatchOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor
from tests.integration.reliability.matrix import (
    ERROR,
    ERRORS,
    LASTING,
    OTHER_ADVICE,
    SUCCESS,
    TEN_MINUTES,
    TIMEOUT,
    WAITS,
    Row,
)
from tests.integration.reliability.stage import Stage, experiments

#: Seconds: how long the batches take, how often is looked, and when the wait is over.
ENDS, POLL, OVER = 40, 60, 100
#: Real seconds that a busy machine may take for the answers.
SLACK = 20
#: How often the API is asked at most until then, however soon it says to come back.
MOST_LOOKS = 20
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "poke": (BatchEndedSensor, {"mode": "poke"}),
    "reschedule": (BatchEndedSensor, {"mode": "reschedule"}),
    "deferrable": (BatchEndedSensor, {"deferrable": True}),
    "cancel": (CancelBatchOperator, {"wait_for_completion": True}),
    "cancel, deferrable": (CancelBatchOperator, {"wait_for_completion": True, "deferrable": True}),
    "several": (BatchEndedSensor, {"mode": "poke"}),
    "several, deferrable": (BatchEndedSensor, {"deferrable": True}),
}


@pytest.mark.parametrize(("row", "way", "length"), experiments("waits", WAITS))
def test_a_wait_does_about_a_fault_what_the_matrix_says(
    row: Row, way: str, length: str, stage: Callable[[Row, str], Stage], run: Any
) -> None:
    set_up = stage(row, length)
    api, clock = set_up.api, set_up.clock
    several = way.startswith("several")
    ids = [
        api.add_batch(3, status="in_progress", batch_seconds=ENDS, cancel_seconds=ENDS) for _ in range(1 + 2 * several)
    ]
    set_up.strike(*(("list", "retrieve") if several else ("retrieve",)), after=2)
    over = OVER if length == LASTING else 3600
    begun = clock.now

    error, ends = _wait(way, row, ids if several else ids[0], over, run)

    term = row.waits[way]
    seen = term.lasting if length == LASTING else term.once
    passed = clock.now - begun
    assert ends == seen.ends, error
    assert set_up.struck > 0
    if seen.requests is not None and length != TEN_MINUTES:
        assert set_up.struck == seen.requests
    if ends == SUCCESS:
        latest = 600 + POLL if length == TEN_MINUTES else max(ENDS, row.seldom) + POLL + row.each
        assert passed <= latest + SLACK
        return
    text = str(error)
    says = [
        row.says,
        *(["had not ended", "wait longer (timeout), or cancel it"] if ends == TIMEOUT else [_advice(row)]),
    ]
    assert [part for part in (*says, "" if several else ids[0]) if part not in text] == [], text
    assert ".." not in text
    if ends == TIMEOUT:
        assert OVER <= passed <= OVER + row.each + SLACK
        assert set_up.struck <= MOST_LOOKS


def _advice(row: Row) -> str:
    return OTHER_ADVICE.get((row.error, "retrieve"), ERRORS[row.error].says)


def _wait(way: str, row: Row, batch_id: Any, over: float, run: Any) -> tuple[BaseException | None, str]:
    """Wait; return how that ended, and with what error."""
    if way == "hook":
        hook = BatchesHook()
        error = None
        try:
            assert hook.wait_for_batch(batch_id, poll_interval=POLL, timeout=over).ended
        except BatchesError as raised:
            error = raised
        finally:
            hook.close()
        return error, {type(None): SUCCESS, BatchTimeoutError: TIMEOUT, row.error: ERROR}[type(error)]
    operator, options = WAYS[way]
    interval = "poll_interval" if operator is CancelBatchOperator else "poke_interval"
    done = run(operator, batch_id=batch_id, timeout=over, **{interval: POLL}, **options)
    assert bool(done.deferrals) == options.get("deferrable", False)
    ends = {
        ("success", None): SUCCESS,
        ("failed", AirflowFailException): ERROR,
        # A sensor whose time is over fails for good; a cancel is tried again where the task has retries.
        ("failed", AirflowSensorTimeout): TIMEOUT,
        ("retry", AirflowException): TIMEOUT,
    }
    return done.error, ends[done.state, type(done.error) if done.error else None]
