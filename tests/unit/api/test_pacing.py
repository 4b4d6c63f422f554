from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_batches.api import APIConnectionError, NotFoundError, RateLimitError, ServerError, pacing
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


AWAY = [APIConnectionError("refused", sent=False), *(ServerError("away", status=n) for n in (502, 503, 504, 529))]


class TestAnOutage:
    @pytest.fixture
    def time(self) -> Time:
        return Time()

    @pytest.fixture
    def pace(self, time: Time) -> Pace:
        return Pace(None, time, time.sleep)

    @pytest.mark.parametrize("error", AWAY, ids=str)
    def test_is_waited_out_for_15_minutes(self, pace: Pace, time: Time, error: Any) -> None:
        pace.answered()
        time.now += 5000
        pace.failed(error)
        time.now += 899

        assert pace.waits_for_the_end(error)
        time.now += 1
        assert not pace.waits_for_the_end(error)
        assert pace.gave_up(error)

    def test_counts_from_its_first_failure(self, pace: Pace, time: Time) -> None:
        pace.answered()
        pace.failed(AWAY[0])
        time.now += 500
        pace.failed(AWAY[0])
        time.now += 500

        assert not pace.waits_for_the_end(AWAY[0])

    @pytest.mark.parametrize("answer", ["success", "refusal"])
    def test_is_over_with_any_answer(self, pace: Pace, time: Time, answer: str) -> None:
        pace.answered()
        pace.failed(AWAY[0])
        time.now += 800
        pace.answered() if answer == "success" else pace.failed(NotFoundError("gone", status=404))
        pace.failed(AWAY[0])
        time.now += 800

        assert pace.waits_for_the_end(AWAY[0])

    def test_is_not_waited_out_where_the_api_has_never_answered(self, pace: Pace) -> None:
        pace.failed(AWAY[0])

        assert not pace.waits_for_the_end(AWAY[0])
        assert pace.gave_up(AWAY[0])

    @pytest.mark.parametrize("status", [408, 409, 500])
    def test_is_no_error_that_one_call_may_have_alone(self, pace: Pace, status: int) -> None:
        error = ServerError("sorry", status=status)
        pace.answered()
        pace.failed(error)

        assert not pace.waits_for_the_end(error)
        assert not pace.gave_up(error)

    def test_is_told_once(self, pace: Pace, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        pace.answered()
        for _ in range(3):
            pace.failed(AWAY[0])
            pace.waits_for_the_end(AWAY[0])
        pace.answered()
        pace.answered()

        assert caplog.messages == [
            "refused All calls wait until the API answers again, 900 s at most.",
            "The API answers again",
        ]
