"""Operators with retries in an outage of ten minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.api.pacing import OUTAGE_PAUSE, Pace
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator, ListBatchesOperator
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.teardown.saving import Saver
from tests.integration.reliability.matrix import CALLS, ROWS, TEN_MINUTES, Row
from tests.integration.reliability.stage import Stage
from tests.integration.teardown.harness import Task

#: Airflow's default, in seconds.
RETRY_DELAY = 300


@pytest.mark.parametrize(
    "operator", [CancelBatchOperator, DeleteBatchOperator, ListBatchesOperator, SaveBatchResultsOperator]
)
@pytest.mark.parametrize("row", [row for row in ROWS if TEN_MINUTES in row.lasts], ids=lambda row: row.plain_name)
def test_the_third_try_of_a_task_comes_through(
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
@pytest.mark.parametrize("row", [row for row in ROWS if TEN_MINUTES in row.lasts], ids=lambda row: row.plain_name)
def test_a_teardown_that_has_begun_comes_through_in_one_try(
    row: Row, after: int, stage: Callable[[Row, str], Stage], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_up = stage(row, TEN_MINUTES)
    monkeypatch.setattr(Pace.__init__, "__defaults__", (None, set_up.clock.time, asyncio.sleep))
    monkeypatch.setitem(Saver.__init__.__kwdefaults__, "sleep", set_up.clock.sleep)
    batch_ids = [set_up.api.add_batch(3, status="in_progress") for _ in range(20)]
    set_up.strike(*CALLS, after=after)
    task = Task(batch_ids=batch_ids, save_results_to=str(tmp_path), max_in_flight=4)

    summary = task.run()

    assert (summary["canceled"], summary["saved"], summary["deleted"]) == (20, 20, 20)
    assert set_up.api.ids() == []
    assert 0 < set_up.struck < 4 * (6 + 600 / OUTAGE_PAUSE) * 5
