"""The example DAGs on a real Airflow, driven as a person would: what dag.test() cannot show."""

from __future__ import annotations

import pytest

from airflow_provider_batches.emulator import Emulator
from scripts.real_airflow import RealAirflow, RealAirflowError

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

CANARY = "sk-ant-canary-4b1d7f0e"


def test_a_batch_is_torn_down_from_the_form(airflow: RealAirflow, api: Emulator) -> None:
    batch_id = api.add_batch(requests=100, status="in_progress")

    run_id = airflow.trigger_dag("teardown_batch", {"batch_id": batch_id, "action": "discard"})

    assert airflow.wait_for_run("teardown_batch", run_id) == "success"
    assert api.batch(batch_id) is None
    assert airflow.xcom("teardown_batch", run_id, "discard") == batch_id
    assert airflow.xcom("teardown_batch", run_id, "discard", key="deletion")["batch_id"] == batch_id
    for task_id in ("cancel", "wait", "discard"):
        log = airflow.task_log("teardown_batch", run_id, task_id)
        assert batch_id in log
        assert CANARY not in log


def test_the_form_refuses_a_malformed_id(airflow: RealAirflow) -> None:
    with pytest.raises(RealAirflowError, match="batch_id"):
        airflow.trigger_dag("teardown_batch", {"batch_id": "../messages"})


def test_a_run_that_is_marked_as_failed_half_way_tears_its_batch_down_and_stays_failed(
    airflow: RealAirflow, api: Emulator
) -> None:
    run_id = airflow.trigger_dag("submit_pipeline")
    airflow.wait_for_task("submit_pipeline", run_id, "wait", "deferred")
    batch_id = airflow.xcom("submit_pipeline", run_id, "submit")[0]

    airflow.set_run_state("submit_pipeline", run_id, "failed")

    assert airflow.wait_for_run("submit_pipeline", run_id) == "failed"
    states = airflow.task_states("submit_pipeline", run_id)
    assert states["tear_down"] == "success"
    assert api.batch(batch_id) is None
