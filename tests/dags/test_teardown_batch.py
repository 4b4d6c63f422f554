from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator
from tests.dags.conftest import ParamValidationError


def test_a_running_batch_is_canceled_waited_for_and_deleted(
    run: Callable[..., Any], batches_emulator: Emulator
) -> None:
    batch_id = batches_emulator.add_batch(requests=100, status="in_progress")

    ended = run("teardown_batch", batch_id=batch_id)

    assert ended.state == "success"
    assert batches_emulator.batch(batch_id) is None
    assert [request.endpoint for request in batches_emulator.requests if request.method != "GET"] == [
        "cancel",
        "delete",
    ]


def test_each_task_returns_the_batch_id(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    batch_id = batches_emulator.add_batch(status="in_progress")

    ended = run("teardown_batch", batch_id=batch_id)

    assert [ended.xcom(task_id) for task_id in ("cancel", "wait", "delete")] == [batch_id] * 3
    assert ended.xcom("wait", "batch")["request_counts"]["canceled"] == 100
    assert ended.xcom("delete", "deletion")["batch_id"] == batch_id


def test_a_batch_that_has_ended_is_deleted(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    batch_id = batches_emulator.add_batch(status="ended", age_seconds=7200)

    assert run("teardown_batch", batch_id=batch_id).state == "success"
    assert batches_emulator.batch(batch_id) is None


def test_an_unknown_batch_fails_the_run_before_anything_is_deleted(
    run: Callable[..., Any], batches_emulator: Emulator
) -> None:
    other = batches_emulator.add_batch(status="ended", age_seconds=7200)

    ended = run("teardown_batch", batch_id="msgbatch_typo")

    assert ended.state == "failed"
    assert ended.states == {"cancel": "failed", "wait": "upstream_failed", "delete": "upstream_failed"}
    assert batches_emulator.ids() == [other]


def test_another_connection_can_be_named(
    run: Callable[..., Any], batches_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_OTHER_TEAM", batches_emulator.connection_json)
    monkeypatch.delenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT")
    batch_id = batches_emulator.add_batch(status="ended", age_seconds=7200)

    assert run("teardown_batch", batch_id=batch_id, conn_id="anthropic_other_team").state == "success"
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
