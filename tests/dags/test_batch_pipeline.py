from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator, Fault

TEARDOWN = ("cancel", "wait_for_cancel", "delete")
REFUSED = 400
BILLING = 402


@pytest.mark.batches_emulator(batch_seconds=1)
def test_the_results_are_read_and_the_batch_is_deleted(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    ended = run("batch_pipeline", prompts=["One?", "Two?"])

    assert ended.state == "success"
    assert set(ended.states.values()) == {"success"}
    assert ended.xcom("read_results") == {"succeeded": 2}
    assert batches_emulator.count("create") == 1
    assert batches_emulator.ids() == []


@pytest.mark.batches_emulator(batch_seconds=1)
def test_results_that_cannot_be_read_fail_the_run_and_the_batch_is_deleted(
    run: Callable[..., Any], batches_emulator: Emulator
) -> None:
    batches_emulator.fault(Fault(endpoint="results", status=REFUSED, times=None))

    ended = run("batch_pipeline")

    assert ended.state == "failed"
    assert ended.states["read_results"] == "failed"
    assert {ended.states[task_id] for task_id in TEARDOWN} == {"success"}
    assert batches_emulator.ids() == []


def test_a_wait_that_fails_half_way_leaves_no_batch_running(
    run: Callable[..., Any], batches_emulator: Emulator
) -> None:
    batches_emulator.fault(Fault(endpoint="retrieve", status=BILLING, times=2))

    ended = run("batch_pipeline")

    assert ended.state == "failed"
    assert ended.states["wait"] == "failed"
    assert ended.states["read_results"] == "upstream_failed"
    assert {ended.states[task_id] for task_id in TEARDOWN} == {"success"}
    assert batches_emulator.ids() == []


def test_a_batch_that_cannot_be_deleted_fails_the_run(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    batches_emulator.fault(Fault(endpoint="delete", status=REFUSED, times=None))
    batches_emulator.fault(Fault(endpoint="retrieve", status=BILLING, times=2))

    ended = run("batch_pipeline")

    assert ended.states["delete"] == "failed"
    assert ended.state == "failed"


def test_a_create_whose_answer_was_lost_is_not_repeated(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    batches_emulator.fault(Fault(endpoint="create", applied=True, drop=True))

    ended = run("batch_pipeline")

    assert ended.state == "failed"
    assert batches_emulator.count("create") == 1
    assert ended.states["create"] == "failed"
    assert {ended.states[task_id] for task_id in TEARDOWN} == {"upstream_failed"}


def test_creating_is_never_retried(example: Callable[[str], Any]) -> None:
    dag = example("batch_pipeline")

    assert dag.get_task("create").retries == 0
    assert dag.get_task("delete").retries > 0
