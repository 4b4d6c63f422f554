"""What operators and sensors share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import BaseOperator

from airflow_provider_batches import _metrics
from airflow_provider_batches._compat import AirflowException, AirflowFailException, conf
from airflow_provider_batches.api import BatchesError, InvalidArgumentError
from airflow_provider_batches.hooks.batches import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT, BatchesHook
from airflow_provider_batches.links.batches import BatchesConsoleLink
from airflow_provider_batches.triggers.batches import FIRST_POLL, BatchEndedTrigger
from airflow_provider_batches.waiting.outcome import Outcome
from airflow_provider_batches.waiting.wait import Wait

if TYPE_CHECKING:
    from typing import TypeAlias

    from airflow.sdk import Context, XComArg

    T = TypeVar("T")
    #: What a template field accepts: a value, or the output of an upstream task.
    Templated: TypeAlias = T | XComArg
    #: One ID, or several.
    BatchIds: TypeAlias = str | Sequence[str | XComArg] | XComArg

#: Seconds for which a deferrable task polls on its worker first: a canceled batch has often ended by then, and
#: resuming a deferred task costs the start of a second process.
WORKER_SECONDS = 4.0
#: Seconds between the trigger's timeout and Airflow's timeout of the deferral, so that they do not race.
BACKSTOP = 300.0
#: Airflow's default of `deferrable`.
DEFAULT_DEFERRABLE: bool = conf.getboolean("operators", "default_deferrable", fallback=False)
#: The section of Airflow's configuration.
SECTION = "message_batches"
IF_DELETED = "If it was deleted on purpose, set ignore_if_missing=True."


class BatchesOperator(BaseOperator):
    """A task with a connection, its hook, and its way of waiting until batches have ended."""

    operator_extra_links = (BatchesConsoleLink(),)
    ui_color = "#f3e5dc"

    def __init__(self, *, conn_id: Templated[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Airflow replaces template fields before the task runs.
        self.conn_id: Any = conn_id

    @cached_property
    def hook(self) -> BatchesHook:
        """The hook of the task's connection."""
        return BatchesHook(conn_id=self.conn_id)

    def _defer(
        self, batch_id: str | list[str], *, end_time: float, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Defer the task until batches have ended; Airflow resumes it in `execute_complete`.

        :param kwargs: Arguments of `execute_complete` besides the event.
        :param options: Parameters of the trigger.
        """
        now = time.time()
        self.log.info("Not ended yet; deferring. The wait continues in the triggerer, so one must be running.")
        self.defer(
            trigger=BatchEndedTrigger(batch_id, self.conn_id, start_time=now, end_time=end_time, **options),
            method_name="execute_complete",
            kwargs=kwargs,
            timeout=timedelta(seconds=end_time - now + BACKSTOP),
        )

    def _push_batch(self, context: Context, snapshot: dict[str, Any] | None) -> None:
        if snapshot:
            context["ti"].xcom_push(key="batch", value=snapshot)

    def _wait(
        self,
        waits: list[Wait],
        leave: Callable[[], None] | None,
        gives_up: Callable[[Outcome], bool] = lambda outcome: outcome.status != "ended",
        **options: int,
    ) -> list[Outcome]:
        """Poll on the worker, and return the outcomes of the waits. All have the same end time.

        :param leave: Ends this run of the task after some seconds, by an exception of Airflow's. None to stay.
        :param gives_up: Whether an outcome ends all waits.
        :param options: Parameters of the poller.
        """
        leave_at = time.time() + WORKER_SECONDS
        # A wait that times out before the triggerer could poll stays on the worker.
        if leave is None or waits[0].end_time <= leave_at + FIRST_POLL:
            leave_at = float("inf")
        outcomes = self.hook.wait(waits, self.log, gives_up, leave_at, **options)
        if leave and len(outcomes) < len(waits) and not any(map(gives_up, outcomes)):
            leave()
        _metrics.count_ended(self.conn_id, outcomes, waits)
        return outcomes

    def _leave_to_triggerer(self, batch_id: str | list[str], waits: list[Wait], **options: Any) -> None:
        """Continue waits in the triggerer."""
        seen = min((wait.seen_since for wait in waits if wait.seen_since is not None), default=None)
        interval, end_time = waits[0].poll_interval, waits[0].end_time
        self._defer(batch_id, end_time=end_time, poll_interval=interval, seen_since=seen, **options)


def refuse_without_effect(default_args: dict[str, Any] | None, name: str, needs: str) -> None:
    """Refuse an option that has no effect, unless it is in `default_args`, which several tasks share.

    :param needs: What it would have an effect with.
    """
    if name not in (default_args or {}):
        raise ValueError(f"{name}: it has no effect without {needs}. Set that, too, or leave {name} out.")


def refuse_waiting(default_args: dict[str, Any] | None, poll_interval: object, timeout: object) -> None:
    """Refuse the options of a wait for a task that does not wait."""
    is_set = {"poll_interval": poll_interval != DEFAULT_POLL_INTERVAL, "timeout": timeout != DEFAULT_TIMEOUT}
    for name in (name for name, given in is_set.items() if given):
        refuse_without_effect(default_args, name, "wait_for_completion=True")


class BatchTask(BatchesOperator):
    """A task on one batch or several."""

    template_fields: Sequence[str] = ("batch_id", "conn_id")

    def __init__(self, *, batch_id: BatchIds, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_id: Any = batch_id


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn the client's errors into Airflow's: if a retry cannot help, the task fails without its retries."""
    try:
        yield
    except BatchesError as error:
        kind = AirflowException if error.retryable else AirflowFailException
        raise kind(str(error)) from error


def time_to_wait(task: BaseOperator, timeout: float) -> float:
    """Return for how many seconds a task may wait: `timeout`, or its `execution_timeout` if that is shorter."""
    # Airflow does not enforce an execution_timeout while a task is deferred, or between reschedules.
    return min(timeout, task.execution_timeout.total_seconds()) if task.execution_timeout else timeout


def is_retry(task: BaseOperator, context: Context) -> bool:
    """Return whether Airflow retries the task. A person who clears it starts with a first try."""
    ti = context["ti"]
    return ti.try_number > ti.max_tries - (task.retries or 0) + 1


def run_start(context: Context) -> datetime:
    """Return when the run was due (`run_after`). Unlike `start_date`, it does not change if the task is cleared."""
    now = datetime.now(timezone.utc)
    # `dag.test` also runs DAGs that are not due yet.
    return min(getattr(context.get("dag_run"), "run_after", now), now)


def storage_folder(argument: str, subfolder: str) -> str:
    """Return a folder in `[message_batches] storage_folder`.

    :param argument: The argument that is not given, for the error.
    """
    folder = conf.get(SECTION, "storage_folder", fallback="").strip().rstrip("/")
    if not folder:
        raise InvalidArgumentError(
            argument, "it is not given, and [message_batches] storage_folder is not set. Set one of them."
        )
    return f"{folder}/{subfolder}"
