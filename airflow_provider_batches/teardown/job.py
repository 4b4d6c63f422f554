"""Cancels, saves and deletes many batches, a few at a time, through one client.

Each step leaves a batch in a state from which the same job, run again, goes on: nothing but the API and the saved files
says what is done already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from airflow_provider_batches.api import (
    APIStatusError,
    BatchesClient,
    BatchesError,
    InvalidResponseError,
    MessageBatch,
    NotFoundError,
    RateLimitError,
)
from airflow_provider_batches.api.endpoints import MAX_PAGE
from airflow_provider_batches.api.models import BatchPage
from airflow_provider_batches.api.pacing import PacedClient
from airflow_provider_batches.api.pages import WORTH
from airflow_provider_batches.api.retry import is_about_the_batch, is_about_the_key, is_outage
from airflow_provider_batches.teardown.progress import Progress
from airflow_provider_batches.teardown.saving import Saver, StoppedError
from airflow_provider_batches.teardown.selection import Selection

#: Results that are saved at once: each holds a few blocks of its store in memory.
SAVES = 4
#: Seconds after the list was read before a 404 to a batch that was not in it is believed.
DOUBT = 7.0
#: How often reading the list begins anew, where the batch that a page ended with is deleted meanwhile.
RESTARTS = 3


@dataclass
class Record:
    """What became of one batch: a line of the full record."""

    batch_id: str
    #: `left`, `deleted`, `already_gone`.
    outcome: str = "left"
    canceled: bool = False
    cancel_request_id: str | None = None
    ended: bool = False
    results: dict[str, Any] | None = None
    deleted_at: str | None = None
    delete_request_id: str | None = None
    error: str | None = None
    #: Whether trying again may help where there is an error.
    transient: bool = True
    #: Whether it runs on, and costs money, since canceling it failed in a way that trying again may help.
    runs_on: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.outcome != "left"

    def line(self) -> dict[str, Any]:
        """Return the record as plain JSON types."""
        found = asdict(self)
        del found["transient"], found["runs_on"]
        return found


@dataclass
class Tally:
    """The summary of a teardown: how many batches each thing happened to, and the bytes of results saved."""

    selected: int = 0
    canceled: int = 0
    ended: int = 0
    saved: int = 0
    deleted: int = 0
    already_gone: int = 0
    failed: int = 0
    bytes_saved: int = 0

    def __str__(self) -> str:
        done = ", ".join(
            f"{number:,} {name.replace('_', ' ')}"
            for name, number in asdict(self).items()
            if name not in ("selected", "bytes_saved")
        )
        return f"Batches selected: {self.selected:,}; {done}; {self.bytes_saved:,} bytes saved"


class Teardown:
    """The work on a set of batches.

    :param client: For all calls but the results.
    :param tally: Where is counted what happens.
    :param say: Takes lines for the log.
    :param in_flight: How many calls are made at once.
    :param stopped: Says that the task has been told to stop: what is begun is ended, and nothing new is begun.
    :param saver: Saves results before a batch is deleted. None: they are deleted unsaved.
    :param reader: Reads the results, in threads: a stream costs an event loop three times as much CPU.
    """

    def __init__(
        self,
        client: PacedClient,
        tally: Tally,
        say: Callable[[str], None],
        *,
        in_flight: int = 16,
        stopped: Callable[[], bool] = lambda: False,
        saver: Saver | None = None,
        reader: BatchesClient | None = None,
    ) -> None:
        self.client = client
        self.tally = tally
        #: What ended the job for all batches.
        self.fatal: BatchesError | None = None
        self._say = say
        self._in_flight = in_flight
        self._stopped = stopped
        self._saver = saver
        self._reader = reader
        self._saves = asyncio.Semaphore(SAVES)
        #: What is known of the batches, and whether a batch that is not in it was in no page of the whole list.
        self._seen: dict[str, MessageBatch] = {}
        self._seen_all = False
        self._seen_at = 0.0

    async def select(self, selection: Selection) -> list[MessageBatch]:
        """Return the batches that a selection by age and state chooses, oldest first."""
        found: dict[str, MessageBatch] = {}
        async for page in self._pages():
            found |= {batch.id: batch for batch in page.data if selection.takes(batch)}
        return selection.choose(found.values())

    async def run(self, records: Iterable[Record], chosen: Iterable[MessageBatch] = (), patience: float = 0.0) -> None:
        """Cancel what runs, save and delete what has ended.

        :param records: What is known of each batch; it is brought up to date.
        :param chosen: The batches as they were seen when they were chosen.
        :param patience: Seconds for which batches that have not ended are looked at again.
        """
        todo = [record for record in records if not record.done]
        self._seen = {batch.id: batch for batch in chosen}
        if not self._seen:
            await self._look(todo)
        running = [record for record in todo if not self._is_stopping(record)]
        await self._each("Canceling", running, self._cancel)
        until = asyncio.get_running_loop().time() + patience
        pause = 0.5
        while True:
            todo = [record for record in todo if not record.done]
            if running and not self._is_over:
                await self._look(todo)
            await self._each("Deleting" if self._saver is None else "Saving and deleting", todo, self._finish)
            left = [record for record in todo if not record.done and not record.ended]
            if not left or self._is_over or asyncio.get_running_loop().time() + pause > until:
                return
            await asyncio.sleep(pause)
            todo, pause, running = left, 2 * pause, left

    @property
    def _is_over(self) -> bool:
        return self._stopped() or self.fatal is not None

    def _is_stopping(self, record: Record) -> bool:
        batch = self._seen.get(record.batch_id)
        return batch is not None and (batch.ended or batch.processing_status == "canceling")

    async def _each(self, step: str, records: list[Record], work: Callable[[Record], Awaitable[None]]) -> None:
        """Do the work for each batch, a few at a time; where it fails for one, it goes on for the others."""
        todo = iter(records)
        progress = Progress(step, len(records), self._say)

        async def worker() -> None:
            for record in todo:
                if self._is_over:
                    return
                try:
                    await work(record)
                except NotFoundError as error:
                    record.outcome, record.error = "already_gone", None
                    self.tally.already_gone += 1
                    self._say(f"Batch {record.batch_id} is gone already. {error}")
                except Exception as error:
                    self._failed(record, error)
                progress.advance()

        await asyncio.gather(*(worker() for _ in range(min(self._in_flight, len(records)))))

    def _failed(self, record: Record, error: Exception) -> None:
        record.error = str(error) if isinstance(error, BatchesError) else f"{type(error).__name__}: {error}"
        record.transient = error.passing if isinstance(error, BatchesError) else True
        if isinstance(error, BatchesError) and (is_about_the_key(error) or self.client.pace.gave_up(error)):
            self.fatal = error
        if not isinstance(error, StoppedError):
            self._say(f"Batch {record.batch_id}: {record.error}")

    async def _cancel(self, record: Record) -> None:
        if self._seen_all and record.batch_id not in self._seen:
            # Not in the list, so most likely gone; a cancel would be refused at greater length.
            self._seen[record.batch_id] = await self._unlisted(record.batch_id)
            if self._is_stopping(record):
                return
        try:
            batch = await self.client.cancel(record.batch_id)
        except BatchesError as error:
            record.runs_on = error.passing
            raise
        self._seen[record.batch_id], record.error, record.runs_on = batch, None, False
        if batch.cancel_initiated_at is not None or not batch.ended:
            self.tally.canceled += not record.canceled
            record.canceled, record.cancel_request_id = True, batch.request_id

    async def _finish(self, record: Record) -> None:
        batch = self._seen.get(record.batch_id)
        if batch is None:
            batch = await (self._unlisted if self._seen_all else self.client.find)(record.batch_id)
        if not batch.ended:
            # Why it could not be canceled, if so, says more.
            record.error = record.error or f"It is {batch.processing_status} and has not ended yet."
            return
        if not record.ended:
            record.ended = True
            self.tally.ended += 1
        if self._saver and self._reader:
            async with self._saves:
                await self._save(record, batch, self._saver, self._reader)
        if self._stopped():
            raise StoppedError("The task was told to stop.")
        deleted = await self.client.delete(record.batch_id)
        record.outcome, record.error, record.delete_request_id = "deleted", None, deleted.request_id
        record.deleted_at = datetime.now(timezone.utc).isoformat()
        self.tally.deleted += 1

    async def _save(self, record: Record, batch: MessageBatch, saver: Saver, reader: BatchesClient) -> None:
        was_away = False
        while True:
            await self.client.pace.turn()
            try:
                saved = await asyncio.to_thread(saver.save, reader, batch)
                break
            except RateLimitError as error:
                if not self.client.pace.refused(error):
                    raise
            except BatchesError as error:
                if was_away or not is_outage(error):
                    raise
                was_away = True
                # Returns once the API answers again.
                await self.client.retrieve(batch.id)
        if saved.fetched:
            await asyncio.to_thread(saver.check, batch.id, saved)
        is_first = record.results is None
        record.results = {
            "path": saved.path,
            **{name: saved.record[name] for name in ("missing", "lines", "size", "sha256", "request_id")},
            "fetched": saved.fetched,
        }
        if is_first and not saved.missing:
            self.tally.saved += 1
            self.tally.bytes_saved += saved.size

    async def _unlisted(self, batch_id: str) -> MessageBatch:
        """Return a batch that was in no page of the list; one that is new may not have been there yet."""
        await asyncio.sleep(self._seen_at + DOUBT - asyncio.get_running_loop().time())
        return await self.client.retrieve(batch_id)

    async def _look(self, records: list[Record]) -> None:
        """See how the batches are; where the list cannot be read, the job is over."""
        try:
            await self._read(records)
        except BatchesError as error:
            self.fatal = error

    async def _read(self, records: list[Record]) -> None:
        """Look at the batches by pages of the list as long as these are cheaper than asking for each."""
        left = {record.batch_id for record in records}
        self._seen, self._seen_all = {}, False
        self._seen_at = asyncio.get_running_loop().time()
        read = 0
        async with aclosing(self._pages()) as pages:
            while len(left) - read > WORTH:
                page = await anext(pages, None)
                if page is None:
                    self._seen_all = True
                    return
                read += 1
                self._seen |= {batch.id: batch for batch in page.data if batch.id in left}
                left -= self._seen.keys()

    async def _pages(self) -> AsyncGenerator[BatchPage, None]:
        """Iterate over the pages of the list, newest first; some batches may come twice."""
        cursor: str | None = None
        restarts = 0
        while True:
            try:
                page = await self.client.page(MAX_PAGE, cursor)
            except APIStatusError as error:
                if cursor is None or restarts == RESTARTS or not is_about_the_batch(error):
                    raise
                cursor, restarts = None, restarts + 1
                continue
            yield page
            if not page.has_more or not page.data:
                return
            if page.last_id is None or page.last_id == cursor:
                raise InvalidResponseError("Could not list batches: there are more, but the API does not say where.")
            cursor = page.last_id
