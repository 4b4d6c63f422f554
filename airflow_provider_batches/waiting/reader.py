"""Reads the state of many batches in as few requests as possible. docs/poller.md explains it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from airflow_provider_batches.api import AsyncBatchesClient, BatchesError, InvalidResponseError, MessageBatch
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.flows import listed_but_not_found
from airflow_provider_batches.api.models import read_batch, read_time
from airflow_provider_batches.api.pager import Pager
from airflow_provider_batches.waiting.pages import Pages, worth_a_page
from airflow_provider_batches.waiting.pending import PendingWait
from airflow_provider_batches.waiting.watch import Watch

log = logging.getLogger(__name__)

#: Retrievals in flight at once.
IN_FLIGHT = 8
#: Batches of unknown age per page that is read in search of them, before they are retrieved.
UNKNOWN_PER_PAGE = 4
#: Seconds before a refused list call is retried.
LIST_AGAIN = 600.0
#: Answers after which other tasks of the event loop may run.
YIELD_EVERY = 100
#: Failures that affect every wait of the connection.
_FOR_ALL = (Proof.RATE_LIMIT, Proof.KEY_REFUSED, Proof.SPEND_LIMIT)
#: Failures that suggest an outage if all calls in flight fail so.
_OUTAGE = (Proof.NOTHING, Proof.WRONG_ADDRESS)


class Reader:
    """Polls batches through one client.

    :param list_failures: Consecutive failures of the list after which each batch is retrieved.
    """

    def __init__(self, client: AsyncBatchesClient, list_failures: int) -> None:
        self._client = client
        self._most_list_failures = list_failures
        self._list_failures = 0
        self._lists_from = 0.0
        self._pages = Pages()
        #: The last 429, for waits that time out while all calls are held.
        self._held_by: BatchesError | None = None

    async def poll(self, pending: Collection[PendingWait], watches: Collection[Watch] = ()) -> None:
        """Run one cycle: poll each wait that is due, and look for batches that have ended."""
        now, hold = time.time(), self._client.throttle.hold_seconds
        due = [each for each in pending if each.due <= now and not each.outcome.done()]
        looking = [watch for watch in watches if watch.due <= now]
        if hold and self._held_by:
            for each in due:
                each.postpone(now + hold, self._held_by)
            for watch in looking:
                watch.due = now + hold
            return
        if not due and not looking:
            return
        # A look that is due soon shares the pages of this cycle.
        looking = [watch for watch in watches if watch.due <= now + watch.interval / 2]
        everyone, by_id = list(pending), defaultdict(list)
        for each in everyone:
            by_id[each.wait.batch_id].append(each)
        left = {each.wait.batch_id: each.wait.created_at for each in everyone if each.early <= now}
        try:
            if self._lists_from <= now:
                await self._read_pages(by_id, left, due, looking)
            else:
                for watch in looking:
                    watch.due = self._lists_from
            await self._retrieve_each(by_id, [each for each in due if each.due <= now])
            await self._confirm([each for each in everyone if each.unconfirmed and not each.outcome.done()])
        except BatchesError as error:
            # The error affects the connection, not one batch.
            self._looks_failed(looking, error)
            if error.evidence.proof is Proof.RATE_LIMIT:
                self._held_by = error
                log.warning("Polling is paused for %d waits. %s", len(everyone), error)
            else:
                # Not to all waits: each counts its failures, and the polls of others would end it too soon.
                await _deliver(error, due)

    async def _read_pages(
        self,
        by_id: Mapping[str, list[PendingWait]],
        left: dict[str, float | None],
        due: list[PendingWait],
        looking: Sequence[Watch] = (),
    ) -> None:
        """Deliver answers from the list while that takes fewer requests than retrievals, or a watch needs a page.

        :param left: The batches to find, and when they were created.
        """
        pager, most, fruitless = Pager(), len(left), 0
        seen: list[dict[str, Any]] = []
        known_since = min((watch.known_since for watch in looking), default=float("inf"))
        read_to = float("inf")
        while not pager.ended and (
            read_to > known_since
            or (pager.number < most and self._is_worth_a_page(left.values(), pager.number, fruitless))
        ):
            try:
                page = await self._client.page(pager, retries=0)
            except BatchesError as error:
                self._looks_failed(looking, error)
                return await self._list_failed(error, due)
            if read_to > known_since:
                seen += page.data
                last = read_time(page.data[-1].get("created_at")) if page.data else None
                read_to = last.timestamp() if last else read_to
            before = len(left)
            for index, raw in enumerate(page.data):
                if waiting := by_id.get(str(raw.get("id"))):
                    left.pop(raw["id"], None)
                    answer = _read(raw)
                    for each in waiting:
                        each.deliver(answer)
                if index % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            self._pages.learn(pager.number - 1, page)
            fruitless = fruitless + 1 if len(left) == before else 0
        if pager.number:
            self._list_failures = 0
        for watch in looking:
            await watch.take(seen)

    def _looks_failed(self, looking: Sequence[Watch], error: BatchesError) -> None:
        """Report a failure to the watches whose look is still due."""
        for watch in looking:
            if watch.due <= time.time():
                watch.failed(error)

    def _is_worth_a_page(self, created: Collection[float | None], number: int, fruitless: int) -> bool:
        # A batch of unknown age is expected on the next page, until the limit of fruitless pages is reached.
        unknown = sum(each is None for each in created)
        numbers = [self._pages.number_of(each) for each in created if each is not None]
        return worth_a_page(numbers + [number] * (unknown if fruitless * UNKNOWN_PER_PAGE < unknown else 0), number)

    async def _list_failed(self, error: BatchesError, due: list[PendingWait]) -> None:
        """Fall back to retrievals if the list is refused or keeps failing; otherwise deliver the error."""
        refused = _is_list_refused(error)
        if error.evidence.proof in _FOR_ALL and not refused:
            raise error
        self._list_failures += 1
        if not refused and self._list_failures < self._most_list_failures:
            return await _deliver(error, due)
        if refused:
            self._lists_from = time.time() + LIST_AGAIN
        log.warning("Batches cannot be listed, so each is retrieved. %s", error)

    async def _retrieve_each(self, by_id: Mapping[str, list[PendingWait]], due: list[PendingWait]) -> None:
        todo = list({each.wait.batch_id for each in due})
        # In random order, so that a few failing batches do not always block the same others.
        random.shuffle(todo)
        stop: BatchesError | None = None
        while todo:
            answers = await asyncio.gather(*map(self._retrieve, todo[:IN_FLIGHT]))
            if all(isinstance(answer, BatchesError) and answer.evidence.proof in _OUTAGE for answer in answers):
                # The remaining calls would probably fail, too, and could be slow.
                answers += answers[:1] * (len(todo) - len(answers))
            for batch_id, answer in zip(todo, answers, strict=False):
                if isinstance(answer, BatchesError) and answer.evidence.proof in _FOR_ALL:
                    stop = answer
                else:
                    await _deliver(answer, by_id[batch_id])
            if stop:
                raise stop
            todo = todo[len(answers) :]

    async def _retrieve(self, batch_id: str) -> MessageBatch | BatchesError:
        try:
            return await self._client.retrieve(batch_id, retries=0)
        except BatchesError as error:
            return error

    async def _confirm(self, unconfirmed: list[PendingWait]) -> None:
        """End the waits whose batches were not found if the list does not have them either."""
        if not unconfirmed:
            return
        seen = [each.wait.seen_since for each in unconfirmed if each.wait.seen_since is not None]
        since = datetime.fromtimestamp(min(seen), timezone.utc) if seen else None
        try:
            listed = await self._client.listed({each.wait.batch_id for each in unconfirmed}, since, retries=0)
        except BatchesError as error:
            if error.evidence.proof in _FOR_ALL and not _is_list_refused(error):
                raise
            return await _deliver(error, unconfirmed)
        for each in unconfirmed:
            if each.wait.batch_id in listed:
                each.deliver(listed_but_not_found(each.wait.batch_id))
            elif each.unconfirmed:
                each.end(each.unconfirmed)


def _is_list_refused(error: BatchesError) -> bool:
    """Whether the key may not list batches, or the base URL does not serve the list: retrievals may still work."""
    return error.evidence.proof in (Proof.REFUSED, Proof.TOO_LARGE) or getattr(error, "status", None) == 403


def _read(raw: dict[str, Any]) -> MessageBatch | BatchesError:
    try:
        return read_batch(raw)
    except InvalidResponseError as error:
        return error


async def _deliver(answer: MessageBatch | BatchesError, waits: Iterable[PendingWait]) -> None:
    for index, each in enumerate(waits, 1):
        each.deliver(answer)
        if index % YIELD_EVERY == 0:
            await asyncio.sleep(0)
