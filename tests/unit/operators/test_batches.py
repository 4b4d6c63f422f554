from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches.api import DeletedBatch, MessageBatch, NotFoundError
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator

OPERATORS = [CancelBatchOperator, DeleteBatchOperator]


def _batch(status: str) -> MessageBatch:
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return MessageBatch(id="msgbatch_1", processing_status=status, request_counts={}, created_at=now, expires_at=now)


@pytest.fixture
def hook(mocker: Any) -> Any:
    made = mocker.patch("airflow_provider_batches._task.BatchesHook").return_value
    made.cancel_batch.return_value = _batch("canceling")
    made.get_conn.return_value.find.return_value = _batch("ended")
    made.delete_batch.return_value = DeletedBatch(id="msgbatch_1")
    return made


@pytest.fixture
def ti(mocker: Any) -> Any:
    return mocker.Mock(try_number=1, max_tries=0)


@pytest.mark.parametrize("operator", OPERATORS)
def test_batch_and_connection_are_templates(operator: Any) -> None:
    assert list(operator.template_fields) == ["batch_id", "conn_id"]
    assert operator(task_id="task", batch_id="msgbatch_1").conn_id == "anthropic_default"


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_batch_has_to_be_named(operator: Any) -> None:
    with pytest.raises((TypeError, AirflowException), match="batch_id"):
        operator(task_id="task")


def test_poll_interval_and_timeout_are_seconds_or_timedeltas() -> None:
    operator = CancelBatchOperator(
        task_id="task", batch_id="msgbatch_1", poll_interval=timedelta(minutes=1), timeout=timedelta(hours=1)
    )
    assert (operator.poll_interval, operator.timeout) == (60.0, 3600.0)


@pytest.mark.parametrize("name", ["poll_interval", "timeout"])
@pytest.mark.parametrize("value", [0, -1, "60", None])
def test_another_duration_is_refused_when_the_dag_is_read(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got"):
        CancelBatchOperator(task_id="task", batch_id="msgbatch_1", **{name: value})


def test_the_default_timeout_outlasts_every_batch() -> None:
    assert CancelBatchOperator(task_id="task", batch_id="msgbatch_1").timeout == 25 * 3600


def test_a_cancel_returns_the_id_and_pushes_the_batch(hook: Any, ti: Any) -> None:
    assert CancelBatchOperator(task_id="task", batch_id="msgbatch_1").execute({"ti": ti}) == "msgbatch_1"
    hook.cancel_batch.assert_called_once_with("msgbatch_1")
    ti.xcom_push.assert_called_once_with(key="batch", value=_batch("canceling").snapshot())


def test_a_cancel_does_not_wait_unless_asked(hook: Any, ti: Any, mocker: Any) -> None:
    wait = mocker.patch.object(CancelBatchOperator, "_wait")
    CancelBatchOperator(task_id="task", batch_id="msgbatch_1", deferrable=True).execute({"ti": ti})
    wait.assert_not_called()


def test_a_delete_returns_the_id_and_pushes_batch_and_deletion(hook: Any, ti: Any) -> None:
    assert DeleteBatchOperator(task_id="task", batch_id="msgbatch_1").execute({"ti": ti}) == "msgbatch_1"
    pushed = {call.kwargs["key"]: call.kwargs["value"] for call in ti.xcom_push.call_args_list}
    assert pushed["batch"] == _batch("ended").snapshot()
    assert set(pushed["deletion"]) == {"batch_id", "deleted_at", "request_id"}


def test_a_delete_is_not_sent_for_a_batch_that_runs(hook: Any, ti: Any) -> None:
    hook.get_conn.return_value.find.return_value = _batch("in_progress")
    with pytest.raises(AirflowException, match="only once it has ended") as caught:
        DeleteBatchOperator(task_id="task", batch_id="msgbatch_1").execute({"ti": ti})
    assert type(caught.value) is AirflowException
    hook.delete_batch.assert_not_called()


@pytest.mark.parametrize("when", ["at the look", "at the delete"])
def test_a_retry_that_finds_nothing_has_deleted_it_before(when: str, hook: Any, ti: Any) -> None:
    target = hook.get_conn.return_value.find if when == "at the look" else hook.delete_batch
    target.side_effect = NotFoundError("gone", status=404)
    operator = DeleteBatchOperator(task_id="task", batch_id="msgbatch_1", retries=1)

    ti.max_tries = 1
    with pytest.raises(AirflowFailException, match="gone"):
        operator.execute({"ti": ti})
    ti.try_number = 2
    assert operator.execute({"ti": ti}) == "msgbatch_1"
