from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.pytest_plugin import DagTestRun


def test_without_an_event_nothing_is_deleted(run_dag: Callable[..., DagTestRun], batches_emulator: Emulator) -> None:
    batch_id = batches_emulator.add_batch(status="ended")
    run = run_dag("on_batch_end")

    assert run.states == {"ended": "success", "save_and_delete": "skipped"}
    assert batches_emulator.ids() == [batch_id]


def test_each_batch_is_saved_by_a_run_of_its_own(
    run_dag: Callable[..., DagTestRun], batches_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_ON_BATCH_END_FOLDER", tmp_path.as_uri())
    batch_id = batches_emulator.add_batch(status="ended")

    assert run_dag("on_each_batch_end", {"batch_id": batch_id}).state == "success"
    assert (tmp_path / "results" / f"{batch_id}.jsonl").exists()
