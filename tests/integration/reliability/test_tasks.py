"""Operators in an outage of ten minutes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.api.throttle import OUTAGE_PAUSE
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator, ListBatchesOperator
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.results.saving import Saver
from airflow_provider_batches.sensors.batches import BatchEndedSensor
from tests.integration.reliability.matrix import CALLS, LASTING, ROWS, TEN_MINUTES, Row
from tests.integration.reliability.stage import Stage
from tests.integration.teardown.harness import Task

#: Airflow's default, in seconds.
RETRY_DELAY = 300
OUTAGES = [row for row in ROWS if TEN_MINUTES in row.lasts]
OPERATORS = [CancelBatchOperator, DeleteBatchOperator, ListBatchesOperator, SaveBatchResultsOperator]


@pytest.mark.parametrize(
    ("row", "operator"),
    list(zip(OUTAGES * 2, OPERATORS, strict=True)),
    ids=lambda value: value.name if isinstance(value, Row) else value.__name__,
)
def test_the_third_try_of_a_task_succeeds(
    row: Row, operator: Any, stage: Callable[[Row, str], Stage], run: Any, task_instance: Any, tmp_path: Path
) -> None:
    set_up = stage(row, TEN_MINUTES)
    set_up.strike(*CALLS)
    batch_id = set_up.api.add_batch(
        3, status="in_progress" if operator is CancelBatchOperator else "ended", age_seconds=60
    )
    options: dict[str, Any] = {"batch_id": batch_id}
    if operator is ListBatchesOperator:
        options = {"older_than": timedelta(seconds=1)}
    if operator is SaveBatchResultsOperator:
        options["path"] = f"file://{tmp_path}"

    states = []
    for number in (1, 2, 3):
        done = run(operator, ti=task_instance("task", number, 2), retries=2, **options)
        states.append(done.state)
        set_up.clock.sleep(RETRY_DELAY)

    assert states == ["retry", "retry", "success"], done.error


@pytest.mark.parametrize("after", [1, 9, 45])
@pytest.mark.parametrize("row", OUTAGES, ids=lambda row: row.name)
def test_a_running_teardown_outlasts_the_outage_in_one_try(
    row: Row, after: int, stage: Callable[[Row, str], Stage], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_up = stage(row, TEN_MINUTES)
    # Between reads of results, the saver waits for an event in real time, so that Airflow can stop the task.
    make, sleep = Saver.__init__, set_up.clock.sleep
    monkeypatch.setattr(Saver, "__init__", lambda *args, **options: make(*args, **{**options, "sleep": sleep}))
    batch_ids = [set_up.api.add_batch(3, status="in_progress") for _ in range(20)]
    set_up.strike(*CALLS, after=after)
    task = Task(batch_ids=batch_ids, save_results_to=str(tmp_path), max_in_flight=4)

    summary = task.run()

    assert (summary["canceled"], summary["saved"], summary["deleted"]) == (20, 20, 20)
    assert set_up.api.ids() == []
    assert 0 < len(set_up.met) < 4 * (6 + 600 / OUTAGE_PAUSE) * 5


@pytest.mark.parametrize("operator", [CancelBatchOperator, BatchEndedSensor])
def test_a_task_continues_with_a_key_that_is_rotated_meanwhile(
    operator: Any, stage: Callable[..., Stage], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up = stage(ROWS[0], LASTING)
    api, clock = set_up.api, set_up.clock
    options: dict[str, Any] = {"deferrable": True, "poke_interval": 10} if operator is BatchEndedSensor else {}
    rotated_at = 15 if operator is BatchEndedSensor else 0
    connection = {**json.loads(api.connection_json), "password": "sk-ant-new"}
    clock.at(clock.now + rotated_at, lambda: setattr(api._settings, "api_key", "sk-ant-new"))
    clock.at(
        clock.now + rotated_at + 8,
        lambda: monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", json.dumps(connection)),
    )

    done = run(operator, batch_id=api.add_batch(3, status="in_progress", batch_seconds=40), **options)

    assert done.state == "success", done.error
    assert 401 in [request.status for request in api.requests]
