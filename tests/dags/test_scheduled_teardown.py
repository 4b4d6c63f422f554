from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowFailException
from airflow_provider_batches.emulator import Emulator

DAY = 24 * 3600


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW_VAR_BATCH_RESULTS_FOLDER", f"file://{tmp_path}")
    return tmp_path


def test_old_batches_are_saved_and_deleted(run: Callable[..., Any], batches_emulator: Emulator, folder: Path) -> None:
    old = batches_emulator.add_batch(5, status="ended", age_seconds=8 * DAY)
    young = batches_emulator.add_batch(5, age_seconds=6 * DAY)

    ended = run("scheduled_teardown", report_only=False)

    assert ended.state == "success"
    assert batches_emulator.ids() == [young]
    assert (folder / f"{old}.jsonl").read_bytes().count(b"\n") == 5
    assert ended.xcom("teardown")["deleted"] == 1


def test_the_age_can_be_chosen(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    batches_emulator.add_batch(5, age_seconds=3 * DAY)

    run("scheduled_teardown", report_only=False, older_than_days=2)

    assert batches_emulator.ids() == []


def test_a_run_by_hand_only_reports(run: Callable[..., Any], batches_emulator: Emulator, folder: Path) -> None:
    old = batches_emulator.add_batch(5, age_seconds=8 * DAY)

    ended = run("scheduled_teardown")

    assert ended.xcom("teardown")["report_only"]
    assert ended.xcom("teardown")["selected"] == 1
    assert batches_emulator.ids() == [old]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("variable", [None, ""])
def test_a_run_that_deletes_fails_without_the_variable_before_it_touches_anything(
    run: Callable[..., Any], batches_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    set_variable(monkeypatch, variable)
    old = batches_emulator.add_batch(5, age_seconds=8 * DAY)

    ended = run("scheduled_teardown", report_only=False)

    assert ended.state == "failed"
    assert batches_emulator.count() == 0
    assert batches_emulator.ids() == [old]


@pytest.mark.parametrize("variable", [None, ""])
def test_a_report_only_needs_no_variable(
    run: Callable[..., Any], batches_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    set_variable(monkeypatch, variable)
    old = batches_emulator.add_batch(5, age_seconds=8 * DAY)

    assert run("scheduled_teardown").xcom("teardown")["selected"] == 1
    assert batches_emulator.ids() == [old]


def set_variable(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("AIRFLOW_VAR_BATCH_RESULTS_FOLDER")
    else:
        monkeypatch.setenv("AIRFLOW_VAR_BATCH_RESULTS_FOLDER", value)


@pytest.mark.parametrize(
    ("run_type", "variables", "report_only", "only_reports"),
    [
        ("scheduled", {"batch_results_folder": "file:///data"}, True, "False"),
        ("scheduled", {"batch_results_folder": "file:///data"}, False, "False"),
        ("scheduled", {"batch_results_folder": ""}, False, "True"),
        ("scheduled", {}, True, "True"),
        ("scheduled", {}, False, "True"),
        ("manual", {"batch_results_folder": "file:///data"}, True, "True"),
        ("manual", {}, False, "False"),
        ("backfill", {"batch_results_folder": "file:///data"}, True, "True"),
        ("asset_triggered", {"batch_results_folder": "file:///data"}, True, "True"),
    ],
)
def test_only_a_scheduled_run_that_knows_where_to_save_deletes_unasked(
    example: Callable[[str], Any], run_type: str, variables: dict[str, str], report_only: bool, only_reports: str
) -> None:
    task = example("scheduled_teardown").get_task("teardown")
    context = {
        "params": {"report_only": report_only, "older_than_days": 7},
        "dag_run": SimpleNamespace(run_type=run_type),
        "var": {"value": variables},
    }

    task.render_template_fields(context)

    assert task.report_only == only_reports
    # What only reports gets a folder that nothing can be saved to.
    otherwise = "file:///dev/null" if only_reports == "True" else "unset: "
    assert task.save_results_to.startswith(variables.get("batch_results_folder") or otherwise)


def test_a_run_that_deletes_says_which_variable_is_missing(example: Callable[[str], Any]) -> None:
    task = example("scheduled_teardown").get_task("teardown")
    run = SimpleNamespace(run_type="manual")
    params = {"report_only": False, "older_than_days": 7}
    task.render_template_fields({"params": params, "dag_run": run, "var": {"value": {}}})

    with pytest.raises(AirflowFailException) as caught:
        task.execute({})

    says = "save_results_to: got 'unset: say in the Variable batch_results_folder where to save results'; it must be a"
    assert str(caught.value).startswith(says)


def test_one_run_at_a_time_and_none_for_the_past(example: Callable[[str], Any]) -> None:
    dag = example("scheduled_teardown")

    assert dag.max_active_runs == 1
    assert not dag.catchup
