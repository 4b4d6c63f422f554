"""Cancels, saves and deletes many batches, a few at a time, through one client.

After each step the same job, run again, can continue: only the API and the saved files say what is done already.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from threading import Event, Thread
from typing import Any, TypeVar

from airflow_provider_batches.api import AsyncBatchesClient, BatchesClient, BatchesError, MessageBatch, NotFoundError
from airflow_provider_batches.api.errors import StoppedError
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.models import read_batch
from airflow_provider_batches.api.pager import Pager
from airflow_provider_batches.results.saving import RECORDED, Saved, Saver
from airflow_provider_batches.teardown.record import FullRecord, Record
from airflow_provider_batches.teardown.record import Tally as Tally
from airflow_provider_batches.teardown.selection import Selection
from airflow_provider_batches.waiting.pages import WORTH

T = TypeVar("T")

#: Results that are saved at once: each holds a few blocks of its store in memory.
SAVES = 4
#: Seconds after reading the list until a 404 is believed for a batch that was not in it.
LIST_LAG = 7.0
#: Seconds that a thread has to stop writing its file once the job is canceled.
GRACE = 1.0
#: Refusals that affect all batches.
_FATAL = (Proof.KEY_REFUSED, Proof.SPEND_LIMIT, Proof.WRONG_ADDRESS)


@dataclass
class Teardown:
    """The work on a set of batches.

    :param client: For all calls but the results. It has a patient throttle.
    :param tally: The summary of batches that are done already.
    :param log: The task's logger.
    :param stop: Set once the task is stopped: calls in flight are completed, and nothing new is begun.
    :param saver: Saves results before a batch is deleted. None: they are deleted unsaved.
    :param reader: Reads the results, in threads: a stream costs an event loop three times as much CPU.
    """

    client: AsyncBatchesClient
    tally: Tally
    log: Any
    in_flight: int = 16
    stop: Event = field(default_factory=Event)
    saver: Saver | None = None
    reader: BatchesClient | None = None
    records: dict[str, Record] = field(default_factory=dict, init=False)
    #: What ended the job for all batches.
    fatal: BatchesError | None = field(default=None, init=False)
    _saves: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, SAVES), init=False)
    #: The last state of each batch, and when the whole list was read, if it was.
    _seen: dict[str, MessageBatch] = field(default_factory=dict, init=False)
    _listed_at: float | None = field(default=None, init=False)

    @property
    def left(self) -> list[Record]:
        """The batches that are not done."""
        return [record for record in self.records.values() if not record.done]

    def summary(self) -> Tally:
        """Return the summary of all batches."""
        return self.tally.plus(self.records.values())

    def results(self, full_record: FullRecord) -> dict[str, dict[str, Any]]:
        """Return the saved results of all tries of the task, by batch, with their `path`."""
        found = full_record.results()
        for record in self.records.values():
            if record.results:
                found[record.batch_id] = record.results
            elif self.saver and record.batch_id not in found and (saved := self.saver.existing(record.batch_id)):
                # An earlier try was killed between the deletion and its record.
                found[record.batch_id] = _described(saved)
        return {batch_id: results for batch_id, results in found.items() if results["path"]}

    async def select(self, selection: Selection) -> list[MessageBatch]:
        """Return the selected batches, oldest first."""
        found: dict[str, MessageBatch] = {}
        pager = Pager()
        while not pager.ended:
            page = await self.client.page(pager)
            found |= {batch.id: batch for batch in page.batches() if selection.takes(batch)}
        return selection.choose(found.values())

    async def run(self, records: Iterable[Record], selected: Iterable[MessageBatch] = (), seconds: float = 0.0) -> None:
        """Cancel what runs, save and delete what has ended.

        :param records: What is known of each batch; it is brought up to date.
        :param selected: The batches, in the state in which they were selected.
        :param seconds: For how long batches that have not ended are polled.
        """
        self.records = {record.batch_id: record for record in records}
        for batch in selected:
            self._learn(batch)
        if not self._seen:
            await self._read_states()
        running = [record for record in self.left if not record.canceled and not self._is_stopping(record)]
        await self._each(running, self._cancel)
        until, pause = time.monotonic() + seconds, 0.5
        while True:
            if running and not self._is_over:
                await self._read_states()
            await self._each(self.left, self._finish)
            running = [record for record in self.left if not record.ended]
            if not running or self._is_over or time.monotonic() + pause > until:
                return
            await asyncio.sleep(pause)
            pause *= 2

    @property
    def _is_over(self) -> bool:
        return self.stop.is_set() or self.fatal is not None

    def _check_over(self) -> None:
        if self._is_over:
            raise StoppedError("The task ended before it was done.")

    def _is_stopping(self, record: Record) -> bool:
        batch = self._seen.get(record.batch_id)
        return batch is not None and (batch.ended or batch.processing_status == "canceling")

    def _learn(self, batch: MessageBatch) -> MessageBatch:
        self._seen[batch.id] = batch
        self.records[batch.id].seen_since = batch.listed_since.timestamp()
        return batch

    async def _read_states(self) -> None:
        """Read the state of the batches from the list while that takes fewer requests than retrieving each."""
        left, pager, began = {record.batch_id for record in self.left}, Pager(), time.monotonic()
        self._seen, self._listed_at = {}, None
        try:
            while len(left) - pager.number > WORTH and not pager.ended:
                for raw in (await self.client.page(pager)).data:
                    if str(raw.get("id")) in left:
                        left.discard(self._learn(read_batch(raw)).id)
            self._listed_at = began if pager.ended else None
        except BatchesError as error:
            if error.evidence.proof in _FATAL or not self.client.throttle.answers:
                self.fatal = error
            else:
                self.log.warning("The batches cannot be listed, so each is retrieved. %s", error)

    async def _find(self, record: Record) -> MessageBatch:
        """Return a batch that was in none of the pages that were read."""
        if self._listed_at is not None and record.seen_since is None:
            # A new batch may not have been in the list yet.
            await asyncio.sleep(self._listed_at + LIST_LAG - time.monotonic())
            return self._learn(await self.client.retrieve(record.batch_id))
        return self._learn(await self.client.find(record.batch_id, record.seen_at, confirm=True))

    async def _each(self, records: Iterable[Record], work: Callable[[Record], Awaitable[None]]) -> None:
        """Do the work for each batch, a few at a time; if one fails, the remaining ones are still processed."""
        todo = iter(records)

        async def worker() -> None:
            for record in todo:
                if self._is_over:
                    return
                try:
                    await work(record)
                except NotFoundError as error:
                    record.outcome, record.error = "already_gone", None
                    self.log.info("Batch %s is gone already. %s", record.batch_id, error)
                except Exception as error:
                    self._failed(record, error)

        await asyncio.gather(*(worker() for _ in range(self.in_flight)))

    def _failed(self, record: Record, error: Exception) -> None:
        if isinstance(error, BatchesError):
            record.error, record.retryable = str(error), error.retryable
            # A 403 may be about this batch alone.
            is_for_all = error.evidence.proof in _FATAL and getattr(error, "status", None) != 403
            if is_for_all or self.client.throttle.gave_up(error):
                self.fatal = error
        else:
            record.error, record.retryable = f"{type(error).__name__}: {error}", True
        if not isinstance(error, StoppedError):
            self.log.warning("Batch %s: %s", record.batch_id, record.error)

    async def _cancel(self, record: Record) -> None:
        if self._listed_at is not None and record.batch_id not in self._seen:
            # Most likely gone: a retrieval takes fewer requests than a cancel that is refused.
            await self._find(record)
            if self._is_stopping(record):
                return
        try:
            batch = self._learn(await self.client.cancel(record.batch_id, record.seen_at, confirm=True))
        except BatchesError as error:
            record.uncanceled = error.retryable
            raise
        record.error, record.uncanceled = None, False
        if batch.cancel_initiated_at is not None or batch.processing_status == "canceling":
            record.canceled, record.cancel_request_id = True, batch.request_id

    async def _finish(self, record: Record) -> None:
        batch = self._seen.get(record.batch_id) or await self._find(record)
        if not batch.ended:
            # If the cancel failed, its error says more.
            record.error = record.error or f"It is {batch.processing_status} and has not ended yet."
            return
        record.ended = True
        if self.saver and self.reader:
            async with self._saves:
                self._check_over()
                record.results = await self._in_thread(partial(_save, self.saver, self.reader, batch))
        self._check_over()
        deleted = await self.client.delete(record.batch_id, batch.listed_since)
        record.delete_request_id, record.deleted_at = deleted.request_id, datetime.now(timezone.utc).isoformat()
        record.outcome, record.error = "deleted", None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work in a thread that does not keep the process alive."""
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        Thread(target=copy_context().run, args=(run,), daemon=True).start()
        future = asyncio.wrap_future(done)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self.stop.set()
            await asyncio.wait([future], timeout=GRACE)
            raise


def _save(saver: Saver, reader: BatchesClient, batch: MessageBatch) -> dict[str, Any]:
    """Save the results of a batch, read them back, and return their fields of the full record."""
    saved = saver.save(reader, batch)
    if saved.fetched:
        saver.check(batch.id, saved)
    return _described(saved)


def _described(saved: Saved) -> dict[str, Any]:
    details = {name: saved.record[name] for name in (*RECORDED, "missing", "request_id")}
    return {"path": saved.path, **details, "fetched": saved.fetched}
