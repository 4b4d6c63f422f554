from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_provider_batches.api.answers import refusal
from airflow_provider_batches.api.endpoints import retrieve
from airflow_provider_batches.api.errors import (
    AccessDeniedError,
    APIConnectionError,
    BatchesError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
)
from airflow_provider_batches.api.models import MessageBatch, RequestCounts
from airflow_provider_batches.api.waiting import (
    MAX_ASKED_PAUSE,
    SIGN_OF_LIFE,
    Outcome,
    Wait,
    check_seconds,
    combine,
    describe,
)

START = 1_767_323_045.0
DAY = 86_400.0


def refused(status, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(retrieve("msgbatch_1"), status, headers, b"")


def missing():
    return refused(404)


TRANSIENT = [
    APIConnectionError("refused", sent=False),
    APIConnectionError("lost"),
    InvalidResponseError("garbled"),
    *(refused(status) for status in (408, 409, 429, 500, 502, 503, 504, 529)),
    refused(429, retry_after="5"),
    refused(503, retry_after="1e9"),
    refused(503, x_should_retry="false"),
]
FINAL = [refused(status) for status in (307, 400, 401, 402, 403, 413)] + [refused(401, x_should_retry="true")]


def a_wait(poll_interval=60.0, seconds=DAY, **options):
    return Wait("msgbatch_1", poll_interval=poll_interval, start_time=START, end_time=START + seconds, **options)


@dataclass
class Story:
    """What a wait made of the answers it heard."""

    outcome: Outcome
    pauses: list[float]
    now: float
    news: list[str | None]


def hear(wait, answers, default, slowness=0.0, now=START):
    """Run a wait to its end: a look takes `slowness` seconds, and after the last answer `default` is heard."""
    left, pauses, news = list(answers), [], []
    for _ in range(100_000):
        now += slowness
        verdict = wait.heard(left.pop(0) if left else default, now)
        news.append(verdict.news)
        if verdict.outcome:
            return Story(verdict.outcome, pauses, now, news)
        pauses.append(verdict.pause)
        now += verdict.pause
    raise AssertionError("the wait does not end")


class TestAWait:
    def test_ends_with_the_batch(self, batch):
        ended = batch(ended=True)
        outcome = a_wait().heard(ended, START).outcome
        assert (outcome.status, outcome.snapshot) == ("ended", ended.snapshot())

    def test_says_how_the_batch_ended(self, batch):
        message = a_wait().heard(batch(ended=True), START).outcome.message
        assert message == "Batch msgbatch_1 has ended: 97 succeeded, 1 errored, 2 canceled of 100 requests."

    def test_ends_with_a_batch_that_ended_at_the_last_moment(self, batch):
        assert a_wait().heard(batch(ended=True), START + DAY).outcome.status == "ended"

    def test_looks_early_at_first_and_doubles_its_pauses_up_to_the_poll_interval(self, batch):
        assert hear(a_wait(seconds=300), [], batch()).pauses == [2, 2, 4, 8, 16, 32, 60, 60, 60, 56]

    def test_looks_no_less_often_than_every_poll_interval(self, batch):
        assert hear(a_wait(poll_interval=1.0, seconds=3), [], batch()).pauses == [1, 1, 1]

    def test_may_begin_with_a_longer_pause(self, batch):
        assert hear(a_wait(first_pause=5.0, seconds=20), [], batch()).pauses == [5, 5, 10]

    def test_looks_a_last_time_when_the_time_is_over(self, batch):
        story = hear(a_wait(seconds=10), [batch()] * 4, batch(ended=True))
        assert (story.outcome.status, story.now) == ("ended", START + 10)

    def test_times_out_where_the_last_look_finds_it_running(self, batch):
        assert hear(a_wait(seconds=10), [], batch()).outcome.status == "timeout"

    @pytest.mark.parametrize("part", ["msgbatch_1", "2026-01-02T03:04:15+00:00", "after 10 s", "in_progress", "cancel"])
    def test_that_times_out_says_what_was_last_seen_and_what_to_do(self, part, batch):
        assert part in hear(a_wait(seconds=10), [], batch()).outcome.message

    def test_that_times_out_hands_on_the_last_state(self, batch):
        assert hear(a_wait(seconds=10), [batch()], APIConnectionError("refused")).outcome.snapshot == (
            batch().snapshot()
        )

    def test_that_times_out_without_an_answer_says_what_was_in_the_way(self):
        message = hear(a_wait(seconds=10), [], APIConnectionError("refused")).outcome.message
        assert "no look at it succeeded lately; the last answer: refused" in message

    def test_that_times_out_in_trouble_hands_on_the_trouble(self):
        trouble = APIConnectionError("refused")
        assert hear(a_wait(seconds=10), [], trouble).outcome.error is trouble

    def test_that_times_out_after_trouble_has_passed_does_not_mention_it(self, batch):
        outcome = hear(a_wait(seconds=10), [APIConnectionError("refused")], batch()).outcome
        assert (outcome.error, "refused" in outcome.message) == (None, False)

    @pytest.mark.parametrize("error", FINAL, ids=str)
    def test_ends_at_once_where_asking_again_is_no_use(self, error):
        outcome = a_wait().heard(error, START).outcome
        assert (outcome.status, outcome.error, outcome.message) == ("refused", error, str(error))

    @pytest.mark.parametrize("error", TRANSIENT, ids=str)
    def test_goes_on_through_trouble_that_passes(self, error, batch):
        assert hear(a_wait(), [error] * 20, batch(ended=True)).outcome.status == "ended"

    def test_looks_often_at_first_where_trouble_comes_late(self):
        wait = a_wait(poll_interval=600)
        assert [wait.heard(APIConnectionError("x"), START + 9000 + i).pause for i in range(5)] == [2, 4, 8, 16, 32]

    def test_leaves_an_api_alone_that_asks_for_it(self):
        assert a_wait().heard(refused(429, retry_after="100"), START).pause == 100

    def test_leaves_an_api_alone_for_ten_minutes_at_most(self):
        assert a_wait().heard(refused(429, retry_after="86400"), START).pause == MAX_ASKED_PAUSE

    def test_looks_at_its_usual_time_where_the_api_asks_for_less(self):
        assert a_wait().heard(refused(429, retry_after="0.1"), START).pause == 2

    def test_leaves_alone_an_api_that_says_404_and_asks_for_it(self):
        assert a_wait().heard(refused(404, retry_after="30"), START).pause == 30


class TestA404:
    @pytest.mark.parametrize("times", [1, 2, 3])
    def test_that_goes_away_is_not_believed(self, times, batch):
        assert hear(a_wait(), [missing()] * times, batch(ended=True)).outcome.status == "ended"

    def test_is_believed_when_it_came_four_times_over_seven_seconds(self):
        story = hear(a_wait(), [], missing())
        assert (story.outcome.status, story.pauses) == ("missing", [1, 2, 4])

    def test_that_is_believed_is_handed_on_with_what_to_check(self):
        outcome = hear(a_wait(), [], missing()).outcome
        assert (type(outcome.error), "workspace" in outcome.message) == (NotFoundError, True)

    def test_is_doubtful_until_then(self):
        wait = a_wait()
        wait.heard(missing(), START)
        assert wait.doubtful

    def test_counts_from_the_start_where_the_batch_was_seen_in_between(self, batch):
        answers = [missing(), missing(), missing(), batch(), missing(), missing(), missing()]
        assert hear(a_wait(), answers, batch(ended=True)).outcome.status == "ended"

    def test_counts_on_where_only_trouble_was_in_between(self):
        answers = [missing(), APIConnectionError("x")] * 3
        assert hear(a_wait(), answers, missing()).outcome.status == "missing"

    def test_at_the_deadline_is_a_timeout_where_it_is_not_believed_yet(self):
        assert a_wait(seconds=0).heard(missing(), START).outcome.status == "timeout"


@pytest.mark.parametrize("answer", ["running", "trouble"])
def test_what_is_clear_is_not_doubtful(answer, batch):
    wait = a_wait()
    wait.heard(batch() if answer == "running" else APIConnectionError("x"), START)
    assert not wait.doubtful


class TestTheNews:
    def test_is_told_once(self, batch):
        story = hear(a_wait(seconds=500), [], batch())
        assert [news for news in story.news if news] == [
            "Batch msgbatch_1 is in_progress (100 requests, created 2026-01-02T03:04:05+00:00); looking again in 2 s."
        ]

    def test_is_told_again_where_the_status_changes(self, batch):
        wait = a_wait()
        wait.heard(batch(), START)
        assert "canceling" in wait.heard(batch(processing_status="canceling"), START + 1).news

    def test_of_trouble_is_told(self):
        assert a_wait().heard(APIConnectionError("refused."), START).news == "refused. Looking again in 2 s."

    def test_of_the_end_of_trouble_is_told(self, batch):
        wait = a_wait()
        for answer in (batch(), APIConnectionError("refused.")):
            wait.heard(answer, START)
        assert wait.heard(batch(), START).news is not None

    def test_is_a_sign_of_life_now_and_then(self, batch):
        wait = a_wait()
        told = [wait.heard(batch(), START + second).news is not None for second in (0, 1, SIGN_OF_LIFE, 700)]
        assert told == [True, False, True, False]


class TestAnyWait:
    """Whatever is heard and whenever: schedules of answers that hypothesis makes up."""

    def wait(self, data, **options):
        poll_interval = data.draw(st.floats(0.5, 3600), label="poll_interval")
        seconds = data.draw(st.floats(0, 200 * poll_interval), label="seconds")
        return a_wait(poll_interval, seconds, **options)

    def answers(self, data, *kinds):
        return data.draw(st.lists(st.sampled_from(kinds), max_size=40), label="answers")

    def slowness(self, data):
        return data.draw(st.floats(0, 60), label="seconds a look takes")

    @given(data=st.data())
    def test_ends_no_later_than_the_first_look_after_its_time(self, data, batch):
        wait = self.wait(data)
        answers = self.answers(data, batch(), missing(), *TRANSIENT, *FINAL)
        default = data.draw(st.sampled_from([batch(), *TRANSIENT]))
        slowness = self.slowness(data)
        assert hear(wait, answers, default, slowness).now <= wait.end_time + slowness + 1e-3

    @given(data=st.data(), start=st.floats(-DAY, DAY))
    def test_never_pauses_beyond_its_time(self, data, start, batch):
        wait = self.wait(data)
        now = START + start
        for answer in self.answers(data, batch(), missing(), *TRANSIENT):
            verdict = wait.heard(answer, now)
            if verdict.outcome:
                return
            assert 0 < verdict.pause <= wait.end_time - now
            now += verdict.pause

    @given(data=st.data())
    def test_has_either_an_outcome_or_a_pause(self, data, batch):
        wait, now = self.wait(data), START
        for answer in self.answers(data, batch(), batch(ended=True), missing(), *TRANSIENT, *FINAL):
            verdict = wait.heard(answer, now)
            assert (verdict.outcome is None) is (verdict.pause > 0)
            now += verdict.pause
            if verdict.outcome:
                return

    @given(data=st.data())
    def test_is_not_ended_by_passing_trouble_before_its_time(self, data, batch):
        wait = self.wait(data)
        story = hear(wait, self.answers(data, batch(), *TRANSIENT), data.draw(st.sampled_from(TRANSIENT)))
        assert (story.outcome.status, story.now >= wait.end_time) == ("timeout", True)

    @given(data=st.data())
    def test_finds_the_end_of_the_batch_through_any_trouble(self, data, batch):
        wait = a_wait(seconds=365 * DAY)
        story = hear(wait, self.answers(data, batch(), *TRANSIENT), batch(ended=True))
        assert story.outcome.status == "ended"

    @given(data=st.data())
    def test_believes_a_404_only_if_four_came_without_the_batch_in_between(self, data, batch):
        wait = a_wait(seconds=365 * DAY)
        heard = [*self.answers(data, batch(), missing(), *TRANSIENT), *[batch(ended=True)]]
        run = longest = 0
        for answer in heard:
            run = 0 if isinstance(answer, MessageBatch) else run + isinstance(answer, NotFoundError)
            longest = max(longest, run)
        expected = "missing" if longest >= 4 else "ended"
        assert hear(wait, heard, batch(ended=True)).outcome.status == expected

    @given(data=st.data())
    def test_looks_at_least_every_poll_interval_where_the_api_does_not_object(self, data, batch):
        wait = self.wait(data)
        patient = [error for error in TRANSIENT if error.retry_after is None]
        story = hear(wait, self.answers(data, batch(), *patient), batch(), self.slowness(data))
        assert all(pause <= wait.poll_interval for pause in story.pauses)

    @given(data=st.data())
    def test_never_makes_its_pauses_shorter_while_nothing_happens_but_for_the_last(self, data, batch):
        wait = self.wait(data)
        pauses = hear(wait, [], data.draw(st.sampled_from([batch(), APIConnectionError("x")]))).pauses[:-1]
        assert pauses == sorted(pauses)

    @given(data=st.data(), first_pause=st.floats(0.5, 10))
    def test_at_most_doubles_its_pauses(self, data, first_pause, batch):
        wait = self.wait(data, first_pause=first_pause)
        pauses = hear(wait, [], batch()).pauses
        assert all(later <= 2 * sooner + 1e-3 for sooner, later in pairwise(pauses))

    @given(data=st.data())
    def test_settles_at_its_poll_interval(self, data, batch):
        wait = self.wait(data)
        assume(wait.end_time - START > 8 * wait.poll_interval + 100)
        assert hear(wait, [], batch()).pauses[-2] == wait.poll_interval

    @given(data=st.data(), jump=st.floats(-DAY, 0))
    def test_survives_a_clock_that_is_set_back(self, data, jump, batch):
        wait = self.wait(data)
        verdict = wait.heard(batch(), START + jump)
        assert verdict.outcome is not None or verdict.pause <= wait.poll_interval

    @given(data=st.data())
    def test_has_an_outcome_that_survives_the_way_through_json(self, data, batch):
        answers = self.answers(data, batch(), missing(), *TRANSIENT)
        outcome = hear(
            self.wait(data), answers, data.draw(st.sampled_from([batch(ended=True), missing(), *FINAL]))
        ).outcome
        after = Outcome.from_event(json.loads(json.dumps(outcome.event())))
        assert (after.status, after.batch_id, after.message, after.snapshot) == (
            outcome.status,
            outcome.batch_id,
            outcome.message,
            outcome.snapshot,
        )


def test_an_outcome_does_not_take_its_error_on_the_way():
    outcome = Outcome("refused", "b", "no", error=AccessDeniedError("no", status=401))
    assert outcome.event() == {"status": "refused", "batch_id": "b", "message": "no", "batch": None}


class TestTheFailureOfATask:
    def outcome(self, status="ended", **counts):
        return Outcome(status, "b", "It ended so.", {"request_counts": counts})

    def test_is_none_where_the_batch_has_ended(self):
        assert self.outcome(succeeded=1, errored=1).failure() is None

    @pytest.mark.parametrize("status", ["missing", "refused", "timeout"])
    def test_is_the_message_where_it_has_not(self, status):
        assert self.outcome(status).failure(fail_on_partial_error=True) == "It ended so."

    def test_is_none_where_a_missing_batch_is_to_be_ignored(self):
        assert self.outcome("missing").failure(ignore_if_missing=True) is None

    def test_is_none_only_for_a_missing_batch_then(self):
        assert self.outcome("refused").failure(ignore_if_missing=True) == "It ended so."

    @pytest.mark.parametrize(("counts", "number"), [({"errored": 2}, 2), ({"expired": 3, "errored": 1}, 4)])
    def test_counts_errored_and_expired_requests_where_that_is_wanted(self, counts, number):
        assert f"{number} requests did not succeed" in self.outcome(**counts).failure(fail_on_partial_error=True)

    @pytest.mark.parametrize("counts", [{"succeeded": 2}, {"canceled": 2}, {}])
    def test_does_not_count_canceled_requests(self, counts):
        assert self.outcome(**counts).failure(fail_on_partial_error=True) is None


class TestSeveralOutcomes:
    def ended(self, batch, name="b", **counts):
        return Outcome("ended", name, "Ended.", batch(ended=True, request_counts=counts).snapshot())

    def test_are_ended_where_all_have_ended(self, batch):
        assert combine(["a", "b"], [self.ended(batch, "a"), self.ended(batch, "b")]).status == "ended"

    def test_add_up_their_requests(self, batch):
        outcomes = [self.ended(batch, succeeded=2, errored=1), self.ended(batch, succeeded=3, expired=4)]
        counts = combine(["a", "b"], outcomes).request_counts
        assert counts == RequestCounts(succeeded=5, errored=1, expired=4)

    def test_add_up_though_the_counts_hold_fields_that_nobody_knows(self, batch):
        outcomes = [self.ended(batch, succeeded=1, future={"nested": [1]}) for _ in range(2)]
        assert combine(["a", "b"], outcomes).request_counts.succeeded == 2

    @pytest.mark.parametrize("status", ["refused", "missing", "timeout"])
    def test_are_as_bad_as_one_of_them(self, status, batch):
        assert combine(["a", "b"], [self.ended(batch), Outcome(status, "b", "Bad.")]).status == status

    @given(order=st.permutations(["refused", "missing", "timeout"]))
    def test_are_refused_rather_than_missing_rather_than_timed_out(self, order):
        assert combine(["a"] * 3, [Outcome(status, "b", "Bad.") for status in order]).status == "refused"

    def test_hand_on_the_error_and_the_message_of_the_worst(self):
        error = AccessDeniedError("no", status=401)
        found = combine(["a"], [Outcome("refused", "a", "No key.", error=error)])
        assert (found.error, found.message) == (error, "0 of 1 batches have ended. No key.")

    def test_name_the_missing_ones(self):
        found = combine(["a", "b"], [Outcome("missing", "a", "Gone."), Outcome("missing", "b", "Gone.")])
        assert "2 are unknown to the API (a, b)" in found.message

    def test_name_five_missing_ones_at_most(self):
        names = [str(number) for number in range(6)]
        found = combine(names, [Outcome("missing", name, "Gone.") for name in names])
        assert "(0, 1, 2, 3, 4 and more)" in found.message

    def test_may_lack_one_where_that_is_to_be_ignored(self, batch):
        outcomes = [self.ended(batch), Outcome("missing", "b", "Gone.")]
        assert combine(["a", "b"], outcomes, ignore_if_missing=True).status == "ended"

    def test_say_how_many_have_ended(self, batch):
        found = combine(["a", "b", "c"], [self.ended(batch, succeeded=1), Outcome("timeout", "b", "Late.")])
        assert (found.snapshot["total"], found.snapshot["ended"], found.snapshot["missing"]) == (3, 1, [])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"ended": True}, "97 succeeded, 1 errored, 2 canceled of 100 requests"),
        ({"ended": True, "request_counts": {"expired": 3}}, "3 expired of 3 requests"),
        ({"ended": True, "request_counts": {}}, "none of 0 requests"),
        ({"processing_status": "canceling"}, "canceling (100 requests, created 2026-01-02T03:04:05+00:00)"),
    ],
)
def test_a_batch_is_described_for_people(fields, expected, batch):
    assert describe(batch(**fields)) == expected


@pytest.mark.parametrize(("value", "seconds"), [(1, 1.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (1e6, 1e6)])
def test_a_duration_is_seconds_or_a_timedelta(value, seconds):
    assert check_seconds("timeout", value) == seconds


@pytest.mark.parametrize("value", [0, -1, "60", None, True, float("nan"), float("inf"), timedelta(0), [60]])
def test_anything_else_is_no_duration(value):
    wrong = r"^timeout: got .*; it must be a timedelta or a number of seconds above 0\.$"
    with pytest.raises(InvalidArgumentError, match=wrong):
        check_seconds("timeout", value)


def test_all_errors_of_these_tests_are_of_the_client():
    assert all(isinstance(error, BatchesError) for error in (*TRANSIENT, *FINAL))
