from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator
from tests.dags.conftest import ParamValidationError


def test_results_are_saved_before_the_batch_is_deleted(
    run: Callable[..., Any], batches_emulator: Emulator, tmp_path: Path
) -> None:
    batch_id = batches_emulator.add_batch(status="ended", age_seconds=7200)

    ended = run("teardown_batch", batch_id=batch_id, folder=tmp_path.as_uri())

    assert (ended.state, ended.states["discard"]) == ("success", "skipped")
    assert batches_emulator.batch(batch_id) is None
    assert len((tmp_path / f"{batch_id}.jsonl").read_bytes().splitlines()) == 100


def test_a_running_batch_is_canceled_waited_for_and_discarded(
    run: Callable[..., Any], batches_emulator: Emulator
) -> None:
    batch_id = batches_emulator.add_batch(requests=100, status="in_progress")

    ended = run("teardown_batch", batch_id=batch_id, action="discard")

    assert (ended.state, ended.states["save"], ended.states["delete"]) == ("success", "skipped", "skipped")
    assert batches_emulator.batch(batch_id) is None
    assert [request.endpoint for request in batches_emulator.requests if request.method != "GET"] == [
        "cancel",
        "delete",
    ]


def test_cancel_deletes_nothing(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    batch_id = batches_emulator.add_batch(status="in_progress")

    ended = run("teardown_batch", batch_id=batch_id, action="cancel")

    assert (ended.state, ended.states["wait"]) == ("success", "success")
    assert {ended.states[task_id] for task_id in ("save", "delete", "discard")} == {"skipped"}
    assert batches_emulator.count("delete") == 0


def test_without_a_folder_nothing_is_sent(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    batch_id = batches_emulator.add_batch(status="in_progress")

    ended = run("teardown_batch", batch_id=batch_id)

    assert (ended.state, ended.states["check"]) == ("failed", "failed")
    assert batches_emulator.count() == 0


def test_a_save_that_fails_keeps_the_batch(run: Callable[..., Any], batches_emulator: Emulator, tmp_path: Path) -> None:
    batch_id = batches_emulator.add_batch(status="ended")
    (tmp_path / "file").write_text("")

    ended = run("teardown_batch", batch_id=batch_id, folder=(tmp_path / "file").as_uri())

    assert (ended.state, ended.states["delete"]) == ("failed", "upstream_failed")
    assert batches_emulator.ids() == [batch_id]


def test_each_task_returns_the_batch_id(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    batch_id = batches_emulator.add_batch(status="in_progress")

    ended = run("teardown_batch", batch_id=batch_id, action="discard")

    assert [ended.xcom(task_id) for task_id in ("cancel", "wait", "discard")] == [batch_id] * 3
    assert ended.xcom("wait", "batch")["request_counts"]["canceled"] == 100
    assert ended.xcom("discard", "deletion")["batch_id"] == batch_id


def test_an_unknown_batch_fails_the_run_before_anything_is_deleted(
    run: Callable[..., Any], batches_emulator: Emulator
) -> None:
    other = batches_emulator.add_batch(status="ended", age_seconds=7200)

    ended = run("teardown_batch", batch_id="msgbatch_typo", action="discard")

    assert (ended.state, ended.states["cancel"]) == ("failed", "failed")
    assert {ended.states[task_id] for task_id in ("wait", "choose", "discard")} == {"upstream_failed"}
    assert batches_emulator.ids() == [other]


def test_another_connection_can_be_named(
    run: Callable[..., Any], batches_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_OTHER_TEAM", batches_emulator.connection_json)
    monkeypatch.delenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT")
    batch_id = batches_emulator.add_batch(status="ended", age_seconds=7200)

    ended = run("teardown_batch", batch_id=batch_id, conn_id="anthropic_other_team", action="discard")

    assert ended.state == "success"
    assert batches_emulator.batch(batch_id) is None


@pytest.mark.parametrize("batch_id", ["msgbatch_013Zva2CMHLNnXjNJJKqJ2EF", "batch-1", "a.b~c_D"])
def test_the_form_takes_what_may_be_an_id(example: Callable[[str], Any], batch_id: str) -> None:
    form = example("teardown_batch").params
    form["batch_id"] = batch_id

    form.validate()


@pytest.mark.parametrize(
    "batch_id",
    [
        "",
        " ",
        " msgbatch_1",
        "msgbatch 1",
        "..",
        "../messages",
        "a/b",
        "a?b",
        "a#b",
        "a%2Fb",
        "ä",
        "{{ 1 }}",
        "x" * 257,
    ],
)
def test_the_form_refuses_what_is_not_an_id(example: Callable[[str], Any], batch_id: str) -> None:
    form = example("teardown_batch").params

    with pytest.raises(ParamValidationError, match="batch_id"):
        form["batch_id"] = batch_id


def test_the_form_refuses_connections_to_other_systems(example: Callable[[str], Any]) -> None:
    form = example("teardown_batch").params

    with pytest.raises(ParamValidationError, match="conn_id"):
        form["conn_id"] = "postgres_default"
