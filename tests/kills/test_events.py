"""A batch that ends starts a DAG, on a real Airflow: also if the triggerer was killed meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator
from scripts.real_airflow import RealAirflow

pytestmark = [pytest.mark.system, pytest.mark.timeout(600), pytest.mark.feature("events")]
EXAMPLES = Path(__file__).parents[2] / "example_dags"
#: The examples, watching another connection, and more often.
CHANGES = {
    "on_batch_end()": "on_watched_end()",
    "on_each_batch_end()": "on_each_watched_end()",
    "relay_batch_ends()": "relay_watched_ends()",
    '"message_batches_ended"': '"watched_ended"',
    '"on_each_batch_end"': '"on_each_watched_end"',
    "anthropic_default": "watched",
    "BatchesEndedTrigger(conn_id=CONN_ID)": "BatchesEndedTrigger(conn_id=CONN_ID, poll_interval=10)",
}
DAGS = ("on_watched_end", "on_each_watched_end", "relay_watched_ends")


@pytest.fixture
def watched(airflow: RealAirflow) -> Iterator[Emulator]:
    """An API whose batches are watched by a copy of the example DAG that looks more often."""
    folder = Path(airflow.env["AIRFLOW__CORE__DAGS_FOLDER"])
    codes = {name: (EXAMPLES / f"{name}.py").read_text() for name in ("on_batch_end", "on_each_batch_end")}
    with Emulator() as api:
        airflow.api("POST", "/connections", json={**json.loads(api.connection_json), "connection_id": "watched"})
        for name, code in codes.items():
            for old, new in CHANGES.items():
                code = code.replace(old, new)
            (folder / f"watched_{name}.py").write_text(code)
        for dag_id in DAGS:
            airflow.wait_for_dag(dag_id)
            airflow.api("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
        yield api
        for dag_id in DAGS:
            airflow.api("PATCH", f"/dags/{dag_id}", json={"is_paused": True})
        for name in codes:
            (folder / f"watched_{name}.py").unlink()


def runs(airflow: RealAirflow, dag_id: str = "on_watched_end") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = airflow.api("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]
    return found


def test_a_batch_that_ends_starts_the_dag_and_a_killed_triggerer_loses_none(
    airflow: RealAirflow, watched: Emulator, tmp_path: Path
) -> None:
    airflow.api("POST", "/variables", json={"key": "on_batch_end_folder", "value": tmp_path.as_uri()})
    first = watched.add_batch(10, status="in_progress", batch_seconds=3600)
    second = watched.add_batch(10, status="in_progress", batch_seconds=36_000)
    airflow.wait_until(lambda: watched.count("list") > 1, 120, "the watcher to look")
    watched.clock.advance(3700)
    began = time.monotonic()
    airflow.wait_until(lambda: runs(airflow), 60, "the DAG to start")
    seconds = time.monotonic() - began
    airflow.wait_until(lambda: watched.ids() == [second], 120, "the batch to be deleted")
    assert (tmp_path / "results" / f"{first}.jsonl").exists()

    airflow.kill("triggerer")
    watched.clock.advance(36_000)
    airflow.start("triggerer")
    airflow.wait_until(lambda: not watched.ids(), 180, "the second batch to be deleted")
    assert (tmp_path / "results" / f"{second}.jsonl").exists()
    print(f"The DAG started {seconds:.1f} s after the end of the batch; looks are 10 s apart.")
    states = airflow.wait_until(
        lambda: [run["state"] for run in runs(airflow)] if all(run["end_date"] for run in runs(airflow)) else None
    )
    assert set(states) == {"success"}
    airflow.wait_until(
        lambda: {run["dag_run_id"] for run in runs(airflow, DAGS[1])} == {f"batch__{first}", f"batch__{second}"},
        60,
        "a run for each batch",
    )
