"""The trigger that waits for batches."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_batches import _metrics
from airflow_provider_batches._arguments import read_batch_ids, read_seconds
from airflow_provider_batches._on_kill import cancel_for_user
from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.waiting.outcome import Outcome, combine
from airflow_provider_batches.waiting.poller import Poller
from airflow_provider_batches.waiting.wait import Wait

# One logger for all: Airflow routes log lines by context, and thousands of loggers would use much memory.
log = logging.getLogger(__name__)

#: Seconds after the deferral in which a trigger neither polls nor fires. If it fires before the scheduler has noticed
#: that the deferring process ended, the task fails. On two busy cores, that took more than five seconds.
FIRST_POLL = 10.0
#: Seconds for which `on_kill` may run. Airflow stops it after 30, without a log line.
KILL_SECONDS = 20.0

HOSTNAME = socket.gethostname()

#: Running work of `on_kill`, which continues if Airflow stops waiting for it.
_kills: set[asyncio.Future[None]] = set()
_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = WeakKeyDictionary()


@contextmanager
def poller_of(conn_id: str) -> Iterator[Poller]:
    """Return the poller that all triggers of a connection in this event loop share."""
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    if conn_id not in pollers:
        pollers[conn_id] = Poller(lambda: BatchesHook(conn_id).aget_conn(), on_cycle=partial(_report_cycle, conn_id))
    poller = pollers[conn_id]
    try:
        yield poller
    finally:
        if not poller.busy and pollers.get(conn_id) is poller:
            del pollers[conn_id]


def _report_cycle(conn_id: str, waits: int, requests: int, refusals: int) -> None:
    _metrics.gauge("poller.waits", waits, conn_id=conn_id, hostname=HOSTNAME)
    _metrics.count("poller.requests", requests, conn_id=conn_id)
    _metrics.count("poller.rate_limited", refusals, conn_id=conn_id)


@dataclass(eq=False, repr=False)
class BatchEndedTrigger(BaseTrigger):
    """Waits in the triggerer until batches have ended, then fires one event with the outcome.

    All triggers of a connection in one triggerer share a client and a schedule (see `waiting.poller`). The event is
    `Outcome.event()`: `status` (`ended`, `missing`, `refused`, `timeout`), `batch_id`, `message`, `retryable`, and
    `batch`, the last snapshot or None.

    :param batch_id: The batch, or a list of batches that must all end.
    :param conn_id: The connection.
    :param poll_interval: Seconds between polls in the long run; at first, polls are more frequent.
    :param start_time: When the task was deferred, in seconds since the epoch. None if it started in the triggerer.
    :param end_time: When the wait times out, in seconds since the epoch. Wall-clock time, since the trigger may
        continue in another process after a restart.
    :param timeout: Seconds from the start of the trigger until the wait times out, if `end_time` is None.
    :param seen_since: If the batches have been seen: when the oldest was created, in seconds since the epoch.
    :param ignore_if_missing: Whether batches that are not found count as success.
    :param fail_on_partial_error: Whether errored or expired requests fail the task.
    :param cancel_on_kill: Whether to cancel the batches when a user marks the deferred task (Airflow 3.3+).
    :param end_from_trigger: Whether to end the task in the triggerer if the wait succeeds.
    """

    batch_id: str | list[str]
    conn_id: str
    poll_interval: float
    start_time: float | None = None
    end_time: float | None = None
    timeout: float | None = None
    seen_since: float | None = None
    ignore_if_missing: bool = False
    fail_on_partial_error: bool = False
    cancel_on_kill: bool = False
    end_from_trigger: bool = False

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments: JSON types only, and no secrets."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return name, {field.name: getattr(self, field.name) for field in fields(self)}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire the outcome."""
        try:
            outcome = await self._outcome()
        except InvalidArgumentError as error:
            outcome = Outcome("refused", self.batch_id, str(error))
        # Wrong settings, or an answer for another wait, may end this one before its first poll.
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
        """Cancel the batches if requested and if a user marked the task (Airflow 3.3+)."""
        if self.cancel_on_kill:
            connect, batch_ids = BatchesHook(self.conn_id).aget_conn, read_batch_ids(self.batch_id)
            about = (self.task_instance, batch_ids, self.conn_id)
            work = asyncio.ensure_future(cancel_for_user(*about, connect, log, KILL_SECONDS))
            _kills.add(work)
            work.add_done_callback(_kills.discard)
            # Airflow 3.3 interrupts an `on_kill` about once a second, until it has ended.
            while not work.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([work])
            await work

    def _quiet_seconds(self) -> float:
        """Return the rest of FIRST_POLL; bounded, since the worker's clock may be ahead."""
        if self.start_time is None:
            return 0.0
        return min(FIRST_POLL, max(0.0, self.start_time + FIRST_POLL - time.time()))

    def _first_poll(self) -> float:
        """Return when to poll first, in seconds since the epoch. Rounded up, so that new waits are polled together."""
        grid = min(1.0, self.poll_interval / 10)
        return math.ceil((time.time() + self._quiet_seconds()) / grid) * grid

    async def _outcome(self) -> Outcome:
        waits = self._waits()
        # No await between finding the poller and joining it, or it could be dropped meanwhile.
        with poller_of(self.conn_id) as poller:
            outcomes = await poller.wait(waits, self._first_poll(), log.info, self._gives_up)
        _metrics.count_ended(self.conn_id, outcomes, waits)
        if [wait.batch_id for wait in waits] == [self.batch_id]:
            return outcomes[0]
        return combine([wait.batch_id for wait in waits], outcomes, ignore_if_missing=self.ignore_if_missing)

    def _waits(self) -> list[Wait]:
        poll_interval = read_seconds("poll_interval", self.poll_interval)
        start = time.time() if self.start_time is None else self.start_time
        end = self.end_time
        if end is None:
            end = start + (0.0 if self.timeout is None else read_seconds("timeout", self.timeout))
        return [
            Wait(
                batch_id,
                poll_interval=poll_interval,
                start_time=start,
                end_time=end,
                second_poll=FIRST_POLL,
                seen_since=self.seen_since,
                confirm=self.ignore_if_missing,
            )
            for batch_id in read_batch_ids(self.batch_id)
        ]

    def _gives_up(self, outcome: Outcome) -> bool:
        return outcome.fails_all(ignore_if_missing=self.ignore_if_missing)
