"""The sensor that waits for message batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator, BaseSensorOperator
from airflow.triggers.base import StartTriggerArgs

from airflow_provider_batches._arguments import read_batch_ids, read_flag, read_seconds
from airflow_provider_batches._base import (
    BACKSTOP,
    DEFAULT_DEFERRABLE,
    IF_DELETED,
    BatchTask,
    airflow_errors,
    refuse_without_effect,
    time_to_wait,
)
from airflow_provider_batches._compat import (
    STARTS_FROM_TRIGGER,
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
)
from airflow_provider_batches._on_kill import cancel_for_user
from airflow_provider_batches.api import AsyncBatchesClient
from airflow_provider_batches.hooks.batches import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT, BatchesHook
from airflow_provider_batches.triggers.batches import FIRST_POLL, BatchEndedTrigger
from airflow_provider_batches.waiting.outcome import Outcome, combine
from airflow_provider_batches.waiting.poller import LIST_FAILURES
from airflow_provider_batches.waiting.thread import run_in_thread
from airflow_provider_batches.waiting.wait import Wait

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_batches._base import BatchIds, Templated


#: Seconds for which `on_kill` may run; Airflow kills the process after five.
KILL_SECONDS = 4.0


class BatchEndedSensor(BatchTask, BaseSensorOperator):
    """Waits until a message batch has ended: succeeded, errored, canceled or expired; or until several have.

    A canceled batch is success, so that a downstream delete runs. The sensor polls at once and again after two seconds;
    then the pauses double up to `poll_interval`. A wait ends the same way in all three modes (poke, reschedule,
    deferrable). An outage of the API does not end it.

    Returns the batch ID, or the list of them. Pushes the XCom `batch`: the last snapshot of the batch, or for several
    batches how many have ended (`total`, `ended`), which are `missing`, and the sum of their `request_counts`.

    See https://docs.claude.com/en/api/retrieving-message-batches.

    :param batch_id: The batch, or a list of batches that one task waits for (templated).
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :param deferrable: Whether to wait in the triggerer instead of on the worker. Default: Airflow's
        `[operators] default_deferrable`.
    :param fail_on_partial_error: Whether errored or expired requests fail the task. Default False: a warning is logged.
    :param ignore_if_missing: Whether a batch that was not found is success. Default False.
    :param cancel_on_kill: Whether to cancel the batch when a user marks the running or deferred task, or its run, as
        failed or success. Default False: a sensor does not own the batch. A clear, a timeout, `dagrun_timeout`, a
        stopped worker or an unreachable API server cancels nothing. If Airflow marks the task as failed because its
        worker has not reported for `[scheduler] task_instance_heartbeat_timeout`, it looks marked by a user. Requires
        Airflow 3.0.4+, for a deferred task 3.3+.
    :param start_from_trigger: Whether a deferrable task begins in the triggerer, without a process on a worker. Default
        False. Requires Airflow 3.3+; in earlier versions, and if mapped, the task begins on a worker. The batch ID must
        be literal or a template on `params` or `dag_run.conf`.
    :param end_from_trigger: Whether a deferrable task whose wait succeeds ends in the triggerer, without a process on
        a worker. Default False. Such a task pushes no XCom, neither its result nor `batch`, and runs no listeners and
        no callbacks. A wait that fails ends on a worker, with its retries and callbacks.
    :param poll_interval: Seconds (or timedelta) between polls; the first polls are more frequent. Default 60. With
        `exponential_backoff` the pauses continue to double up to `max_wait`.
    :param poke_interval: The same, by the name that Airflow's sensors use.
    :param timeout: Seconds (or timedelta) until the wait times out. Default 25 hours, because the API ends every batch
        within 24. A shorter `execution_timeout` takes precedence in every mode.
    """

    def __init__(
        self,
        *,
        batch_id: BatchIds,
        conn_id: Templated[str] = BatchesHook.default_conn_name,
        deferrable: bool = DEFAULT_DEFERRABLE,
        fail_on_partial_error: bool = False,
        ignore_if_missing: bool = False,
        cancel_on_kill: bool = False,
        start_from_trigger: bool = False,
        end_from_trigger: bool = False,
        poll_interval: float | timedelta | None = None,
        poke_interval: float | timedelta | None = None,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        if poll_interval is not None and poke_interval is not None:
            raise ValueError("poll_interval, poke_interval: both are given. Set only one: they mean the same.")
        name = "poll_interval" if poke_interval is None else "poke_interval"
        interval = next((each for each in (poll_interval, poke_interval) if each is not None), DEFAULT_POLL_INTERVAL)
        super().__init__(
            batch_id=batch_id,
            conn_id=conn_id,
            poke_interval=read_seconds(name, interval),
            timeout=read_seconds("timeout", timeout),
            **kwargs,
        )
        self.deferrable = read_flag("deferrable", deferrable)
        self.fail_on_partial_error = read_flag("fail_on_partial_error", fail_on_partial_error)
        self.ignore_if_missing = read_flag("ignore_if_missing", ignore_if_missing)
        self.cancel_on_kill = read_flag("cancel_on_kill", cancel_on_kill)
        self.end_from_trigger = read_flag("end_from_trigger", end_from_trigger)
        start_from_trigger = read_flag("start_from_trigger", start_from_trigger)
        ways = {"start_from_trigger": start_from_trigger, "end_from_trigger": self.end_from_trigger}
        for way, is_set in ways.items():
            if is_set and not self.deferrable:
                refuse_without_effect(kwargs.get("default_args"), way, "deferrable=True")
        if self.reschedule and self.deferrable and not DEFAULT_DEFERRABLE:
            refuse_without_effect(kwargs.get("default_args"), "mode", "deferrable=False")
        self._ti: Any = None
        self._wants_trigger_start = self.deferrable and start_from_trigger
        # A mapped task begins on a worker, which can read XComs.
        if self._wants_trigger_start and not getattr(self, "_BaseOperator__from_mapped", False):
            _check_start_from_trigger(batch_id=batch_id, conn_id=conn_id)
        self.start_from_trigger = self._wants_trigger_start and STARTS_FROM_TRIGGER
        if self.start_from_trigger:
            seconds = time_to_wait(self, self.timeout)
            given = {"batch_id": batch_id, "conn_id": conn_id, "poll_interval": self._longest_pause, "timeout": seconds}
            self.start_trigger_args = StartTriggerArgs(
                trigger_cls=f"{BatchEndedTrigger.__module__}.{BatchEndedTrigger.__qualname__}",
                trigger_kwargs={**given, **self._trigger_options},
                next_method="execute_complete",
                timeout=timedelta(seconds=seconds + BACKSTOP),
            )

    def execute(self, context: Context) -> str | list[str]:
        """Wait for the batches."""
        self._ti = context["ti"]
        if self._wants_trigger_start:
            self.log.info(
                "This task begins on a worker: start_from_trigger requires Airflow 3.3+ and a task that is not mapped"
            )
        with self._failures():
            batch_ids = read_batch_ids(self.batch_id)
            if not batch_ids:
                self.log.warning("The list of batches is empty: there is nothing to wait for")
                return []
            several = batch_ids != [self.batch_id]
            waits = self._waits(context, batch_ids)
            leave: Callable[[], None] | None = None
            if self.deferrable:
                target = batch_ids if several else batch_ids[0]
                leave = partial(self._leave_to_triggerer, target, waits, **self._trigger_options)
            elif self.reschedule:
                leave = partial(self._leave_until_later, waits[0])
            # In reschedule mode, the process ends too soon to retry the list.
            failures = 1 if self.reschedule else LIST_FAILURES
            ignore = self.ignore_if_missing
            outcomes = self._wait(
                waits, leave, lambda outcome: outcome.fails_all(ignore_if_missing=ignore), list_failures=failures
            )
            whole = combine(batch_ids, outcomes, ignore_if_missing=ignore) if several else outcomes[0]
            return self._finish(context, whole)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str | list[str]:
        """Continue with what the trigger found."""
        with self._failures():
            return self._finish(context, Outcome.from_event(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral."""
        # Airflow's own version drops the reason of a skip, and before 3.1 fails although `soft_fail` should skip.
        with self._failures():
            try:
                return BaseOperator.resume_execution(self, next_method, next_kwargs, context)
            except TaskDeferralTimeout as error:
                raise AirflowSensorTimeout(*error.args) from error

    def poke(self, context: Context) -> bool:
        """Return whether all batches have ended."""
        with self._failures():
            return all(self.hook.get_batch(batch_id).ended for batch_id in read_batch_ids(self.batch_id))

    def on_kill(self) -> None:
        """Cancel the batches if requested and if a user marked the task."""
        if not self.cancel_on_kill:
            return

        async def connect() -> AsyncBatchesClient:
            return AsyncBatchesClient(self.hook.settings)

        try:
            batch_ids = read_batch_ids(self.batch_id)
            work = cancel_for_user(self._ti, batch_ids, self.conn_id, connect, self.log, KILL_SECONDS)
            run_in_thread(work, KILL_SECONDS + 1)
        except Exception as error:
            # This interrupts the task's own code, which must not receive the error.
            self.log.warning("The task is being ended, and its batches are not canceled: %s", error)

    @property
    def _longest_pause(self) -> float:
        if not self.exponential_backoff:
            return float(self.poke_interval)
        return float(self.max_wait.total_seconds() if self.max_wait else self.timeout)

    @property
    def _trigger_options(self) -> dict[str, bool]:
        names = ("ignore_if_missing", "fail_on_partial_error", "cancel_on_kill", "end_from_trigger")
        return {name: getattr(self, name) for name in names}

    def _waits(self, context: Context, batch_ids: list[str]) -> list[Wait]:
        rescheduled = self.reschedule and not self.deferrable
        first = context["ti"].get_first_reschedule_date(context) if rescheduled else None
        start = first.timestamp() if first else time.time()
        make = partial(
            Wait,
            poll_interval=self._longest_pause,
            start_time=start,
            end_time=start + time_to_wait(self, self.timeout),
            # An earlier process has seen the batch, but could not pass on when it was created.
            seen_since=0.0 if first else None,
            confirm=self.ignore_if_missing,
        )
        return [make(batch_id) for batch_id in batch_ids]

    def _leave_until_later(self, wait: Wait) -> NoReturn:
        # This process does not know how long an outage has lasted, so the pause depends on the time since the start.
        now = time.time()
        settled = min(wait.poll_interval, now - wait.start_time, wait.end_time - now)
        pause = max(settled, min(wait.poll_interval, FIRST_POLL))
        raise AirflowRescheduleException(datetime.now(timezone.utc) + timedelta(seconds=pause))

    def _finish(self, context: Context, outcome: Outcome) -> str | list[str]:
        self._push_batch(context, outcome.snapshot)
        if outcome.status == "timeout":
            cut = time_to_wait(self, self.timeout) < self.timeout
            raise (AirflowTaskTimeout if cut else AirflowSensorTimeout)(outcome.message)
        failure = outcome.failure(
            ignore_if_missing=self.ignore_if_missing, fail_on_partial_error=self.fail_on_partial_error
        )
        if failure:
            failure = f"{failure} {IF_DELETED}" if outcome.status == "missing" else failure
            raise (AirflowException if outcome.retryable else AirflowFailException)(failure) from outcome.error
        counts = outcome.request_counts
        (self.log.warning if counts.errored or counts.expired else self.log.info)(outcome.message)
        return outcome.batch_id

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Raise Airflow's errors, or skip if `soft_fail` or `never_fail` is set: the same in every mode."""
        final = (AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout, TaskDeferralError)
        try:
            with airflow_errors():
                yield
        except (AirflowSkipException, AirflowRescheduleException):
            raise
        except (Exception, AirflowTaskTimeout) as error:
            if self.never_fail or (self.soft_fail and isinstance(error, final)):
                name = "soft_fail" if self.soft_fail else "never_fail"
                raise AirflowSkipException(f"Skipped because {name} is set: {error}") from error
            raise


def _check_start_from_trigger(**fields: object) -> None:
    """Refuse XComs: the triggerer cannot resolve them before the task begins, and would wait permanently."""
    for name, value in fields.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(item, str) or "xcom" in item:
                raise ValueError(
                    f"{name}: start_from_trigger is set, but {item!r} takes an XCom, for which the triggerer "
                    "would wait permanently. Use a literal or a template on params or dag_run.conf, or omit "
                    "start_from_trigger."
                )
