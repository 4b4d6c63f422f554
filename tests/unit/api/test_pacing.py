from __future__ import annotations

import asyncio

import pytest

from airflow_provider_batches.api import RateLimitError, pacing
from airflow_provider_batches.api.pacing import Pace


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "pause", lambda attempt, error: error.retry_after or 2.0**attempt)


def refusal(retry_after: float | None = None) -> RateLimitError:
    return RateLimitError("slow down", status=429, retry_after=retry_after)


async def starts(pace: Pace, time: Time, count: int) -> list[float]:
    found = []

    async def call() -> None:
        await pace.turn()
        found.append(time.now - 100)

    await asyncio.gather(*(call() for _ in range(count)))
    return found


async def test_without_a_ceiling_calls_start_at_once() -> None:
    time = Time()

    assert await starts(Pace(None, time, time.sleep), time, 5) == [0] * 5


async def test_a_ceiling_spreads_calls_evenly() -> None:
    time = Time()

    assert await starts(Pace(60, time, time.sleep), time, 4) == pytest.approx([0, 1, 2, 3])


async def test_a_refusal_holds_all_calls_and_slows_them_down() -> None:
    time = Time()
    pace = Pace(None, time, time.sleep)

    assert pace.refused(refusal(7))
    assert await starts(pace, time, 3) == pytest.approx([7, 7.05, 7.1])


async def test_refusals_of_calls_that_were_under_way_count_once() -> None:
    time = Time()
    pace = Pace(None, time, time.sleep)

    for _ in range(10):
        pace.refused(refusal())

    assert await starts(pace, time, 1) == pytest.approx([2])


async def test_answers_let_it_speed_up_again_down_to_the_ceiling() -> None:
    time = Time()
    pace = Pace(600, time, time.sleep)
    pace.refused(refusal(1))
    for _ in range(100):
        pace.answered()

    first, second = await starts(pace, time, 2)

    assert second - first == pytest.approx(0.1)


async def test_without_a_ceiling_it_ends_up_without_gaps() -> None:
    time = Time()
    pace = Pace(None, time, time.sleep)
    pace.refused(refusal(1))
    for _ in range(100):
        pace.answered()

    assert len(set(await starts(pace, time, 3))) == 1


async def test_it_gives_up_where_nothing_is_answered_for_an_hour() -> None:
    time = Time()
    pace = Pace(None, time, time.sleep)
    assert pace.refused(refusal())
    time.now += 3601

    assert not pace.refused(refusal())


async def test_it_gives_up_where_the_api_says_so() -> None:
    error = refusal()
    error.should_retry = False

    assert not Pace().refused(error)
