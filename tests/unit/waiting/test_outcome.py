from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batches.api import AccessDeniedError, RequestCounts
from airflow_provider_batches.waiting.outcome import Outcome, combine, describe


def test_an_outcome_survives_json_but_for_its_error():
    outcome = Outcome("refused", "b", "no", {"id": "b"}, AccessDeniedError("no", status=401), retryable=True)
    after = Outcome.from_event(json.loads(json.dumps(outcome.event())))
    assert after == Outcome("refused", "b", "no", {"id": "b"}, None, retryable=True)


def test_an_event_of_an_older_version_is_not_retryable():
    assert not Outcome.from_event({"status": "refused", "batch_id": "b", "message": "no", "batch": None}).retryable


class TestTheFailureOfATask:
    def outcome(self, status="ended", **counts):
        return Outcome(status, "b", "It ended so.", {"request_counts": counts})

    def test_is_none_if_the_batch_has_ended(self):
        assert self.outcome(succeeded=1, errored=1).failure() is None

    @pytest.mark.parametrize("status", ["missing", "refused", "timeout"])
    def test_is_the_message_if_it_has_not(self, status):
        assert self.outcome(status).failure(fail_on_partial_error=True) == "It ended so."

    def test_is_none_if_a_missing_batch_is_to_be_ignored(self):
        assert self.outcome("missing").failure(ignore_if_missing=True) is None

    def test_is_none_only_for_a_missing_batch_then(self):
        assert self.outcome("refused").failure(ignore_if_missing=True) == "It ended so."

    @pytest.mark.parametrize(("counts", "number"), [({"errored": 2}, 2), ({"expired": 3, "errored": 1}, 4)])
    def test_counts_errored_and_expired_requests_if_requested(self, counts, number):
        assert f"{number} requests did not succeed" in self.outcome(**counts).failure(fail_on_partial_error=True)

    @pytest.mark.parametrize("counts", [{"succeeded": 2}, {"canceled": 2}, {}])
    def test_does_not_count_canceled_requests(self, counts):
        assert self.outcome(**counts).failure(fail_on_partial_error=True) is None


@pytest.mark.parametrize(
    ("status", "ignore", "ends"),
    [
        ("ended", False, False),
        ("refused", False, True),
        ("missing", False, True),
        ("missing", True, False),
        ("timeout", False, False),
    ],
)
def test_one_outcome_ends_the_other_waits_of_its_task_if_it_fails_them_all(status, ignore, ends):
    assert Outcome(status, "b", "So.").fails_all(ignore_if_missing=ignore) is ends


class TestSeveralOutcomes:
    def ended(self, batch, name="b", **counts):
        return Outcome("ended", name, "Ended.", batch(ended=True, request_counts=counts).snapshot())

    def test_are_ended_if_all_have_ended(self, batch):
        assert combine(["a", "b"], [self.ended(batch, "a"), self.ended(batch, "b")]).status == "ended"

    def test_add_up_their_requests(self, batch):
        outcomes = [self.ended(batch, succeeded=2, errored=1), self.ended(batch, succeeded=3, expired=4)]
        counts = combine(["a", "b"], outcomes).request_counts
        assert counts == RequestCounts(succeeded=5, errored=1, expired=4)

    def test_add_up_though_the_counts_hold_unknown_fields(self, batch):
        outcomes = [self.ended(batch, succeeded=1, future={"nested": [1]}) for _ in range(2)]
        assert combine(["a", "b"], outcomes).request_counts.succeeded == 2

    def test_add_up_counters_that_nobody_knows(self, batch):
        counts = combine(["a", "b"], [self.ended(batch, succeeded=1, refused=2, errored=None)] * 2).request_counts
        assert (counts.by_state["refused"], counts.total) == (4, 6)

    @pytest.mark.parametrize("status", ["refused", "missing", "timeout"])
    def test_are_as_bad_as_one_of_them(self, status, batch):
        assert combine(["a", "b"], [self.ended(batch), Outcome(status, "b", "Bad.")]).status == status

    @given(order=st.permutations(["refused", "missing", "timeout"]))
    def test_are_refused_rather_than_missing_rather_than_timed_out(self, order):
        assert combine(["a"] * 3, [Outcome(status, "b", "Bad.") for status in order]).status == "refused"

    def test_keep_the_error_and_the_message_of_the_worst(self):
        error = AccessDeniedError("no", status=401)
        found = combine(["a"], [Outcome("refused", "a", "No key.", error=error, retryable=True)])
        assert (found.error, found.message, found.retryable) == (error, "0 of 1 batches have ended. No key.", True)

    def test_name_the_missing_ones(self):
        found = combine(["a", "b"], [Outcome("missing", "a", "Gone."), Outcome("missing", "b", "Gone.")])
        assert "2 were not found (a, b)" in found.message

    def test_name_five_missing_ones_at_most(self):
        names = [str(number) for number in range(6)]
        found = combine(names, [Outcome("missing", name, "Gone.") for name in names])
        assert "(0, 1, 2, 3, 4 and more)" in found.message

    def test_may_lack_one_if_that_is_to_be_ignored(self, batch):
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
        ({"created_at": None}, "in_progress (100 requests)"),
    ],
)
def test_a_batch_is_described_for_people(fields, expected, batch):
    assert describe(batch(**fields)) == expected
