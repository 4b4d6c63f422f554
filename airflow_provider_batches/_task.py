"""What the operators and the sensor share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches.api import BatchesError, MessageBatch, Outcome, Wait
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

    def __init__(self, *, batch_id: str, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_id = batch_id
        self.conn_id = conn_id

    @cached_property
    def hook(self) -> BatchesHook:
        """The hook of the task's connection."""
        return BatchesHook(conn_id=self.conn_id)

    def _push_batch(self, context: Context, batch: MessageBatch | None) -> None:
        if batch:
            context["ti"].xcom_push(key="batch", value=batch.snapshot())

    def _wait(self, wait: Wait, leave: Callable[[Wait, float], None] | None) -> Outcome:
        """Return how the wait ends, having looked on the worker.

        :param wait: What is waited for.
        :param leave: What ends this run of the task after some seconds, handed the wait and the pause until its next
            look; None to stay on the worker.
        """
        now = time.time()
        # What is over before the next process could look is not worth leaving.
        stays = leave is None or wait.end_time <= now + WORKER_SECONDS + FIRST_LOOK
        until = float("inf") if stays else now + WORKER_SECONDS
        verdict = look_until(wait, self.hook.get_conn(), self.log, until=until)
        if verdict.outcome is None and leave is not None:
            leave(wait, verdict.pause)
        if verdict.outcome is None:
            raise AssertionError("a wait that stays ends with an outcome")  # pragma: no cover
        return verdict.outcome

    def _leave_to_triggerer(self, wait: Wait, cancel_on_kill: bool = False) -> None:
        """Defer the task; `execute_complete` goes on."""
        now = time.time()
        self.log.info("Batch %s has not ended yet; the wait goes on in the triggerer", wait.batch_id)
        self.defer(
            trigger=BatchEndedTrigger(
                batch_id=wait.batch_id,
                conn_id=self.conn_id,
                poll_interval=wait.poll_interval,
                start_time=now,
                end_time=wait.end_time,
                cancel_on_kill=cancel_on_kill,
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
        kind = AirflowException if error.transient else AirflowFailException
        raise kind(str(error)) from error


def check_seconds(name: str, value: object) -> float:
    """Return a duration in seconds.

    :raises ValueError: It is none.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
        raise ValueError(f"{name}: got {value!r}; it must be a timedelta or a number of seconds above 0.")
    return float(seconds)
