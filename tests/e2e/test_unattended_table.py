"""The example that enriches a table, on a real Airflow, with one request in twenty failing at first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow.parquet import read_table

from airflow_provider_batches.emulator import Emulator
from scripts.real_airflow import RealAirflow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("default_connection")]

ROWS = 200
LABEL = '{"label": "bug", "urgent": true}'


def datasets(lineage: Path) -> dict[str, tuple[set[str], set[str]]]:
    """Return the datasets that each task read and wrote, by OpenLineage's events."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for line in lineage.read_text().splitlines():
        event = json.loads(line)
        name = event["job"]["name"]
        if event["eventType"] == "COMPLETE":
            inputs, outputs = found.setdefault(name.removeprefix("enrich_table.labels."), (set(), set()))
            inputs |= {f"{each['namespace']}:{each['name']}" for each in event["inputs"]}
            outputs |= {f"{each['namespace']}:{each['name']}" for each in event["outputs"]}
    return found


def test_a_table_is_complete_although_requests_fail_at_first(
    airflow: RealAirflow, api: Emulator, lineage: Path, tmp_path: Path
) -> None:
    lines = [f"t{number},Ticket {number}" for number in range(ROWS)]
    (tmp_path / "tickets.csv").write_text("\n".join(["ticket_id,body", *lines]))
    asked: set[str] = set()

    def answer(request: dict[str, Any]) -> Any:
        custom_id = request["custom_id"].partition("-")[2]
        fails = int(custom_id.removeprefix("t")) % 20 == 0 and custom_id not in asked
        asked.add(custom_id)
        return {"error": {"type": "api_error", "message": "Internal server error"}} if fails else LABEL

    before, api.answers = set(api.ids()), answer
    airflow.api("POST", "/variables", json={"key": "enrich_table_folder", "value": tmp_path.as_uri()})
    airflow.api("PATCH", "/dags/enrich_table", json={"is_paused": False})
    run_id = airflow.trigger_dag("enrich_table", {"table": f"{tmp_path.as_uri()}/tickets.csv"})
    airflow.wait_for_task("enrich_table", run_id, "labels.round_1.wait", "deferred")
    api.clock.advance(7200)
    airflow.wait_for_task("enrich_table", run_id, "labels.round_2.wait", "deferred", timeout=240)
    api.clock.advance(7200)

    assert airflow.wait_for_run("enrich_table", run_id) == "success"
    assert airflow.xcom("enrich_table", run_id, "labels.round_1.sift")["statuses"] == {"succeeded": 190, "errored": 10}
    table = read_table(tmp_path / "labels.parquet").to_pylist()
    assert [row["ticket_id"] for row in table] == [f"t{number}" for number in range(ROWS)]
    assert {row["parsed"] for row in table} == {LABEL}
    assert set(api.ids()) == before

    saved = {f"file:{path}" for path in tmp_path.glob("results/*.jsonl")}
    table, tickets = f"file:{tmp_path}/labels.parquet", f"file:{tmp_path}/tickets.csv"
    airflow.wait_until(lambda: "merge" in datasets(lineage), 60, "the lineage of the last task")
    found = datasets(lineage)
    assert len(saved) == 2
    assert found["round_1.submit"] == ({tickets}, set())
    assert found["round_2.submit"] == ({f"file:{tmp_path}/labels.round_1.failed.jsonl"}, set())
    assert found["round_1.save"][1] | found["round_2.save"][1] == saved
    assert found["merge"] == ({tickets, *saved}, {table, f"file:{tmp_path}/labels.failed.jsonl"})


def test_the_folder_of_a_teardown_is_an_output(
    airflow: RealAirflow, api: Emulator, lineage: Path, tmp_path: Path
) -> None:
    conf = {"batch_ids": [api.add_batch(status="ended")], "folder": tmp_path.as_uri()}
    run_id = airflow.trigger_dag("teardown_selected", conf)
    assert airflow.wait_for_run("teardown_selected", run_id) == "success"

    name = "teardown_selected.save_and_delete"
    airflow.wait_until(lambda: f"file:{tmp_path}" in datasets(lineage).get(name, ((), ()))[1], 60, "its lineage")
