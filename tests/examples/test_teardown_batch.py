from __future__ import annotations

from collections.abc import Callable

from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.pytest_plugin import DagTestRun


def test_a_running_batch_is_gone_in_the_end(run_dag: Callable[..., DagTestRun], batches_emulator: Emulator) -> None:
    batch_id = batches_emulator.add_batch(status="in_progress")

    assert run_dag("teardown_batch", {"batch_id": batch_id, "action": "discard"}).state == "success"
    assert batches_emulator.batch(batch_id) is None
    assert batches_emulator.count("cancel") == 1


def test_it_outlasts_an_outage(run_dag: Callable[..., DagTestRun], batches_emulator: Emulator) -> None:
    batch_id = batches_emulator.add_batch(status="in_progress")
    batches_emulator.fault(Fault("delete", status=503, times=2))

    assert run_dag("teardown_batch", {"batch_id": batch_id, "action": "discard"}).state == "success"


def test_a_batch_that_does_not_exist_fails_the_run(run_dag: Callable[..., DagTestRun]) -> None:
    run = run_dag("teardown_batch", {"batch_id": "msgbatch_typo", "action": "discard"})

    assert (run.state, run.states["discard"]) == ("failed", "upstream_failed")
