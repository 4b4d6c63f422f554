"""What a cycle asks the API, and what becomes of the waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
    RateLimitError,
    ServerError,
    SpendLimitError,
)
from airflow_provider_batches.api.evidence import Evidence, Proof
from airflow_provider_batches.waiting import reader as module
from airflow_provider_batches.waiting.pending import PendingWait
from airflow_provider_batches.waiting.reader import Reader
from airflow_provider_batches.waiting.wait import Wait
from tests.unit.waiting.fakes import PAGE, Clock, FakeClient, a_batch, created_at, wrong_address

pytestmark = pytest.mark.usefixtures("small_pages")


class Waiters:
    """Some waits whose cycles a test runs itself, one at a time."""

    def __init__(self, clock: Clock, batches: int = 0, list_failures: int = 3) -> None:
        self.clock = clock
        self.client = FakeClient(batches, clock.time)
        self.reader = Reader(self.client, list_failures)  # type: ignore[arg-type]
        self.pending: list[PendingWait] = []

    def add(self, *numbers: int, timeout: float = 3600.0, **options: Any) -> list[PendingWait]:
        now = self.clock.now
        times = {"poll_interval": 10.0, "start_time": now - 60, "end_time": now + timeout}
        added = [PendingWait(Wait(f"b{number}", **times, **options), now, None) for number in numbers]
        self.pending += added
        return added

    async def cycle(self, seconds: float = 0.0) -> list[str]:
        """Run a cycle after so many seconds; return what the API was asked."""
        self.clock.now += seconds
        await self.reader.poll(self.pending)
        return self.client.take_asked()

    @property
    def statuses(self) -> set[str | None]:
        return {each.outcome.result().status if each.outcome.done() else None for each in self.pending}


@pytest.fixture
def make(clock: Clock) -> Callable[..., Waiters]:
    return lambda *args, **options: Waiters(clock, *args, **options)


def pages_needed(numbers: list[int]) -> int:
    return max(numbers) // PAGE + 1


class TestACycle:
    async def test_retrieves_a_few_batches_one_by_one(self, make: Any) -> None:
        waiters = make(20)
        waiters.add(3, 7)
        assert sorted(await waiters.cycle()) == ["b3", "b7"]

    async def test_reads_many_from_pages(self, make: Any) -> None:
        waiters = make(20)
        waiters.add(*range(20))
        assert await waiters.cycle() == ["page", "page"]

    async def test_stops_paging_as_soon_as_every_wait_is_answered(self, make: Any) -> None:
        waiters = make(200)
        waiters.add(0, 1, 2, 3)
        assert await waiters.cycle() == ["page"]

    async def test_retrieves_a_straggler_far_down_the_list(self, make: Any) -> None:
        waiters = make(500)
        waiters.add(0, 1, 2, 3, 4, 480)
        assert await waiters.cycle() == ["page", "b480"]
        assert await waiters.cycle(10) == ["page", "b480"]

    async def test_costs_four_requests_at_most_for_three_waits_behind_many_newer_batches(self, make: Any) -> None:
        waiters = make(60)
        waiters.add(57, 58, 59)
        assert len(await waiters.cycle()) <= 4
        assert sorted(await waiters.cycle(10)) == ["b57", "b58", "b59"]

    async def test_reads_many_far_down_from_pages_all_the_same(self, make: Any) -> None:
        waiters = make(100)
        waiters.add(*range(40, 80))
        assert await waiters.cycle() == ["page"] * 8

    async def test_answers_waits_that_are_not_due_yet_from_its_pages(self, make: Any) -> None:
        waiters = make(10)
        waiters.add(0, 1, 2)
        (late,) = waiters.add(3)
        late.due = late.early = waiters.clock.now + 9
        await waiters.cycle()
        assert late.due == waiters.clock.now + 10

    async def test_takes_along_waits_that_are_due_soon(self, make: Any) -> None:
        waiters = make(10)
        for each, due in zip(waiters.add(0, 1, 2), (0, 4, 5), strict=True):
            each.due, each.early = waiters.clock.now + due, waiters.clock.now
        assert await waiters.cycle() == ["page"]

    async def test_asks_nothing_if_no_wait_is_due(self, make: Any) -> None:
        waiters = make(10)
        for each in waiters.add(0, 1, 2):
            each.due += 1
        assert await waiters.cycle() == []

    async def test_costs_one_request_for_two_waits_for_one_batch(self, make: Any) -> None:
        waiters = make(10)
        waiters.client.end(5)
        waiters.add(5, 5)
        assert await waiters.cycle() == ["b5"]
        assert waiters.statuses == {"ended"}

    async def test_has_a_few_retrievals_in_flight_at_most(self, make: Any) -> None:
        waiters = make(0)
        waiters.client.page_errors[0] = APIStatusError("no lists", status=404)
        waiters.add(*range(50))
        assert len(await waiters.cycle()) == 51
        assert waiters.client.most_in_flight == module.IN_FLIGHT

    async def test_lets_the_event_loop_run_while_it_takes_a_page(
        self, make: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "YIELD_EVERY", 2)
        waiters = make(PAGE)
        waiters.add(*range(PAGE))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        await waiters.cycle()
        counting.cancel()
        assert turns >= PAGE // 2

    @settings(max_examples=60, deadline=None)
    @given(st.sets(st.integers(0, 150), min_size=1, max_size=60), st.integers(0, PAGE))
    async def test_costs_the_cheaper_way_plus_one_request_at_most_once_ages_are_known(
        self, chosen: set[int], newer: int
    ) -> None:
        clock, numbers = Clock(), sorted(chosen)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("time.time", clock.time)
            waiters = Waiters(clock, 160)
            waiters.add(*numbers)
            await waiters.cycle()
            asked = await waiters.cycle(10)
            assert len(asked) <= min(len(numbers), pages_needed(numbers)) + 1
            assert {each.due for each in waiters.pending} == {clock.now + 10}
            # New batches push others over the end of a page, which is known only once it is read.
            waiters.client.batches = {f"b{number}": a_batch(number) for number in range(-newer, 160)}
            asked = await waiters.cycle(10)
            assert len(asked) <= min(len(numbers), pages_needed([number + newer for number in numbers])) + 2

    @settings(max_examples=60, deadline=None)
    @given(st.sets(st.integers(0, 150), min_size=1, max_size=60), st.data())
    async def test_tells_every_wait_of_its_batchs_end(self, chosen: set[int], data: st.DataObject) -> None:
        clock = Clock()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("time.time", clock.time)
            waiters = Waiters(clock, 160)
            by_number = dict(zip(chosen, waiters.add(*chosen), strict=True))
            await waiters.cycle()
            ending = data.draw(st.sets(st.sampled_from(sorted(chosen))))
            waiters.client.end(*ending)
            await waiters.cycle(10)
            assert {number for number, each in by_number.items() if each.outcome.done()} == ending


class TestABatch:
    async def test_that_is_not_found_is_retrieved_again_alone(self, make: Any) -> None:
        waiters = make(10)
        waiters.add(0, 1, 2)
        (lost,) = waiters.add(99)
        asked = [await waiters.cycle(pause) for pause in (0, 1, 2)]
        assert asked == [["page", "b99"], ["b99"], ["b99"]]
        await waiters.cycle(4)
        assert lost.outcome.result().status == "missing"

    async def test_that_a_page_shows_unreadably_is_the_trouble_of_its_own_wait(self, make: Any) -> None:
        waiters = make(PAGE)
        waiters.client.end(*range(PAGE))
        waiters.client.unreadable = {"b0", "b5", f"b{PAGE - 1}"}
        waiters.add(*range(PAGE))
        await waiters.cycle()
        open_waits = {each.wait.batch_id for each in waiters.pending if not each.outcome.done()}
        assert open_waits == waiters.client.unreadable
        waiters.client.unreadable = set()
        await waiters.cycle(5)
        assert waiters.statuses == {"ended"}

    async def test_with_an_impossible_id_is_refused_alone(self, make: Any) -> None:
        waiters = make(3)
        (good,) = waiters.add(0)
        (bad,) = waiters.add(1)
        waiters.client.errors["b1"] = InvalidArgumentError("batch_id", "no ID")
        await waiters.cycle()
        assert (bad.outcome.result().status, good.outcome.done()) == ("refused", False)


class TestABatchThatWasSeen:
    async def run_into_404s(self, waiters: Waiters) -> list[str]:
        return [asked for pause in (0, 1, 2, 4) for asked in await waiters.cycle(pause)]

    async def test_is_gone_if_the_list_does_not_have_it_either(self, make: Any) -> None:
        waiters = make(20)
        waiters.add(5)
        await waiters.cycle()
        del waiters.client.batches["b5"]
        asked = [asked for pause in (10, 1, 2, 4) for asked in await waiters.cycle(pause)]
        assert asked == ["b5", "b5", "b5", "b5", f"listed b5 since {created_at(5)}"]
        assert waiters.statuses == {"missing"}

    async def test_is_an_outage_if_the_list_still_has_it(self, make: Any) -> None:
        waiters = make(20)
        waiters.client.hidden = {"b5"}
        waiters.add(5, seen_since=created_at(5))
        await self.run_into_404s(waiters)
        assert (waiters.statuses, waiters.pending[0].due - waiters.clock.now) == ({None}, 2)
        waiters.client.hidden = set()
        waiters.client.end(5)
        await waiters.cycle(2)
        assert waiters.statuses == {"ended"}

    async def test_is_looked_for_in_one_walk_with_all_other_suspects(self, make: Any) -> None:
        waiters = make(20)
        waiters.client.page_errors[0] = APIStatusError("no lists", status=404)
        waiters.client.hidden = {"b7", "b9"}
        waiters.add(7, seen_since=created_at(7))
        waiters.add(9, seen_since=created_at(9))
        waiters.add(99, confirm=True)
        asked = await self.run_into_404s(waiters)
        assert [what for what in asked if what.startswith("listed")] == [f"listed b7,b9,b99 since {created_at(9)}"]
        assert [each.outcome.done() for each in waiters.pending] == [False, False, True]

    async def test_that_may_be_missing_needs_one_answer_of_the_list(self, make: Any) -> None:
        waiters = make(20)
        waiters.add(99, confirm=True)
        assert (await self.run_into_404s(waiters))[-1] == "listed b99 since None"
        assert waiters.statuses == {"missing"}

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (ServerError("down", status=503), None),
            (AccessDeniedError("no lists", status=403), None),
            (APIStatusError("no lists", status=404), "refused"),
        ],
        ids=["outage", "403", "404"],
    )
    async def test_is_not_gone_if_the_list_does_not_answer(
        self, make: Any, error: BatchesError, status: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiters = make(20)

        async def listed(*_: Any, **__: Any) -> Any:
            raise error

        monkeypatch.setattr(waiters.client, "listed", listed)
        (lost,) = waiters.add(99, seen_since=created_at(99))
        (other,) = waiters.add(0)
        await self.run_into_404s(waiters)
        assert (lost.outcome.result().status if lost.outcome.done() else None, other.outcome.done()) == (status, False)

    async def test_may_leave_while_the_list_is_read(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        waiters = make(20)
        (lost,) = waiters.add(99, confirm=True)

        async def listed(*_: Any, **__: Any) -> set[str]:
            lost.outcome.cancel()
            return set()

        monkeypatch.setattr(waiters.client, "listed", listed)
        await self.run_into_404s(waiters)
        assert lost.outcome.cancelled()


class TestAnAnswerForAll:
    @pytest.mark.parametrize("waits", [2, 30])
    async def test_a_refused_key_ends_every_wait_if_it_lasts(self, waits: int, make: Any) -> None:
        waiters = make(30)
        waiters.add(*range(waits))
        waiters.client.error = AccessDeniedError("no", status=401)
        requests = [len(await waiters.cycle(pause)) for pause in (0, 1, 3)]
        assert requests == ([2, 2, 2] if waits == 2 else [1, 1, 1])
        assert waiters.statuses == {None}
        await waiters.cycle(6)
        assert waiters.statuses == {"refused"}
        assert all(each.outcome.result().retryable for each in waiters.pending)

    async def test_waits_that_come_while_a_key_is_refused_do_not_end_the_others_sooner(self, make: Any) -> None:
        waiters = make(30)
        first = waiters.add(*range(10))
        waiters.client.error = AccessDeniedError("no", status=401)
        for number in range(10, 20):
            await waiters.cycle(0.1)
            waiters.add(number)
        assert not any(each.outcome.done() for each in first)

    async def test_a_refused_key_of_the_list_puts_every_wait_that_is_due_in_doubt_too(
        self, make: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiters = make(3)

        async def listed(*_: Any, **__: Any) -> Any:
            raise AccessDeniedError("no", status=401)

        monkeypatch.setattr(waiters.client, "listed", listed)
        waits = waiters.add(0, 99, confirm=True)
        for pause in (0, 1, 2, 4):
            await waiters.cycle(pause)
        assert waits[1].wait.doubtful
        assert waits[1].outcome.done() is False

    async def test_a_spend_limit_ends_every_wait_if_it_lasts_for_ten_seconds(self, make: Any) -> None:
        waiters = make(3)
        waiters.add(0, 1)
        waiters.client.error = SpendLimitError("no", status=402)
        asked = [len(await waiters.cycle(pause)) for pause in (0, 9, 1)]
        assert (asked, waiters.statuses) == ([2, 0, 2], {"refused"})

    async def test_a_spend_limit_that_is_raised_meanwhile_ends_none(self, make: Any) -> None:
        waiters = make(3)
        waiters.add(0, 1)
        waiters.client.error = SpendLimitError("no", status=402)
        await waiters.cycle()
        waiters.client.error = None
        await waiters.cycle(10)
        assert waiters.statuses == {None}

    async def test_the_answers_that_came_with_it_are_taken(self, make: Any) -> None:
        waiters = make(3)
        waiters.client.end(0)
        (ended,) = waiters.add(0)
        waiters.add(1)
        waiters.client.errors["b1"] = AccessDeniedError("no", status=401)
        await waiters.cycle()
        assert ended.outcome.result().status == "ended"


class TestARateLimit:
    async def test_holds_all_waits_back_and_costs_none_anything(self, make: Any) -> None:
        waiters = make(20)
        waiters.add(*range(20))
        waiters.client.error = RateLimitError("slow", status=429, retry_after=20.0)
        assert await waiters.cycle() == ["page"]
        assert await waiters.cycle(19.9) == []
        waiters.client.error = None
        assert await waiters.cycle(5.2) == ["page", "page"]
        assert not any(each.wait.doubtful or each.wait._failures for each in waiters.pending)

    async def test_is_asked_less_and_less_often_if_it_asks_for_no_pause(self, make: Any) -> None:
        waiters = make(3)
        waiters.add(0)
        waiters.client.error = RateLimitError("slow", status=429, retry_after=0.0)
        times = []
        while len(times) < 6:
            if await waiters.cycle(0.25):
                times.append(waiters.clock.now)
        assert [later - sooner for sooner, later in pairwise(times)][-1] >= 6

    async def test_in_the_middle_of_retrievals_ends_the_cycle(self, make: Any) -> None:
        waiters = make(0)
        waiters.client.page_errors[0] = APIStatusError("no lists", status=404)
        waiters.add(*range(30))
        await waiters.cycle()
        waiters.client.error = RateLimitError("slow", status=429, retry_after=20.0)
        assert len(await waiters.cycle(1)) == module.IN_FLIGHT
        assert await waiters.cycle(1) == []

    async def test_lets_a_wait_end_on_time(self, make: Any) -> None:
        waiters = make(3)
        (short,) = waiters.add(0, timeout=10)
        (long,) = waiters.add(1)
        waiters.client.error = RateLimitError("slow", status=429, retry_after=40.0)
        await waiters.cycle()
        await waiters.cycle()
        assert (short.due, long.due > waiters.clock.now + 40) == (waiters.clock.now + 10, True)
        assert await waiters.cycle(10) == []
        assert short.outcome.result().status == "timeout"
        assert not long.outcome.done()


def internal_error() -> ServerError:
    """A 500 of the API's own, which may be about what was asked."""
    error = ServerError("internal", status=500)
    error.evidence = Evidence(Proof.NOTHING)
    return error


class TestAnOutage:
    @pytest.mark.parametrize(
        "error",
        [ServerError("down", status=503), internal_error(), APIConnectionError("x"), InvalidResponseError("x")],
        ids=["503", "500", "no answer", "garbled"],
    )
    async def test_ends_no_wait_and_costs_few_requests(self, error: BatchesError, make: Any) -> None:
        waiters = make(20)
        waiters.add(*range(20))
        waiters.client.error = error
        asked = [await waiters.cycle(pause) for pause in (0, 2, 4, 8, 10, 10)]
        assert [len(requests) for requests in asked] == [1, 1, *[1 + module.IN_FLIGHT] * 4]
        assert waiters.statuses == {None}
        waiters.client.error = None
        assert await waiters.cycle(10) == ["page", "page"]

    async def test_ends_the_waits_whose_time_is_over_with_the_first_calls_that_fail(self, make: Any) -> None:
        waiters = make(40)
        waiters.add(*range(40), timeout=10)
        waiters.client.page_errors[0] = APIStatusError("no lists", status=404)
        await waiters.cycle()
        waiters.client.error = APIConnectionError("timed out")
        assert len(await waiters.cycle(10)) == module.IN_FLIGHT
        assert waiters.statuses == {"timeout"}

    async def test_of_some_batches_keeps_no_other_from_its_answer(self, make: Any) -> None:
        waiters = make(50)
        waiters.client.page_errors[0] = APIStatusError("no lists", status=404)
        broken = range(10, 10 + module.IN_FLIGHT)
        waiters.client.errors = {f"b{number}": APIConnectionError("x") for number in broken}
        waiters.client.end(*range(18, 50))
        waiters.add(*range(10, 50))
        for _ in range(20):
            await waiters.cycle(10)
        assert {each.wait.batch_id for each in waiters.pending if not each.outcome.done()} == {*waiters.client.errors}


class TestAWrongAddress:
    @pytest.mark.parametrize("waits", [1, 20])
    async def test_ends_the_waits_after_the_usual_retries(self, waits: int, make: Any) -> None:
        waiters = make(20)
        waiters.add(*range(waits))
        waiters.client.error = wrong_address()
        for pause in (0, 2, 4, 8, 16):
            assert len(await waiters.cycle(pause)) <= 1 + module.IN_FLIGHT
            assert waiters.statuses == {None}
        await waiters.cycle(32)
        assert waiters.statuses == {"refused"}


class TestAList:
    @pytest.mark.parametrize(
        "error", [AccessDeniedError("no lists", status=403), APIStatusError("no lists", status=404)], ids=["403", "404"]
    )
    async def test_that_is_refused_is_tried_again_after_ten_minutes(self, error: BatchesError, make: Any) -> None:
        waiters = make(5)
        waiters.add(*range(5))
        waiters.client.page_errors[0] = error
        assert sorted(await waiters.cycle()) == ["b0", "b1", "b2", "b3", "b4", "page"]
        assert "page" not in await waiters.cycle(10)
        waiters.client.page_errors.clear()
        assert await waiters.cycle(module.LIST_AGAIN) == ["page"]

    async def test_that_is_refused_at_a_later_page_keeps_no_wait_from_its_answer(self, make: Any) -> None:
        waiters = make(30)
        waiters.add(*range(30))
        waiters.client.page_errors[1] = APIStatusError("no such cursor", status=400)
        waiters.client.end(*range(30))
        assert len(await waiters.cycle()) == 2 + 20
        assert waiters.statuses == {"ended"}

    @pytest.mark.parametrize(
        "error",
        [ServerError("x", status=501), InvalidResponseError("x"), APIConnectionError("x"), wrong_address()],
        ids=lambda error: type(error).__name__,
    )
    @pytest.mark.parametrize("page", [0, 1])
    async def test_that_fails_alone_keeps_no_wait_from_its_answer(
        self, page: int, error: BatchesError, make: Any
    ) -> None:
        waiters = make(15)
        late = waiters.add(*range(10, 15))
        waiters.client.page_errors[page] = error
        assert [set(await waiters.cycle(pause)) for pause in (0, 2)] == [{"page"}] * 2
        waiters.client.end(*range(15))
        assert len(await waiters.cycle(4)) == page + 1 + 5
        assert all(each.outcome.result().status == "ended" for each in late)

    async def test_that_fails_may_be_given_up_at_once(self, make: Any) -> None:
        waiters = make(5, list_failures=1)
        waiters.add(*range(5))
        waiters.client.page_errors[0] = ServerError("x", status=500)
        assert len(await waiters.cycle()) == 1 + 5

    async def test_that_works_again_is_used_again(self, make: Any) -> None:
        waiters = make(5)
        waiters.add(*range(5))
        waiters.client.page_errors[0] = ServerError("x", status=500)
        assert [len(await waiters.cycle(pause)) for pause in (0, 2, 4, 10)] == [1, 1, 1 + 5, 1 + 5]
        waiters.client.page_errors.clear()
        assert await waiters.cycle(10) == ["page"]
        waiters.client.page_errors[0] = ServerError("x", status=500)
        assert await waiters.cycle(10) == ["page"]
