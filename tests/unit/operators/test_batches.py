from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches.api import DeletedBatch, MessageBatch, NotFoundError
from airflow_provider_batches.operators import batches as module
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.waiting.outcome import Outcome

OPERATORS = [CancelBatchOperator, DeleteBatchOperator]


def _batch(status: str) -> MessageBatch:
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return MessageBatch(id="msgbatch_1", processing_status=status, request_counts={}, created_at=now, expires_at=now)


@pytest.fixture
def client(mocker: Any) -> Any:
    made = mocker.patch("airflow_provider_batches._base.BatchesHook").return_value
    client = made.get_conn.return_value
    client.cancel.return_value = _batch("canceling")
    client.find.return_value = _batch("ended")
    client.delete.return_value = DeletedBatch(id="msgbatch_1", type="message_batch_deleted")
    return client


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
    options: dict[str, Any] = {"poll_interval": timedelta(minutes=1), "timeout": timedelta(hours=1)}
    operator = CancelBatchOperator(task_id="task", batch_id="msgbatch_1", wait_for_completion=True, **options)
    assert (operator.poll_interval, operator.timeout) == (60.0, 3600.0)


@pytest.mark.parametrize("name", ["poll_interval", "timeout"])
@pytest.mark.parametrize("value", [0, -1, "60", None])
def test_another_duration_is_refused_when_the_dag_is_read(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got"):
        CancelBatchOperator(task_id="task", batch_id="msgbatch_1", **{name: value})


def test_the_default_timeout_outlasts_every_batch() -> None:
    assert CancelBatchOperator(task_id="task", batch_id="msgbatch_1").timeout == 25 * 3600


def test_a_cancel_returns_the_id_and_pushes_the_batch(client: Any, ti: Any) -> None:
    assert CancelBatchOperator(task_id="task", batch_id="msgbatch_1").execute({"ti": ti}) == "msgbatch_1"
    client.cancel.assert_called_once_with("msgbatch_1", confirm=False)
    ti.xcom_push.assert_called_once_with(key="batch", value=_batch("canceling").snapshot())


def test_a_cancel_does_not_wait_unless_requested(client: Any, ti: Any, mocker: Any) -> None:
    wait = mocker.patch.object(CancelBatchOperator, "_wait")
    CancelBatchOperator(task_id="task", batch_id="msgbatch_1").execute({"ti": ti})
    wait.assert_not_called()


def test_deferrable_without_a_wait_is_an_error_when_the_dag_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="deferrable: it has no effect without wait_for_completion=True"):
        CancelBatchOperator(task_id="task", batch_id="msgbatch_1", deferrable=True)
    CancelBatchOperator(task_id="task", batch_id="msgbatch_1", default_args={"deferrable": True})
    monkeypatch.setattr(module, "DEFAULT_DEFERRABLE", True)
    CancelBatchOperator(task_id="task", batch_id="msgbatch_1", deferrable=True)


@pytest.mark.parametrize("name", ["poll_interval", "timeout"])
def test_an_option_of_the_wait_without_a_wait_is_an_error_when_the_dag_is_parsed(name: str) -> None:
    option: dict[str, Any] = {name: 30}
    with pytest.raises(ValueError, match=f"{name}: it has no effect without wait_for_completion=True"):
        CancelBatchOperator(task_id="task", batch_id="msgbatch_1", **option)
    CancelBatchOperator(task_id="task", batch_id="msgbatch_1", default_args=option)
    CancelBatchOperator(task_id="task", batch_id="msgbatch_1", wait_for_completion=True, **option)


@pytest.mark.parametrize("operator", [CancelBatchOperator, DeleteBatchOperator])
def test_a_flag_that_is_a_text_is_read_as_what_it_says(operator: Any) -> None:
    assert not operator(task_id="task", batch_id="msgbatch_1", ignore_if_missing="False").ignore_if_missing
    flags: dict[str, Any] = {"deferrable": "False", "wait_for_completion": "False"}
    assert not CancelBatchOperator(task_id="task", batch_id="msgbatch_1", **flags).deferrable
    with pytest.raises(ValueError, match="ignore_if_missing: got 'maybe'; it must be True or False"):
        operator(task_id="task", batch_id="msgbatch_1", ignore_if_missing="maybe")


@pytest.mark.parametrize("operator", [CancelBatchOperator, DeleteBatchOperator])
def test_a_task_that_is_cleared_after_its_batch_was_deleted_names_the_option_for_that(
    operator: Any, client: Any, ti: Any
) -> None:
    client.find.side_effect = client.cancel.side_effect = NotFoundError("No such batch.", status=404)
    with pytest.raises(AirflowFailException, match=r"If it was deleted on purpose, set ignore_if_missing=True\.$"):
        operator(task_id="task", batch_id="msgbatch_1").execute({"ti": ti})


def test_a_delete_returns_the_id_and_pushes_batch_and_deletion(client: Any, ti: Any) -> None:
    assert DeleteBatchOperator(task_id="task", batch_id="msgbatch_1").execute({"ti": ti}) == "msgbatch_1"
    pushed = {call.kwargs["key"]: call.kwargs["value"] for call in ti.xcom_push.call_args_list}
    assert pushed["batch"] == _batch("ended").snapshot()
    assert set(pushed["deletion"]) == {"batch_id", "deleted_at", "request_id"}


def test_a_delete_is_not_sent_for_a_batch_that_is_running(client: Any, ti: Any) -> None:
    client.find.return_value = _batch("in_progress")
    with pytest.raises(AirflowException, match="only after it has ended") as caught:
        DeleteBatchOperator(task_id="task", batch_id="msgbatch_1").execute({"ti": ti})
    assert type(caught.value) is AirflowException
    client.delete.assert_not_called()


@pytest.mark.parametrize("call", ["find", "delete"])
def test_a_retry_that_finds_no_batch_has_deleted_it_before(call: str, client: Any, ti: Any) -> None:
    getattr(client, call).side_effect = NotFoundError("gone", status=404)
    operator = DeleteBatchOperator(task_id="task", batch_id="msgbatch_1", retries=1)

    ti.max_tries = 1
    with pytest.raises(AirflowFailException, match="gone"):
        operator.execute({"ti": ti})
    ti.try_number = 2
    assert operator.execute({"ti": ti}) == "msgbatch_1"


@pytest.mark.parametrize("ignore_if_missing", [False, True])
@pytest.mark.parametrize(("try_number", "seen"), [(1, None), (2, datetime.fromtimestamp(0, timezone.utc))])
def test_a_missing_batch_that_would_be_success_is_confirmed_by_the_list(
    try_number: int, seen: datetime | None, ignore_if_missing: bool, client: Any, ti: Any
) -> None:
    ti.max_tries, ti.try_number = 1, try_number
    options: dict[str, Any] = {"batch_id": "msgbatch_1", "ignore_if_missing": ignore_if_missing}
    DeleteBatchOperator(task_id="task", retries=1, **options).execute({"ti": ti})
    CancelBatchOperator(task_id="task", **options).execute({"ti": ti})
    # On a retry no page of the list may have it, however old it is.
    client.find.assert_called_once_with("msgbatch_1", seen, confirm=ignore_if_missing)
    assert client.cancel.call_args.kwargs == {"confirm": ignore_if_missing}
    # The batch has been seen by then: it is gone only if the list no longer has it.
    client.delete.assert_called_once_with("msgbatch_1", _batch("ended").created_at)


def test_a_canceled_batch_is_waited_for_as_one_that_was_seen(client: Any, ti: Any, mocker: Any) -> None:
    wait = mocker.patch.object(CancelBatchOperator, "_wait", return_value=[Outcome("ended", "msgbatch_1", "")])
    CancelBatchOperator(task_id="task", batch_id="msgbatch_1", wait_for_completion=True).execute({"ti": ti})
    ((made,), leave) = wait.call_args.args
    assert (made.seen_since, leave) == (_batch("canceling").created_at.timestamp(), None)
