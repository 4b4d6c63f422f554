from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_batches.get_provider_info import get_provider_info
from airflow_provider_batches.links.batches import CONSOLE_URL, BatchesConsoleLink
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

TASKS = [CancelBatchOperator, DeleteBatchOperator, BatchEndedSensor]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_the_button(task: Any) -> None:
    (link,) = task(task_id="task", batch_id="msgbatch_1").operator_extra_links
    assert isinstance(link, BatchesConsoleLink)
    assert link.name == "Message Batches console"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("batch_id", ["msgbatch_1", "{{ not.rendered }}", None])
def test_it_leads_to_the_console_whatever_became_of_the_task(task: Any, batch_id: Any) -> None:
    operator = task(task_id="task", batch_id=batch_id)
    assert BatchesConsoleLink().get_link(operator, ti_key=None) == CONSOLE_URL  # type: ignore[arg-type]
    assert CONSOLE_URL.startswith("https://platform.claude.com/")


def test_airflow_is_told_of_it() -> None:
    assert get_provider_info()["extra-links"] == [
        f"{BatchesConsoleLink.__module__}.{BatchesConsoleLink.__qualname__}",
    ]
