"""One poller asks the API on behalf of many waits.

A cycle looks at every wait that is due: a few are retrieved one by one, many are read from pages of the list, and a
page answers every wait whose batch it holds, due or not. docs/poller.md explains it on one page.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from airflow_provider_batches.api.client import AsyncBatchesClient
from airflow_provider_batches.api.errors import BatchesError, InvalidResponseError, RateLimitError
from airflow_provider_batches.api.models import MessageBatch
from airflow_provider_batches.api.pages import Pages, read_batch, worth_a_page
from airflow_provider_batches.api.retry import is_about_the_key
from airflow_provider_batches.api.retry import pause as retry_pause
from airflow_provider_batches.api.waiting import Outcome, Wait

log = logging.getLogger(__name__)

#: Retrieves in flight at once.
IN_FLIGHT = 8
#: Of the waits whose batches' age is not known, a page is read for every so many of them before they are retrieved.
UNKNOWN_PER_PAGE = 4
#: Failures of the list in a row after which a retrieve shows whether the list alone is broken.
PATIENCE = 3
#: Seconds after which a list that could not be read is tried again.
LIST_AGAIN = 600.0
#: Seconds that calls in flight have to end once nobody waits for them any more.
GRACE = 0.5
#: Batches of a page after which other tasks of the event loop get their turn.
BREATH = 100
#: Seconds between lines about the progress of several waits.
PROGRESS = 60.0
MAX_SLEEP = 86_400.0


class Seat:
    """One wait's place in a poller: when it is due, and where its answers go."""

    __slots__ = ("_context", "_say", "created_at", "due", "near", "outcome", "wait")

    def __init__(self, wait: Wait, due: float, say: Callable[[str], Any] | None) -> None:
        self.wait = wait
        self.due = due
        #: From when on the wait joins a cycle that others have caused.
        self.near = due
        #: When the batch was created, in seconds since the epoch; None before the first answer.
        self.created_at: float | None = None
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._say = say
        # The poller has a context of its own; a wait's lines belong into its own task's log.
        self._context = contextvars.copy_context() if say else None

    def told(self, answer: MessageBatch | BatchesError) -> None:
        """Take an answer: the wait has its outcome, or is due again later."""
        if self.outcome.done():
            return
        now = time.time()
        verdict = self.wait.heard(answer, now)
        if isinstance(answer, MessageBatch):
            self.created_at = answer.created_at.timestamp()
        if verdict.news and self._say and self._context:
            self._context.run(self._say, verdict.news)
        if verdict.outcome:
            self.outcome.set_result(verdict.outcome)
        self.due = now + verdict.pause
        self.near = now + verdict.pause / 2


class Poller:
    """Looks at the batches of many waits through one client, for as long as there are waits.

    :param open_client: Opens the client, when the first wait comes; what it raises, that wait raises.
    :param patience: See PATIENCE.
    """

    def __init__(self, open_client: Callable[[], Awaitable[AsyncBatchesClient]], patience: int = PATIENCE) -> None:
        self._open_client = open_client
        self._patience = patience
        self._lock = asyncio.Lock()
        self._client: AsyncBatchesClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._seats: set[Seat] = set()
        self._wake = asyncio.Event()
        self._sleeps_until = 0.0
        self._held_until = 0.0
        self._held_by: RateLimitError | None = None
        self._holds = 0
        #: The last refusal of the key, until it is acted on.
        self._denied: BatchesError | None = None
        #: Whether the client was opened anew because of one, and nothing has been answered since.
        self._renewed = False
        self._pages = Pages()
        self._list_failures = 0
        self._lists_from = 0.0

    @property
    def busy(self) -> bool:
        """Whether anybody waits here."""
        return bool(self._seats)

    async def wait(
        self,
        waits: Sequence[Wait],
        first_look: float,
        say: Callable[[str], Any],
        gives_up: Callable[[Outcome], bool] = lambda outcome: outcome.status != "ended",
    ) -> list[Outcome]:
        """Return how the waits ended, once all have, or one in a way that makes the others pointless.

        :param waits: What is waited for.
        :param first_look: Before which time the API is not asked, in seconds since the epoch.
        :param say: Takes lines for the log: what happens to a single wait, or how many of several have ended.
        :param gives_up: Whether an outcome ends them all.
        """
        seats = self._sit(waits, first_look, say)
        try:
            await self._start()
            if first_look < self._sleeps_until:
                self._wake.set()
            if len(seats) == 1:
                return [await seats[0].outcome]
            await _progress([seat.outcome for seat in seats], say, gives_up)
            return [seat.outcome.result() for seat in seats if seat.outcome.done()]
        finally:
            self._seats.difference_update(seats)
            await self._stop()

    def _sit(self, waits: Sequence[Wait], first_look: float, say: Callable[[str], Any]) -> list[Seat]:
        # Not in `wait`, whose frames live as long as the waits: what a comprehension captures would live on in each.
        seats = [Seat(wait, first_look, say if len(waits) == 1 else None) for wait in waits]
        self._seats.update(seats)
        return seats

    async def _start(self) -> None:
        async with self._lock:
            if self._task and self._task.done():
                await self._end()
            if self._task is None:
                self._client = await self._open_client()
                # In an empty context: that of the wait that came first would make its log everybody's.
                self._task = contextvars.Context().run(asyncio.create_task, self._run())

    async def _stop(self) -> None:
        async with self._lock:
            if not self._seats:
                await self._end()

    async def _end(self) -> None:
        if self._task and self._client:
            self._wake.set()
            # A call that is canceled while its connection is being made would leave that open.
            await asyncio.wait([self._task], timeout=GRACE)
            self._task.cancel()
            await asyncio.wait([self._task])
            await self._client.aclose()
            self._task = self._client = None

    async def _run(self) -> None:
        try:
            while self._seats and self._client:
                await self._sleep_until(min(map(self._next_look, self._seats), default=float("inf")))
                await self._cycle(self._client)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # No wait may hang because of a mistake in here, or of what a signal's handler raises: Airflow's timeout.
            for seat in self._seats:
                if not seat.outcome.done():
                    seat.outcome.set_exception(error)

    def _next_look(self, seat: Seat) -> float:
        if seat.outcome.done():
            return float("inf")
        # A wait whose time is over while the API wants to be left alone ends on time all the same.
        return max(seat.due, min(self._held_until, seat.wait.end_time))

    async def _sleep_until(self, due: float) -> None:
        self._wake.clear()
        self._sleeps_until = due
        # Not asyncio.wait_for, which up to Python 3.11 loses a cancel that comes as `_wake` is set.
        alarm = asyncio.get_running_loop().call_later(max(0.0, min(due - time.time(), MAX_SLEEP)), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()
        self._sleeps_until = 0.0

    async def _cycle(self, client: AsyncBatchesClient) -> None:
        now = time.time()
        due = [seat for seat in self._seats if self._next_look(seat) <= now]
        if self._held_by and now < self._held_until:
            for seat in due:
                seat.told(self._held_by)
        elif due:
            seats = defaultdict(list)
            for seat in self._seats:
                seats[seat.wait.batch_id].append(seat)
            if await self._read_pages(client, seats, due, now):
                await self._retrieve_each(client, seats, due, now)
            if self._denied:
                denied, self._denied = self._denied, None
                self._renewed = not self._renewed and await self._renew(client)
                for seat in () if self._renewed else self._seats:
                    seat.told(denied)

    async def _renew(self, client: AsyncBatchesClient) -> bool:
        """Open the client anew; return whether the connection has other settings by now, such as a new key."""
        try:
            self._client = await self._open_client()
        except Exception as error:
            # Its text may hold anything.
            log.warning("The key is refused, and the connection cannot be read again: %s", type(error).__name__)
            return False
        await client.aclose()
        return self._client.settings != client.settings

    async def _read_pages(
        self, client: AsyncBatchesClient, seats: Mapping[str, list[Seat]], due: list[Seat], now: float
    ) -> bool:
        """Answer what pages answer more cheaply than retrieves; return whether the cycle goes on."""
        near = {seat.wait.batch_id: seat for seat in self._seats if seat.near <= now and not seat.outcome.done()}
        most, number, fruitless, cursor = len(near), 0, 0, None
        lists = self._lists_from <= now
        while lists and number < most and worth_a_page(self._numbers(near.values(), number, fruitless), number):
            try:
                page = await client.raw_page(cursor, retries=0)
            except BatchesError as error:
                return await self._page_failed(client, error, number, due)
            self._list_failures = 0
            self._answered()
            before = len(near)
            for index, raw in enumerate(page.data):
                if waiting := seats.get(str(raw.get("id"))):
                    near.pop(raw["id"], None)
                    answer = read_batch(raw)
                    for seat in waiting:
                        seat.told(answer)
                if index % BREATH == 0:
                    await asyncio.sleep(0)
            if page.data:
                self._pages.learn(number, page)
            if not page.has_more or not page.last_id:
                break
            number, cursor = number + 1, page.last_id
            fruitless = fruitless + 1 if len(near) == before else 0
        return True

    def _numbers(self, near: Collection[Seat], number: int, fruitless: int) -> Iterator[int]:
        """Yield on which pages the batches stand that are still to be found.

        One whose age is not known is looked for on page `number`, the next one, unless too many were `fruitless`.
        """
        unknown = sum(seat.created_at is None for seat in near)
        for seat in near:
            if seat.created_at is not None:
                yield self._pages.number_of(seat.created_at)
            elif fruitless * UNKNOWN_PER_PAGE < unknown:
                yield number

    async def _page_failed(self, client: AsyncBatchesClient, error: BatchesError, number: int, due: list[Seat]) -> bool:
        if self._concerns_all(error):
            return False
        if number == 0 and (not error.transient or await self._only_the_list_fails(client, due[0])):
            log.warning("Batches cannot be listed, so for %.0f s each is retrieved. %s", LIST_AGAIN, error)
            self._lists_from, self._list_failures = time.time() + LIST_AGAIN, self._patience - 1
            return True
        # A refusal behind the first page is about the page (the batch before it may be gone), not about the waits.
        trouble = error if error.transient else InvalidResponseError(str(error))
        for seat in due:
            seat.told(trouble)
        return False

    async def _only_the_list_fails(self, client: AsyncBatchesClient, seat: Seat) -> bool:
        """Count a failure of the list; return whether it has often failed while a batch can be retrieved."""
        self._list_failures += 1
        if self._list_failures % self._patience:
            return False
        try:
            await client.retrieve(seat.wait.batch_id, retries=0)
        except BatchesError as error:
            return not self._concerns_all(error) and not error.transient
        return True

    async def _retrieve_each(
        self, client: AsyncBatchesClient, seats: Mapping[str, list[Seat]], due: list[Seat], now: float
    ) -> None:
        left = list(dict.fromkeys(seat.wait.batch_id for seat in due if self._next_look(seat) <= now))
        for start in range(0, len(left), IN_FLIGHT):
            asked = (self._retrieve(client, seats[batch_id]) for batch_id in left[start : start + IN_FLIGHT])
            if not all(await asyncio.gather(*asked)):
                break

    async def _retrieve(self, client: AsyncBatchesClient, seats: list[Seat]) -> bool:
        """Answer the waits for one batch; return whether the cycle goes on."""
        answer: MessageBatch | BatchesError
        try:
            answer = await client.retrieve(seats[0].wait.batch_id, retries=0)
            self._answered()
        except BatchesError as error:
            if self._concerns_all(error):
                return False
            answer = error
        for seat in seats:
            seat.told(answer)
        return True

    def _answered(self) -> None:
        self._holds, self._renewed = 0, False

    def _concerns_all(self, error: BatchesError) -> bool:
        """Act on an answer that is about the connection, not about a batch; return whether it is one."""
        now = time.time()
        if isinstance(error, RateLimitError):
            if now >= self._held_until:
                self._holds += 1
                # However soon the API says to come back: what it refuses again and again is asked less often.
                pause = max(retry_pause(self._holds, error), retry_pause(self._holds, None))
                self._held_until, self._held_by = now + pause, error
                log.warning("%d waits are held back for %.1f s. %s", len(self._seats), pause, error)
            return True
        if is_about_the_key(error):
            self._denied = error
            return True
        return False


async def _progress(
    outcomes: list[asyncio.Future[Outcome]], say: Callable[[str], Any], gives_up: Callable[[Outcome], bool]
) -> None:
    """Return once all are there, or one that makes the others pointless; say now and then how many are."""
    over = asyncio.Event()
    left = len(outcomes)

    def ended(outcome: asyncio.Future[Outcome]) -> None:
        nonlocal left
        left -= 1
        if not left or outcome.cancelled() or outcome.exception() or gives_up(outcome.result()):
            over.set()

    for outcome in outcomes:
        outcome.add_done_callback(ended)
    while left and not over.is_set():
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(over.wait(), PROGRESS)
        say(f"{len(outcomes) - left} of {len(outcomes)} batches have ended.")
