"""Operators that list, cancel and delete message batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_batches import _metrics
from airflow_provider_batches._arguments import read_batch_id, read_flag, read_seconds
from airflow_provider_batches._base import (
    DEFAULT_DEFERRABLE,
    IF_DELETED,
    BatchTask,
    airflow_errors,
    is_retry,
    refuse_waiting,
    refuse_without_effect,
    run_start,
    time_to_wait,
)
from airflow_provider_batches.api import BatchNotEndedError, NotFoundError
from airflow_provider_batches.api.models import EPOCH
from airflow_provider_batches.hooks.batches import (
    DEFAULT_POLL_INTERVAL,
    DEFAULT_TIMEOUT,
    BatchesHook,
    raise_unless_ended,
)
from airflow_provider_batches.operators._selecting import SelectingOperator
from airflow_provider_batches.waiting.outcome import Outcome, describe
from airflow_provider_batches.waiting.wait import Wait

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_batches._base import Templated


class CancelBatchOperator(BatchTask):
    """Cancels a message batch, and waits until it has ended if requested.

    The task is idempotent: if the batch is already canceling or has ended, it succeeds. Canceling takes a while;
    requests that cannot be interrupted still end as `succeeded` or `errored`. Returns the batch ID. Pushes the XCom
    `batch`, the last snapshot of the batch.

    See https://docs.claude.com/en/api/canceling-message-batches.

    :param batch_id: The batch (templated).
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :param ignore_if_missing: Whether a batch that was not found is success. Default False.
    :param wait_for_completion: Whether the task ends only once the batch has ended. Default False: it ends as soon
        as the API has accepted the cancel.
    :param deferrable: Whether `wait_for_completion` waits in the triggerer instead of on the worker. Default: Airflow's
        `[operators] default_deferrable`.
    :param poll_interval: Seconds (or timedelta) between polls; the first polls are more frequent. Default 60.
    :param timeout: Seconds (or timedelta) until the wait times out. Default 25 hours. The batch is still running then,
        and a retry waits again.
    """

    def __init__(
        self,
        *,
        batch_id: Templated[str],
        conn_id: Templated[str] = BatchesHook.default_conn_name,
        ignore_if_missing: bool = False,
        wait_for_completion: bool = False,
        deferrable: bool = DEFAULT_DEFERRABLE,
        poll_interval: float | timedelta = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_id=batch_id, conn_id=conn_id, **kwargs)
        self.ignore_if_missing = read_flag("ignore_if_missing", ignore_if_missing)
        self.wait_for_completion = read_flag("wait_for_completion", wait_for_completion)
        self.deferrable = read_flag("deferrable", deferrable)
        if self.deferrable and not (self.wait_for_completion or DEFAULT_DEFERRABLE):
            refuse_without_effect(kwargs.get("default_args"), "deferrable", "wait_for_completion=True")
        self.poll_interval = read_seconds("poll_interval", poll_interval)
        self.timeout = read_seconds("timeout", timeout)
        if not self.wait_for_completion:
            refuse_waiting(kwargs.get("default_args"), poll_interval, timeout)

    def execute(self, context: Context) -> str:
        """Cancel the batch."""
        with airflow_errors():
            batch_id = read_batch_id(self.batch_id)
            try:
                batch = self.hook.get_conn().cancel(batch_id, confirm=self.ignore_if_missing)
            except NotFoundError as error:
                if not self.ignore_if_missing:
                    error.add(IF_DELETED)
                    raise
                self.log.warning("Nothing to cancel: %s", error)
                return batch_id
            state = "had ended already:" if batch.ended else "is"
            self.log.info("Batch %s %s %s; request-id %s", batch_id, state, describe(batch), batch.request_id)
            _metrics.count("canceled", not batch.ended, conn_id=self.conn_id)
            self._push_batch(context, batch.snapshot())
            if batch.ended or not self.wait_for_completion:
                return batch_id
            now = time.time()
            wait = Wait(
                batch_id,
                poll_interval=self.poll_interval,
                start_time=now,
                end_time=now + time_to_wait(self, self.timeout),
                seen_since=batch.listed_since.timestamp(),
            )
            leave = partial(self._leave_to_triggerer, batch_id, [wait]) if self.deferrable else None
            return self._finish(context, self._wait([wait], leave)[0])

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Continue with what the trigger found."""
        with airflow_errors():
            return self._finish(context, Outcome.from_event(event))

    def _finish(self, context: Context, outcome: Outcome) -> str:
        self._push_batch(context, outcome.snapshot)
        if not (outcome.status == "missing" and self.ignore_if_missing):
            raise_unless_ended(outcome)
        self.log.info(outcome.message)
        return str(outcome.batch_id)


class DeleteBatchOperator(BatchTask):
    """Deletes a message batch that has ended, with its results.

    If the batch has not ended, the task fails: cancel the batch, wait until it has ended, then delete it. The task is
    idempotent: if a retry finds that the batch no longer exists, it succeeds, because an earlier try has most likely
    deleted the batch. Returns the batch ID. Pushes the XComs `batch`, the last snapshot of the batch, and `deletion`:
    `batch_id`, `deleted_at` (RFC 3339) and the API's `request_id`.

    See https://docs.claude.com/en/api/deleting-message-batches.

    :param batch_id: The batch (templated).
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :param ignore_if_missing: Whether a batch that was not found is success. Default False.
    """

    def __init__(
        self,
        *,
        batch_id: Templated[str],
        conn_id: Templated[str] = BatchesHook.default_conn_name,
        ignore_if_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_id=batch_id, conn_id=conn_id, **kwargs)
        self.ignore_if_missing = read_flag("ignore_if_missing", ignore_if_missing)

    def execute(self, context: Context) -> str:
        """Delete the batch."""
        with airflow_errors():
            batch_id = read_batch_id(self.batch_id)
            retried = is_retry(self, context)
            try:
                client = self.hook.get_conn()
                # An earlier try may have seen it; its age is unknown: it is missing only if the whole list lacks it.
                seen = EPOCH if retried else None
                batch = client.find(batch_id, seen, confirm=self.ignore_if_missing)
                self._push_batch(context, batch.snapshot())
                if not batch.ended:
                    raise BatchNotEndedError(batch, "can be deleted")
                request_id = client.delete(batch_id, batch.listed_since).request_id
            except NotFoundError as error:
                if not (retried or self.ignore_if_missing):
                    error.add(IF_DELETED)
                    raise
                why = "Most likely an earlier try has deleted the batch:" if retried else "Nothing to delete:"
                self.log.warning("%s %s", why, error)
                return batch_id
        now = datetime.now(timezone.utc).isoformat()
        deletion = {"batch_id": batch_id, "deleted_at": now, "request_id": request_id}
        context["ti"].xcom_push(key="deletion", value=deletion)
        _metrics.count("deleted", conn_id=self.conn_id)
        self.log.info("Deleted batch %s (%s; request-id %s)", batch_id, describe(batch), request_id)
        return batch_id


class ListBatchesOperator(SelectingOperator):
    """Selects message batches by age and state, as TeardownBatchesOperator does, and returns their IDs, oldest first.

    Use it to map tasks over batches. Airflow maps over at most 1,024, so set a `limit`. A retry selects again.

    See https://docs.claude.com/en/api/listing-message-batches.

    :param older_than: Batches created longer ago than this, counted from the run's `run_after`: a timedelta, or a
        string like `7 days` or `P7D` (templated).
    :param created_before: Batches created before this time, a datetime with a time zone, or a string (templated).
    :param statuses: Batches in these states: `in_progress`, `canceling`, `ended`. Default: any (templated).
    :param limit: The most batches to select, the oldest first. Default: all (templated).
    :param conn_id: The connection (templated). Default `anthropic_default`.
    """

    template_fields: Sequence[str] = ("older_than", "created_before", "statuses", "limit", "conn_id")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._read_selection(None)

    def execute(self, context: Context) -> list[str]:
        """List the batches."""
        with airflow_errors():
            selected = self._select(self._read_selection(run_start(context)))
        self.log.info("Batches selected: %d", len(selected))
        return [batch.id for batch in selected]
