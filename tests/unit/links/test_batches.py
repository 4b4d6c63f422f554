from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_batches.get_provider_info import get_provider_info
from airflow_provider_batches.links.batches import CONSOLE_URL, BatchesConsoleLink
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator, ListBatchesOperator
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

TASKS: list[tuple[Any, dict[str, Any]]] = [
    (CancelBatchOperator, {"batch_id": "msgbatch_1"}),
    (DeleteBatchOperator, {"batch_id": "{{ not.rendered }}"}),
    (BatchEndedSensor, {"batch_id": None}),
    (SaveBatchResultsOperator, {"batch_id": "msgbatch_1", "path": "/results"}),
    (ListBatchesOperator, {"older_than": "P1D"}),
    (TeardownBatchesOperator, {"older_than": "P1D", "discard_results": True}),
]


@pytest.mark.parametrize(("task", "options"), TASKS, ids=[task.__name__ for task, _ in TASKS])
def test_every_task_has_a_button_that_leads_to_the_console(task: Any, options: dict[str, Any]) -> None:
    operator = task(task_id="task", **options)
    (link,) = operator.operator_extra_links
    assert isinstance(link, BatchesConsoleLink)
    assert link.name == "Message Batches console"
    assert link.get_link(operator, ti_key=None) == CONSOLE_URL.format("default")  # type: ignore[arg-type]
    assert CONSOLE_URL.startswith("https://platform.claude.com/")


def test_it_leads_to_the_workspace_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = '{"workspace_id": "wrkspc_1"}'
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", f'{{"conn_type": "anthropic_batches", "password": "k", "extra": {extra}}}')
    operator = CancelBatchOperator(task_id="task", batch_id="msgbatch_1", conn_id="other")
    assert "/workspaces/wrkspc_1/" in BatchesConsoleLink().get_link(operator, ti_key=None)  # type: ignore[arg-type]


def test_airflow_finds_it() -> None:
    assert get_provider_info()["extra-links"] == [
        f"{BatchesConsoleLink.__module__}.{BatchesConsoleLink.__qualname__}",
    ]
