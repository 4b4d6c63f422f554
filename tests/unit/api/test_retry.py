from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import AsyncRetrying, Retrying

from airflow_provider_batches.api import endpoints, retry
from airflow_provider_batches.api.answers import refusal
from airflow_provider_batches.api.errors import (
    APIConnectionError,
    BatchesError,
    BatchNotEndedError,
    InvalidArgumentError,
    InvalidResponseError,
    ResultsTruncatedError,
)
from airflow_provider_batches.api.retry import (
    FIRST_PAUSE,
    JITTER,
    LAST_PAUSE,
    MAX_PAUSE,
    is_about_the_batch,
    may_repeat,
)

CREATE = endpoints.create([{"custom_id": "a", "params": {}}])
RETRIEVE = endpoints.retrieve("b")
PAGE = endpoints.page()
SETTLING = [endpoints.cancel("b"), endpoints.delete("b"), endpoints.results("b")]
TRY_AGAIN = (408, 409, 429, 500, 502, 503, 504, 529, 599)
NO_USE = (301, 307, 400, 401, 402, 403, 404, 405, 410, 413, 422)

statuses = st.integers(300, 599)
words = st.sampled_from([None, "true", "false"])


def refused(status, should_retry=None, retry_after=None, code=None):
    headers = {"x-should-retry": should_retry or "", "retry-after": retry_after or ""}
    body = f'{{"error": {{"type": "x", "details": {{"error_code": "{code}"}}}}}}'.encode()
    return refusal(RETRIEVE, status, headers, body)


answers = st.one_of(
    st.builds(refused, statuses, words, st.none() | st.sampled_from(["1", "0", "1e9"])),
    st.builds(APIConnectionError, st.just("lost"), sent=st.booleans()),
    st.just(InvalidResponseError("garbled")),
)


class TestTheRule:
    @pytest.mark.parametrize("status", TRY_AGAIN)
    @pytest.mark.parametrize("call", [RETRIEVE, PAGE], ids=["retrieve", "list"])
    def test_repeats_what_passes(self, call, status):
        assert may_repeat(call, refused(status))

    @pytest.mark.parametrize("status", NO_USE)
    @pytest.mark.parametrize(
        "call", [RETRIEVE, PAGE, *SETTLING], ids=["retrieve", "list", "cancel", "delete", "results"]
    )
    def test_does_not_repeat_what_somebody_has_to_change(self, call, status):
        assert not may_repeat(call, refused(status))

    def test_does_not_repeat_what_a_spend_limit_refused(self):
        assert not may_repeat(RETRIEVE, refused(429, code="enforced_spend_limit_reached"))

    @given(status=statuses, word=st.sampled_from(["true", "false"]))
    def test_leaves_the_last_word_to_the_api(self, status, word):
        assert may_repeat(RETRIEVE, refused(status, word)) is (word == "true")

    @pytest.mark.parametrize("sent", [True, False])
    @pytest.mark.parametrize(
        "call", [RETRIEVE, PAGE, *SETTLING], ids=["retrieve", "list", "cancel", "delete", "results"]
    )
    def test_repeats_what_got_no_answer(self, call, sent):
        assert may_repeat(call, APIConnectionError("lost", sent=sent))

    def test_repeats_what_got_an_unreadable_answer(self):
        assert may_repeat(RETRIEVE, InvalidResponseError("garbled"))

    @given(error=answers)
    def test_never_repeats_a_create_that_may_have_been_sent(self, error):
        assert may_repeat(CREATE, error) is (isinstance(error, APIConnectionError) and not error.sent)

    @given(error=answers)
    @pytest.mark.parametrize("call", SETTLING, ids=["cancel", "delete", "results"])
    def test_never_blindly_repeats_what_the_state_of_the_batch_may_explain(self, call, error):
        assert not (may_repeat(call, error) and is_about_the_batch(error))

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
    @pytest.mark.parametrize("call", SETTLING, ids=["cancel", "delete", "results"])
    def test_repeats_a_change_that_passes(self, call, status):
        assert may_repeat(call, refused(status))

    @pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), TypeError("bug")])
    def test_does_not_repeat_bugs_and_interrupts(self, error):
        assert not may_repeat(RETRIEVE, error)

    def test_does_not_repeat_a_wrong_argument(self):
        assert not may_repeat(RETRIEVE, InvalidArgumentError("wrong"))

    @given(call=st.sampled_from([CREATE, RETRIEVE, PAGE, *SETTLING]), error=answers)
    def test_is_the_same_each_time(self, call, error):
        assert may_repeat(call, error) is may_repeat(call, error)


class TestAboutTheBatch:
    @pytest.mark.parametrize("status", [400, 403, 404, 405, 409, 410, 418, 422, 499])
    def test_are_refusals_that_no_contract_ties_down(self, status):
        assert is_about_the_batch(refused(status))

    @pytest.mark.parametrize("status", [301, 401, 402, 408, 413, 429, 500, 503])
    def test_are_not_refusals_about_who_asks_who_pays_how_often(self, status):
        assert not is_about_the_batch(refused(status))

    @pytest.mark.parametrize("error", [APIConnectionError("x"), InvalidResponseError("x"), ResultsTruncatedError("x")])
    def test_are_not_lost_answers(self, error):
        assert not is_about_the_batch(error)

    def test_is_not_what_the_client_found_itself(self, batch):
        assert not is_about_the_batch(BatchNotEndedError(batch(), "can be deleted"))


class TestThePause:
    @pytest.mark.parametrize(
        ("attempt", "expected"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (20, 8.0)]
    )
    def test_doubles_up_to_eight_seconds(self, attempt, expected):
        assert retry.pause(attempt, None, lambda: 0.0) == expected

    @given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1))
    def test_loses_at_most_a_quarter_by_chance(self, attempt, chance):
        whole = retry.pause(attempt, None, lambda: 0.0)
        assert whole * (1 - JITTER) <= retry.pause(attempt, None, lambda: chance) <= whole

    @given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1))
    def test_has_bounds_where_nobody_asked_for_one(self, attempt, chance):
        assert FIRST_PAUSE * (1 - JITTER) <= retry.pause(attempt, BatchesError(), lambda: chance) <= LAST_PAUSE

    @given(attempt=st.integers(1, 100), asked=st.floats(0, MAX_PAUSE), chance=st.floats(0, 1))
    def test_is_never_shorter_than_the_api_asks(self, attempt, asked, chance):
        assert retry.pause(attempt, refused(429, retry_after=repr(asked)), lambda: chance) >= asked

    @given(attempt=st.integers(1, 100), asked=st.floats(0, 1e12), chance=st.floats(0, 1))
    def test_is_never_longer_than_a_minute(self, attempt, asked, chance):
        assert retry.pause(attempt, refused(503, retry_after=repr(asked)), lambda: chance) <= MAX_PAUSE

    def test_is_the_usual_one_where_the_api_asks_for_none(self):
        assert retry.pause(3, refused(503, retry_after="0"), lambda: 0.0) == 2.0

    def test_differs_between_clients_that_were_sent_away_together(self):
        error = refused(429, retry_after="10")
        assert len({retry.pause(1, error) for _ in range(20)}) > 1

    def test_differs_between_clients_that_failed_together(self):
        assert len({retry.pause(1, None) for _ in range(20)}) > 1


class TestTheSchedule:
    def run(self, call, attempts, errors):
        """Return how many attempts were made and the pauses between them; one that has no error left succeeds."""
        pauses, left, made = [], list(errors), []

        def attempt():
            made.append(1)
            if left:
                raise left.pop(0)

        with suppress(BatchesError):
            Retrying(**retry.schedule(call, attempts), sleep=pauses.append)(attempt)
        return len(made), pauses

    @given(attempts=st.integers(1, 21), errors=st.lists(st.just(APIConnectionError("lost")), max_size=30))
    def test_stops_with_success_or_at_the_last_attempt(self, attempts, errors):
        assert self.run(RETRIEVE, attempts, errors)[0] == min(attempts, len(errors) + 1)

    @given(errors=st.lists(answers, min_size=1, max_size=10))
    def test_makes_a_create_again_only_while_nothing_was_sent(self, errors):
        unsent = 0
        while unsent < len(errors) and isinstance(errors[unsent], APIConnectionError) and not errors[unsent].sent:
            unsent += 1
        assert self.run(CREATE, 21, errors)[0] == unsent + 1

    def test_stops_at_the_first_error_that_is_no_use(self):
        assert self.run(RETRIEVE, 10, [refused(503), refused(401), refused(503)])[0] == 2

    def test_waits_as_long_as_each_answer_asks(self):
        pauses = self.run(RETRIEVE, 10, [refused(429, retry_after="30"), refused(503, retry_after="2")])[1]
        assert (30 <= pauses[0] <= 37.5, 2 <= pauses[1] <= 2.5) == (True, True)

    def test_raises_the_last_error_itself(self):
        error = refused(503)

        def fail():
            raise error

        with pytest.raises(BatchesError) as caught:
            Retrying(**retry.schedule(RETRIEVE, 1))(fail)
        assert caught.value is error

    def test_says_after_how_many_attempts_it_gave_up(self):
        def fail():
            raise refused(503, retry_after="0.001")

        with pytest.raises(BatchesError, match=r"Given up after 3 attempts\.$"):
            Retrying(**retry.schedule(RETRIEVE, 3))(fail)

    async def test_serves_the_async_client_too(self):
        made = []

        async def attempt():
            made.append(1)
            if len(made) < 3:
                raise refused(503, retry_after="0.001")

        await AsyncRetrying(**retry.schedule(RETRIEVE, 10))(attempt)
        assert len(made) == 3
