"""`dag.test()` and `airflow dags test` drop what a deferral has stored: the task resumes with the event alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator

HOUR = 3600
DAG = """
from airflow.sdk import DAG

from airflow_provider_batches.operators.teardown import TeardownBatchesOperator

with DAG("slow"):
    TeardownBatchesOperator(task_id="tear_down", poll_interval=0.1, **ARGUMENTS)
"""
Run = Callable[..., Any]


@pytest.fixture
def tear_down(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a teardown that defers unless its batches have ended."""
    monkeypatch.setattr("airflow_provider_batches.operators.teardown.WORKER_SECONDS", 0.0)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    monkeypatch.setattr("tests.dags.conftest.EXAMPLES", tmp_path)

    def tear_down(**arguments: Any) -> Any:
        (tmp_path / "slow.py").write_text(DAG.replace("ARGUMENTS", repr(arguments)))
        return run("slow")

    return tear_down


@pytest.mark.parametrize("selected", [{"older_than": "PT1H"}, {"statuses": ["in_progress"], "limit": 2}, {}])
def test_a_teardown_whose_batches_take_a_while_to_end_finishes(
    tear_down: Run, batches_emulator: Emulator, tmp_path: Path, selected: dict[str, Any]
) -> None:
    batch_ids = [
        batches_emulator.add_batch(2, status="in_progress", cancel_seconds=1.0, age_seconds=2 * HOUR) for _ in "12"
    ]
    young = batches_emulator.add_batch(2, status="ended")

    ended = tear_down(**selected or {"batch_ids": batch_ids}, save_results_to=f"file://{tmp_path}/results")

    assert ended.state == "success"
    assert ended.xcom("tear_down")["saved"] == ended.xcom("tear_down")["deleted"] == 2
    assert batches_emulator.ids() == [young]


def test_a_batch_that_does_not_end_in_time_fails_the_task(tear_down: Run, batches_emulator: Emulator) -> None:
    batch_id = batches_emulator.add_batch(status="in_progress", cancel_seconds=HOUR)

    assert tear_down(batch_ids=[batch_id], timeout=0.5, discard_results=True).state == "failed"

    assert batches_emulator.ids() == [batch_id]


def test_a_batch_that_somebody_else_deletes_meanwhile_is_no_error(
    tear_down: Run, batches_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batches.triggers.batches import BatchEndedTrigger

    batch_id = batches_emulator.add_batch(status="in_progress", cancel_seconds=HOUR)
    outcome = BatchEndedTrigger._outcome

    async def delete_first(trigger: BatchEndedTrigger) -> Any:
        store = batches_emulator._store
        batch = store.get(batch_id)
        assert batch
        store.delete(batch)
        return await outcome(trigger)

    monkeypatch.setattr(BatchEndedTrigger, "_outcome", delete_first)

    ended = tear_down(batch_ids=[batch_id], discard_results=True)

    assert ended.xcom("tear_down")["already_gone"] == 1
