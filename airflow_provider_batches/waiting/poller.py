"""Polls the API for many waits at once. docs/poller.md explains it."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import Any

from airflow_provider_batches.api import APIConnectionError, AsyncBatchesClient, InvalidArgumentError
from airflow_provider_batches.api.retry import backoff
from airflow_provider_batches.waiting.outcome import Outcome
from airflow_provider_batches.waiting.pending import PendingWait
from airflow_provider_batches.waiting.reader import Reader
from airflow_provider_batches.waiting.wait import Wait
from airflow_provider_batches.waiting.watch import Watch

#: Consecutive failures of the list after which each batch is retrieved.
LIST_FAILURES = 3
#: Seconds that calls in flight have to finish after the last wait.
GRACE = 0.5
#: Seconds between log lines about the progress of several waits.
PROGRESS = 60.0
MAX_SLEEP = 86_400.0
#: Seconds after its end at which a wait times out even if a call for it is still in flight.
LATE = 30.0
#: Seconds for which waits share a failure to open the client, so that they look up the connection once.
SHARED_FAILURE = 1.0
#: Seconds for which opening the client is retried for waits that have not seen their batches.
UNSEEN_SECONDS = 60.0

#: Clients that are being closed.
_closing: set[asyncio.Future[None]] = set()


class Poller:
    """Polls the batches of many waits through one client, while there are waits.

    :param open_client: Opens the client for the first wait, which raises its error if it fails.
    :param list_failures: See LIST_FAILURES.
    :param on_cycle: Called after each cycle with the number of waits, and of the requests and 429s of the cycle.
    """

    def __init__(
        self,
        open_client: Callable[[], Awaitable[AsyncBatchesClient]],
        list_failures: int = LIST_FAILURES,
        on_cycle: Callable[[int, int, int], None] = lambda waits, requests, refusals: None,
    ) -> None:
        self._open_client = open_client
        self._list_failures = list_failures
        self._on_cycle = on_cycle
        self._lock = asyncio.Lock()
        self._client: AsyncBatchesClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._pending: set[PendingWait] = set()
        self._watches: set[Watch] = set()
        self._wake = asyncio.Event()
        self._sleeps_until = 0.0
        self._failure: Exception | None = None
        self._failed_until = 0.0

    @property
    def busy(self) -> bool:
        """Whether there are waits or watches."""
        return bool(self._pending or self._watches)

    @asynccontextmanager
    async def watching(self, watch: Watch) -> AsyncIterator[None]:
        """Let a watch see the batches that end, until the context ends.

        :raises Exception: The client could not be opened.
        """
        self._watches.add(watch)
        try:
            await self._start()
            self._wake.set()
            yield
        finally:
            self._watches.discard(watch)
            self._pending.difference_update(watch.waits)
            await self._stop()

    async def wait(
        self,
        waits: Sequence[Wait],
        first_poll: float,
        log: Callable[[str], Any],
        gives_up: Callable[[Outcome], bool] = lambda outcome: outcome.status != "ended",
        leave_at: float = float("inf"),
    ) -> list[Outcome]:
        """Return the outcomes once all waits have ended, or one outcome ends them all.

        :param waits: The waits.
        :param first_poll: When to poll first, in seconds since the epoch.
        :param log: Logs the progress: what happens to a single wait, or how many of several have ended.
        :param gives_up: Whether an outcome ends them all. Default: any status but `ended`.
        :param leave_at: When to return the outcomes so far, in seconds since the epoch, if each remaining wait has been
            polled, is next due later, and has no failure that is being confirmed. Default: never.
        """
        pending = self._join(waits, first_poll, log)
        # A call may outlast the wait, for example if a server sends one byte a second.
        seconds = max((wait.end_time for wait in waits), default=0.0) - time.time()
        alarm = asyncio.get_running_loop().call_later(max(0.0, seconds) + LATE, _expire, pending)
        try:
            client = await self._start_for(waits, log)
            # If a task has seen its batch, its base URL has answered.
            client.throttle.has_answered |= any(wait.seen_since is not None for wait in waits)
            if first_poll < self._sleeps_until:
                self._wake.set()
            if len(pending) == 1 and leave_at == float("inf"):
                return [await pending[0].outcome]
            await _until_over(pending, log, gives_up, leave_at)
            return [each.outcome.result() for each in pending if each.outcome.done()]
        finally:
            alarm.cancel()
            self._pending.difference_update(pending)
            await self._stop()

    def _join(self, waits: Sequence[Wait], first_poll: float, log: Callable[[str], Any]) -> list[PendingWait]:
        # Not in `wait`: its frame lives as long as the wait, and with it all that a comprehension captures.
        pending = [PendingWait(wait, first_poll, log if len(waits) == 1 else None) for wait in waits]
        self._pending.update(pending)
        return pending

    async def _start(self) -> AsyncBatchesClient:
        async with self._lock:
            if self._task and self._task.done():
                await self._end()
            if self._client is None:
                if self._failure and time.time() < self._failed_until:
                    raise self._failure.with_traceback(None)
                try:
                    self._client = await self._open()
                except Exception as error:
                    self._failure, self._failed_until = error, time.time() + SHARED_FAILURE
                    raise
                # In an empty context, or the first wait's log would receive the lines of all.
                run = self._run(self._client)
                self._task = contextvars.Context().run(asyncio.create_task, run)
            return self._client

    async def _open(self) -> AsyncBatchesClient:
        """Open the client, even if the wait that began it is canceled.

        Canceling the lookup of the connection in a triggerer of Airflow 3.1 would end that triggerer.
        """
        opening = asyncio.ensure_future(self._open_client())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise

    async def _start_for(self, waits: Sequence[Wait], log: Callable[[str], Any]) -> AsyncBatchesClient:
        """Start, and retry on failure, because a secrets backend that holds the connection may be down."""
        attempt, logged = 0, ""
        seen = any(wait.seen_since is not None for wait in waits)
        until = min((wait.end_time for wait in waits), default=0.0)
        until = until if seen else min(until, time.time() + UNSEEN_SECONDS)
        while True:
            try:
                return await self._start()
            except InvalidArgumentError:
                raise
            except Exception as error:
                attempt += 1
                pause, name = backoff(attempt), type(error).__name__
                if time.time() + pause > until:
                    raise
                if name != logged:
                    # Not its text, which may contain secrets.
                    log(f"The connection cannot be used ({name}). Retrying in {pause:.1f} s.")
                    logged = name
            await asyncio.sleep(pause)

    async def _stop(self) -> None:
        async with self._lock:
            if not self.busy:
                await self._end()

    async def _end(self) -> None:
        if self._task and self._client:
            self._wake.set()
            # Canceling a call while it connects would leave the connection open.
            await asyncio.wait([self._task], timeout=GRACE)
            self._task.cancel()
            await asyncio.wait([self._task])
            await self._client.aclose()
            self._task = self._client = None
            self._on_cycle(0, 0, 0)

    async def _run(self, client: AsyncBatchesClient) -> None:
        reader, throttle = Reader(client, self._list_failures), client.throttle
        try:
            while self.busy:
                waits, watches = (each.due for each in self._pending), (each.due for each in self._watches)
                await self._sleep_until(min(chain(waits, watches)))
                requests, refusals = throttle.attempts, throttle.refusals
                await reader.poll(self._pending, self._watches)
                self._on_cycle(len(self._pending), throttle.attempts - requests, throttle.refusals - refusals)
                for watch in self._watches:
                    watch.end_cycle()
                    self._pending.update(watch.joining)
                    watch.joining.clear()
                if self._watches:
                    # Nothing else removes the waits of a watch.
                    self._pending = {each for each in self._pending if not each.outcome.done()}
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # A bug must not make waits hang.
            for watch in self._watches:
                watch.end(error)
            for each in self._pending:
                each.end(error)

    async def _sleep_until(self, due: float) -> None:
        self._wake.clear()
        self._sleeps_until = due
        # Not asyncio.wait_for, which up to Python 3.11 loses a cancel that arrives while `_wake` is set.
        alarm = asyncio.get_running_loop().call_later(max(0.0, min(due - time.time(), MAX_SLEEP)), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()
        self._sleeps_until = 0.0


def _close(opening: asyncio.Future[AsyncBatchesClient]) -> None:
    """Close a client that is no longer needed."""
    if not opening.cancelled() and not opening.exception():
        closing = asyncio.ensure_future(opening.result().aclose())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)


def _expire(pending: list[PendingWait]) -> None:
    error = APIConnectionError(f"The API did not answer within {LATE:.0f} s after the end of the wait.")
    for each in pending:
        each.deliver(error)


async def _until_over(
    pending: list[PendingWait], log: Callable[[str], Any], gives_up: Callable[[Outcome], bool], leave_at: float
) -> None:
    """Return once all waits have ended, or may be left, or one outcome ends them all. Logs the progress."""
    over, open_waits = asyncio.Event(), set(pending)

    def check(each: PendingWait) -> None:
        done = each.outcome.done()
        # Each exception is looked at, or asyncio would log it.
        ends_all = done and (each.outcome.exception() or gives_up(each.outcome.result()))
        if done or (each.due > leave_at and not each.wait.doubtful):
            open_waits.discard(each)
        else:
            open_waits.add(each)
        if not open_waits or ends_all:
            over.set()

    for each in pending:
        each.on_change = check
        # It may have ended while the client was being opened.
        if each.outcome.done():
            check(each)
    while open_waits and not over.is_set():
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(over.wait(), PROGRESS)
        if len(pending) > 1:
            log(f"{sum(each.outcome.done() for each in pending)} of {len(pending)} batches have ended.")
