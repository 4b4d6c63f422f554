from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches._task import BACKSTOP, BatchTask, airflow_errors
from airflow_provider_batches.api import (
    AccessDeniedError,
    APIConnectionError,
    BatchesError,
    InvalidArgumentError,
    NotFoundError,
    RateLimitError,
    ServerError,
    SpendLimitError,
)
from airflow_provider_batches.api.waiting import Wait


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidArgumentError("x"), AirflowFailException),
        (AccessDeniedError("x", status=401), AirflowFailException),
        (SpendLimitError("x", status=402), AirflowFailException),
        (NotFoundError("x", status=404), AirflowFailException),
        (BatchesError("x"), AirflowFailException),
        (RateLimitError("x", status=429), AirflowException),
        (ServerError("x", status=500), AirflowException),
        (APIConnectionError("x"), AirflowException),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_fails_the_task_without_retries_where_these_are_no_use(
    error: BatchesError, kind: type[Exception]
) -> None:
    with pytest.raises(AirflowException, match=r"^x$") as caught, airflow_errors():
        raise error
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), airflow_errors():
        raise ZeroDivisionError


def test_the_hook_is_that_of_the_rendered_connection() -> None:
    task = BatchTask(task_id="task", batch_id="msgbatch_1", conn_id="{{ params.conn }}")
    task.render_template_fields({"params": {"conn": "other"}})
    assert task.hook.conn_id == "other"
    assert task.hook is task.hook


def test_a_task_can_be_copied() -> None:
    task = BatchTask(task_id="task", batch_id="msgbatch_1", conn_id="other")
    assert copy.deepcopy(task).batch_id == "msgbatch_1"


def test_airflow_s_own_limit_of_a_deferral_lies_behind_the_trigger_s(mocker: Any) -> None:
    task = BatchTask(task_id="task", batch_id="msgbatch_1", conn_id="other")
    defer = mocker.patch.object(BatchTask, "defer")
    now = time.time()
    task._leave_to_triggerer("msgbatch_1", Wait("msgbatch_1", poll_interval=7, start_time=now, end_time=now + 1000))
    kwargs = defer.call_args.kwargs
    stored = kwargs["trigger"].serialize()[1]
    assert stored["end_time"] == now + 1000
    assert stored["start_time"] == pytest.approx(now, abs=5)
    assert (stored["batch_id"], stored["conn_id"], stored["poll_interval"]) == ("msgbatch_1", "other", 7)
    assert kwargs["timeout"].total_seconds() == pytest.approx(1000 + BACKSTOP, abs=5)
    assert kwargs["method_name"] == "execute_complete"
