"""The example that enriches a table, on a real Airflow, with one request in twenty failing at first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyarrow.parquet import read_table

from airflow_provider_batches.emulator import Emulator
from scripts.real_airflow import RealAirflow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("default_connection")]

ROWS = 200
LABEL = '{"label": "bug", "urgent": true}'


def test_a_table_is_complete_although_requests_fail_at_first(
    airflow: RealAirflow, api: Emulator, tmp_path: Path
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
