"""The sensor that waits for message batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from airflow_provider_batches._compat import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    conf,
)
from airflow_provider_batches._task import BatchTask, airflow_errors, check_seconds
from airflow_provider_batches.api import Outcome, Wait, check_batch_id
from airflow_provider_batches.hooks.batches import (
    DEFAULT_POLL_INTERVAL,
    DEFAULT_TIMEOUT,
    BatchesHook,
    ended_batch,
)
from airflow_provider_batches.triggers.batches import FIRST_LOOK

if TYPE_CHECKING:
    from airflow.sdk import Context


class BatchEndedSensor(BatchTask, BaseSensorOperator):
    """Waits until a message batch has ended: succeeded, errored, canceled or expired.

    A canceled batch is success, so that a delete behind it runs. It looks at once and again after two seconds; then
    at pauses that double up to `poke_interval`. In all three modes (poke, reschedule, deferrable) a wait ends the same
    way. An outage of the API does not end it; a refused key does at once.

    Returns the batch ID. Pushes the XCom `batch`, the last snapshot of the batch.

    See https://docs.claude.com/en/api/retrieving-message-batches.

    :param batch_id: The batch (templated).
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :param deferrable: Whether to wait in the triggerer instead of on the worker. Default: Airflow's
        `[operators] default_deferrable`.
    :param fail_on_partial_error: Whether a batch with errored or expired requests fails the task. Default False: a
        warning in the log.
    :param ignore_if_missing: Whether a batch that the API does not know is success. Default False.
    :param cancel_on_kill: Whether to cancel the batch when a person ends the task. Default False: a sensor does not
        own the batch. For a deferred task this takes Airflow 3.3+.
    :param poke_interval: Seconds (or timedelta) between looks once the wait has settled. Default 60. With
        `exponential_backoff` the pauses go on doubling up to `max_wait`.
    :param timeout: Seconds (or timedelta) until the wait is given up. Default 25 hours, since the API ends every
        batch within 24. A shorter `execution_timeout` counts in every mode.
    """

    def __init__(
        self,
        *,
        batch_id: str,
        conn_id: str = BatchesHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        fail_on_partial_error: bool = False,
        ignore_if_missing: bool = False,
        cancel_on_kill: bool = False,
        poke_interval: float | timedelta = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            batch_id=batch_id,
            conn_id=conn_id,
            poke_interval=check_seconds("poke_interval", poke_interval),
            timeout=check_seconds("timeout", timeout),
            **kwargs,
        )
        self.deferrable = deferrable
        self.fail_on_partial_error = fail_on_partial_error
        self.ignore_if_missing = ignore_if_missing
        self.cancel_on_kill = cancel_on_kill

    def execute(self, context: Context) -> str:
        """Wait for the batch."""
        with self._failures():
            batch_id = check_batch_id(self.batch_id)
            leave = self._defer if self.deferrable else self._reschedule if self.reschedule else None
            return self._finish(context, self._wait(self._new_wait(batch_id, context), leave))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Go on with what the trigger found."""
        with self._failures():
            return self._finish(context, Outcome.from_event(event))

    def poke(self, context: Context) -> bool:
        """Return whether the batch has ended at this moment."""
        with self._failures():
            return self.hook.get_batch(check_batch_id(self.batch_id)).ended

    def on_kill(self) -> None:
        """Cancel the batch if asked to, since the task is ended on its worker."""
        if self.cancel_on_kill:
            batch = self.hook.cancel_batch(check_batch_id(self.batch_id))
            self.log.info(
                "The task is ended: batch %s is %s (request-id %s)", batch.id, batch.processing_status, batch.request_id
            )

    def _new_wait(self, batch_id: str, context: Context) -> Wait:
        start = time.time()
        if self.reschedule and not self.deferrable:
            first = context["ti"].get_first_reschedule_date(context)
            start = first.timestamp() if first else start
        longest: float = self.poke_interval
        if self.exponential_backoff or self.max_wait:
            longest = self.max_wait.total_seconds() if self.max_wait else self.timeout
        return Wait(
            batch_id, poll_interval=longest, start_time=start, end_time=start + min(self.timeout, self._hard_limit)
        )

    @property
    def _hard_limit(self) -> float:
        # Airflow does not enforce it while a task is deferred or between reschedules.
        return self.execution_timeout.total_seconds() if self.execution_timeout else float("inf")

    def _defer(self, wait: Wait, pause: float) -> None:
        self._leave_to_triggerer(wait, self.cancel_on_kill)

    def _reschedule(self, wait: Wait, pause: float) -> None:
        pause = max(pause, min(wait.poll_interval, FIRST_LOOK))
        raise AirflowRescheduleException(datetime.now(timezone.utc) + timedelta(seconds=pause))

    def _finish(self, context: Context, outcome: Outcome) -> str:
        self._push_batch(context, outcome.batch)
        if outcome.status == "missing" and self.ignore_if_missing:
            self.log.warning("%s", outcome.message)
            return outcome.batch_id
        if outcome.status == "timeout":
            raise (AirflowTaskTimeout if self._hard_limit < self.timeout else AirflowSensorTimeout)(outcome.message)
        counts = ended_batch(outcome).request_counts
        failed = counts.errored + counts.expired
        if failed and self.fail_on_partial_error:
            raise AirflowFailException(
                f"{outcome.message} {failed} requests did not succeed, and fail_on_partial_error is set. The results "
                "of the others can still be read."
            )
        self.log.log(logging.WARNING if failed else logging.INFO, "%s", outcome.message)
        return outcome.batch_id

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Fail as Airflow does, or skip where `soft_fail` or `never_fail` says so: the same in every mode."""
        try:
            with airflow_errors():
                yield
        except (AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout) as error:
            if self.soft_fail or self.never_fail:
                name = "soft_fail" if self.soft_fail else "never_fail"
                raise AirflowSkipException(f"Skipped, since {name} is set: {error}") from error
            raise
