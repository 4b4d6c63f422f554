from __future__ import annotations

import asyncio
import contextvars
import time
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batches.api import (
    AccessDeniedError,
    APIConnectionError,
    APIStatusError,
    BatchesError,
    InvalidArgumentError,
    InvalidResponseError,
    MessageBatch,
    NotFoundError,
    Outcome,
    RateLimitError,
    ServerError,
    SpendLimitError,
    Wait,
)
from airflow_provider_batches.api import poller as module
from airflow_provider_batches.api.models import RawPage
from airflow_provider_batches.api.pages import Pages, worth_a_page
from airflow_provider_batches.api.poller import Poller

NEWEST = datetime(2026, 11, 1, tzinfo=timezone.utc)
PAGE = 10


def a_batch(number: int, status: str = "in_progress") -> MessageBatch:
    created = NEWEST - timedelta(seconds=number)
    counts = {"succeeded": 3} if status == "ended" else {"processing": 3}
    return MessageBatch.model_validate(
        {
            "id": f"b{number}",
            "processing_status": status,
            "request_counts": counts,
            "created_at": created,
            "expires_at": created + timedelta(days=1),
        }
    )


class FakeClient:
    """An API in memory, whose list holds batches b0 (newest), b1, ... and that counts what it is asked."""

    def __init__(self, batches: int = 0, key: str = "one") -> None:
        self.settings = key
        self.batches = {f"b{number}": a_batch(number) for number in range(batches)}
        self.asked: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.page_error: dict[int, BatchesError] = {}
        self.error: BatchesError | None = None
        self.unreadable: set[str] = set()
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True

    async def raw_page(self, after_id: str | None, *, retries: int) -> RawPage:
        assert retries == 0
        ids = list(self.batches)
        start = ids.index(after_id) + 1 if after_id else 0
        self.asked.append("page")
        await asyncio.sleep(0)
        if error := self.error or self.page_error.get(start // PAGE):
            raise error
        found = ids[start : start + PAGE]
        return RawPage(
            data=[
                {"id": batch_id} if batch_id in self.unreadable else self.batches[batch_id].model_dump()
                for batch_id in found
            ],
            has_more=start + PAGE < len(ids),
            last_id=found[-1] if found else None,
        )

    async def retrieve(self, batch_id: str, *, retries: int) -> MessageBatch:
        assert retries == 0
        self.asked.append(batch_id)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        if self.error:
            raise self.error
        if batch_id not in self.batches:
            raise NotFoundError("unknown", status=404)
        return self.batches[batch_id]

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self.batches[f"b{number}"] = a_batch(number, "ended")

    def cycle(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "time", clock.time)
    return clock


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_batches.api.pages.MAX_PAGE", PAGE)


class Waiters:
    """Some waits in one poller whose cycles a test runs itself, one at a time."""

    def __init__(self, client: FakeClient, clock: Clock) -> None:
        self.client, self.clock = client, clock
        self.poller = Poller(self.open)
        self.poller._client = client  # type: ignore[assignment]
        self.lines: list[str] = []
        self.opened: list[FakeClient] = []

    async def open(self) -> Any:
        self.opened.append(FakeClient(20, self.client.settings))
        return self.opened[-1]

    def add(self, *numbers: int, poll_interval: float = 10.0, timeout: float = 3600.0) -> list[module.Seat]:
        seats = []
        for number in numbers:
            wait = Wait(
                f"b{number}",
                poll_interval=poll_interval,
                start_time=self.clock.now - 60,
                end_time=self.clock.now + timeout,
            )
            seats.append(module.Seat(wait, self.clock.now, self.lines.append))
        self.poller._seats.update(seats)
        return seats

    async def cycle(self, seconds: float = 0.0) -> list[str]:
        self.clock.now += seconds
        await self.poller._cycle(self.client)  # type: ignore[arg-type]
        return self.client.cycle()


def pages_needed(numbers: list[int]) -> int:
    return max(numbers) // PAGE + 1


# --- which pages are worth it -------------------------------------------------------------------------------------


def test_one_or_two_waits_are_not_worth_a_page() -> None:
    assert not worth_a_page([0], 0)
    assert not worth_a_page([0, 0], 0)


def test_three_waits_on_the_next_page_are_worth_it() -> None:
    assert worth_a_page([0, 0, 0], 0)


def test_a_page_far_down_is_worth_it_for_enough_waits_only() -> None:
    assert not worth_a_page([5] * 7, 0)
    assert worth_a_page([5] * 8, 0)


def test_waits_on_pages_already_read_do_not_count() -> None:
    assert not worth_a_page([0, 0, 0], 1)


@given(st.lists(st.integers(0, 30), max_size=60))
def test_pages_are_read_where_they_save_two_requests_at_least(numbers: list[int]) -> None:
    cheapest = min(read + sum(number >= read for number in numbers) for read in range(max(numbers, default=0) + 2))
    assert worth_a_page(numbers, 0) == (cheapest <= len(numbers) - 2)


def test_a_batch_stands_on_the_page_whose_end_is_older() -> None:
    client = FakeClient(35)
    pages = Pages()
    batches = list(client.batches.values())
    for number in range(3):
        data = batches[number * PAGE : (number + 1) * PAGE]
        pages.learn(number, RawPage(data=[batch.model_dump() for batch in data], has_more=True))
    assert [pages.number_of(batch.created_at.timestamp()) for batch in batches] == [n // PAGE for n in range(35)]


def test_beyond_the_known_pages_the_time_they_cover_tells() -> None:
    pages = Pages()
    pages.learn(0, RawPage(data=[a_batch(n).model_dump() for n in range(PAGE)], has_more=True))
    assert [pages.number_of(a_batch(n).created_at.timestamp()) for n in (10, 59, 60)] == [1, 5, 6]


def test_nothing_is_known_of_pages_before_one_was_read() -> None:
    assert Pages().number_of(NEWEST.timestamp()) == 0


# --- what a cycle asks --------------------------------------------------------------------------------------------


async def test_a_few_waits_are_retrieved_one_by_one(clock: Clock) -> None:
    waiters = Waiters(FakeClient(20), clock)
    waiters.add(3, 7)
    assert sorted(await waiters.cycle()) == ["b3", "b7"]


async def test_many_waits_are_read_from_pages(clock: Clock) -> None:
    waiters = Waiters(FakeClient(20), clock)
    waiters.add(*range(20))
    assert await waiters.cycle() == ["page", "page"]


async def test_paging_stops_as_soon_as_every_wait_is_answered(clock: Clock) -> None:
    waiters = Waiters(FakeClient(200), clock)
    waiters.add(0, 1, 2, 3)
    assert await waiters.cycle() == ["page"]


async def test_a_straggler_far_down_the_list_is_retrieved(clock: Clock) -> None:
    waiters = Waiters(FakeClient(500), clock)
    waiters.add(0, 1, 2, 3, 4, 480)
    assert await waiters.cycle() == ["page", "b480"]
    assert await waiters.cycle(10) == ["page", "b480"]


async def test_three_waits_behind_many_newer_batches_cost_four_requests_at_most(clock: Clock) -> None:
    waiters = Waiters(FakeClient(60), clock)
    waiters.add(57, 58, 59)
    assert len(await waiters.cycle()) <= 4
    assert sorted(await waiters.cycle(10)) == ["b57", "b58", "b59"]


async def test_many_waits_far_down_are_read_from_pages_all_the_same(clock: Clock) -> None:
    waiters = Waiters(FakeClient(100), clock)
    waiters.add(*range(40, 80))
    assert await waiters.cycle() == ["page"] * 8


async def test_a_page_answers_waits_that_are_not_due_yet(clock: Clock) -> None:
    waiters = Waiters(FakeClient(10), clock)
    waiters.add(0, 1, 2)
    late = waiters.add(3)[0]
    late.due = late.near = clock.now + 9
    await waiters.cycle()
    assert late.due == clock.now + 10


async def test_a_wait_that_is_due_soon_joins_the_cycle_of_others(clock: Clock) -> None:
    waiters = Waiters(FakeClient(10), clock)
    seats = waiters.add(0, 1, 2)
    for seat, due in zip(seats, (0, 4, 5), strict=True):
        seat.due, seat.near = clock.now + due, clock.now
    assert await waiters.cycle() == ["page"]


async def test_two_waits_for_one_batch_cost_one_request(clock: Clock) -> None:
    waiters = Waiters(FakeClient(10), clock)
    waiters.client.end(5)
    seats = waiters.add(5, 5)
    assert await waiters.cycle() == ["b5"]
    assert all(seat.outcome.done() for seat in seats)


async def test_retrieves_in_flight_are_bounded(clock: Clock) -> None:
    client = FakeClient(0)
    waiters = Waiters(client, clock)
    waiters.poller._lists_from = clock.now + 3600
    waiters.add(*range(50))
    await waiters.cycle()
    assert client.most_in_flight == module.IN_FLIGHT


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 150), min_size=1, max_size=60), st.integers(0, PAGE))
async def test_once_ages_are_known_a_cycle_costs_the_cheaper_way_plus_one_at_most(chosen: set[int], newer: int) -> None:
    clock, numbers = Clock(), sorted(chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "time", clock.time)
        waiters = Waiters(FakeClient(160), clock)
        waiters.add(*numbers)
        await waiters.cycle()
        asked = await waiters.cycle(10)
        assert len(asked) <= min(len(numbers), pages_needed(numbers)) + 1
        for seat in waiters.poller._seats:
            assert seat.due == clock.now + 10
        # New batches push others over the end of a page, which is known only once it is read.
        waiters.client.batches = {f"b{n}": a_batch(n) for n in range(-newer, 160)}
        asked = await waiters.cycle(10)
        assert len(asked) <= min(len(numbers), pages_needed([n + newer for n in numbers])) + 2


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 150), min_size=1, max_size=60), st.data())
async def test_every_wait_learns_of_its_batch_s_end_in_the_next_cycle(chosen: set[int], data: st.DataObject) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "time", clock.time)
        waiters = Waiters(FakeClient(160), clock)
        seats = dict(zip(chosen, waiters.add(*chosen), strict=True))
        await waiters.cycle()
        ending = data.draw(st.sets(st.sampled_from(sorted(chosen))))
        waiters.client.end(*ending)
        await waiters.cycle(10)
        assert {number for number, seat in seats.items() if seat.outcome.done()} == ending


# --- trouble ------------------------------------------------------------------------------------------------------


async def test_a_404_is_followed_up_for_that_wait_alone(clock: Clock) -> None:
    waiters = Waiters(FakeClient(10), clock)
    waiters.add(0, 1, 2)
    (lost,) = waiters.add(99)
    asked = [await waiters.cycle()]
    asked += [await waiters.cycle(pause) for pause in (1, 2)]
    assert asked == [["page", "b99"], ["b99"], ["b99"]]
    await waiters.cycle(4)
    assert lost.outcome.result().status == "missing"


async def test_a_batch_on_a_page_that_cannot_be_read_is_the_trouble_of_its_own_wait(clock: Clock) -> None:
    client = FakeClient()
    client.batches = {f"b{number}": a_batch(number, "ended") for number in range(PAGE)}
    client.unreadable = {"b0", "b5", f"b{PAGE - 1}"}
    waiters = Waiters(client, clock)
    seats = waiters.add(*range(PAGE))
    await waiters.cycle()
    assert {seat.wait.batch_id for seat in seats if not seat.outcome.done()} == client.unreadable
    client.unreadable = set()
    await waiters.cycle(5)
    assert all(seat.outcome.result().status == "ended" for seat in seats)


async def test_a_401_ends_every_wait(clock: Clock) -> None:
    waiters = Waiters(FakeClient(30), clock)
    seats = waiters.add(*range(30))
    seats[0].due = clock.now + 100
    waiters.client.error = AccessDeniedError("no", status=401)
    assert await waiters.cycle() == ["page"]
    assert {seat.outcome.result().status for seat in seats} == {"refused"}


async def a_new_key(life: Life, *numbers: int) -> tuple[FakeClient, list[Outcome]]:
    """Give the connection a new key while the old one is refused; return its client, and how a wait ends."""
    life.client.error = None
    task = life.wait(*numbers)
    await until(lambda: len(life.client.asked) > len(numbers))
    old, life.client = life.client, FakeClient(20, "two")
    life.client.end(*numbers)
    old.error = AccessDeniedError("revoked", status=401)
    return old, await task


@pytest.mark.parametrize("waits", [1, 12])
async def test_a_connection_s_new_key_takes_the_place_of_the_refused_one(waits: int) -> None:
    life = Life()
    old, outcomes = await a_new_key(life, *range(waits))
    assert {outcome.status for outcome in outcomes} == {"ended"}
    assert (life.opened, old.closed, life.idle) == (2, True, True)


async def test_a_new_key_that_is_refused_too_ends_every_wait(clock: Clock) -> None:
    waiters = Waiters(FakeClient(3), clock)
    seats = waiters.add(0, 1)
    waiters.client.error = AccessDeniedError("no", status=401)
    keys = iter("abcdef")

    async def open_client() -> Any:
        client = FakeClient(3, next(keys))
        client.error = waiters.client.error
        return client

    waiters.poller._open_client = open_client
    await waiters.cycle()
    assert not any(seat.outcome.done() for seat in seats)
    waiters.client = waiters.poller._client  # type: ignore[assignment]
    await waiters.cycle()
    assert ({seat.outcome.result().status for seat in seats}, next(keys)) == ({"refused"}, "b")


async def test_a_connection_that_cannot_be_read_again_ends_every_wait(clock: Clock) -> None:
    waiters = Waiters(FakeClient(3), clock)
    seats = waiters.add(0, 1)
    waiters.client.error = AccessDeniedError("no", status=401)

    async def open_client() -> Any:
        raise KeyError("no such connection")

    waiters.poller._open_client = open_client
    await waiters.cycle()
    assert {seat.outcome.result().status for seat in seats} == {"refused"}
    assert (waiters.poller._client, waiters.client.closed) == (waiters.client, False)


async def test_a_spend_limit_ends_every_wait(clock: Clock) -> None:
    waiters = Waiters(FakeClient(3), clock)
    seats = waiters.add(0, 1)
    waiters.client.error = SpendLimitError("no", status=402)
    await waiters.cycle()
    assert {seat.outcome.result().status for seat in seats} == {"refused"}


async def test_a_429_holds_the_whole_poller_back_and_costs_no_wait_anything(clock: Clock) -> None:
    waiters = Waiters(FakeClient(20), clock)
    seats = waiters.add(*range(20))
    waiters.client.error = RateLimitError("slow", status=429, retry_after=20.0)
    assert await waiters.cycle() == ["page"]
    assert await waiters.cycle(19.9) == []
    waiters.client.error = None
    assert await waiters.cycle(5.2) == ["page", "page"]
    assert not any(seat.wait._failures for seat in seats)


async def test_a_limit_that_asks_for_no_pause_is_asked_less_and_less_often(clock: Clock) -> None:
    waiters = Waiters(FakeClient(3), clock)
    waiters.add(0)
    waiters.client.error = RateLimitError("slow", status=429, retry_after=0.0)
    times = []
    while len(times) < 6:
        if await waiters.cycle(0.25):
            times.append(clock.now)
    assert [later - sooner for sooner, later in pairwise(times)][-1] >= 6


async def test_a_429_in_the_middle_of_retrieves_ends_the_cycle(clock: Clock) -> None:
    waiters = Waiters(FakeClient(0), clock)
    waiters.poller._lists_from = clock.now + 3600
    waiters.add(*range(30))
    waiters.client.error = RateLimitError("slow", status=429, retry_after=20.0)
    assert len(await waiters.cycle()) == module.IN_FLIGHT
    assert await waiters.cycle(1) == []


async def test_a_wait_whose_time_is_over_while_the_api_wants_peace_ends_on_time(clock: Clock) -> None:
    waiters = Waiters(FakeClient(3), clock)
    (short,) = waiters.add(0, timeout=10)
    (long,) = waiters.add(1)
    waiters.client.error = RateLimitError("slow", status=429, retry_after=40.0)
    await waiters.cycle()
    assert waiters.poller._next_look(short) == clock.now + 10
    assert await waiters.cycle(10) == []
    assert short.outcome.result().status == "timeout"
    assert not long.outcome.done()


async def test_an_outage_costs_one_request_a_cycle_and_ends_no_wait(clock: Clock) -> None:
    waiters = Waiters(FakeClient(20), clock)
    seats = waiters.add(*range(20))
    waiters.client.error = ServerError("down", status=503)
    asked = [await waiters.cycle(pause) for pause in (0, 2, 4, 8, 10, 10)]
    assert [requests[0] for requests in asked] == ["page"] * 6
    # Whether the list alone is broken is asked of one batch, with each third page.
    assert [len(requests) for requests in asked] == [1, 1, 2, 1, 1, 2]
    assert waiters.client.most_in_flight == 1
    assert not any(seat.outcome.done() for seat in seats)
    waiters.client.error = None
    assert await waiters.cycle(10) == ["page", "page"]


async def test_where_listing_is_refused_each_batch_is_retrieved(clock: Clock) -> None:
    waiters = Waiters(FakeClient(5), clock)
    waiters.add(*range(5))
    waiters.client.page_error[0] = AccessDeniedError("no lists", status=403)
    assert sorted(await waiters.cycle()) == ["b0", "b1", "b2", "b3", "b4", "page"]
    assert "page" not in await waiters.cycle(10)
    waiters.client.page_error.clear()
    assert await waiters.cycle(module.LIST_AGAIN) == ["page"]


@pytest.mark.parametrize(
    "error",
    [ServerError("x", status=501), InvalidResponseError("x"), APIConnectionError("x")],
    ids=lambda error: type(error).__name__,
)
async def test_a_list_that_fails_alone_keeps_no_wait_from_its_answer(error: BatchesError, clock: Clock) -> None:
    waiters = Waiters(FakeClient(5), clock)
    seats = waiters.add(*range(5))
    waiters.client.page_error[0] = error
    assert [await waiters.cycle(pause) for pause in (0, 2)] == [["page"], ["page"]]
    waiters.client.end(*range(4))
    assert (await waiters.cycle(4))[0] == "page"
    assert sum(seat.outcome.done() for seat in seats) == 4
    assert await waiters.cycle(10) == ["b4"]


async def test_a_list_that_goes_on_failing_is_tried_now_and_then(clock: Clock) -> None:
    waiters = Waiters(FakeClient(5), clock)
    waiters.add(*range(5))
    waiters.client.page_error[0] = ServerError("x", status=501)
    for pause in (0, 2, 4):
        await waiters.cycle(pause)
    asked = await waiters.cycle(module.LIST_AGAIN)
    assert (asked[0], set(asked[1:])) == ("page", {f"b{number}" for number in range(5)})
    waiters.client.page_error.clear()
    assert "page" not in await waiters.cycle(10)
    assert await waiters.cycle(module.LIST_AGAIN) == ["page"]


async def test_a_refused_later_page_is_a_passing_trouble(clock: Clock) -> None:
    waiters = Waiters(FakeClient(30), clock)
    seats = waiters.add(*range(30))
    waiters.client.page_error[1] = APIStatusError("no such cursor", status=400)
    assert await waiters.cycle() == ["page", "page"]
    assert not any(seat.outcome.done() for seat in seats)
    waiters.client.page_error.clear()
    assert "page" in await waiters.cycle(10)


async def test_a_wait_with_an_impossible_id_is_refused_alone(clock: Clock) -> None:
    waiters = Waiters(FakeClient(3), clock)
    (good,) = waiters.add(0)
    (bad,) = waiters.add(1)

    async def retrieve(batch_id: str, *, retries: int) -> MessageBatch:
        if batch_id == "b1":
            raise InvalidArgumentError("no ID")
        return a_batch(0)

    waiters.client.retrieve = retrieve  # type: ignore[method-assign]
    await waiters.cycle()
    assert (bad.outcome.result().status, good.outcome.done()) == ("refused", False)


# --- coming and going ---------------------------------------------------------------------------------------------


class Life:
    """A poller that runs by itself, on the real clock."""

    def __init__(self, client: FakeClient | None = None) -> None:
        self.client = client or FakeClient(20)
        self.opened = 0
        self.lines: list[str] = []
        self.poller = Poller(self.open)

    async def open(self) -> Any:
        self.opened += 1
        await asyncio.sleep(0)
        self.client.closed = False
        return self.client

    def wait(
        self, *numbers: int, timeout: float = 30.0, gives_up: Any = lambda outcome: outcome.status != "ended"
    ) -> Any:
        now = time.time()
        waits = [Wait(f"b{n}", poll_interval=0.02, start_time=now, end_time=now + timeout) for n in numbers]
        return asyncio.create_task(self.poller.wait(waits, now, self.lines.append, gives_up))

    @property
    def idle(self) -> bool:
        return self.poller._task is None and not self.poller.busy and self.client.closed


async def until(condition: Any) -> None:
    async def poll() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), 10)


async def test_nothing_outlives_the_last_wait() -> None:
    life = Life()
    before = asyncio.all_tasks()
    first, second = life.wait(0), life.wait(1)
    await until(lambda: len(life.client.asked) >= 4)
    life.client.end(0)
    assert (await first)[0].status == "ended"
    assert not life.idle
    life.client.end(1)
    await second
    assert life.idle
    assert asyncio.all_tasks() == before


async def test_one_client_serves_all_waits() -> None:
    life = Life()
    life.client.end(*range(20))
    await asyncio.gather(*(life.wait(n) for n in range(20)))
    assert life.opened == 1


async def test_a_poller_whose_first_wait_is_canceled_goes_on_for_the_others() -> None:
    life = Life()
    first, second = life.wait(0), life.wait(1)
    await until(lambda: "b1" in life.client.asked)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    life.client.end(1)
    assert (await second)[0].status == "ended"


async def test_a_wait_canceled_while_the_client_opens_leaves_the_others_unharmed() -> None:
    life = Life()
    first = life.wait(0)
    await asyncio.sleep(0)
    second = life.wait(1)
    first.cancel()
    life.client.end(1)
    assert (await second)[0].status == "ended"


async def test_a_poller_begins_anew_after_it_was_idle() -> None:
    life = Life()
    life.client.end(0, 1)
    await life.wait(0)
    assert life.idle
    await life.wait(1)
    assert life.opened == 2


async def test_what_opening_the_client_raises_the_wait_raises() -> None:
    async def open_client() -> Any:
        raise InvalidArgumentError("no key")

    poller = Poller(open_client)
    now = time.time()
    wait = Wait("b0", poll_interval=1, start_time=now, end_time=now + 5)
    with pytest.raises(InvalidArgumentError, match="no key"):
        await poller.wait([wait], now, print)
    assert not poller.busy


async def test_a_mistake_in_the_poller_hangs_no_wait() -> None:
    life = Life()

    async def broken(batch_id: str, *, retries: int) -> MessageBatch:
        raise ZeroDivisionError

    life.client.retrieve = broken  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await life.wait(0)
    assert life.idle


async def test_nor_does_what_a_signal_raises_in_it() -> None:
    class Alarm(BaseException):
        pass

    life = Life()

    async def interrupted(batch_id: str, *, retries: int) -> MessageBatch:
        raise Alarm

    life.client.retrieve = interrupted  # type: ignore[method-assign]
    with pytest.raises(Alarm):
        await asyncio.wait_for(life.wait(0), 10)
    assert life.idle


@pytest.mark.parametrize("turns", range(6))
async def test_waits_that_end_as_another_wakes_the_poller_leave_nothing_behind(turns: int) -> None:
    life = Life()
    now = time.time()

    def sleeper(number: int, first_look: float) -> Any:
        wait = Wait(f"b{number}", poll_interval=60, start_time=now, end_time=now + 100)
        return asyncio.create_task(life.poller.wait([wait], now + first_look, life.lines.append))

    late = sleeper(0, 50)
    await asyncio.sleep(0.02)
    sooner = sleeper(1, 5)
    for _ in range(turns):
        await asyncio.sleep(0)
    late.cancel()
    sooner.cancel()
    _, left = await asyncio.wait([late, sooner], timeout=5)
    assert (left, life.idle) == (set(), True)


async def test_lines_go_into_the_context_of_their_own_wait() -> None:
    owner: contextvars.ContextVar[str] = contextvars.ContextVar("owner")
    heard: list[tuple[str, str]] = []
    life = Life()

    async def watch(name: str, number: int) -> None:
        owner.set(name)
        now = time.time()
        wait = Wait(f"b{number}", poll_interval=0.02, start_time=now, end_time=now + 0.1)
        await life.poller.wait([wait], now, lambda line: heard.append((owner.get(), line)))

    await asyncio.gather(watch("first", 0), watch("second", 1))
    assert {(name, line.split()[1]) for name, line in heard} == {("first", "b0"), ("second", "b1")}


async def test_an_earlier_wait_wakes_a_poller_that_sleeps_long() -> None:
    life = Life()
    now = time.time()
    late = Wait("b0", poll_interval=60, start_time=now, end_time=now + 100)
    sleeper = asyncio.create_task(life.poller.wait([late], now + 60, life.lines.append))
    await asyncio.sleep(0.02)
    life.client.end(1)
    assert (await asyncio.wait_for(life.wait(1), 5))[0].status == "ended"
    sleeper.cancel()
    await asyncio.gather(sleeper, return_exceptions=True)


async def test_several_batches_are_one_wait_that_ends_with_the_last() -> None:
    life = Life()
    task = life.wait(0, 1, 2)
    life.client.end(0, 1)
    await until(lambda: len(life.client.asked) > 4)
    assert not task.done()
    life.client.end(2)
    assert [outcome.status for outcome in await task] == ["ended"] * 3
    assert life.lines[-1] == "3 of 3 batches have ended."


async def test_progress_of_several_batches_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS", 0.05)
    life = Life()
    life.client.end(0)
    task = life.wait(0, 1)
    await until(lambda: "1 of 2 batches have ended." in life.lines)
    life.client.end(1)
    await task


async def test_an_outcome_that_makes_the_others_pointless_ends_the_wait() -> None:
    life = Life()

    def gives_up(outcome: Outcome) -> bool:
        return outcome.status == "refused"

    async def retrieve(batch_id: str, *, retries: int) -> MessageBatch:
        raise AccessDeniedError("no", status=403)

    task = life.wait(0, 1, gives_up=gives_up)
    life.client.retrieve = retrieve  # type: ignore[method-assign]
    assert "refused" in {outcome.status for outcome in await task}


@pytest.mark.parametrize(("seconds", "ends"), [(0.05, True), (60.0, False)])
async def test_a_call_that_nobody_waits_for_any_more_may_end_before_the_client_is_closed(
    seconds: float, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Canceled while its connection was being made, it would leave that open."""
    monkeypatch.setattr(module, "GRACE", 0.2)
    life = Life()
    ended: list[bool] = []

    async def retrieve(batch_id: str, *, retries: int) -> MessageBatch:
        if batch_id == "b0":
            raise AccessDeniedError("no", status=403)
        await asyncio.sleep(seconds)
        ended.append(life.client.closed)
        return a_batch(1)

    life.client.retrieve = retrieve  # type: ignore[method-assign]

    assert [outcome.status for outcome in await life.wait(0, 1)] == ["refused"]

    assert ended == ([False] if ends else [])
    assert life.idle


async def test_no_batches_are_no_wait() -> None:
    life = Life()
    assert await life.poller.wait([], time.time(), life.lines.append) == []
    assert life.idle


def test_two_event_loops_in_one_process_do_not_meet() -> None:
    client = FakeClient(2)
    client.end(0)

    async def one() -> str:
        life = Life(client)
        return (await life.wait(0))[0].status

    assert [asyncio.run(one()) for _ in range(2)] == ["ended", "ended"]
