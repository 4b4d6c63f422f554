"""Notices each batch of a workspace that ends, from the pages that a poller reads anyway. No I/O."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from airflow_provider_batches.api import BatchesError, InvalidResponseError, MessageBatch
from airflow_provider_batches.api.models import read_batch, read_time
from airflow_provider_batches.waiting.pending import PendingWait
from airflow_provider_batches.waiting.wait import Wait

#: Seconds by which a batch may appear in the list later than batches that were created after it.
LATE_SECONDS = 300.0
#: Seconds until a failed look is repeated, at most.
RETRY_SECONDS = 60.0
#: Batches after which other tasks of the event loop may run.
YIELD_EVERY = 50
#: Seconds after its creation by which the API ends every batch, and one hour.
LIFE = 25 * 3600.0


class Watch:
    """Collects the batches that end. Those that are running are waits of the poller, so they share its requests.

    :param interval: Seconds between looks.
    :param since: Batches that were created before are not looked for, in seconds since the epoch.
    :param log: Logs a failure, once for each kind, and a batch that cannot be read, once.
    """

    def __init__(self, interval: float, since: float, log: Callable[[str], Any]) -> None:
        self.interval = interval
        #: When to look next, in seconds since the epoch.
        self.due = time.time()
        #: Waits that are to join the poller.
        self.joining: list[PendingWait] = []
        self._since = since
        self._log = log
        self._failure = ""
        self._error: BaseException | None = None
        self._newest = 0.0
        self._unreadable: set[Any] = set()
        self._running: dict[str, PendingWait] = {}
        self._ended: dict[str, tuple[MessageBatch, bool]] = {}
        self._looked = asyncio.Event()

    @property
    def waits(self) -> Collection[PendingWait]:
        """The waits of running batches."""
        return self._running.values()

    @property
    def known_since(self) -> float:
        """All batches that were created before this time are known, in seconds since the epoch."""
        return max(self._since, self._newest - LATE_SECONDS)

    async def next(self) -> list[tuple[MessageBatch, bool]]:
        """Return the batches that have ended once the next look is done, and whether each was seen running."""
        await self._looked.wait()
        self._looked.clear()
        if self._error:
            raise self._error
        found = list(self._ended.values())
        self._ended.clear()
        return found

    def end(self, error: BaseException) -> None:
        """Let `next` raise an unexpected error."""
        self._error = error
        self._looked.set()

    async def take(self, data: Iterable[dict[str, Any]]) -> None:
        """Take the pages of one look, from the newest batch back to `known_since`."""
        now, newest, known_since = time.time(), self._newest, self.known_since
        for index, raw in enumerate(data):
            if index % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            created = read_time(raw.get("created_at"))
            if created and created.timestamp() < known_since:
                # Newest first: all that follow are known.
                break
            try:
                batch = read_batch(raw)
            except InvalidResponseError as error:
                if raw.get("id") not in self._unreadable:
                    self._unreadable.add(raw.get("id"))
                    self._log(f"Batch {raw.get('id')} is not watched. {error}")
                continue
            created_at = batch.listed_since.timestamp()
            newest = max(newest, created_at)
            if batch.id in self._running:
                continue
            if not batch.ended:
                self._join(batch, now)
            elif created_at >= self._since:
                self._ended[batch.id] = (batch, False)
        self._newest = newest
        self._failure = ""
        self.due = now + self.interval
        self._looked.set()

    def end_cycle(self) -> None:
        """Let `next` return what this cycle has found, all at once."""
        if self._ended:
            self._looked.set()

    def failed(self, error: BatchesError) -> None:
        """Record that a look failed. The next one reads the same batches."""
        if type(error).__name__ != self._failure:
            self._failure = type(error).__name__
            self._log(f"Batches that end are not seen for now. {error}")
        self.due = time.time() + min(
            self.interval, max(RETRY_SECONDS / 6, min(RETRY_SECONDS, error.retry_after or 0.0))
        )

    def _join(self, batch: MessageBatch, now: float) -> None:
        wait = Wait(batch.id, poll_interval=self.interval, start_time=now - LIFE, end_time=now + LIFE)
        pending = PendingWait(wait, now + self.interval, None)
        pending.wait.on_answer(batch, now)
        pending.early = now + self.interval / 2
        pending.on_change = self._on_change
        self._running[batch.id] = pending
        self.joining.append(pending)

    def _on_change(self, pending: PendingWait) -> None:
        if not pending.outcome.done():
            return
        batch_id = pending.wait.batch_id
        self._running.pop(batch_id, None)
        outcome = None if pending.outcome.exception() else pending.outcome.result()
        if outcome and outcome.status == "ended":
            self._ended[batch_id] = (MessageBatch.model_validate(outcome.snapshot), True)
        elif outcome is None or outcome.status != "missing":
            # Find it again: it may still be running.
            self._newest = min(self._newest, (pending.wait.created_at or self._since) + LATE_SECONDS)
