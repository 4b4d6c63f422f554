from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_batches.api import (
    APIConnectionError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    ServerError,
    Throttle,
    retry,
)
from airflow_provider_batches.api.evidence import Evidence, Proof
from airflow_provider_batches.api.throttle import OUTAGE_PAUSE, OUTAGE_SECONDS, RATE_LIMIT_SECONDS


class Time:
    """A clock, and what another thread does at the moment at which it is next read."""

    def __init__(self) -> None:
        self.now = 100.0
        self.meanwhile: Callable[[], Any] | None = None

    def __call__(self) -> float:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "JITTER", 0.0)


def refusal(retry_after: float | None = None, should_retry: bool | None = None) -> RateLimitError:
    return RateLimitError("slow down", status=429, retry_after=retry_after, should_retry=should_retry)


def server_error(status: int) -> ServerError:
    error = ServerError("sorry", status=status)
    error.evidence = Evidence(Proof.NOTHING, outage=status != 500, in_doubt=True)
    return error


def wrong_address() -> InvalidResponseError:
    error = InvalidResponseError("404 page not found")
    error.evidence = Evidence(Proof.WRONG_ADDRESS)
    return error


def starts(throttle: Throttle, time: Time, count: int) -> list[float]:
    """Return when calls that all want to start now do, in seconds from now."""
    found, begun = [], time.now
    for _ in range(count):
        while (seconds := throttle.delay()) > 0:
            time.now += seconds
        found.append(time.now - begun)
    return found


class TestThePace:
    def test_lets_calls_start_at_once_without_a_ceiling(self, time: Time) -> None:
        assert starts(Throttle(clock=time), time, 5) == [0] * 5

    def test_spreads_calls_evenly_below_a_ceiling(self, time: Time) -> None:
        assert starts(Throttle(60, clock=time), time, 4) == pytest.approx([0, 1, 2, 3])

    def test_takes_a_turn_only_if_there_is_no_delay(self, time: Time) -> None:
        throttle = Throttle(60, clock=time)
        assert [throttle.delay(), throttle.delay(), throttle.delay()] == [0, 1, 1]

    def test_holds_all_calls_after_a_429_and_slows_them_down(self, time: Time) -> None:
        throttle = Throttle(clock=time)
        throttle.on_error(refusal(7))
        assert throttle.hold_seconds == 7
        assert starts(throttle, time, 3) == pytest.approx([7, 7.05, 7.1])
        assert throttle.hold_seconds == 0

    def test_counts_the_refusals_of_calls_in_flight_once(self, time: Time) -> None:
        throttle = Throttle(clock=time)
        for _ in range(10):
            throttle.on_error(refusal())
        assert starts(throttle, time, 2) == pytest.approx([0.5, 0.55])

    def test_backs_off_from_hold_to_hold(self, time: Time) -> None:
        throttle, holds = Throttle(clock=time), []
        for _ in range(3):
            throttle.on_error(refusal())
            holds.append(throttle.hold_seconds)
            time.now += 60
        assert holds == pytest.approx([0.5, 1, 2])

    def test_speeds_up_again_with_answers_down_to_the_ceiling(self, time: Time) -> None:
        throttle = Throttle(600, clock=time)
        throttle.on_error(refusal(1))
        for _ in range(100):
            throttle.on_answer()
        first, second = starts(throttle, time, 2)
        assert second - first == pytest.approx(0.1)

    def test_ends_up_without_gaps_if_there_is_no_ceiling(self, time: Time) -> None:
        throttle = Throttle(clock=time)
        throttle.on_error(refusal(1))
        for _ in range(100):
            throttle.on_answer()
        assert len(set(starts(throttle, time, 3))) == 1

    @pytest.mark.parametrize("what", [Throttle.delay, Throttle.on_answer, lambda each: each.on_error(refusal())])
    def test_is_kept_by_one_thread_at_a_time(self, time: Time, what: Any) -> None:
        throttle, held = Throttle(60, clock=time), []
        time.meanwhile = lambda: held.append(throttle._lock.locked())
        what(throttle)
        assert held == [True]


class TestWhetherTheAPIHasAnswered:
    def test_is_true_after_a_right_answer(self) -> None:
        throttle = Throttle()
        assert not throttle.has_answered
        throttle.on_answer()
        assert throttle.has_answered

    @pytest.mark.parametrize("error", [NotFoundError("gone", status=404), refusal(), server_error(500)], ids=str)
    def test_is_not_true_after_an_error(self, error: Any) -> None:
        throttle = Throttle()
        throttle.on_error(error)
        assert not throttle.has_answered

    def test_may_be_known_from_another_process(self) -> None:
        assert Throttle(has_answered=True).has_answered


DOWN = [APIConnectionError("refused"), *map(server_error, (502, 503, 504, 529))]


class TestAnOutage:
    @pytest.fixture
    def throttle(self, time: Time) -> Throttle:
        return Throttle(patient=True, has_answered=True, clock=time)

    @pytest.mark.parametrize("error", DOWN, ids=str)
    def test_is_outlasted_for_15_minutes(self, throttle: Throttle, time: Time, error: Any) -> None:
        time.now += 5000
        throttle.on_error(error)
        time.now += 899
        assert (throttle.outlasts(error), throttle.gave_up(error)) == (True, False)
        time.now += 1
        assert (throttle.outlasts(error), throttle.gave_up(error)) == (False, True)

    def test_counts_from_its_first_failure(self, throttle: Throttle, time: Time) -> None:
        for _ in range(2):
            throttle.on_error(DOWN[0])
            time.now += 500
        assert not throttle.outlasts(DOWN[0])

    @pytest.mark.parametrize("error", [None, NotFoundError("gone", status=404), server_error(500)], ids=str)
    def test_is_over_with_any_answer(self, throttle: Throttle, time: Time, error: Any) -> None:
        throttle.on_error(DOWN[0])
        time.now += 800
        throttle.on_error(error) if error else throttle.on_answer()
        throttle.on_error(DOWN[0])
        time.now += 800
        assert throttle.outlasts(DOWN[0])

    def test_is_not_over_with_an_answer_from_a_wrong_address(self, throttle: Throttle, time: Time) -> None:
        throttle.on_error(DOWN[0])
        time.now += 800
        throttle.on_error(wrong_address())
        time.now += 800
        assert not throttle.outlasts(DOWN[0])

    def test_is_not_outlasted_if_the_api_has_never_answered(self, time: Time) -> None:
        throttle = Throttle(patient=True, clock=time)
        throttle.on_error(DOWN[0])
        assert (throttle.outlasts(DOWN[0]), throttle.gave_up(DOWN[0])) == (False, True)

    def test_is_not_an_error_that_one_call_may_have_alone(self, throttle: Throttle) -> None:
        error = server_error(500)
        throttle.on_error(error)
        assert not throttle.gave_up(error)

    def test_is_not_the_failure_of_one_call_while_others_are_answered(self, time: Time) -> None:
        throttle = Throttle(patient=True, clock=time)
        throttle.on_error(DOWN[0])
        throttle.on_error(NotFoundError("gone", status=404))
        assert not throttle.gave_up(DOWN[0])

    def test_a_wrong_address_is_given_up(self, throttle: Throttle) -> None:
        assert throttle.gave_up(wrong_address())

    def test_is_logged_once(self, throttle: Throttle, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        for _ in range(3):
            throttle.on_error(DOWN[0])
            throttle.outlast(DOWN[0])
        throttle.on_answer()
        throttle.on_answer()
        assert caplog.messages == [
            "refused All calls wait until the API answers again, for at most 900 s.",
            "The API answers again",
        ]

    def test_may_end_while_another_thread_decides_about_it(self, throttle: Throttle, time: Time) -> None:
        throttle.on_error(DOWN[0])
        time.meanwhile = throttle.on_answer
        assert throttle.outlasts(DOWN[0])


class TestAPatientRetry:
    @pytest.fixture
    def throttle(self, time: Time) -> Throttle:
        return Throttle(patient=True, has_answered=True, clock=time)

    def fail(self, throttle: Throttle, call: Any, error: Any) -> Any:
        throttle.on_error(error)
        return call.pause(error)

    def test_pauses_30_seconds_exactly_at_the_attempt_that_would_give_up(self, throttle: Throttle) -> None:
        call = throttle.retry(3, {})
        assert [self.fail(throttle, call, DOWN[0]) for _ in range(5)] == [
            0.5,
            1,
            OUTAGE_PAUSE,
            OUTAGE_PAUSE,
            OUTAGE_PAUSE,
        ]

    def test_pauses_longer_if_the_api_asks_for_it(self, throttle: Throttle) -> None:
        error = server_error(503)
        error.retry_after = 45
        assert self.fail(throttle, throttle.retry(1, {}), error) == 45

    def test_does_not_pause_30_seconds_after_a_later_plain_500(self, throttle: Throttle) -> None:
        call = throttle.retry(3, {})
        pauses = [self.fail(throttle, call, error) for error in [DOWN[0]] * 3 + [server_error(500)] * 3]
        assert pauses == [0.5, 1, OUTAGE_PAUSE, 0.5, 1, None]

    def test_gives_up_after_15_minutes(self, throttle: Throttle, time: Time) -> None:
        call = throttle.retry(3, {})
        spent = 0.0
        while (pause := self.fail(throttle, call, DOWN[0])) is not None:
            time.now += pause
            spent += pause
        assert OUTAGE_SECONDS <= spent < OUTAGE_SECONDS + OUTAGE_PAUSE

    def test_gives_up_a_call_that_fails_alone(self, throttle: Throttle) -> None:
        call, pauses = throttle.retry(3, {}), []
        for _ in range(3):
            throttle.on_answer()
            pauses.append(self.fail(throttle, call, DOWN[0]))
        assert pauses == [0.5, 1, None]

    def test_gives_up_a_call_that_fails_alone_even_if_others_are_answered_rarely(self, throttle: Throttle) -> None:
        call = throttle.retry(3, {})
        for attempt in range(1, 100):
            if attempt % 5 == 0:
                throttle.on_answer()
            if self.fail(throttle, call, DOWN[0]) is None:
                break
        assert attempt == 15

    def test_does_not_count_attempts_between_which_nobody_was_answered(self, throttle: Throttle) -> None:
        call = throttle.retry(3, {})
        for _ in range(2):
            self.fail(throttle, call, DOWN[0])
        throttle.on_answer()
        assert [self.fail(throttle, call, server_error(500)) for _ in range(3)] == [0.5, 1, None]

    def test_gives_up_after_the_usual_attempts_if_the_api_has_never_answered(self, time: Time) -> None:
        throttle = Throttle(patient=True, clock=time)
        call = throttle.retry(3, {})
        assert [self.fail(throttle, call, DOWN[0]) for _ in range(3)] == [0.5, 1, None]

    def test_repeats_a_call_to_a_wrong_address_as_usual(self, time: Time) -> None:
        throttle = Throttle(patient=True, clock=time)
        call = throttle.retry(3, {})
        assert [self.fail(throttle, call, wrong_address()) for _ in range(3)] == [0.5, 1, None]

    def test_outlasts_429s_until_nothing_is_answered_for_an_hour(self, throttle: Throttle, time: Time) -> None:
        call = throttle.retry(1, {})
        assert [self.fail(throttle, call, refusal()) for _ in range(20)] == [0] * 20
        time.now += RATE_LIMIT_SECONDS + 1
        assert self.fail(throttle, call, refusal()) is None

    def test_does_not_count_429s_as_failures_of_the_call(self, throttle: Throttle) -> None:
        call = throttle.retry(3, {})
        errors = [*[refusal()] * 5, *[server_error(500)] * 3]
        assert [self.fail(throttle, call, error) for error in errors][5:] == [0.5, 1, None]

    def test_gives_up_a_429_if_the_api_says_so(self, throttle: Throttle) -> None:
        assert self.fail(throttle, throttle.retry(3, {}), refusal(should_retry=False)) is None

    def test_is_made_by_a_patient_throttle_only(self, throttle: Throttle) -> None:
        plain = Throttle(has_answered=True)
        made = [self.fail(each, each.retry(1, {}), DOWN[0]) for each in (plain, throttle)]
        assert made == [None, OUTAGE_PAUSE]


def test_attempts_and_refusals_are_counted(time: Time) -> None:
    throttle = Throttle(clock=time)
    assert throttle.delay() == 0
    throttle.on_error(RateLimitError("slow down", status=429))
    assert throttle.delay() > 0

    assert (throttle.attempts, throttle.refusals) == (1, 1)
