from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batches.api import retry
from airflow_provider_batches.api.errors import (
    APIConnectionError,
    APIStatusError,
    BatchesError,
    InvalidArgumentError,
    InvalidResponseError,
    RateLimitError,
    ServerError,
)
from airflow_provider_batches.api.evidence import Evidence, Proof
from airflow_provider_batches.api.retry import FIRST_BACKOFF, JITTER, LAST_BACKOFF, MAX_PAUSE, Retry, backoff

KEY_PAUSES = {Proof.KEY_REFUSED: (1.0, 3.0, 6.0)}


def failure(proof, retry_after=None, should_retry=None):
    error = APIStatusError("refused", status=400, retry_after=retry_after, should_retry=should_retry)
    error.evidence = Evidence(proof)
    return error


def pauses(retry, *errors):
    return [retry.pause(error) for error in errors]


@pytest.fixture
def no_jitter(monkeypatch):
    monkeypatch.setattr(retry, "JITTER", 0.0)


class TestTheBackoff:
    @pytest.mark.parametrize(
        ("attempt", "expected"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (20, 8.0)]
    )
    def test_doubles_up_to_eight_seconds(self, attempt, expected):
        assert backoff(attempt, None, lambda: 0.0) == expected

    @given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1))
    def test_loses_at_most_a_quarter_by_chance(self, attempt, chance):
        whole = backoff(attempt, None, lambda: 0.0)
        assert whole * (1 - JITTER) <= backoff(attempt, None, lambda: chance) <= whole

    @given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1))
    def test_has_bounds_if_nobody_asked_for_one(self, attempt, chance):
        assert FIRST_BACKOFF * (1 - JITTER) <= backoff(attempt, BatchesError(), lambda: chance) <= LAST_BACKOFF

    @given(attempt=st.integers(1, 100), asked=st.floats(0, MAX_PAUSE), chance=st.floats(0, 1))
    def test_is_never_shorter_than_the_api_asks(self, attempt, asked, chance):
        assert backoff(attempt, failure(Proof.RATE_LIMIT, asked), lambda: chance) >= asked

    @given(attempt=st.integers(1, 100), asked=st.floats(0, 1e12), chance=st.floats(0, 1))
    def test_is_never_longer_than_a_minute(self, attempt, asked, chance):
        assert backoff(attempt, failure(Proof.NOTHING, asked), lambda: chance) <= MAX_PAUSE

    @pytest.mark.parametrize("asked", [0.0, 0.1])
    def test_is_the_usual_one_if_the_api_asks_for_less(self, asked):
        assert backoff(3, failure(Proof.NOTHING, asked), lambda: 0.0) == 2.0

    def test_differs_between_clients_that_were_sent_away_together(self):
        assert len({backoff(1, failure(Proof.RATE_LIMIT, 10)) for _ in range(20)}) > 1

    def test_differs_between_clients_that_failed_together(self):
        assert len({backoff(1) for _ in range(20)}) > 1


@pytest.mark.usefixtures("no_jitter")
class TestARetry:
    @pytest.mark.parametrize(
        "error",
        [
            APIConnectionError("lost"),
            InvalidResponseError("garbled"),
            ServerError("down", status=503),
            RateLimitError("slow down", status=429),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_backs_off_until_the_last_attempt(self, error):
        assert pauses(Retry(4), *[error] * 4) == [0.5, 1.0, 2.0, None]

    @pytest.mark.parametrize("proof", sorted(set(Proof) - {Proof.NOTHING, Proof.RATE_LIMIT}, key=str))
    def test_does_not_repeat_what_proves_something(self, proof):
        assert Retry(4).pause(failure(proof)) is None

    @pytest.mark.parametrize("proof", Proof)
    def test_leaves_the_last_word_to_the_api(self, proof):
        words = [Retry(4).pause(failure(proof, should_retry=word)) for word in (True, False)]
        assert words == [0.5, None]

    def test_does_not_repeat_a_wrong_argument(self):
        assert Retry(4).pause(InvalidArgumentError("batch_id", "wrong")) is None

    def test_pauses_as_long_as_each_answer_asks(self):
        assert pauses(Retry(9), *(failure(Proof.RATE_LIMIT, asked) for asked in (30, 2, 86_400))) == [30, 2, 60]

    def test_stops_at_the_first_error_that_proves_something(self):
        assert pauses(Retry(9), failure(Proof.NOTHING), failure(Proof.REFUSED)) == [0.5, None]

    def test_counts_all_failures(self):
        made = Retry(2, KEY_PAUSES)
        pauses(made, failure(Proof.NOTHING), failure(Proof.KEY_REFUSED), failure(Proof.REFUSED))
        assert made.failures == 3


@pytest.mark.usefixtures("no_jitter")
class TestADoubt:
    def test_has_pauses_of_its_own_after_which_it_is_believed(self):
        assert pauses(Retry(1, KEY_PAUSES), *[failure(Proof.KEY_REFUSED)] * 4) == [1.0, 3.0, 6.0, None]

    def test_does_not_use_up_the_attempts_of_others(self):
        errors = [failure(proof) for proof in (Proof.KEY_REFUSED, Proof.NOTHING, Proof.KEY_REFUSED, Proof.NOTHING)]
        assert pauses(Retry(3, KEY_PAUSES), *errors) == [1.0, 0.5, 3.0, 1.0]

    @pytest.mark.parametrize(("asked", "expected"), [(0.5, 1.0), (20.0, 20.0), (86_400.0, 60.0)])
    def test_lasts_longer_if_the_api_asks_for_it(self, asked, expected):
        assert Retry(1, KEY_PAUSES).pause(failure(Proof.KEY_REFUSED, asked)) == expected
