from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.pytest_plugin import DagTestRun


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW_VAR_SUBMIT_PIPELINE_FOLDER", tmp_path.as_uri())
    return tmp_path


@pytest.mark.batches_emulator(batch_seconds=0, answers={"prompt-0": "Two"})
def test_answers_are_saved_and_the_batch_is_deleted(
    run_dag: Callable[..., DagTestRun], batches_emulator: Emulator, folder: Path
) -> None:
    run = run_dag("submit_pipeline", {"prompts": ["Name a prime number."]})

    assert run.state == "success"
    assert run.xcom("read_results") == {"succeeded": 1}
    assert "Two" in (folder / "results" / f"{run.xcom('submit')[0]}.jsonl").read_text()
    assert batches_emulator.ids() == []


@pytest.mark.batches_emulator(batch_seconds=0, outcomes={"prompt-1": "expired"})
def test_a_request_that_expires_is_counted(run_dag: Callable[..., DagTestRun]) -> None:
    assert run_dag("submit_pipeline").xcom("read_results") == {"succeeded": 2, "expired": 1}


@pytest.mark.batches_emulator(batch_seconds=0)
def test_a_batch_whose_results_cannot_be_read_is_kept(
    run_dag: Callable[..., DagTestRun], batches_emulator: Emulator
) -> None:
    batches_emulator.fault(Fault("results", status=400, times=None))

    run = run_dag("submit_pipeline")

    assert (run.state, run.states["tear_down"]) == ("failed", "failed")
    assert batches_emulator.ids() == [run.xcom("submit")[0]]
