"""The steps of each call, driven without I/O."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batches.api import endpoints, retry
from airflow_provider_batches.api.errors import (
    AccessDeniedError,
    APIConnectionError,
    APIStatusError,
    BatchesError,
    BatchNotEndedError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    ResultsUnavailableError,
    ServerError,
    SpendLimitError,
)
from airflow_provider_batches.api.evidence import Evidence, Proof
from airflow_provider_batches.api.flows import Flows, Pause, Renew
from airflow_provider_batches.api.models import BatchPage, DeletedBatch
from airflow_provider_batches.api.pager import Pager
from airflow_provider_batches.api.responses import read_response
from airflow_provider_batches.api.retry import KEY_PAUSES, NOT_FOUND_PAUSES, WORKING_KEY_PAUSES
from airflow_provider_batches.api.settings import ClientSettings
from airflow_provider_batches.api.throttle import OUTAGE_PAUSE, Throttle

SETTINGS = ClientSettings.parse(api_key="k")
GATEWAY = ClientSettings.parse(api_key="k", base_url="https://gateway.example")
RETRIEVE = endpoints.retrieve("b")
CREATE = endpoints.create([{"custom_id": "a", "params": {}}])
DELETED = DeletedBatch(id="b", type="message_batch_deleted")
SEEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
FOREIGN = "<html>Just a moment...</html>"
LOST = APIConnectionError("lost")
GET, CANCEL, DELETE, RESULTS, LIST, POST = "GET /b", "POST /b/cancel", "DELETE /b", "GET /b/results", "GET ", "POST "
FOUR_RETRIEVALS = [GET, "pause 1", GET, "pause 2", GET, "pause 4", GET]


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch):
    monkeypatch.setattr(retry, "JITTER", 0.0)


def not_sent():
    error = APIConnectionError("no connection")
    error.evidence = Evidence(Proof.NOTHING, outage=True)
    return error


def page(*batches, more=False):
    return BatchPage(data=[batch.snapshot() for batch in batches], has_more=more, last_id="last" if more else None)


class Run:
    """Makes the steps of flows.

    An answer is a status with which the API refuses the call, a status and a text with which somebody else does, an
    error that comes instead, what the call returns, or a function of the call that returns one of these.
    """

    def __init__(self, attempts=1, *, settings=SETTINGS, **throttle):
        self.now = 100.0
        self.throttle = Throttle(clock=lambda: self.now, **throttle)
        self.flows = Flows(attempts, self.throttle)
        self.settings = settings
        self.steps = []

    def __call__(self, flow, *answers):
        """Return what a flow returned or raised; the last answer is given again and again."""
        left, self.steps = list(answers), []
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    self.steps.append(f"pause {step.seconds:g}")
                    self.now += step.seconds
                    step = flow.send(None)
                elif isinstance(step, Renew):
                    self.steps.append("renew")
                    step = flow.send(None)
                else:
                    self.steps.append(f"{step.method} {step.path[20:]}")
                    answer = self.answer(step, left.pop(0) if len(left) > 1 else left[0])
                    step = flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
        except StopIteration as stop:
            return stop.value
        except BatchesError as error:
            return error

    @property
    def calls(self):
        return [step for step in self.steps if not step.startswith(("pause", "renew"))]

    @property
    def pauses(self):
        return [float(step.split()[1]) for step in self.steps if step.startswith("pause")]

    def answer(self, call, answer):
        answer = answer(call) if callable(answer) else answer
        if isinstance(answer, int):
            error = {"type": "some_error", "message": "No."}
            answer = httpx.Response(answer, json={"type": "error", "error": error}, headers={"request-id": "req_1"})
        elif isinstance(answer, tuple):
            answer = httpx.Response(answer[0], text=answer[1])
        if not isinstance(answer, httpx.Response):
            return answer
        try:
            return read_response(call, answer, self.settings, has_answered=self.throttle.has_answered)
        except BatchesError as error:
            return error


@pytest.fixture
def run():
    return Run()


class TestACall:
    def test_returns_what_was_answered(self, run, batch):
        assert run(run.flows.call(RETRIEVE), batch()) == batch()
        assert (run.steps, run.throttle.has_answered) == ([GET], True)

    @pytest.mark.parametrize("failure", [LOST, not_sent(), 408, 409, 500, 529, (502, FOREIGN)], ids=str)
    def test_is_repeated_if_its_failure_proves_nothing(self, failure, batch):
        run = Run(3)
        assert run(run.flows.call(RETRIEVE), failure, failure, batch()) == batch()
        assert run.steps == [GET, "pause 0.5", GET, "pause 1", GET]

    def test_is_repeated_as_often_as_the_settings_say(self):
        run = Run(3)
        error = run(run.flows.call(RETRIEVE), 503)
        assert (type(error), len(run.calls)) == (ServerError, 3)
        assert str(error).endswith("Gave up after 3 attempts.")

    @pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (9, 10)])
    def test_is_repeated_as_often_as_the_caller_says(self, retries, attempts):
        run = Run(3)
        run(run.flows.call(RETRIEVE, retries), 503)
        assert len(run.calls) == attempts

    @pytest.mark.parametrize("status", [400, 402, 404, 413, 422])
    def test_is_not_repeated_if_its_failure_proves_something(self, status):
        run = Run(3)
        run(run.flows.call(RETRIEVE), status)
        assert run.steps == [GET]

    @pytest.mark.parametrize("status", [302, 400, 403, 404, 451])
    def test_is_repeated_if_somebody_else_answers_for_an_api_that_has_answered(self, status):
        run = Run(3, has_answered=True)
        error = run(run.flows.call(RETRIEVE), (status, FOREIGN))
        assert (type(error), len(run.calls)) == (InvalidResponseError, 3)

    @pytest.mark.parametrize("status", [302, 400, 403, 404, 451])
    def test_is_not_repeated_if_the_address_has_never_answered(self, status):
        run = Run(3)
        error = run(run.flows.call(RETRIEVE), (status, FOREIGN))
        assert (error.evidence.proof, run.steps) == (Proof.WRONG_ADDRESS, [GET])

    def test_pauses_as_long_as_a_429_asks_and_holds_all_others(self, batch):
        run = Run(3)
        limit = httpx.Response(429, headers={"retry-after": "7"})
        run(run.flows.call(RETRIEVE), limit, batch())
        assert run.steps == [GET, "pause 7", GET]

    def test_waits_for_its_turn(self, batch):
        run = Run(requests_per_minute=60)
        run(run.flows.call(RETRIEVE), batch())
        run(run.flows.call(RETRIEVE), batch())
        assert run.steps == ["pause 1", GET]

    @pytest.mark.parametrize(
        ("failures", "lost"),
        [([LOST, 404], True), ([503, 404], True), ([not_sent(), 404], False), ([404], False)],
        ids=str,
    )
    def test_remembers_whether_an_earlier_attempt_may_have_worked(self, failures, lost):
        run = Run(3)
        assert run(run.flows.call(RETRIEVE), *failures).answer_was_lost is lost


class TestACreate:
    """The API cannot tell a repetition from a second batch, which costs money too."""

    @pytest.mark.parametrize(
        "failure",
        [LOST, 408, 409, 500, 503, 529, *((status, FOREIGN) for status in (200, 302, 403, 404, 413, 429, 502))],
        ids=str,
    )
    @pytest.mark.parametrize("throttle", [{}, {"has_answered": True, "patient": True}], ids=["plain", "patient"])
    def test_that_may_have_worked_is_never_sent_twice(self, failure, throttle):
        run = Run(5, **throttle)
        error = run(run.flows.call(CREATE), failure)
        assert (run.steps, "Check the list of batches before you retry" in str(error)) == ([POST], True)

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 429])
    def test_that_a_gateway_refused_is_never_sent_twice(self, status):
        run = Run(5, settings=GATEWAY)
        assert "may have been created" in str(run(run.flows.call(CREATE), status))
        assert run.steps == [POST]

    @pytest.mark.parametrize("failure", [not_sent(), 401, 403, 429], ids=str)
    def test_that_was_not_sent_or_not_accepted_is_sent_again(self, failure, batch):
        run = Run(5)
        assert run(run.flows.call(CREATE), failure, batch()) == batch()

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 429])
    def test_that_the_api_refused_leaves_no_doubt(self, status):
        run = Run(1)
        assert "may have been created" not in str(run(run.flows.call(CREATE), status))

    def test_that_was_sent_in_the_end_is_not_sent_again(self):
        run = Run(5)
        run(run.flows.call(CREATE), not_sent(), not_sent(), LOST)
        assert len(run.calls) == 3

    @given(data=st.data())
    def test_is_never_sent_again_once_it_may_have_worked(self, data):
        failures = [not_sent(), LOST, *(400, 401, 403, 404, 409, 413, 429, 500, 503), (404, FOREIGN), (200, FOREIGN)]
        answers = data.draw(st.lists(st.sampled_from(failures), min_size=1, max_size=10))
        run = Run(21, patient=data.draw(st.booleans()), has_answered=data.draw(st.booleans()))
        doubts = [run.answer(CREATE, failure).evidence.in_doubt for failure in answers]
        run(run.flows.call(CREATE), *answers, "a batch")
        assert len(run.calls) <= [*doubts, True].index(True) + 1


class TestARefusedKey:
    def with_renewals(self, pauses, call=GET):
        return [call, *(step for pause in pauses for step in (f"pause {pause:g}", "renew", call))]

    @pytest.mark.parametrize("status", [401, 403])
    def test_is_read_anew_before_each_of_four_attempts(self, status):
        run = Run(6)
        error = run(run.flows.call(RETRIEVE), status)
        assert (type(error), error.retryable, run.steps) == (AccessDeniedError, True, self.with_renewals(KEY_PAUSES))
        assert sum(KEY_PAUSES) == 10

    def test_that_has_worked_is_read_anew_for_a_minute_by_a_patient_client(self):
        run = Run(6, has_answered=True, patient=True)
        run(run.flows.call(RETRIEVE), 401)
        assert (run.steps, sum(WORKING_KEY_PAUSES)) == (self.with_renewals(WORKING_KEY_PAUSES), 60)

    def test_that_has_never_worked_is_given_up_after_ten_seconds_by_a_patient_client(self):
        run = Run(6, patient=True)
        run(run.flows.call(RETRIEVE), 401)
        assert run.pauses == list(KEY_PAUSES)

    def test_is_read_anew_for_the_next_poll_of_who_polls(self):
        run = Run(6, has_answered=True)
        error = run(run.flows.call(RETRIEVE, 0), 401)
        assert (type(error), run.steps) == (AccessDeniedError, [GET, "renew"])

    def test_that_has_worked_is_given_up_after_ten_seconds_by_a_single_call(self):
        run = Run(6, has_answered=True)
        run(run.flows.call(RETRIEVE), 401)
        assert run.pauses == list(KEY_PAUSES)

    def test_that_works_again_is_not_a_failure(self, run, batch):
        assert run(run.flows.call(RETRIEVE), 401, 403, batch()) == batch()

    def test_is_not_tried_again_by_who_only_asks_once(self, run):
        run(run.flows.page(Pager(1), 0, doubt=False), 401)
        assert run.steps == [LIST]

    def test_is_doubted_for_a_create_too(self):
        run = Run(6)
        run(run.flows.call(CREATE), 401)
        assert run.steps == self.with_renewals(KEY_PAUSES, POST)

    def test_is_not_what_somebody_else_says(self):
        run = Run(2, has_answered=True)
        run(run.flows.call(RETRIEVE), (401, FOREIGN))
        assert run.steps == [GET, "pause 0.5", GET]


class TestAPatientCall:
    def test_pauses_30_seconds_exactly_at_the_attempt_that_would_give_up(self, batch):
        run = Run(3, patient=True, has_answered=True)
        assert run(run.flows.call(RETRIEVE), *[LOST] * 5, batch()) == batch()
        assert run.pauses == [0.5, 1, *[OUTAGE_PAUSE] * 3]

    def test_backs_off_as_usual_after_an_outage(self, batch):
        run = Run(3, patient=True, has_answered=True)
        assert run(run.flows.call(RETRIEVE), *[LOST] * 3, 500, 500, batch()) == batch()
        assert run.pauses == [0.5, 1, OUTAGE_PAUSE, 0.5, 1]

    def test_outlasts_429s(self, batch):
        run = Run(1, patient=True)
        assert run(run.flows.call(RETRIEVE), *[429] * 50, batch()) == batch()
        assert len(run.calls) == 51

    def test_to_a_wrong_address_fails_after_the_usual_attempts(self):
        run = Run(3, patient=True)
        error = run(run.flows.call(RETRIEVE), (404, FOREIGN))
        assert (error.evidence.proof, run.pauses) == (Proof.WRONG_ADDRESS, [0.5, 1])


class TestFind:
    def test_is_one_retrieval_if_the_batch_is_there(self, run, batch):
        assert (run(run.flows.find("b"), batch()), run.steps) == (batch(), [GET])

    @pytest.mark.parametrize("times", [1, 2, 3])
    def test_does_not_believe_a_404_that_goes_away(self, times, run, batch):
        assert run(run.flows.find("b"), *[404] * times, batch()) == batch()

    def test_believes_a_404_after_four_retrievals_over_seven_seconds(self, run):
        run(run.flows.find("b"), 404)
        assert run.steps == FOUR_RETRIEVALS

    @pytest.mark.parametrize("part", ["Batch b ", "4 attempts", "request-id req_1", "workspace", "deleted"])
    def test_says_of_an_unknown_batch_what_to_check(self, part, run):
        assert part in str(run(run.flows.find("b"), 404))

    def test_raises_what_the_last_404_said(self, run):
        error = run(run.flows.find("b"), 404)
        found = (type(error), error.status, error.error_type, error.message, error.request_id)
        assert found == (NotFoundError, 404, "some_error", "No.", "req_1")

    @pytest.mark.parametrize("answer", [LOST, 409, 401, 402, (404, FOREIGN)], ids=str)
    def test_leaves_other_errors_to_the_caller(self, answer, run):
        assert type(run(run.flows.find("b"), answer)) is not NotFoundError
        assert LIST not in run.calls

    @pytest.mark.parametrize("options", [{"seen": SEEN}, {"confirm": True}], ids=["seen", "to be confirmed"])
    def test_believes_that_a_batch_is_gone_only_if_the_list_does_not_have_it(self, options, run, batch):
        error = run(run.flows.find("b", **options), *[404] * 4, page(batch(id="other")))
        assert (type(error), run.steps) == (NotFoundError, [*FOUR_RETRIEVALS, LIST])

    @pytest.mark.parametrize("options", [{"seen": SEEN}, {"confirm": True}], ids=["seen", "to be confirmed"])
    def test_does_not_believe_that_a_batch_is_gone_if_the_list_has_it(self, options, run, batch):
        error = run(run.flows.find("b", **options), *[404] * 4, page(batch(id="b")))
        assert (type(error), error.retryable) == (InvalidResponseError, True)
        assert "lists batch b, but answers 404" in str(error)

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [(LOST, APIConnectionError), (404, APIStatusError), ((404, FOREIGN), InvalidResponseError), (503, ServerError)],
        ids=str,
    )
    def test_does_not_believe_that_a_batch_is_gone_if_the_list_does_not_answer(self, answer, kind, run):
        assert type(run(run.flows.find("b", confirm=True), *[404] * 4, answer)) is kind


class TestListed:
    def batches(self, batch, *ids, created=SEEN):
        return [batch(id=each, created_at=created.isoformat()) for each in ids]

    def test_reads_the_first_page_only_if_nobody_has_seen_the_batch(self, run, batch):
        assert run(run.flows.listed({"b"}, None), page(batch(id="a"), more=True)) == set()
        assert run.steps == [LIST]

    def test_reads_down_to_the_time_at_which_it_was_created(self, run, batch):
        new, same = self.batches(batch, "x"), self.batches(batch, "y", created=SEEN)
        old = self.batches(batch, "z", created=SEEN - timedelta(microseconds=1))
        pages = [page(*new, more=True), page(*same, more=True).model_copy(update={"last_id": "2"})]
        pages.append(page(*old, more=True).model_copy(update={"last_id": "3"}))
        assert run(run.flows.listed({"b"}, SEEN), *pages) == set()
        assert len(run.calls) == 3

    def test_reads_no_page_once_all_are_found(self, run, batch):
        assert run(run.flows.listed({"a", "b"}, SEEN), page(*self.batches(batch, "a", "b", "c"), more=True)) == {
            "a",
            "b",
        }
        assert run.steps == [LIST]

    def test_reads_on_from_an_empty_page(self, run, batch):
        empty = BatchPage(data=[], has_more=True, last_id="cursor")
        assert run(run.flows.listed({"b"}, None), empty, page(batch(id="b"))) == {"b"}

    @pytest.mark.parametrize(
        "last", [{"id": "x"}, {"id": "x", "created_at": ""}, {"created_at": "0001-01-01T00:00:00Z"}]
    )
    def test_reads_on_behind_a_batch_whose_age_is_unknown(self, last, run, batch):
        odd = BatchPage(data=[last], has_more=True, last_id="1")
        assert run(run.flows.listed({"b"}, SEEN), odd, page(batch(id="b"))) == {"b"}

    def test_reads_the_whole_list_for_a_batch_whose_age_is_unknown(self, run, batch):
        pages = [page(batch(id=each), more=True).model_copy(update={"last_id": each}) for each in "xyz"]
        assert run(run.flows.listed({"b"}, batch(created_at=None).listed_since), *pages, page()) == set()
        assert len(run.calls) == 4

    def test_ignores_what_has_no_id(self, run):
        assert run(run.flows.listed({"b"}, None), BatchPage(data=[{}, {"id": []}, {"id": "b"}], has_more=False)) == {
            "b"
        }


class TestAPage:
    def test_moves_the_walk_on(self, run, batch):
        pager = Pager(5)
        run(run.flows.page(pager), page(batch(), more=True))
        assert (pager.number, pager.call.params) == (1, {"limit": "5", "after_id": "last"})

    @pytest.mark.parametrize("status", [400, 404])
    def test_begins_anew_if_the_batch_before_it_is_gone(self, status, run, batch):
        pager = Pager()
        run(run.flows.page(pager), page(batch(id="a"), more=True))
        assert run(run.flows.page(pager), status, page(batch(id="b"))).data[0]["id"] == "b"
        assert (pager.number, pager.ended) == (1, True)

    @pytest.mark.parametrize("odd", [{}, {"last_id": "last"}], ids=["no cursor", "the same cursor"])
    def test_that_has_more_but_does_not_say_where_is_repeated_like_any_answer_of_another_shape(self, odd, batch):
        run, pager = Run(2), Pager(after_id="last")
        again = page(batch(id="b"))
        assert run(run.flows.page(pager), BatchPage(data=[], has_more=True, **odd), again) == again
        assert (run.steps, pager.number, pager.ended) == ([LIST, "pause 0.5", LIST], 1, True)

    def test_that_never_says_where_more_is_ends_as_an_outage_that_is_retried(self):
        run = Run(3)
        error = run(run.flows.page(Pager()), BatchPage(data=[], has_more=True))
        assert (type(error), error.retryable, error.evidence.outage) == (InvalidResponseError, True, True)
        assert (len(run.calls), "Gave up after 3 attempts." in str(error)) == (3, True)

    def test_that_is_refused_at_the_beginning_is_the_refusal(self, run):
        assert type(run(run.flows.page(Pager()), 400)) is APIStatusError
        assert run.steps == [LIST]


class TestCancel:
    def test_of_a_running_batch_is_one_call(self, run, batch):
        canceling = batch(processing_status="canceling")
        assert (run(run.flows.cancel("b"), canceling), run.steps) == (canceling, [CANCEL])

    @pytest.mark.parametrize("status", [400, 403, 404, 405, 409, 410, 418, 422])
    def test_of_an_ended_batch_is_a_no_op_however_it_is_refused(self, status, run, batch):
        ended = batch(ended=True)
        assert (run(run.flows.cancel("b"), status, ended), run.steps) == (ended, [CANCEL, GET])

    @pytest.mark.parametrize("status", [400, 409])
    def test_of_a_canceling_batch_is_a_no_op_however_it_is_refused(self, status, run, batch):
        canceling = batch(processing_status="canceling")
        assert run(run.flows.cancel("b"), status, canceling) == canceling

    def test_of_a_batch_in_an_unknown_status_whose_cancel_has_begun_is_a_no_op(self, run, batch):
        stopping = batch(processing_status="stopping", cancel_initiated_at="2026-01-02T03:04:05Z")
        assert run(run.flows.cancel("b"), 400, stopping) == stopping

    def test_that_is_accepted_without_effect_is_repeated(self, run, batch):
        canceling = batch(processing_status="canceling")
        assert run(run.flows.cancel("b"), batch(), canceling) == canceling
        assert run.steps == [CANCEL, "pause 1", CANCEL]

    def test_that_never_has_an_effect_is_an_error_that_airflow_retries(self, run, batch):
        error = run(run.flows.cancel("b"), batch())
        assert (type(error), error.retryable, run.steps.count(CANCEL)) == (InvalidResponseError, True, 4)
        assert "accepted the cancel, but the batch is still in_progress" in str(error)

    @pytest.mark.parametrize("status", [400, 405, 422])
    def test_that_is_refused_although_the_batch_runs_is_the_refusal(self, status, run, batch):
        error = run(run.flows.cancel("b"), status, batch())
        assert (type(error), error.status, run.steps) == (APIStatusError, status, [CANCEL, GET])

    @pytest.mark.parametrize("status", [404, 409])
    def test_that_is_refused_for_a_moment_is_repeated(self, status, run, batch):
        canceling = batch(processing_status="canceling")
        assert run(run.flows.cancel("b"), status, batch(), canceling) == canceling
        assert run.steps == [CANCEL, GET, "pause 1", CANCEL]

    def test_that_is_forbidden_is_repeated_with_the_key_read_anew(self, run, batch):
        canceling = batch(processing_status="canceling")
        assert run(run.flows.cancel("b"), 403, batch(), canceling) == canceling
        assert run.steps == [CANCEL, GET, "pause 1", "renew", CANCEL]

    @pytest.mark.parametrize(("status", "kind"), [(403, AccessDeniedError), (409, ServerError)])
    def test_that_is_refused_every_time_is_the_refusal_in_the_end(self, status, kind, run, batch):
        error = run(run.flows.cancel("b"), *[status, batch()] * 4)
        assert (type(error), run.steps.count(CANCEL)) == (kind, 4)
        assert str(error).endswith("Gave up after 4 attempts.")

    def test_that_finds_no_batch_although_it_can_be_retrieved_says_to_check_the_gateway(self, run, batch):
        error = run(run.flows.cancel("b"), *[404, batch()] * 4)
        assert (type(error), error.status, run.steps.count(CANCEL)) == (APIStatusError, 404, 4)
        assert "cancel batch b: the batch exists, but the API answers 404" in str(error)
        assert "gateway" in str(error)

    def test_of_an_unknown_batch_is_not_found_in_the_end(self, run):
        assert type(run(run.flows.cancel("b"), 404)) is NotFoundError
        assert run.steps == [CANCEL, *FOUR_RETRIEVALS]

    def test_of_an_unknown_batch_is_confirmed_by_the_list(self, run, batch):
        assert type(run(run.flows.cancel("b", confirm=True), *[404] * 5, page())) is NotFoundError
        assert run.steps[-1] == LIST

    @pytest.mark.parametrize("status", [401, 402, 408, 413, 429, 500, 503])
    def test_that_is_refused_for_other_reasons_does_not_retrieve_the_batch(self, status, run):
        run(run.flows.cancel("b"), status)
        assert set(run.calls) == {CANCEL}

    @pytest.mark.parametrize("status", [400, 403, 404, 405])
    def test_that_somebody_else_refuses_does_not_retrieve_the_batch(self, status):
        run = Run(3, has_answered=True)
        error = run(run.flows.cancel("b"), (status, FOREIGN))
        assert (type(error), run.calls) == (InvalidResponseError, [CANCEL] * 3)

    def test_that_meets_a_spend_limit_is_not_repeated(self, run):
        error = {"type": "x", "message": "m", "details": {"error_code": "enforced_spend_limit_reached"}}
        limit = httpx.Response(429, json={"type": "error", "error": error}, headers={"request-id": "req_1"})
        assert type(run(run.flows.cancel("b"), limit)) is SpendLimitError
        assert run.steps == [CANCEL]

    def test_that_meets_a_429_is_repeated(self, batch):
        run, canceling = Run(2), batch(processing_status="canceling")
        assert run(run.flows.cancel("b"), 429, canceling) == canceling
        assert type(run(run.flows.cancel("b"), 429)) is RateLimitError


class TestDelete:
    def test_of_an_ended_batch_is_one_call(self, run):
        assert (run(run.flows.delete("b"), DELETED), run.steps) == (DELETED, [DELETE])

    @pytest.mark.parametrize("status", [400, 403, 404, 405, 409, 410, 418, 422])
    def test_of_a_running_batch_says_that_it_runs_however_it_is_refused(self, status, run, batch):
        error = run(run.flows.delete("b"), status, batch())
        assert (type(error), run.steps) == (BatchNotEndedError, [DELETE, GET])

    @pytest.mark.parametrize("status", ["in_progress", "canceling", "unheard_of"])
    def test_of_a_batch_in_any_status_but_ended_says_so(self, status, run, batch):
        assert status in str(run(run.flows.delete("b"), 400, batch(processing_status=status)))

    def test_of_an_ended_batch_that_is_refused_is_the_refusal(self, run, batch):
        assert run(run.flows.delete("b"), 400, batch(ended=True)).status == 400

    @pytest.mark.parametrize("status", [403, 404, 409])
    def test_of_an_ended_batch_that_is_refused_for_a_moment_is_repeated(self, status, run, batch):
        assert run(run.flows.delete("b"), status, batch(ended=True), DELETED) == DELETED
        assert run.calls == [DELETE, GET, DELETE]

    def test_of_an_unknown_batch_is_not_found(self, run):
        assert type(run(run.flows.delete("b"), 404)) is NotFoundError

    def test_of_a_batch_that_was_seen_is_confirmed_by_the_list(self, run, batch):
        error = run(run.flows.delete("b", SEEN), *[404] * 5, page(batch(id="b")))
        assert (type(error), run.steps[-1]) == (InvalidResponseError, LIST)

    def test_whose_answer_was_lost_and_that_finds_no_batch_has_worked(self):
        run = Run(2)
        assert run(run.flows.delete("b"), LOST, 404) == DELETED
        assert run.steps == [DELETE, "pause 0.5", DELETE, *FOUR_RETRIEVALS]

    def test_that_was_never_sent_and_finds_no_batch_has_not_worked(self):
        run = Run(2)
        assert type(run(run.flows.delete("b"), not_sent(), 404)) is NotFoundError

    def test_whose_answer_was_lost_once_has_worked_although_it_was_repeated_since(self, batch):
        run = Run(2)
        assert run(run.flows.delete("b"), LOST, 404, batch(ended=True), 404) == DELETED

    @pytest.mark.parametrize("answers", [[LOST, 404], [404]], ids=["lost", "not lost"])
    def test_that_finds_no_batch_although_it_can_be_retrieved_has_not_worked(self, answers, batch):
        run = Run(2)
        error = run(run.flows.delete("b"), *[*answers, batch(ended=True)] * 4)
        assert (type(error), error.status) == (APIStatusError, 404)

    def test_whose_answer_was_lost_but_whose_batch_still_runs_says_so(self, batch):
        run = Run(2)
        assert type(run(run.flows.delete("b"), LOST, 404, batch())) is BatchNotEndedError


class TestResults:
    def test_of_an_ended_batch_are_opened_after_one_retrieval(self, run, batch):
        ended = batch(ended=True)
        assert run(run.flows.open_results("b"), ended, "the stream") == (ended, "the stream")
        assert run.steps == [GET, RESULTS]

    def test_of_a_batch_that_was_just_seen_are_opened_at_once(self, run, batch):
        run(run.flows.open_results("b", batch(ended=True)), "the stream")
        assert run.steps == [RESULTS]

    def test_of_a_running_batch_are_not_asked_for(self, run, batch):
        error = run(run.flows.open_results("b"), batch())
        assert (type(error), run.steps) == (BatchNotEndedError, [GET])

    @pytest.mark.parametrize("archived_at", ["2026-02-01T00:00:00Z", "9999-02-01T00:00:00Z"])
    def test_of_a_batch_that_says_it_is_archived_are_asked_for(self, archived_at, run, batch):
        archived = batch(ended=True, archived_at=archived_at)
        assert run(run.flows.open_results("b"), archived, "the stream") == (archived, "the stream")

    def test_of_an_archived_batch_are_gone_once_they_are_refused(self, run, batch):
        archived = batch(ended=True, archived_at="2026-02-01T00:00:00Z")
        error = run(run.flows.open_results("b"), archived, 410, archived)
        assert (type(error), "2026-02-01" in str(error)) == (ResultsUnavailableError, True)
        assert run.steps == [GET, RESULTS, GET]

    def test_of_an_archived_batch_are_not_gone_because_the_key_may_not_read_them(self, run, batch):
        archived = batch(ended=True, archived_at="2026-02-01T00:00:00Z")
        error = run(run.flows.open_results("b"), archived, *[403, archived] * 4)
        assert (type(error), run.steps.count(RESULTS)) == (AccessDeniedError, 4)

    def test_of_a_batch_that_will_be_archived_are_not_gone(self, run, batch):
        archived = batch(ended=True, archived_at="9999-02-01T00:00:00Z", created_at=None)
        assert type(run(run.flows.open_results("b"), archived, 410, archived)) is APIStatusError

    def test_that_are_refused_without_a_reason_are_the_refusal(self, run, batch):
        ended = batch(ended=True, results_url="https://api.anthropic.com/b/results")
        assert run(run.flows.open_results("b"), ended, 400, ended).status == 400

    def test_that_are_not_found_although_the_batch_is_there_say_so(self, run, batch):
        ended = batch(ended=True, results_url="https://api.anthropic.com/b/results")
        error = run(run.flows.open_results("b"), ended, *[404, ended] * 4)
        assert (type(error), "the batch exists" in str(error)) == (APIStatusError, True)

    @pytest.mark.parametrize(("days", "kind"), [(28, APIStatusError), (30, ResultsUnavailableError)])
    def test_that_are_refused_without_a_trace_of_them_are_gone_once_the_batch_is_old(self, days, kind, run, batch):
        created = (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()
        ended = batch(ended=True, created_at=created)
        error = run(run.flows.open_results("b"), ended, 400, ended)
        assert (type(error), run.steps) == (kind, [GET, RESULTS, GET])

    def test_of_an_unknown_batch_are_not_found(self, run):
        assert type(run(run.flows.open_results("b"), 404)) is NotFoundError

    def test_of_a_batch_that_was_seen_are_not_found_only_if_the_list_does_not_have_it(self, run, batch):
        error = run(run.flows.open_results("b"), batch(id="b", ended=True), *[404] * 5, page(batch(id="b")))
        assert type(error) is InvalidResponseError


@st.composite
def scripts(draw, batch):
    batches = st.sampled_from([batch(), batch(ended=True), batch(processing_status="canceling")])
    errors = st.sampled_from([400, 402, 403, 404, 409, 413, 422, 500, 503, LOST])
    return draw(st.lists(batches | errors, min_size=1, max_size=30))


@pytest.mark.parametrize("name", ["cancel", "delete"])
@given(data=st.data())
def test_a_change_is_tried_at_most_four_times_with_bounded_pauses(name, data, batch):
    run = Run()
    run(getattr(run.flows, name)("b"), *data.draw(scripts(batch)))
    changes = [step for step in run.calls if step.startswith(("POST", "DELETE"))]
    assert (1 <= len(changes) <= 4, sum(run.pauses) <= 5 * sum(NOT_FOUND_PAUSES)) == (True, True)


@given(data=st.data())
def test_a_delete_never_claims_a_success_without_an_answer_for_it(data, batch):
    refusals = data.draw(st.lists(st.sampled_from([400, 403, 404, 409, 413, 422]), min_size=1, max_size=5))
    retrievals = data.draw(st.lists(st.sampled_from([404, 500, LOST, batch(), batch(ended=True)]), max_size=20))

    def answer(call):
        left = refusals if call.method == "DELETE" else retrievals
        return left.pop() if left else 404

    run = Run()
    assert isinstance(run(run.flows.delete("b"), answer), BatchesError)
