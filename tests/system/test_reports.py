"""Metrics and asset events of a real Airflow: from its workers and from its triggerer."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_batches.emulator import Emulator
from scripts.real_airflow import RealAirflow
from tests.statsd import StatsD

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


def test_metrics_arrive_from_the_workers_and_from_the_triggerer(
    airflow: RealAirflow, api: Emulator, statsd: StatsD
) -> None:
    names = ("canceled", "ended", "deleted", "requests.canceled", "requests.succeeded", "poller.requests")
    before = {name: statsd.total(name) for name in names}
    torn_down = api.add_batch(10, status="in_progress", batch_seconds=3600)
    awaited = api.add_batch(7, status="in_progress", batch_seconds=14)

    runs = {
        dag_id: airflow.trigger_dag(dag_id, {"batch_id": batch_id, "action": "discard"} | extra)
        for dag_id, batch_id, extra in (
            ("teardown_batch", torn_down, {}),
            ("waits_without_worker", awaited, {"batch_ids": [awaited]}),
        )
    }
    for dag_id, run_id in runs.items():
        assert airflow.wait_for_run(dag_id, run_id) == "success"

    found = {name: statsd.total(name) - before[name] for name in names}
    # These tasks run on workers.
    assert (found["canceled"], found["deleted"], found["requests.canceled"]) == (1, 1, 10)
    # Each wait of the DAG that waits in several ways was deferred.
    assert found["requests.succeeded"] % 7 == 0
    assert found["ended"] == 1 + found["requests.succeeded"] / 7 > 2
    # Polling in the triggerer: of all of these, the requests are shared.
    assert 1 <= found["poller.requests"] < 20
    assert max(statsd.values["poller.waits"]) >= 2
    assert statsd.values["poller.waits"][-1] == 0
    assert all(0 <= delay < 30_000 for delay in statsd.values["end_delay"])


@pytest.mark.feature("alias_events")
def test_a_dag_begins_when_results_are_saved(airflow: RealAirflow, api: Emulator, tmp_path: Path) -> None:
    batch_id = api.add_batch(3, status="ended")
    airflow.wait_for_dag("begins_with_results")
    airflow.api("PATCH", "/dags/begins_with_results", json={"is_paused": False})

    run_id = airflow.trigger_dag("announces_results", {"batch_id": batch_id, "folder": tmp_path.as_uri()})
    assert airflow.wait_for_run("announces_results", run_id) == "success"
    path = "/dags/begins_with_results/dagRuns"
    airflow.wait_until(lambda: airflow.api("GET", path)["total_entries"] > 0, 120, "the run for the saved results")
    (run,) = airflow.api("GET", path)["dag_runs"]

    assert airflow.wait_for_run("begins_with_results", run["dag_run_id"]) == "success"
    (event,) = airflow.xcom("begins_with_results", run["dag_run_id"], "read")
    assert (event["uri"], event["succeeded"]) == (f"{tmp_path.as_uri()}/{batch_id}.jsonl", 3)
