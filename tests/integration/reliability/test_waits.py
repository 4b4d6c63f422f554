"""Every way to wait under every fault of the matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_batches.api import BatchesError, BatchTimeoutError
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.operators.batches import CancelBatchOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor
from airflow_provider_batches.waiting.poller import LATE
from tests.integration.conftest import Run
from tests.integration.reliability.matrix import (
    ERROR,
    ERRORS,
    FULL_WAITS,
    LASTING,
    OTHER_ADVICE,
    OUTAGE,
    SMOKE,
    SUCCESS,
    TEN_MINUTES,
    TIMEOUT,
    WAITS,
    Row,
)
from tests.integration.reliability.stage import Stage, experiments

#: Seconds until the batches end, between polls, and until the wait times out.
ENDS, POLL, OVER = 40, 60, 100
#: Real seconds that the answers may take on a busy machine.
SLACK = 20
#: The most requests until then, even with a short `retry-after`; twice as many if the list fails as well.
MOST_REQUESTS = 20
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "poke": (BatchEndedSensor, {"mode": "poke"}),
    "reschedule": (BatchEndedSensor, {"mode": "reschedule"}),
    "deferrable": (BatchEndedSensor, {"deferrable": True}),
    "cancel": (CancelBatchOperator, {"wait_for_completion": True}),
    "cancel, deferrable": (CancelBatchOperator, {"wait_for_completion": True, "deferrable": True}),
    "several": (BatchEndedSensor, {"mode": "poke"}),
    "several, deferrable": (BatchEndedSensor, {"deferrable": True}),
}
SMOKE_WAITS = [way for way in WAITS if way not in FULL_WAITS]


@pytest.mark.parametrize(
    ("row", "way", "length"),
    [*experiments("waits", FULL_WAITS), *experiments("waits", SMOKE_WAITS, SMOKE, once=OUTAGE)],
)
def test_a_wait_behaves_under_a_fault_as_the_matrix_says(
    row: Row, way: str, length: str, stage: Callable[..., Stage], run: Any
) -> None:
    set_up = stage(row, length, 1 + list(WAITS).index(way))
    api, clock = set_up.api, set_up.clock
    several = way.startswith("several")
    ids = [
        api.add_batch(3, status="in_progress", batch_seconds=ENDS, cancel_seconds=ENDS) for _ in range(1 + 2 * several)
    ]
    set_up.strike(*(("list", "retrieve") if several else ("retrieve",)), after=0 if row.answered is False else 2)
    over = OVER if length == LASTING else 3600
    begun = clock.now

    done = _wait(way, ids if several else ids[0], over, run)

    ends = SUCCESS if done.error is None else TIMEOUT if "had not ended" in done.text else ERROR
    term = row.waits[way]
    seen = term.lasting if length == LASTING else term.once
    slowest = max(fault.seconds for fault in row.faults)
    passed, struck = clock.now - begun, len(set_up.met)
    assert ends == seen.ends, done.error
    assert struck == seen.requests if seen.requests and length != TEN_MINUTES else struck > 0
    # A wait that has never had a valid answer does not defer.
    assert row.answered is False or bool(done.deferrals) == way.endswith("deferrable")
    if ends == SUCCESS:
        latest = 600 + POLL if length == TEN_MINUTES else max(ENDS, row.asked) + POLL + slowest
        assert passed <= latest + SLACK
        return
    kind = BatchTimeoutError if ends == TIMEOUT else row.error_of(way)
    advice = [ERRORS[kind].says, OTHER_ADVICE.get((kind, "retrieve"), ""), *([] if several else ids)]
    met = row.errors[way][1:] if way in row.errors else [fault.says for fault in set_up.met]
    # A call in flight is abandoned some seconds after the end of its wait.
    met = [*met, "did not answer within"] if slowest > LATE else met
    assert [part for part in advice if part not in done.text] == [], done.text
    assert any(part in done.text for part in met), done.text
    assert ".." not in done.text
    if ends == TIMEOUT:
        assert OVER <= passed <= OVER + (1 + several) * slowest + SLACK
        assert struck <= (1 + several) * MOST_REQUESTS
        # A sensor that times out fails permanently, as Airflow's do.
        assert done.state == ("retry" if way.startswith(("cancel", "hook")) else "failed")
        return
    assert done.state == ("retry" if kind.retryable else "failed")
    if term.seconds:
        low, high = term.seconds
        assert low <= clock.now - set_up.begun_at <= high + SLACK


def _wait(way: str, batch_id: Any, over: float, run: Any) -> Run:
    if way == "hook":
        hook = BatchesHook()
        try:
            assert hook.wait_for_batch(batch_id, poll_interval=POLL, timeout=over).ended
        except BatchesError as error:
            return Run("retry" if error.retryable else "failed", error=error)
        finally:
            hook.close()
        return Run("success")
    operator, options = WAYS[way]
    interval = "poll_interval" if operator is CancelBatchOperator else "poke_interval"
    done: Run = run(operator, batch_id=batch_id, timeout=over, **{interval: POLL}, **options)
    return done
