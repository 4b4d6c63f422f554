"""What waits in the triggerer."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from typing import Any
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_batches.api import BatchesError, InvalidArgumentError, Outcome, Wait
from airflow_provider_batches.api.endpoints import check_batch_ids
from airflow_provider_batches.api.poller import Poller
from airflow_provider_batches.api.waiting import check_seconds, combine
from airflow_provider_batches.hooks.batches import BatchesHook

# Airflow tells by the context whose log a line belongs to. A logger of its own for each trigger would be as heavy as
# the trigger, and there can be thousands.
log = logging.getLogger(__name__)

#: Seconds after its deferral before which a wait neither looks nor fires: an event that comes before the scheduler
#: has seen the deferring process end would fail the task. On two busy cores that took it more than five seconds.
FIRST_LOOK = 10.0

#: Cancels in flight at once, where a person ends a task that waits for many batches.
CANCELS = 16

_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = WeakKeyDictionary()


class BatchEndedTrigger(BaseTrigger):
    """Waits in the triggerer until batches have ended, and fires one event that says how the wait ended.

    All triggers of a connection in one triggerer share a client and a schedule (see `api.poller`). The event is
    `Outcome.event()`: `status` (`ended`, `missing`, `refused`, `timeout`), `batch_id`, `message`, and `batch`, the
    last snapshot or None.

    :param batch_id: The batch, or a list of batches that must all end.
    :param conn_id: The connection.
    :param poll_interval: Seconds between looks once the wait has settled; it looks more often at first.
    :param start_time: When the task was deferred, in seconds since the epoch. None where no task process came first.
    :param end_time: When the wait is given up, in seconds since the epoch. Wall-clock time, since the trigger may go
        on in another process after a restart.
    :param timeout: Seconds until the wait is given up, counted from when the trigger runs, where `end_time` is None.
    :param ignore_if_missing: Whether a list may hold batches that the API does not know.
    :param fail_on_partial_error: Whether errored or expired requests will fail the task.
    :param cancel_on_kill: Whether to cancel the batches when a person ends the deferred task (Airflow 3.3+).
    :param end_from_trigger: Whether to end the task from here where the wait succeeds.
    """

    def __init__(
        self,
        batch_id: str | list[str],
        conn_id: str,
        poll_interval: float,
        start_time: float | None = None,
        end_time: float | None = None,
        timeout: float | None = None,
        ignore_if_missing: bool = False,
        fail_on_partial_error: bool = False,
        cancel_on_kill: bool = False,
        end_from_trigger: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch_id = batch_id
        self.conn_id = conn_id
        self.poll_interval = poll_interval
        self.start_time = start_time
        self.end_time = end_time
        self.timeout = timeout
        self.ignore_if_missing = ignore_if_missing
        self.fail_on_partial_error = fail_on_partial_error
        self.cancel_on_kill = cancel_on_kill
        self.end_from_trigger = end_from_trigger

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the trigger is made again from; JSON types only, and no secrets."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "batch_id": self.batch_id,
                "conn_id": self.conn_id,
                "poll_interval": self.poll_interval,
                "start_time": self.start_time,
                "end_time": self.end_time,
                "timeout": self.timeout,
                "ignore_if_missing": self.ignore_if_missing,
                "fail_on_partial_error": self.fail_on_partial_error,
                "cancel_on_kill": self.cancel_on_kill,
                "end_from_trigger": self.end_from_trigger,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire the outcome."""
        try:
            outcome = await self._outcome()
        except InvalidArgumentError as error:
            outcome = Outcome("refused", self.batch_id, str(error))
        # An answer to another wait, or wrong settings, may have ended this one before its first look.
        await asyncio.sleep(self._quiet_seconds())
        failure = outcome.failure(
            ignore_if_missing=self.ignore_if_missing, fail_on_partial_error=self.fail_on_partial_error
        )
        if self.end_from_trigger and not failure:
            counts = outcome.request_counts
            (log.warning if counts.errored or counts.expired else log.info)("%s", outcome.message)
            yield TaskSuccessEvent()
        else:
            yield TriggerEvent(outcome.event())

    async def on_kill(self) -> None:
        """Cancel the batches if asked to, since a person ended the task (Airflow 3.3+)."""
        if not self.cancel_on_kill:
            return
        places = asyncio.Semaphore(CANCELS)
        async with await BatchesHook(self.conn_id).aget_conn() as client:

            async def cancel(batch_id: str) -> None:
                try:
                    async with places:
                        batch = await client.cancel(batch_id)
                except BatchesError as error:
                    log.warning("The task was ended by a user, but batch %s is not canceled: %s", batch_id, error)
                    return
                log.info(
                    "The task was ended by a user: batch %s is %s (request-id %s)",
                    batch_id,
                    batch.processing_status,
                    batch.request_id,
                )

            await asyncio.gather(*map(cancel, check_batch_ids(self.batch_id)))

    def _quiet_seconds(self) -> float:
        """Return the rest of the seconds after the deferral; bounded, since the worker's clock may go ahead."""
        if self.start_time is None:
            return 0.0
        return min(FIRST_LOOK, max(0.0, self.start_time + FIRST_LOOK - time.time()))

    def _first_look(self) -> float:
        """Return when to look first, seconds since the epoch: a whole second, so that newcomers look together."""
        grid = min(1.0, self.poll_interval / 10)
        return math.ceil((time.time() + self._quiet_seconds()) / grid) * grid

    async def _outcome(self) -> Outcome:
        waits = self._waits()
        # No await between finding the poller and joining it, so that it cannot be dropped in between.
        pollers, poller = _find_poller(self.conn_id)
        try:
            outcomes = await poller.wait(waits, self._first_look(), log.info, self._pointless)
        finally:
            if not poller.busy and pollers.get(self.conn_id) is poller:
                del pollers[self.conn_id]
        batch_ids = [wait.batch_id for wait in waits]
        if batch_ids == [self.batch_id]:
            return outcomes[0]
        return combine(batch_ids, outcomes, ignore_if_missing=self.ignore_if_missing)

    def _waits(self) -> list[Wait]:
        poll_interval = check_seconds("poll_interval", self.poll_interval)
        start = time.time() if self.start_time is None else self.start_time
        end = self.end_time
        if end is None:
            end = start + (0.0 if self.timeout is None else check_seconds("timeout", self.timeout))
        return [
            Wait(
                batch_id,
                poll_interval=poll_interval,
                start_time=start,
                end_time=end,
                first_pause=FIRST_LOOK,
            )
            for batch_id in check_batch_ids(self.batch_id)
        ]

    def _pointless(self, outcome: Outcome) -> bool:
        return outcome.ends_the_others(ignore_if_missing=self.ignore_if_missing)


def _find_poller(conn_id: str) -> tuple[dict[str, Poller], Poller]:
    """Return the event loop's pollers, and among them the connection's, made where there is none."""
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    if conn_id not in pollers:
        pollers[conn_id] = Poller(lambda: BatchesHook(conn_id).aget_conn())
    return pollers, pollers[conn_id]
