from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator, Fault

REFUSED = 400
BILLING = 402


@pytest.mark.batches_emulator(batch_seconds=1)
def test_the_results_are_saved_and_read_and_the_batch_is_deleted(
    run: Callable[..., Any], batches_emulator: Emulator, pipeline_folder: Path
) -> None:
    ended = run("submit_pipeline", prompts=["One?", "Two?"])

    assert ended.state == "success"
    assert set(ended.states.values()) == {"success"}
    assert ended.xcom("read_results") == {"succeeded": 2}
    assert (pipeline_folder / "results" / f"{ended.xcom('submit')[0]}.jsonl").read_bytes().count(b"\n") == 2
    assert (batches_emulator.count("create"), batches_emulator.count("results")) == (1, 1)
    assert batches_emulator.ids() == []


@pytest.mark.batches_emulator(batch_seconds=1)
def test_results_that_cannot_be_saved_fail_the_run_and_are_not_deleted(
    run: Callable[..., Any], batches_emulator: Emulator
) -> None:
    batches_emulator.fault(Fault(endpoint="results", status=REFUSED, times=None))

    ended = run("submit_pipeline")

    assert ended.state == "failed"
    assert (ended.states["save"], ended.states["tear_down"]) == ("failed", "failed")
    assert batches_emulator.ids() == [ended.xcom("submit")[0]]


@pytest.mark.batches_emulator(batch_seconds=1)
def test_a_saved_file_that_cannot_be_read_fails_the_run_and_is_kept(
    run: Callable[..., Any],
    batches_emulator: Emulator,
    pipeline_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow_provider_batches.api import BatchResult

    monkeypatch.setattr(BatchResult, "model_validate", None)

    ended = run("submit_pipeline")

    assert ended.state == "failed"
    assert (ended.states["read_results"], ended.states["tear_down"]) == ("failed", "success")
    assert (pipeline_folder / "results" / f"{ended.xcom('submit')[0]}.jsonl").exists()
    assert batches_emulator.ids() == []


def test_a_wait_that_fails_half_way_leaves_no_batch_running_and_saves_what_it_has(
    run: Callable[..., Any], batches_emulator: Emulator, pipeline_folder: Path
) -> None:
    batches_emulator.fault(Fault(endpoint="retrieve", status=BILLING, times=2))

    ended = run("submit_pipeline")

    assert ended.state == "failed"
    assert ended.states["wait"] == "failed"
    assert (ended.states["save"], ended.states["read_results"]) == ("upstream_failed", "upstream_failed")
    assert ended.states["tear_down"] == "success"
    assert (pipeline_folder / "results" / f"{ended.xcom('submit')[0]}.json").exists()
    assert batches_emulator.ids() == []


def test_a_batch_that_cannot_be_deleted_fails_the_run(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    batches_emulator.fault(Fault(endpoint="delete", status=REFUSED, times=None))
    batches_emulator.fault(Fault(endpoint="retrieve", status=BILLING, times=2))

    ended = run("submit_pipeline")

    assert ended.states["tear_down"] == "failed"
    assert ended.state == "failed"


@pytest.mark.batches_emulator(batch_seconds=0)
def test_a_create_whose_answer_was_lost_is_found(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    batches_emulator.fault(Fault(endpoint="create", applied=True, drop=True))

    ended = run("submit_pipeline")

    assert ended.state == "success"
    assert ended.xcom("read_results") == {"succeeded": 3}
    assert batches_emulator.count("create") == 1
    assert batches_emulator.ids() == []


def test_requests_that_are_refused_leave_nothing_to_tear_down(
    run: Callable[..., Any], batches_emulator: Emulator
) -> None:
    batches_emulator.fault(Fault(endpoint="create", status=REFUSED))

    ended = run("submit_pipeline")

    assert ended.state == "failed"
    assert (ended.states["submit"], ended.states["tear_down"]) == ("failed", "upstream_failed")


@pytest.mark.batches_emulator(batch_seconds=0)
def test_a_file_of_requests_is_submitted(run: Callable[..., Any], batches_emulator: Emulator, tmp_path: Path) -> None:
    params = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "{{ 6 * 7 }}"}]}
    lines = [json.dumps({"custom_id": f"row-{number}", "params": params}) for number in range(5)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))

    ended = run("submit_pipeline", requests=f"file://{tmp_path}/rows.jsonl")

    assert ended.xcom("read_results") == {"succeeded": 5}


@pytest.mark.parametrize("variables", [{}, {"submit_pipeline_folder": ""}])
def test_it_runs_before_anybody_has_set_a_folder(example: Callable[[str], Any], variables: dict[str, str]) -> None:
    dag = example("submit_pipeline")
    save, tear_down = dag.get_task("save"), dag.get_task("tear_down")
    assert save.partial_kwargs["path"] == tear_down.save_results_to
    assert (
        tear_down.render_template(tear_down.save_results_to, {"var": {"value": variables}})
        == "file:///tmp/batches/results"
    )
