from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.pytest_plugin import DagTestRun


@pytest.fixture
def selected(run_dag: Callable[..., DagTestRun], batches_emulator: Emulator) -> Callable[..., Any]:
    """Run the DAG for a batch that is running and one that has ended."""

    def run(**conf: Any) -> DagTestRun:
        batch_ids = [batches_emulator.add_batch(status=status) for status in ("in_progress", "ended")]
        return run_dag("teardown_selected", {"batch_ids": batch_ids, **conf})

    return run


def test_cancel_deletes_nothing(selected: Callable[..., Any], batches_emulator: Emulator) -> None:
    run = selected(action="cancel")

    assert run.state == "success"
    assert (run.states["save_and_delete"], run.states["discard"]) == ("skipped", "skipped")
    assert len(batches_emulator.ids()) == 2
    assert [batches_emulator.batch(each)["processing_status"] for each in batches_emulator.ids()] == ["ended"] * 2  # type: ignore[index]


def test_results_are_saved_before_the_batches_are_deleted(
    selected: Callable[..., Any], batches_emulator: Emulator, tmp_path: Path
) -> None:
    assert selected(folder=tmp_path.as_uri()).state == "success"

    assert batches_emulator.ids() == []
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_results_can_be_discarded(selected: Callable[..., Any], batches_emulator: Emulator) -> None:
    assert selected(action="discard").state == "success"

    assert batches_emulator.ids() == []


def test_without_a_folder_nothing_is_changed(selected: Callable[..., Any], batches_emulator: Emulator) -> None:
    run = selected()

    assert (run.state, run.states["save_and_delete"]) == ("failed", "failed")
    assert [request.method for request in batches_emulator.requests] == []
