"""The sensor that waits for message batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseSensorOperator
from airflow.triggers.base import StartTriggerArgs

from airflow_provider_batches._compat import (
    STARTS_FROM_TRIGGER,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
    conf,
)
from airflow_provider_batches._task import (
    BACKSTOP,
    BatchTask,
    airflow_errors,
    time_to_wait,
)
from airflow_provider_batches.api import AsyncBatchesClient, BatchesError, Outcome, Wait
from airflow_provider_batches.api.endpoints import check_batch_ids
from airflow_provider_batches.api.poller import PATIENCE, Poller
from airflow_provider_batches.api.waiting import check_seconds, combine
from airflow_provider_batches.hooks.batches import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT, BatchesHook
from airflow_provider_batches.triggers.batches import CANCELS, FIRST_LOOK, BatchEndedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class BatchEndedSensor(BatchTask, BaseSensorOperator):
    """Waits until a message batch has ended: succeeded, errored, canceled or expired; or until several have.

    A canceled batch is success, so that a delete behind it runs. The sensor looks at once and again after two
    seconds; then at pauses that double up to `poke_interval`. In all three modes (poke, reschedule, deferrable) a wait
    ends the same way. An outage of the API does not end it; a refused key does at once.

    Returns the batch ID, or the list of them. Pushes the XCom `batch`: the last snapshot of the batch, or for several
    how many have ended (`total`, `ended`), which are `missing`, and the sum of their `request_counts`.

    See https://docs.claude.com/en/api/retrieving-message-batches.

    :param batch_id: The batch, or a list of batches that one task waits for (templated).
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :param deferrable: Whether to wait in the triggerer instead of on the worker. Default: Airflow's
        `[operators] default_deferrable`.
    :param fail_on_partial_error: Whether a batch with errored or expired requests fails the task. Default False: a
        warning in the log.
    :param ignore_if_missing: Whether a batch that the API does not know is success. Default False.
    :param cancel_on_kill: Whether to cancel the batch when a person ends the task, though not when its time is over.
        Default False: a sensor does not own the batch. For a deferred task this takes Airflow 3.3+.
    :param start_from_trigger: Whether a deferrable task begins in the triggerer, without a process on a worker.
        Default False. Takes Airflow 3.3+; before, and for mapped tasks, the task begins on a worker as ever. The
        batch ID must be literal or a template on `params` or `dag_run.conf`.
    :param end_from_trigger: Whether a deferrable task whose wait succeeds ends in the triggerer, without a process on
        a worker. Default False. Such a task pushes no XCom, neither its result nor `batch`, and runs no listeners and
        no callbacks. A wait that fails ends on a worker as ever, with its retries and callbacks.
    :param poke_interval: Seconds (or timedelta) between looks once the wait has settled. Default 60. With
        `exponential_backoff` the pauses go on doubling up to `max_wait`.
    :param timeout: Seconds (or timedelta) until the wait is given up. Default 25 hours, since the API ends every
        batch within 24. A shorter `execution_timeout` counts in every mode.
    """

    def __init__(
        self,
        *,
        batch_id: str | list[str],
        conn_id: str = BatchesHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        fail_on_partial_error: bool = False,
        ignore_if_missing: bool = False,
        cancel_on_kill: bool = False,
        start_from_trigger: bool = False,
        end_from_trigger: bool = False,
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
        self._timed_out = False
        self.end_from_trigger = end_from_trigger
        self._wants_trigger_start = deferrable and start_from_trigger
        # A mapped task begins on a worker, which can read XComs.
        if self._wants_trigger_start and not getattr(self, "_BaseOperator__from_mapped", False):
            _check_start_from_trigger(batch_id=batch_id, conn_id=conn_id)
        self.start_from_trigger = self._wants_trigger_start and STARTS_FROM_TRIGGER
        if self.start_from_trigger:
            limit = time_to_wait(self, self.timeout)
            self.start_trigger_args = StartTriggerArgs(
                trigger_cls=f"{BatchEndedTrigger.__module__}.{BatchEndedTrigger.__qualname__}",
                trigger_kwargs={
                    "batch_id": batch_id,
                    "conn_id": conn_id,
                    "poll_interval": self._longest_pause,
                    "timeout": limit,
                    **self._trigger_options,
                },
                next_method="execute_complete",
                timeout=timedelta(seconds=limit + BACKSTOP),
            )

    def execute(self, context: Context) -> str | list[str]:
        """Wait for the batches."""
        if self._wants_trigger_start:
            self.log.info("This task begins on a worker: start_from_trigger takes Airflow 3.3+ and no mapped task")
        with self._failures():
            batch_ids = check_batch_ids(self.batch_id)
            if not batch_ids:
                self.log.warning("The list of batches is empty: there is nothing to wait for")
                return []
            several = batch_ids != [self.batch_id]
            start, end = self._times(context)
            waits = [
                Wait(batch_id, poll_interval=self._longest_pause, start_time=start, end_time=end)
                for batch_id in batch_ids
            ]

            def defer(pause: float) -> None:
                target = batch_ids if several else batch_ids[0]
                self._leave_to_triggerer(target, waits[0], **self._trigger_options)

            def reschedule(pause: float) -> None:
                # This process does not know how long an outage has lasted: it settles by the time that has passed.
                now = time.time()
                settled = min(self._longest_pause, now - start, end - now)
                pause = max(pause, settled, min(self._longest_pause, FIRST_LOOK))
                raise AirflowRescheduleException(datetime.now(timezone.utc) + timedelta(seconds=pause))

            leave = defer if self.deferrable else reschedule if self.reschedule else None
            return self._finish(context, self._wait_for_all(waits, leave) if several else self._wait(waits[0], leave))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str | list[str]:
        """Go on with what the trigger found."""
        with self._failures():
            return self._finish(context, Outcome.from_event(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral.

        Airflow's own version drops the reason of a skip, and before 3.1 fails where `soft_fail` should skip.
        """
        with self._failures():
            try:
                return BaseOperator.resume_execution(self, next_method, next_kwargs, context)
            except TaskDeferralTimeout as error:
                raise AirflowSensorTimeout(*error.args) from error

    def poke(self, context: Context) -> bool:
        """Return whether all batches have ended at this moment."""
        with self._failures():
            return all(self.hook.get_batch(batch_id).ended for batch_id in check_batch_ids(self.batch_id))

    def on_kill(self) -> None:
        """Cancel the batches if asked to, since the task is ended on its worker."""
        # Airflow also calls this where the execution_timeout is over, and then the batches go on.
        if not self.cancel_on_kill or self._timed_out:
            return
        self.hook.get_conn()
        # At once, since Airflow leaves a task only some seconds to end.
        with ThreadPoolExecutor(CANCELS) as pool:
            list(pool.map(self._cancel, check_batch_ids(self.batch_id)))

    def _cancel(self, batch_id: str) -> None:
        try:
            batch = self.hook.cancel_batch(batch_id)
        except BatchesError as error:
            self.log.warning("The task is ended, but batch %s is not canceled: %s", batch_id, error)
            return
        self.log.info(
            "The task is ended: batch %s is %s (request-id %s)", batch_id, batch.processing_status, batch.request_id
        )

    @property
    def _longest_pause(self) -> float:
        if not self.exponential_backoff:
            return float(self.poke_interval)
        return float(self.max_wait.total_seconds() if self.max_wait else self.timeout)

    @property
    def _trigger_options(self) -> dict[str, bool]:
        return {
            "ignore_if_missing": self.ignore_if_missing,
            "fail_on_partial_error": self.fail_on_partial_error,
            "cancel_on_kill": self.cancel_on_kill,
            "end_from_trigger": self.end_from_trigger,
        }

    def _times(self, context: Context) -> tuple[float, float]:
        start = time.time()
        if self.reschedule and not self.deferrable:
            first = context["ti"].get_first_reschedule_date(context)
            start = first.timestamp() if first else start
        return start, start + time_to_wait(self, self.timeout)

    def _wait_for_all(self, waits: list[Wait], leave: Callable[[float], None] | None) -> Outcome:
        """Return how a wait for several batches ends, looked at through a poller on this worker."""
        batch_ids = [wait.batch_id for wait in waits]
        settings = self.hook.settings

        async def open_client() -> AsyncBatchesClient:
            return AsyncBatchesClient(settings)

        async def look() -> Outcome | None:
            seconds = self._leaves_at(waits[0], leave) - time.time()
            # A process that soon leaves again has no time to be patient with a broken list.
            poller = Poller(open_client, 1 if self.reschedule else PATIENCE)
            watch = asyncio.ensure_future(poller.wait(waits, time.time(), self.log.info, self._fails))
            await asyncio.wait([watch], timeout=seconds if seconds < float("inf") else None)
            # The next process would begin to doubt anew, and never come to believe that a batch is missing. Unlike a
            # trigger it would also be no quicker than this one, where the answers take longer than it may stay.
            while not watch.done() and any(wait.doubtful or not (wait.answered or self.deferrable) for wait in waits):
                await asyncio.wait([watch], timeout=1)
            if not watch.done():
                watch.cancel()
                await asyncio.wait([watch])
                return None
            outcomes = watch.result()
            return combine(batch_ids, outcomes, ignore_if_missing=self.ignore_if_missing)

        outcome = asyncio.run(look())
        if outcome is None and leave is not None:
            leave(self.poke_interval)
        if outcome is None:
            raise AssertionError("a wait that stays ends with an outcome")  # pragma: no cover
        return outcome

    def _fails(self, outcome: Outcome) -> bool:
        return outcome.ends_the_others(ignore_if_missing=self.ignore_if_missing)

    def _finish(self, context: Context, outcome: Outcome) -> str | list[str]:
        self._push_batch(context, outcome.snapshot)
        if outcome.status == "timeout":
            cut = time_to_wait(self, self.timeout) < self.timeout
            raise (AirflowTaskTimeout if cut else AirflowSensorTimeout)(outcome.message)
        failure = outcome.failure(
            ignore_if_missing=self.ignore_if_missing, fail_on_partial_error=self.fail_on_partial_error
        )
        if failure:
            raise AirflowFailException(failure) from outcome.error
        counts = outcome.request_counts
        (self.log.warning if counts.errored or counts.expired else self.log.info)(outcome.message)
        return outcome.batch_id

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Fail as Airflow does, or skip where `soft_fail` or `never_fail` says so: the same in every mode."""
        final = (AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout, TaskDeferralError)
        try:
            with airflow_errors():
                yield
        except (AirflowSkipException, AirflowRescheduleException):
            raise
        except (Exception, AirflowTaskTimeout) as error:
            self._timed_out = isinstance(error, AirflowTaskTimeout)
            if self.never_fail or (self.soft_fail and isinstance(error, final)):
                name = "soft_fail" if self.soft_fail else "never_fail"
                raise AirflowSkipException(f"Skipped, since {name} is set: {error}") from error
            raise


def _check_start_from_trigger(**fields: object) -> None:
    """Refuse what the triggerer cannot resolve before the task begins: it would wait for the XCom for good."""
    for name, value in fields.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        for item in items:
            if not isinstance(item, str) or "xcom" in item:
                raise ValueError(
                    f"{name}: start_from_trigger is set, but {item!r} takes an XCom, which cannot be read before the "
                    "task begins: the wait would hang. Use a literal or a template on params or dag_run.conf, or "
                    "leave start_from_trigger out."
                )
