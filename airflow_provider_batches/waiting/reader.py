"""Reads the state of batches for many waits, in as few requests as it can. docs/poller.md explains it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from airflow_provider_batches.api import AsyncBatchesClient, BatchesError, InvalidResponseError, MessageBatch
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.flows import listed_all_the_same
from airflow_provider_batches.api.models import read_batch
from airflow_provider_batches.api.pager import Pager
from airflow_provider_batches.waiting.pages import Pages, worth_a_page
from airflow_provider_batches.waiting.pending import PendingWait

log = logging.getLogger(__name__)

#: Retrievals in flight at once.
IN_FLIGHT = 8
#: Of the waits whose batches' age is not known, a page is read for every so many of them before they are retrieved.
UNKNOWN_PER_PAGE = 4
#: Seconds after which a list that was refused is tried again.
LIST_AGAIN = 600.0
#: Answers after which other tasks of the event loop get their turn.
YIELD_EVERY = 100
#: What every wait of the connection would be answered, too.
_FOR_ALL = (Proof.RATE_LIMIT, Proof.KEY_REFUSED, Proof.SPEND_LIMIT)
#: What suggests that nobody is answered at the moment, if several calls in a row end so.
_NOBODY = (Proof.NOTHING, Proof.WRONG_ADDRESS)


class Reader:
    """Polls batches through one client.

    :param list_failures: Failures of the list in a row after which each batch is retrieved.
    """

    def __init__(self, client: AsyncBatchesClient, list_failures: int) -> None:
        self._client = client
        self._most_list_failures = list_failures
        self._list_failures = 0
        self._lists_from = 0.0
        self._pages = Pages()
        #: The last 429, for waits whose time is over while all calls are held.
        self._held_by: BatchesError | None = None

    async def poll(self, pending: Collection[PendingWait]) -> None:
        """Poll each wait that is due: one cycle."""
        now, hold = time.time(), self._client.throttle.hold_seconds
        due = [each for each in pending if each.due <= now and not each.outcome.done()]
        if hold and self._held_by:
            for each in due:
                each.postpone(now + hold, self._held_by)
            return
        if not due:
            return
        everyone, by_id = list(pending), defaultdict(list)
        for each in everyone:
            by_id[each.wait.batch_id].append(each)
        left = {each.wait.batch_id: each.wait.created_at for each in everyone if each.early <= now}
        try:
            if self._lists_from <= now:
                await self._read_pages(by_id, left, due)
            await self._retrieve_each(by_id, [each for each in due if each.due <= now])
            await self._confirm([each for each in everyone if each.suspicion and not each.outcome.done()])
        except BatchesError as error:
            # It is about the connection, not about a batch.
            if error.evidence.proof is Proof.RATE_LIMIT:
                self._held_by = error
                log.warning("Waits that are held back: %d. %s", len(everyone), error)
            else:
                # Not to all waits: they count how often it came, and newcomers would make them give up sooner.
                await _deliver(error, due)

    async def _read_pages(
        self, by_id: Mapping[str, list[PendingWait]], left: dict[str, float | None], due: list[PendingWait]
    ) -> None:
        """Answer what pages answer more cheaply than retrievals.

        :param left: The batches to be found, and when they were created.
        """
        pager, most, fruitless = Pager(), len(left), 0
        while not pager.ended and pager.number < most and self._is_worth_a_page(left.values(), pager.number, fruitless):
            try:
                page = await self._client.page(pager, retries=0)
            except BatchesError as error:
                return await self._list_failed(error, due)
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

    def _is_worth_a_page(self, created: Collection[float | None], number: int, fruitless: int) -> bool:
        # A batch whose age is not known is looked for on the next page, unless too many were fruitless.
        unknown = sum(each is None for each in created)
        numbers = [self._pages.number_of(each) for each in created if each is not None]
        return worth_a_page(numbers + [number] * (unknown if fruitless * UNKNOWN_PER_PAGE < unknown else 0), number)

    async def _list_failed(self, error: BatchesError, due: list[PendingWait]) -> None:
        """Go on to retrieve each batch if the list is refused or keeps failing; else the waits have the error."""
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
        # In another order each time: some broken batches must not keep the others from their answers.
        random.shuffle(todo)
        stop: BatchesError | None = None
        while todo:
            answers = await asyncio.gather(*map(self._retrieve, todo[:IN_FLIGHT]))
            if all(isinstance(answer, BatchesError) and answer.evidence.proof in _NOBODY for answer in answers):
                # The other calls would most likely fail as well, and could take long to.
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

    async def _confirm(self, suspects: list[PendingWait]) -> None:
        """End the waits for batches that could be retrieved no longer if the list does not have them either."""
        if not suspects:
            return
        seen = [each.wait.seen_since for each in suspects if each.wait.seen_since is not None]
        since = datetime.fromtimestamp(min(seen), timezone.utc) if seen else None
        try:
            listed = await self._client.listed({each.wait.batch_id for each in suspects}, since, retries=0)
        except BatchesError as error:
            if error.evidence.proof in _FOR_ALL and not _is_list_refused(error):
                raise
            return await _deliver(error, suspects)
        for each in suspects:
            if each.wait.batch_id in listed:
                each.deliver(listed_all_the_same(each.wait.batch_id))
            elif each.suspicion:
                each.end(each.suspicion)


def _is_list_refused(error: BatchesError) -> bool:
    """Whether a key may not list batches, or an address does not serve the list: retrievals may work."""
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
