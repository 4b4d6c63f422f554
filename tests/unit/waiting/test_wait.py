from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise

import httpx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_provider_batches.api import (
    AccessDeniedError,
    APIConnectionError,
    BatchesError,
    ClientSettings,
    InvalidResponseError,
    MessageBatch,
    NotFoundError,
    SpendLimitError,
)
from airflow_provider_batches.api.endpoints import retrieve
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.responses import read_response
from airflow_provider_batches.waiting.outcome import Outcome
from airflow_provider_batches.waiting.wait import LOG_EVERY, MAX_RETRY_AFTER, Wait

START = 1_767_323_045.0
DAY = 86_400.0
SETTINGS = ClientSettings(api_key="sk-ant-1")


def refused(status, *, own=True, has_answered=True, **headers):
    """The error that the client makes of an answer, the API's own or a proxy's."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"type": "error", "error": {"type": "some_error", "message": "No."}, "request_id": "req_1"}
    text = json.dumps(body) if own else "<html>No.</html>"
    response = httpx.Response(status, headers=headers, text=text)
    with pytest.raises(BatchesError) as caught:
        read_response(retrieve("msgbatch_1"), response, SETTINGS, has_answered=has_answered)
    return caught.value


def missing(**headers):
    return refused(404, **headers)


#: What does not end a wait, however often it comes.
PASSING = [
    APIConnectionError("lost"),
    InvalidResponseError("garbled"),
    *(refused(status) for status in (408, 409, 429, 500, 502, 503, 504, 529)),
    *(refused(status, own=False) for status in (307, 400, 401, 403, 404, 451, 502)),
    refused(429, retry_after="5"),
    refused(503, retry_after="1e9"),
    refused(503, x_should_retry="false"),
]
#: What ends a wait at once: of a refused key, the client has made sure before.
FINAL = [refused(status) for status in (400, 413)] + [refused(400, x_should_retry="true")]
#: What ends a wait if it lasts, and the seconds between the polls meanwhile.
DOUBTS = {
    "missing": (missing(), [1, 2, 4], "missing"),
    "spend limit": (refused(402), [10], "refused"),
    "key": (refused(401), [1, 3, 6], "refused"),
    "key, says to retry": (refused(403, x_should_retry="true"), [1, 3, 6], "refused"),
    "wrong address": (refused(404, own=False, has_answered=False), [2, 4, 8, 16, 32], "refused"),
}


def a_wait(poll_interval=60.0, seconds=DAY, **options):
    return Wait("msgbatch_1", poll_interval=poll_interval, start_time=START, end_time=START + seconds, **options)


@dataclass
class Story:
    """What a wait made of its answers."""

    outcome: Outcome
    pauses: list[float]
    now: float
    lines: list[str | None]


def tell(wait, answers, default, slowness=0.0, now=START):
    """Run a wait to its end: a poll takes `slowness` seconds, and after the last answer comes `default`."""
    left, pauses, lines = list(answers), [], []
    for _ in range(100_000):
        now += slowness
        verdict = wait.on_answer(left.pop(0) if left else default, now)
        lines.append(verdict.log_message)
        if verdict.outcome:
            return Story(verdict.outcome, pauses, now, lines)
        pauses.append(verdict.pause)
        now += verdict.pause
    raise AssertionError("the wait does not end")


class TestAWait:
    def test_ends_with_the_batch(self, batch):
        ended = batch(ended=True)
        outcome = a_wait().on_answer(ended, START).outcome
        assert (outcome.status, outcome.snapshot) == ("ended", ended.snapshot())

    def test_says_how_the_batch_ended(self, batch):
        message = a_wait().on_answer(batch(ended=True), START).outcome.message
        assert message == "Batch msgbatch_1 has ended: 97 succeeded, 1 errored, 2 canceled of 100 requests."

    def test_ends_with_a_batch_that_ended_at_the_last_moment(self, batch):
        assert a_wait().on_answer(batch(ended=True), START + DAY).outcome.status == "ended"

    def test_polls_early_at_first_and_doubles_its_pauses_up_to_the_poll_interval(self, batch):
        assert tell(a_wait(seconds=300), [], batch()).pauses == [2, 2, 4, 8, 16, 32, 60, 60, 60, 56]

    def test_polls_no_less_often_than_every_poll_interval(self, batch):
        assert tell(a_wait(poll_interval=1.0, seconds=3), [], batch()).pauses == [1, 1, 1]

    def test_may_begin_with_a_longer_pause(self, batch):
        assert tell(a_wait(second_poll=5.0, seconds=20), [], batch()).pauses == [5, 5, 10]

    def test_polls_a_last_time_when_the_time_is_over(self, batch):
        story = tell(a_wait(seconds=10), [batch()] * 4, batch(ended=True))
        assert (story.outcome.status, story.now) == ("ended", START + 10)

    def test_times_out_if_the_last_poll_finds_it_running(self, batch):
        assert tell(a_wait(seconds=10), [], batch()).outcome.status == "timeout"

    @pytest.mark.parametrize(
        "part", ["msgbatch_1", "2026-01-02T03:04:15+00:00", "after 10 s", "in_progress", "Increase `timeout`", "cancel"]
    )
    def test_that_times_out_says_what_was_last_seen_and_what_to_do(self, part, batch):
        assert part in tell(a_wait(seconds=10), [], batch()).outcome.message

    def test_that_times_out_keeps_the_last_state(self, batch):
        story = tell(a_wait(seconds=10), [batch()], APIConnectionError("refused"))
        assert story.outcome.snapshot == batch().snapshot()

    def test_that_times_out_without_an_answer_says_what_was_in_the_way(self):
        message = tell(a_wait(seconds=10), [], APIConnectionError("refused")).outcome.message
        assert "no poll has succeeded recently; the last answer: refused" in message

    def test_that_times_out_in_trouble_keeps_the_error(self):
        trouble = APIConnectionError("refused")
        assert tell(a_wait(seconds=10), [], trouble).outcome.error is trouble

    def test_that_times_out_after_the_trouble_does_not_mention_it(self, batch):
        outcome = tell(a_wait(seconds=10), [APIConnectionError("refused")], batch()).outcome
        assert (outcome.error, "refused" in outcome.message) == (None, False)

    @pytest.mark.parametrize("error", FINAL, ids=str)
    def test_ends_at_once_if_polling_again_cannot_help(self, error):
        outcome = a_wait().on_answer(error, START).outcome
        assert (outcome.status, outcome.error, outcome.message) == ("refused", error, str(error))

    @pytest.mark.parametrize("status", [401, 403])
    @pytest.mark.parametrize("says", ["true", "false"])
    def test_that_ends_with_a_refused_key_is_retryable_whatever_the_answer_says(self, status, says):
        error = refused(status, x_should_retry=says)
        assert (type(error), tell(a_wait(), [], error).outcome.retryable) == (AccessDeniedError, True)

    def test_doubts_for_a_minute_a_refused_key_that_has_worked(self, batch):
        story = tell(a_wait(), [batch()], refused(401))
        assert story.pauses[1:] == [1, 3, 6, 20, 30]

    @pytest.mark.parametrize("error", PASSING, ids=str)
    def test_continues_through_trouble_that_passes(self, error, batch):
        assert tell(a_wait(), [error] * 20, batch(ended=True)).outcome.status == "ended"

    def test_polls_often_at_first_if_trouble_comes_late(self):
        wait = a_wait(poll_interval=600)
        pauses = [wait.on_answer(APIConnectionError("x"), START + 9000 + i).pause for i in range(5)]
        assert pauses == [2, 4, 8, 16, 32]

    @pytest.mark.parametrize(("asked", "pause"), [("100", 100), ("86400", MAX_RETRY_AFTER), ("0.1", 2)])
    def test_keeps_to_retry_after_for_ten_minutes_at_most(self, asked, pause):
        assert a_wait().on_answer(refused(503, retry_after=asked), START).pause == pause


class TestADoubt:
    @pytest.mark.parametrize(("error", "pauses", "status"), DOUBTS.values(), ids=DOUBTS)
    def test_ends_the_wait_if_it_lasts(self, error, pauses, status):
        story = tell(a_wait(), [], error)
        assert (story.outcome.status, story.pauses) == (status, pauses)

    @pytest.mark.parametrize(("error", "pauses", "status"), DOUBTS.values(), ids=DOUBTS)
    def test_that_passes_is_not_believed(self, error, pauses, status, batch):
        for times in range(1, len(pauses) + 1):
            assert tell(a_wait(), [error] * times, batch(ended=True)).outcome.status == "ended"

    @pytest.mark.parametrize(("error", "pauses", "status"), DOUBTS.values(), ids=DOUBTS)
    def test_begins_anew_once_the_batch_was_seen(self, error, pauses, status, batch):
        story = tell(a_wait(), [*[error] * len(pauses), batch()] * 2, batch(ended=True))
        assert story.outcome.status == "ended"

    @pytest.mark.parametrize(("error", "pauses", "status"), DOUBTS.values(), ids=DOUBTS)
    def test_continues_if_only_trouble_was_in_between(self, error, pauses, status):
        assert tell(a_wait(), [error, APIConnectionError("x")] * len(pauses), error).outcome.status == status

    @pytest.mark.parametrize(("error", "pauses", "status"), DOUBTS.values(), ids=DOUBTS)
    def test_shows_until_the_batch_is_seen(self, error, pauses, status, batch):
        wait = a_wait()
        doubtful = []
        for answer in (batch(), error, batch()):
            wait.on_answer(answer, START)
            doubtful.append(wait.doubtful)
        assert doubtful == [False, True, False]

    @pytest.mark.parametrize(("error", "pauses", "status"), DOUBTS.values(), ids=DOUBTS)
    def test_at_the_end_of_the_time_is_a_timeout(self, error, pauses, status):
        assert a_wait(seconds=0).on_answer(error, START).outcome.status == "timeout"

    def test_of_an_outage_is_none(self):
        wait = a_wait()
        wait.on_answer(APIConnectionError("x"), START)
        assert not wait.doubtful

    @pytest.mark.parametrize("says", ["true", "false"])
    def test_of_a_404_does_not_end_sooner_whatever_the_answer_says_of_retries(self, says):
        assert tell(a_wait(), [], missing(x_should_retry=says)).pauses == [1, 2, 4]

    def test_keeps_to_retry_after(self):
        assert a_wait().on_answer(missing(retry_after="30"), START).pause == 30


class TestABelieved404:
    def test_says_what_to_check(self):
        outcome = tell(a_wait(), [], missing()).outcome
        assert (type(outcome.error), "workspace" in outcome.message) == (NotFoundError, True)

    @pytest.mark.parametrize(
        ("options", "seen", "unconfirmed"),
        [
            ({}, False, False),
            ({"confirm": True}, False, True),
            ({"seen_since": START}, False, True),
            ({}, True, True),
        ],
    )
    def test_of_a_batch_that_was_seen_or_may_be_missing_needs_the_list(self, options, seen, unconfirmed, batch):
        wait = a_wait(**options)
        for answer in [batch()] * seen + [missing()] * 3:
            assert wait.on_answer(answer, START).outcome is None
        verdict = wait.on_answer(missing(), START)
        assert (verdict.outcome.status, verdict.unconfirmed) == ("missing", unconfirmed)

    def test_needs_it_again_if_the_list_still_has_the_batch(self):
        wait = a_wait(confirm=True)
        for _ in range(4):
            wait.on_answer(missing(), START)
        verdict = wait.on_answer(InvalidResponseError("listed"), START)
        assert (verdict.outcome, verdict.pause) == (None, 2)
        assert wait.on_answer(missing(), START).unconfirmed


def test_a_spend_limit_is_not_retryable():
    outcome = tell(a_wait(), [], refused(402)).outcome
    assert (type(outcome.error), outcome.retryable) == (SpendLimitError, False)


def test_an_address_that_has_never_answered_is_an_error_that_names_it():
    error, *_ = DOUBTS["wrong address"]
    outcome = tell(a_wait(), [], error).outcome
    assert error.evidence.proof is Proof.WRONG_ADDRESS
    assert (outcome.status, outcome.retryable, SETTINGS.base_url in outcome.message) == ("refused", True, True)


class TestALogLine:
    def test_comes_once(self, batch):
        story = tell(a_wait(seconds=500), [], batch())
        assert [line for line in story.lines if line] == [
            "Batch msgbatch_1 is in_progress (100 requests, created 2026-01-02T03:04:05+00:00); next poll in 2 s."
        ]

    def test_comes_again_if_the_status_changes(self, batch):
        wait = a_wait()
        wait.on_answer(batch(), START)
        assert "canceling" in wait.on_answer(batch(processing_status="canceling"), START + 1).log_message

    def test_of_trouble_is_its_text(self):
        line = a_wait().on_answer(APIConnectionError("refused."), START).log_message
        assert line == "refused. Next poll in 2 s."

    def test_of_the_end_of_trouble_comes(self, batch):
        wait = a_wait()
        for answer in (batch(), APIConnectionError("refused.")):
            wait.on_answer(answer, START)
        assert wait.on_answer(batch(), START).log_message is not None

    def test_comes_now_and_then_if_nothing_changes(self, batch):
        wait = a_wait()
        lines = [wait.on_answer(batch(), START + second).log_message for second in (0, 1, LOG_EVERY, 700)]
        assert [line is not None for line in lines] == [True, False, True, False]


class TestAnyWait:
    """Whatever is answered and whenever: schedules of answers that hypothesis makes up."""

    def wait(self, data, **options):
        poll_interval = data.draw(st.floats(0.5, 3600), label="poll_interval")
        seconds = data.draw(st.floats(0, 200 * poll_interval), label="seconds")
        return a_wait(poll_interval, seconds, **options)

    def answers(self, data, *kinds):
        return data.draw(st.lists(st.sampled_from(kinds), max_size=40), label="answers")

    def slowness(self, data):
        return data.draw(st.floats(0, 60), label="seconds a poll takes")

    @given(data=st.data())
    def test_ends_no_later_than_the_first_poll_after_its_time(self, data, batch):
        wait = self.wait(data)
        answers = self.answers(data, batch(), missing(), *PASSING, *FINAL)
        default = data.draw(st.sampled_from([batch(), *PASSING]))
        slowness = self.slowness(data)
        assert tell(wait, answers, default, slowness).now <= wait.end_time + slowness + 1e-3

    @given(data=st.data(), start=st.floats(-DAY, DAY))
    def test_never_pauses_beyond_its_time(self, data, start, batch):
        wait = self.wait(data)
        now = START + start
        for answer in self.answers(data, batch(), missing(), *PASSING):
            verdict = wait.on_answer(answer, now)
            if verdict.outcome:
                return
            assert 0 < verdict.pause <= wait.end_time - now
            now += verdict.pause

    @given(data=st.data())
    def test_has_either_an_outcome_or_a_pause(self, data, batch):
        wait, now = self.wait(data), START
        for answer in self.answers(data, batch(), batch(ended=True), missing(), *PASSING, *FINAL):
            verdict = wait.on_answer(answer, now)
            assert (verdict.outcome is None) is (verdict.pause > 0)
            now += verdict.pause
            if verdict.outcome:
                return

    @given(data=st.data())
    def test_is_not_ended_by_passing_trouble_before_its_time(self, data, batch):
        wait = self.wait(data)
        story = tell(wait, self.answers(data, batch(), *PASSING), data.draw(st.sampled_from(PASSING)))
        assert (story.outcome.status, story.now >= wait.end_time) == ("timeout", True)

    @given(data=st.data())
    def test_finds_the_end_of_the_batch_through_any_trouble(self, data, batch):
        wait = a_wait(seconds=365 * DAY)
        story = tell(wait, self.answers(data, batch(), *PASSING), batch(ended=True))
        assert story.outcome.status == "ended"

    @given(data=st.data())
    def test_believes_a_404_only_if_four_came_without_the_batch_in_between(self, data, batch):
        wait = a_wait(seconds=365 * DAY)
        answers = [*self.answers(data, batch(), missing(), *PASSING), batch(ended=True)]
        run = longest = 0
        for answer in answers:
            run = 0 if isinstance(answer, MessageBatch) else run + isinstance(answer, NotFoundError)
            longest = max(longest, run)
        expected = "missing" if longest >= 4 else "ended"
        assert tell(wait, answers, batch(ended=True)).outcome.status == expected

    @given(data=st.data())
    def test_polls_at_least_every_poll_interval_if_the_api_does_not_object(self, data, batch):
        wait = self.wait(data)
        patient = [error for error in PASSING if error.retry_after is None]
        story = tell(wait, self.answers(data, batch(), *patient), batch(), self.slowness(data))
        assert all(pause <= wait.poll_interval for pause in story.pauses)

    @given(data=st.data())
    def test_never_makes_its_pauses_shorter_while_nothing_happens_but_for_the_last(self, data, batch):
        wait = self.wait(data)
        pauses = tell(wait, [], data.draw(st.sampled_from([batch(), APIConnectionError("x")]))).pauses[:-1]
        assert pauses == sorted(pauses)

    @given(data=st.data(), second_poll=st.floats(0.5, 10))
    def test_at_most_doubles_its_pauses(self, data, second_poll, batch):
        wait = self.wait(data, second_poll=second_poll)
        pauses = tell(wait, [], batch()).pauses
        assert all(later <= 2 * sooner + 1e-3 for sooner, later in pairwise(pauses))

    @given(data=st.data())
    def test_settles_at_its_poll_interval(self, data, batch):
        wait = self.wait(data)
        assume(wait.end_time - START > 8 * wait.poll_interval + 100)
        assert tell(wait, [], batch()).pauses[-2] == wait.poll_interval

    @given(data=st.data(), jump=st.floats(-DAY, 0))
    def test_survives_a_clock_that_is_set_back(self, data, jump, batch):
        wait = self.wait(data)
        verdict = wait.on_answer(batch(), START + jump)
        assert verdict.outcome is not None or verdict.pause <= wait.poll_interval
