from __future__ import annotations

import copy
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_batches import _base
from airflow_provider_batches._base import BACKSTOP, BatchTask, airflow_errors, is_retry, run_start, time_to_wait
from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches.api import (
    AccessDeniedError,
    APIConnectionError,
    BatchesError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    ServerError,
    SpendLimitError,
)
from airflow_provider_batches.waiting.outcome import Outcome
from airflow_provider_batches.waiting.wait import Wait

NOW = 1_800_000_000.0
HOUR = 3600.0


def _task(**options: Any) -> BatchTask:
    return BatchTask(task_id="task", batch_id="msgbatch_1", conn_id="other", **options)


def _wait(number: int = 1, seen_since: float | None = None) -> Wait:
    return Wait(f"msgbatch_{number}", poll_interval=7, start_time=NOW, end_time=NOW + HOUR, seen_since=seen_since)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidArgumentError("", "x"), AirflowFailException),
        (SpendLimitError("x", status=402), AirflowFailException),
        (NotFoundError("x", status=404), AirflowFailException),
        (BatchesError("x"), AirflowFailException),
        (AccessDeniedError("x", status=401), AirflowException),
        (RateLimitError("x", status=429), AirflowException),
        (ServerError("x", status=500), AirflowException),
        (InvalidResponseError("x"), AirflowException),
        (APIConnectionError("x"), AirflowException),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_fails_the_task_without_retries_if_they_cannot_help(
    error: BatchesError, kind: type[Exception]
) -> None:
    with pytest.raises(AirflowException, match=r"^x$") as caught, airflow_errors():
        raise error
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), airflow_errors():
        raise ZeroDivisionError


def test_the_hook_is_that_of_the_rendered_connection() -> None:
    task = BatchTask(task_id="task", batch_id="msgbatch_1", conn_id="{{ params.conn }}")
    task.render_template_fields({"params": {"conn": "other"}})
    assert task.hook.conn_id == "other"
    assert task.hook is task.hook


def test_a_task_can_be_copied() -> None:
    assert copy.deepcopy(_task()).batch_id == "msgbatch_1"


def test_airflow_s_own_limit_of_a_deferral_lies_behind_the_trigger_s(mocker: Any) -> None:
    defer = mocker.patch.object(BatchTask, "defer")
    mocker.patch.object(time, "time", return_value=NOW + 10)

    _task()._leave_to_triggerer("msgbatch_1", [_wait()], cancel_on_kill=True)

    kwargs = defer.call_args.kwargs
    stored = kwargs["trigger"].serialize()[1]
    assert (stored["start_time"], stored["end_time"]) == (NOW + 10, NOW + HOUR)
    assert (stored["batch_id"], stored["conn_id"], stored["poll_interval"]) == ("msgbatch_1", "other", 7)
    assert (stored["cancel_on_kill"], stored["seen_since"]) == (True, None)
    assert kwargs["timeout"].total_seconds() == HOUR - 10 + BACKSTOP
    assert kwargs["method_name"] == "execute_complete"


def test_the_trigger_is_told_since_when_the_oldest_batch_can_be_listed(mocker: Any) -> None:
    defer = mocker.patch.object(BatchTask, "defer")
    _task()._leave_to_triggerer(["msgbatch_1"], [_wait(1, NOW), _wait(2, NOW - HOUR), _wait(3)])
    assert defer.call_args.kwargs["trigger"].serialize()[1]["seen_since"] == NOW - HOUR


class Left(BaseException):
    """This run of the task is over."""


def _leave() -> None:
    raise Left


@pytest.fixture
def waits(mocker: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Let the poller of a task return outcomes; returns how `_wait` ends, and when the poller was to be left."""
    monkeypatch.setattr(_base, "WORKER_SECONDS", 4.0)
    monkeypatch.setattr(_base, "FIRST_POLL", 10.0)
    hook = mocker.patch.object(_base, "BatchesHook").return_value

    def wait(*statuses: str, leave: Any = _leave, now: float = NOW, **options: Any) -> tuple[Any, float]:
        mocker.patch.object(time, "time", return_value=now)
        hook.wait.return_value = [Outcome(status, "x", "") for status in statuses]  # type: ignore[arg-type]
        try:
            found: Any = [each.status for each in _task()._wait([_wait(1), _wait(2)], leave, **options)]
        except Left:
            found = Left
        return found, hook.wait.call_args.args[3]

    return wait


@pytest.mark.parametrize(
    ("statuses", "options", "found"),
    [
        (["ended", "ended"], {}, ["ended", "ended"]),
        (["ended"], {}, Left),
        ([], {}, Left),
        (["missing"], {}, ["missing"]),
        (["missing"], {"gives_up": lambda outcome: False}, Left),
        (["missing", "timeout"], {"gives_up": lambda outcome: False}, ["missing", "timeout"]),
    ],
    ids=["all ended", "one ended", "none ended", "one fails all", "one is ignored", "all are over"],
)
def test_a_task_is_left_only_if_the_wait_continues(
    statuses: list[str], options: dict[str, Any], found: Any, waits: Callable[..., Any]
) -> None:
    assert waits(*statuses, **options) == (found, NOW + 4)


def test_a_wait_that_is_over_before_the_next_process_could_poll_is_not_left(waits: Callable[..., Any]) -> None:
    assert waits("ended", "timeout", now=NOW + HOUR - 14)[1] == float("inf")
    assert waits("ended", "timeout", now=NOW + HOUR - 15)[1] == NOW + HOUR - 15 + 4


def test_without_a_place_to_go_the_wait_stays_on_its_worker(waits: Callable[..., Any]) -> None:
    assert waits("ended", leave=None) == (["ended"], float("inf"))


@pytest.mark.parametrize(
    ("timeout", "execution_timeout", "seconds"),
    [(9, None, 9), (9, timedelta(seconds=5), 5), (5, timedelta(hours=1), 5)],
)
def test_a_shorter_execution_timeout_bounds_a_wait(timeout: float, execution_timeout: Any, seconds: float) -> None:
    assert time_to_wait(_task(execution_timeout=execution_timeout), timeout) == seconds


@pytest.mark.parametrize(
    ("try_number", "max_tries", "retried"),
    # Airflow adds to max_tries when a person clears the task.
    [(1, 2, False), (2, 2, True), (3, 2, True), (4, 5, False), (5, 5, True)],
)
def test_a_task_that_a_person_clears_is_not_a_retry(try_number: int, max_tries: int, retried: bool) -> None:
    context: Any = {"ti": SimpleNamespace(try_number=try_number, max_tries=max_tries)}
    assert is_retry(_task(retries=2), context) is retried


@pytest.mark.parametrize("start_date", [None, datetime(2026, 1, 2, tzinfo=timezone.utc)])
def test_a_clear_of_a_finished_run_does_not_change_from_when_its_tasks_count_back(start_date: datetime | None) -> None:
    """Airflow sets the run's start_date to None, and later to the time of the new start."""
    due = datetime(2026, 1, 1, tzinfo=timezone.utc)
    context: Any = {"dag_run": SimpleNamespace(start_date=start_date, run_after=due)}
    assert run_start(context) == due


@pytest.mark.parametrize("run", [None, SimpleNamespace(run_after=datetime(9999, 1, 1, tzinfo=timezone.utc))])
def test_no_run_counts_back_from_the_future(run: Any) -> None:
    assert run_start({"dag_run": run}) <= datetime.now(timezone.utc)
