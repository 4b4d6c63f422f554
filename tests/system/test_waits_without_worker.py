"""Waits without a worker process, on a real scheduler and triggerer."""

from __future__ import annotations

import pytest

from airflow_provider_batches.emulator import Emulator
from scripts.real_airflow import RealAirflow

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

DAG_ID = "waits_without_worker"


class Waits:
    """One run of the DAG that waits in every way, over one batch that ends after some seconds and one that has."""

    def __init__(self, airflow: RealAirflow, api: Emulator) -> None:
        self.airflow = airflow
        self.batch_id = api.add_batch(requests=10, status="in_progress", batch_seconds=15)
        self.ended_id = api.add_batch(requests=10, status="ended")
        conf = {"batch_id": self.batch_id, "batch_ids": [self.batch_id, self.ended_id]}
        self.run_id = airflow.trigger_dag(DAG_ID, conf)
        assert airflow.wait_for_run(DAG_ID, self.run_id) == "success"

    def log(self, task_id: str, map_index: int = -1) -> str:
        return self.airflow.task_log(DAG_ID, self.run_id, task_id, map_index=map_index)

    def logs_of_workers(self, task_id: str) -> list[str]:
        """The log files that processes on a worker have left; a triggerer's end in `.trigger.N.log`."""
        found = self.airflow.home.glob(f"logs/dag_id={DAG_ID}/run_id={self.run_id}/task_id={task_id}/**/*.log")
        return [path.name for path in found if ".trigger." not in path.name]


@pytest.fixture(scope="module")
def waits(airflow: RealAirflow, api: Emulator) -> Waits:
    return Waits(airflow, api)


@pytest.mark.feature("start_from_trigger")
def test_a_wait_that_begins_and_ends_in_the_triggerer_starts_no_worker_process(waits: Waits) -> None:
    assert f"Batch {waits.batch_id} has ended: 10 succeeded" in waits.log("whole_wait")
    assert waits.logs_of_workers("whole_wait") == []


@pytest.mark.feature("end_from_trigger")
def test_a_wait_that_begins_on_a_worker_leaves_a_log_of_it(waits: Waits) -> None:
    assert waits.logs_of_workers("end_only") == ["attempt=1.log"]


@pytest.mark.feature("start_from_trigger")
def test_a_wait_that_only_begins_in_the_triggerer_returns_the_rendered_id(waits: Waits) -> None:
    assert waits.airflow.xcom(DAG_ID, waits.run_id, "start_only") == waits.batch_id


def test_a_wait_on_several_batches_returns_the_list(waits: Waits) -> None:
    assert waits.airflow.xcom(DAG_ID, waits.run_id, "several") == [waits.batch_id, waits.ended_id]
    assert waits.airflow.xcom(DAG_ID, waits.run_id, "several", key="batch")["ended"] == 2


def test_a_mapped_wait_begins_on_a_worker_and_says_so(waits: Waits) -> None:
    assert "This task begins on a worker" in waits.log("mapped", map_index=0)


def test_a_wait_that_fails_ends_on_a_worker_with_its_message(airflow: RealAirflow) -> None:
    run_id = airflow.trigger_dag("waits_that_fail", {"batch_id": "msgbatch_01NoSuchBatch"})
    assert airflow.wait_for_run("waits_that_fail", run_id) == "failed"
    assert "Batch msgbatch_01NoSuchBatch was not found" in airflow.task_log("waits_that_fail", run_id, "missing")
