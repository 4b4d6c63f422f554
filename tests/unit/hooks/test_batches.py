from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_provider_batches.api import (
    AccessDeniedError,
    BatchesError,
    BatchTimeoutError,
    MessageBatch,
    NotFoundError,
    Outcome,
    ServerError,
    Wait,
)
from airflow_provider_batches.hooks.batches import BatchesHook, look_until, raise_unless_ended

LOG = logging.getLogger(__name__)


def _batch(status: str) -> MessageBatch:
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return MessageBatch(id="msgbatch_1", processing_status=status, request_counts={}, created_at=now, expires_at=now)


class Client:
    """Gives one answer after the other."""

    def __init__(self, *answers: MessageBatch | BatchesError) -> None:
        self.answers = list(answers)

    def retrieve(self, batch_id: str, *, retries: int) -> MessageBatch:
        assert (batch_id, retries) == ("msgbatch_1", 0)
        answer = self.answers.pop(0)
        if isinstance(answer, BatchesError):
            raise answer
        return answer


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def _look(client: Client, clock: Clock, **limits: float) -> Any:
    wait = Wait("msgbatch_1", poll_interval=60, start_time=0, end_time=limits.pop("end_time", 1000))
    return look_until(wait, client, LOG, clock=clock, sleep=clock.sleep, **limits)  # type: ignore[arg-type]


def test_the_first_look_comes_at_once() -> None:
    clock = Clock()
    verdict = _look(Client(_batch("ended")), clock)
    assert (verdict.outcome.status, clock.slept) == ("ended", [])


def test_looks_go_on_until_the_batch_has_ended() -> None:
    clock = Clock()
    assert _look(Client(*[_batch("in_progress")] * 3, _batch("ended")), clock).outcome.status == "ended"
    assert clock.slept == [2, 2, 4]


def test_a_look_after_the_limit_is_left_to_others() -> None:
    clock = Clock()
    verdict = _look(Client(*[_batch("in_progress")] * 3), clock, until=3)
    assert (verdict.outcome, verdict.pause, clock.now) == (None, 2, 2)


def test_a_doubtful_batch_is_cleared_up_first() -> None:
    clock = Clock()
    verdict = _look(Client(*[NotFoundError("x", status=404)] * 4), clock, until=0)
    assert verdict.outcome.status == "missing"
    assert clock.now == 7


def test_the_last_look_is_at_the_end_of_the_time() -> None:
    clock = Clock()
    assert _look(Client(*[_batch("in_progress")] * 9), clock, end_time=5).outcome.status == "timeout"
    assert clock.now == 5


def test_news_are_logged_and_repetitions_are_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answers = [*[_batch("in_progress")] * 3, *[ServerError("broken.", status=500)] * 2, _batch("ended")]
    _look(Client(*answers), Clock())
    assert [("in_progress" in message, "broken" in message) for message in caplog.messages] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    ("status", "error"),
    [("timeout", BatchTimeoutError), ("missing", NotFoundError), ("refused", BatchesError)],
)
def test_a_wait_that_ended_otherwise_is_an_error(status: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="why"):
        raise_unless_ended(Outcome(status, "msgbatch_1", "why"))


def test_a_refusal_is_the_api_s_own_error() -> None:
    refusal = AccessDeniedError("why", status=401)
    with pytest.raises(AccessDeniedError) as caught:
        raise_unless_ended(Outcome("refused", "msgbatch_1", "why", error=refusal))
    assert caught.value is refusal


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


def test_the_key_is_masked_even_where_the_settings_are_wrong(mocker: Any) -> None:
    connection = Connection(conn_id="here", conn_type="anthropic_batches", password="sk-ant-1", extra="{")
    mocker.patch.object(BatchesHook, "get_connection", return_value=connection)
    mask = mocker.patch("airflow_provider_batches.hooks.batches.mask_secret")
    assert not BatchesHook("here").test_connection()[0]
    assert "sk-ant-1" in {call.args[0] for call in mask.call_args_list}


def test_the_connection_is_looked_up_once(mocker: Any) -> None:
    connection = Connection(conn_id="here", conn_type="anthropic_batches", password="sk-ant-1")
    lookup = mocker.patch.object(BatchesHook, "get_connection", return_value=connection)
    hook = BatchesHook("here")
    assert hook.get_conn() is hook.get_conn()
    lookup.assert_called_once_with("here")


def test_nothing_is_looked_up_before_it_is_needed(mocker: Any) -> None:
    lookup = mocker.patch.object(BatchesHook, "get_connection")
    BatchesHook("here")
    lookup.assert_not_called()
    assert BatchesHook().conn_id == BatchesHook.default_conn_name == "anthropic_default"
