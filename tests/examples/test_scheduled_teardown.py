from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.pytest_plugin import DagTestRun

DAY = 24 * 3600


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW_VAR_BATCH_RESULTS_FOLDER", tmp_path.as_uri())
    return tmp_path


def test_old_batches_are_saved_and_deleted(
    run_dag: Callable[..., DagTestRun], batches_emulator: Emulator, folder: Path
) -> None:
    old = batches_emulator.add_batch(requests=5, age_seconds=8 * DAY)
    young = batches_emulator.add_batch(requests=5, age_seconds=6 * DAY)

    run = run_dag("scheduled_teardown", {"report_only": False})

    assert run.xcom("teardown")["deleted"] == 1
    assert batches_emulator.ids() == [young]
    assert len((folder / f"{old}.jsonl").read_bytes().splitlines()) == 5


def test_a_report_changes_nothing(run_dag: Callable[..., DagTestRun], batches_emulator: Emulator) -> None:
    old = batches_emulator.add_batch(age_seconds=8 * DAY)

    assert run_dag("scheduled_teardown").xcom("teardown")["selected"] == 1
    assert batches_emulator.ids() == [old]
