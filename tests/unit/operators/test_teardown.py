from __future__ import annotations

import inspect
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_batches.operators.teardown import TeardownBatchesOperator

TEMPLATE = "{{ params.x }}"
SAVES = {"save_results_to": "s3://bucket/results"}


def _operator(**arguments: Any) -> TeardownBatchesOperator:
    return TeardownBatchesOperator(task_id="task", older_than="P7D", **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"save_results_to": None},
        {"discard_results": False},
        {"discard_results": "false"},
        {"report_only": False},
        # It may render to False.
        {"report_only": TEMPLATE},
    ],
    ids=str,
)
def test_deleting_unsaved_without_saying_so_is_an_error_when_the_dag_is_parsed(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="save_results_to, discard_results: neither is given"):
        _operator(**arguments)


@pytest.mark.parametrize("discard_results", [True, "True"])
@pytest.mark.parametrize("report_only", [False, True, TEMPLATE])
def test_saving_and_discarding_at_once_is_an_error_when_the_dag_is_parsed(
    discard_results: Any, report_only: Any
) -> None:
    with pytest.raises(ValueError, match="save_results_to, discard_results: both are given"):
        _operator(**SAVES, discard_results=discard_results, report_only=report_only)


@pytest.mark.parametrize(
    "arguments",
    [
        SAVES,
        {"save_results_to": TEMPLATE},
        {**SAVES, "discard_results": False},
        {**SAVES, "discard_results": TEMPLATE},
        {**SAVES, "report_only": TEMPLATE},
        {"discard_results": True},
        {"discard_results": "true", "report_only": TEMPLATE},
        {"discard_results": TEMPLATE},
        {"report_only": True},
    ],
    ids=str,
)
def test_what_becomes_of_the_results_is_said_by_one_argument(arguments: dict[str, Any]) -> None:
    assert _operator(**arguments).task_id == "task"


def test_every_template_field_has_the_name_of_its_argument() -> None:
    arguments = {name for each in TeardownBatchesOperator.__mro__ for name in inspect.signature(each).parameters}
    assert arguments.issuperset(TeardownBatchesOperator.template_fields)


@pytest.mark.parametrize("name", ["report_only", "discard_results", "save_results_to"])
@pytest.mark.parametrize("mapped", [False, True])
def test_an_argument_that_another_task_returns_makes_that_task_its_upstream(name: str, mapped: bool) -> None:
    with DAG("dag"):

        @task
        def upstream() -> Any: ...

        output = upstream()
        # Saving or discarding is to be said beside a report.
        options: dict[str, Any] = {name: output, **({} if name == "save_results_to" else SAVES)}
        made: Any = (
            TeardownBatchesOperator.partial(task_id="task", **options).expand(batch_ids=[["a"], ["b"]])
            if mapped
            else TeardownBatchesOperator(task_id="task", batch_ids=["a"], **options)
        )

    assert made.upstream_task_ids == {"upstream"}
