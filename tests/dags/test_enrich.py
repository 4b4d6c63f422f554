"""The task group that sends the rows of a table to a model, round by round."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.submission.rows import Rows
from airflow_provider_batches.task_groups import enrich

DAG = """
from airflow.sdk import DAG

from airflow_provider_batches.submission.rows import Rows
from airflow_provider_batches.task_groups import enrich

PARAMS = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "{{ row.body }}"}]}
with DAG("enriched"):
    enrich("answers", rows=Rows("FOLDER/rows.jsonl", PARAMS, "id"), path="FOLDER/table.jsonl", ARGUMENTS)
"""


@pytest.fixture
def enriched(run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the task group over rows."""
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))

    def run_over(count: int, **arguments: Any) -> Any:
        rows = [json.dumps({"id": f"r{number}", "body": "hello"}) for number in range(count)]
        (tmp_path / "rows.jsonl").write_text("\n".join(rows))
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        (tmp_path / "enriched.py").write_text(DAG.replace("FOLDER", tmp_path.as_uri()).replace("ARGUMENTS", given))
        return run("enriched")

    return run_over


def table(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "table.jsonl").read_text().split("\n")[:-1]]


@pytest.mark.batches_emulator(batch_seconds=0)
def test_a_request_that_fails_twice_is_answered_in_the_third_round(
    enriched: Callable[..., Any], batches_emulator: Emulator, tmp_path: Path
) -> None:
    asked: list[str] = []

    def answer(request: dict[str, Any]) -> Any:
        custom_id = request["custom_id"].partition("-")[2]
        asked.append(custom_id)
        fails = custom_id == "r1" and asked.count(custom_id) < 3
        return {"error": {"type": "api_error", "message": "Internal server error"}} if fails else "yes"

    batches_emulator.answers = answer
    ended = enriched(4, rounds=3, folder=tmp_path.as_uri(), prices={"m": {"input": 1000.0, "output": 1000.0}})

    assert ended.state == "success"
    assert [row["text"] for row in table(tmp_path)] == ["yes"] * 4
    assert sorted(asked) == ["r0", "r1", "r1", "r1", "r2", "r3"]
    merged = ended.xcom("answers.merge")
    assert 0 < merged["cost"] <= merged["estimated_cost"]
    assert batches_emulator.ids() == []


@pytest.mark.batches_emulator(batch_seconds=0)
def test_the_default_folder_is_the_storage_folder_and_batches_can_be_kept(
    enriched: Callable[..., Any], batches_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__MESSAGE_BATCHES__STORAGE_FOLDER", f"{tmp_path.as_uri()}/kept")
    ended = enriched(2, rounds=1, delete_batches=False)

    assert {name.removeprefix("answers.") for name in ended.states} == {
        "round_1.submit",
        "round_1.wait",
        "round_1.save",
        "merge",
    }
    assert len(table(tmp_path)) == 2
    assert len(batches_emulator.ids()) == 1
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"submissions", "results"}


def test_an_empty_table_is_an_empty_table(
    enriched: Callable[..., Any], batches_emulator: Emulator, tmp_path: Path
) -> None:
    ended = enriched(0, folder=tmp_path.as_uri())

    assert ended.states["answers.round_1.submit"] == "skipped"
    assert ended.states["answers.merge"] == "success"
    assert table(tmp_path) == []


def test_the_number_of_rounds_is_checked() -> None:
    with pytest.raises(InvalidArgumentError, match=r"rounds: got 0; it must be a whole number above 0"):
        enrich("answers", rows=Rows("file:///rows.csv", {}), path="file:///table.csv", rounds=0)
