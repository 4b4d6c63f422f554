"""What the operators and the sensor share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches.api import BatchesError, Outcome, Wait
from airflow_provider_batches.hooks.batches import BatchesHook, look_until
from airflow_provider_batches.links.batches import BatchesConsoleLink
from airflow_provider_batches.triggers.batches import FIRST_LOOK, BatchEndedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Seconds for which a deferrable task looks on its worker first: a canceled batch has often ended by then, and
#: resuming a deferred task costs the start of a second process.
WORKER_SECONDS = 4.0
#: Seconds by which Airflow's own limit of a deferral lies behind the trigger's, so that the two do not race.
BACKSTOP = 300.0


class BatchTask(BaseOperator):
    """A task on one batch: its fields, its hook, its XCom and its way of waiting."""

    template_fields: Sequence[str] = ("batch_id", "conn_id")
    operator_extra_links = (BatchesConsoleLink(),)
    ui_color = "#f3e5dc"

    def __init__(self, *, batch_id: str | list[str], conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_id = batch_id
        self.conn_id = conn_id

    @cached_property
    def hook(self) -> BatchesHook:
        """The hook of the task's connection."""
        return BatchesHook(conn_id=self.conn_id)

    def _push_batch(self, context: Context, snapshot: dict[str, Any] | None) -> None:
        if snapshot:
            context["ti"].xcom_push(key="batch", value=snapshot)

    def _wait(self, wait: Wait, leave: Callable[[float], None] | None) -> Outcome:
        """Return how the wait ends, having looked on the worker.

        :param wait: What is waited for.
        :param leave: Ends this run of the task after some seconds, by an exception of Airflow's; it is handed the
            pause until the next look. None to stay on the worker.
        """
        verdict = look_until(wait, self.hook.get_conn(), self.log, until=self._leaves_at(wait, leave))
        if verdict.outcome is None and leave is not None:
            leave(verdict.pause)
        if verdict.outcome is None:
            raise AssertionError("a wait that stays ends with an outcome")  # pragma: no cover
        return verdict.outcome

    def _leaves_at(self, wait: Wait, leave: Callable[[float], None] | None) -> float:
        now = time.time()
        # What is over before the next process could look is not worth leaving.
        stays = leave is None or wait.end_time <= now + WORKER_SECONDS + FIRST_LOOK
        return float("inf") if stays else now + WORKER_SECONDS

    def _leave_to_triggerer(self, batch_id: str | list[str], wait: Wait, **options: bool) -> None:
        """Defer the task; `execute_complete` goes on.

        :param options: Parameters of the trigger.
        """
        now = time.time()
        self.log.info("Not ended yet; the wait goes on in the triggerer")
        self.defer(
            trigger=BatchEndedTrigger(
                batch_id=batch_id,
                conn_id=self.conn_id,
                poll_interval=wait.poll_interval,
                start_time=now,
                end_time=wait.end_time,
                **options,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=wait.end_time - now + BACKSTOP),
        )


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn the client's errors into Airflow's: where trying again is no use, the task fails without its retries."""
    try:
        yield
    except BatchesError as error:
        kind = AirflowException if error.passing else AirflowFailException
        raise kind(str(error)) from error


def time_to_wait(task: BaseOperator, timeout: float) -> float:
    """Return for how many seconds a task may wait: `timeout`, or its `execution_timeout` where that is shorter."""
    # Airflow does not enforce an execution_timeout while a task is deferred, or between reschedules.
    return min(timeout, task.execution_timeout.total_seconds()) if task.execution_timeout else timeout


def is_retry(task: BaseOperator, context: Context) -> bool:
    """Return whether Airflow runs the task again by itself. A person who clears it starts with a first try."""
    ti = context["ti"]
    return ti.try_number > ti.max_tries - (task.retries or 0) + 1


def run_start(context: Context) -> datetime:
    """Return when the run began, the same in all tries of a task."""
    run = context.get("dag_run")
    for name in ("start_date", "run_after"):
        found = getattr(run, name, None)
        if isinstance(found, datetime):
            return found
    return datetime.now(timezone.utc)
