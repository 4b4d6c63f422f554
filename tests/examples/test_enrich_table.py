from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.pytest_plugin import DagTestRun

LABEL = '{"label": "bug", "urgent": false}'


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIRFLOW_VAR_ENRICH_TABLE_FOLDER", tmp_path.as_uri())
    lines = [f"t{number},Ticket {number}" for number in range(40)]
    (tmp_path / "tickets.csv").write_text("\n".join(["ticket_id,body", *lines]))
    return f"{tmp_path.as_uri()}/tickets.csv"


def labels(folder: Path) -> list[dict[str, Any]]:
    from pyarrow.parquet import read_table

    found: list[dict[str, Any]] = read_table(folder / "labels.parquet").to_pylist()
    return found


@pytest.mark.batches_emulator(batch_seconds=0, answers=lambda request: LABEL)
def test_every_ticket_has_a_label_and_no_batch_is_left(
    run_dag: Callable[..., DagTestRun], batches_emulator: Emulator, table: str, tmp_path: Path
) -> None:
    run = run_dag("enrich_table", {"table": table})

    assert run.state == "success"
    assert [row["ticket_id"] for row in labels(tmp_path)] == [f"t{number}" for number in range(40)]
    assert {row["parsed"] for row in labels(tmp_path)} == {LABEL}
    assert run.states["labels.round_2.submit"] == "skipped"
    assert batches_emulator.ids() == []


@pytest.mark.batches_emulator(batch_seconds=0)
def test_requests_that_fail_at_first_are_answered_in_the_second_round(
    run_dag: Callable[..., DagTestRun], batches_emulator: Emulator, table: str, tmp_path: Path
) -> None:
    asked: set[str] = set()

    def answer(request: dict[str, Any]) -> Any:
        custom_id = request["custom_id"].partition("-")[2]
        fails = custom_id in ("t3", "t30") and custom_id not in asked
        asked.add(custom_id)
        return {"error": {"type": "overloaded_error", "message": "Overloaded"}} if fails else LABEL

    batches_emulator.answers = answer
    run = run_dag("enrich_table", {"table": table})

    assert run.state == "success"
    assert run.xcom("labels.round_1.sift")["statuses"] == {"succeeded": 38, "errored": 2}
    assert run.xcom("labels.merge")["statuses"] == {"succeeded": 40}
    assert len(labels(tmp_path)) == 40
    assert batches_emulator.ids() == []
