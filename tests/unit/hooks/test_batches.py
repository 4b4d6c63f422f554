from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_provider_batches.api import AccessDeniedError, BatchesError, BatchTimeoutError, NotFoundError
from airflow_provider_batches.hooks.batches import BatchesHook, raise_unless_ended
from airflow_provider_batches.waiting.outcome import Outcome
from airflow_provider_batches.waiting.wait import Wait

LOG = logging.getLogger(__name__)


@pytest.mark.parametrize(
    ("status", "error"),
    [("timeout", BatchTimeoutError), ("missing", NotFoundError), ("refused", BatchesError)],
)
def test_a_wait_that_ended_otherwise_is_an_error(status: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="why"):
        raise_unless_ended(Outcome(status, "msgbatch_1", "why"))


def test_a_refusal_is_the_apis_own_error() -> None:
    refusal = AccessDeniedError("why", status=401)
    with pytest.raises(AccessDeniedError) as caught:
        raise_unless_ended(Outcome("refused", "msgbatch_1", "why", error=refusal))
    assert caught.value is refusal


@pytest.mark.parametrize("retryable", [True, False])
def test_a_refusal_that_the_triggerer_reports_is_as_retryable_as_there(retryable: bool) -> None:
    with pytest.raises(BatchesError) as caught:
        raise_unless_ended(Outcome("refused", "msgbatch_1", "why", retryable=retryable))
    assert caught.value.retryable is retryable


def test_a_wait_that_ended_well_is_none() -> None:
    raise_unless_ended(Outcome("ended", "msgbatch_1", "well"))


def test_every_secret_of_the_connection_is_masked_in_logs(mocker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-env")
    connection = Connection(
        conn_id="here",
        conn_type="anthropic_batches",
        password=" sk-ant-1 ",
        extra='{"headers": {"x-gateway-token": "t0ken", "x-team": "search"}, "proxy": "http://u:p%40ss@proxy:1"}',
    )
    mocker.patch.object(BatchesHook, "get_connection", return_value=connection)
    mask = mocker.patch("airflow_provider_batches.hooks.batches.mask_secret")

    assert BatchesHook("here").settings.api_key.get_secret_value() == "sk-ant-1"

    masked = {call.args[0] for call in mask.call_args_list}
    assert masked == {" sk-ant-1 ", "sk-ant-1", "sk-env", "t0ken", "p%40ss", "p@ss"}


def test_the_key_is_masked_even_if_the_settings_are_wrong(mocker: Any) -> None:
    connection = Connection(conn_id="here", conn_type="anthropic_batches", password="sk-ant-1", extra="{")
    mocker.patch.object(BatchesHook, "get_connection", return_value=connection)
    mask = mocker.patch("airflow_provider_batches.hooks.batches.mask_secret")
    assert not BatchesHook("here").test_connection()[0]
    assert "sk-ant-1" in {call.args[0] for call in mask.call_args_list}


@pytest.fixture
def lookup(mocker: Any) -> Any:
    connection = Connection(conn_id="here", conn_type="anthropic_batches", password="sk-ant-1")
    return mocker.patch.object(BatchesHook, "get_connection", return_value=connection)


def test_the_connection_is_looked_up_once(lookup: Any) -> None:
    hook = BatchesHook("here")
    assert hook.get_conn() is hook.get_conn()
    lookup.assert_called_once_with("here")


def test_nothing_is_looked_up_before_it_is_needed(lookup: Any) -> None:
    BatchesHook("here")
    lookup.assert_not_called()
    assert BatchesHook().conn_id == BatchesHook.default_conn_name == "anthropic_default"


def test_the_connection_can_be_read_again_for_a_new_key(lookup: Any) -> None:
    hook = BatchesHook("here")
    assert hook.settings.api_key.get_secret_value() == "sk-ant-1"
    lookup.return_value = Connection(conn_id="here", conn_type="anthropic_batches", password="sk-ant-2")
    assert hook.read_settings().api_key.get_secret_value() == "sk-ant-2"


async def test_an_async_client_reads_it_again_by_way_of_its_event_loop(lookup: Any, mocker: Any) -> None:
    """Airflow before 3.3 cannot be asked from any other thread of the triggerer."""
    bridge = mocker.spy(asyncio, "run_coroutine_threadsafe")
    async with await BatchesHook("here").aget_conn() as client:
        lookup.return_value = Connection(conn_id="here", conn_type="anthropic_batches", password="sk-ant-2")
        assert client._renew is not None
        renewed = await asyncio.to_thread(client._renew)
    assert renewed.api_key.get_secret_value() == "sk-ant-2"
    assert bridge.call_args.args[1] is asyncio.get_running_loop()


def test_a_wait_runs_in_a_thread_that_is_gone_afterwards(lookup: Any, mocker: Any) -> None:
    threads = []

    async def wait(*_: Any) -> list[Outcome]:
        threads.append(threading.current_thread())
        return [Outcome("ended", "msgbatch_1", "Ended.")]

    poller = mocker.patch("airflow_provider_batches.hooks.batches.Poller")
    poller.return_value.wait = wait
    now = time.time()
    one = Wait("msgbatch_1", poll_interval=60, start_time=now, end_time=now + 60)
    assert [outcome.status for outcome in BatchesHook("here").wait([one], LOG, list_failures=1)] == ["ended"]
    assert threads[0] is not threading.main_thread()
    assert threads[0] not in threading.enumerate()
    assert poller.call_args.kwargs == {"list_failures": 1}
