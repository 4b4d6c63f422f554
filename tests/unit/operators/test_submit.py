from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_batches.operators.submit import SubmitBatchesOperator


def make(**kwargs: Any) -> SubmitBatchesOperator:
    return SubmitBatchesOperator(**{"task_id": "submit", "requests": [], "path": "file:///data", **kwargs})


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("path", "data", "it must be a URI like"),
        ("path", "file://data", "it must be absolute"),
        ("requests_per_batch", 0, "it must be a whole number above 0"),
        ("requests_per_batch", 100_001, "got 100001; it must be 100000 at most"),
        ("bytes_per_batch", 256_000_001, "it must be 256000000 at most"),
        ("max_requests_total", "many", "it must be a whole number above 0"),
        ("max_cost", -1, "it must be a number of dollars above 0"),
        ("prices", {"m": 1}, "in dollars per million tokens"),
        ("report_only", "maybe", "it must be True or False"),
        ("on_empty", "ignore", "it must be one of skip, fail"),
        ("on_doubt", "resubmit", "it must be one of wait, fail"),
        ("on_changed_input", None, "it must be one of fail, submit"),
        ("keep_requests", "no", "it must be True or False"),
        ("cancel_on_kill", 1, "it must be True or False"),
        ("poll_interval", 5, "it has no effect without wait_for_completion=True"),
        ("timeout", 5, "it has no effect without wait_for_completion=True"),
    ],
)
def test_a_wrong_argument_is_an_error_when_the_dag_is_parsed(argument: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: ") as caught:
        make(**{argument: value})
    assert message in str(caught.value)


@pytest.mark.parametrize("value", ["{{ params.x }}", "file:///data/{{ ds }}"])
def test_what_a_template_hides_is_checked_later(value: str) -> None:
    assert make(path=value, report_only="{{ params.dry }}", requests="{{ params.file }}").path == value


def test_a_callable_is_not_called_or_stored_by_airflow() -> None:
    def rows() -> list[Any]:
        raise AssertionError("It is called too early.")

    task = make(requests=rows)
    task.render_template_fields({"ti": None})  # type: ignore[typeddict-item]

    assert task.requests.endswith("rows")


def test_a_prompt_in_the_dag_file_is_rendered_like_any_template_field() -> None:
    task = make(requests=[{"custom_id": "a", "params": {"system": "{{ 6 * 7 }}"}}])
    task.render_template_fields({})

    assert task.requests == [{"custom_id": "a", "params": {"system": "42"}}]
