from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batches.api import flows
from airflow_provider_batches.api.errors import (
    AccessDeniedError,
    APIConnectionError,
    APIStatusError,
    BatchesError,
    BatchNotEndedError,
    NotFoundError,
    ResultsUnavailableError,
    ServerError,
)
from airflow_provider_batches.api.flows import MISSING_PAUSES, Pause
from airflow_provider_batches.api.models import DeletedBatch

FLOWS = [flows.find, flows.cancel, flows.delete, flows.open_results]


def missing(answer_was_lost=False):
    error = NotFoundError("404", status=404, request_id="req_1")
    error.answer_was_lost = answer_was_lost
    return error


def refused(status):
    return (ServerError if status == 409 else APIStatusError)(str(status), status=status)


def run(flow, *answers):
    """Return what a flow returned or raised, and the steps it took; the last answer is given for ever."""
    left, steps = list(answers), []
    try:
        step = next(flow)
        while True:
            steps.append(f"pause {step.seconds:g}" if isinstance(step, Pause) else f"{step.method} {step.path[20:]}")
            if isinstance(step, Pause):
                step = flow.send(None)
                continue
            answer = left.pop(0) if len(left) > 1 else left[0]
            step = flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
    except StopIteration as stop:
        return stop.value, steps
    except BatchesError as error:
        return error, steps


class TestFind:
    def test_looks_once_where_the_batch_is_there(self, batch):
        assert run(flows.find("b"), batch()) == (batch(), ["GET /b"])

    @pytest.mark.parametrize("times", [1, 2, 3])
    def test_does_not_believe_a_404_that_goes_away(self, times, batch):
        assert run(flows.find("b"), *[missing()] * times, batch())[0] == batch()

    def test_believes_a_404_after_four_looks_over_seven_seconds(self):
        steps = run(flows.find("b"), missing())[1]
        assert steps == ["GET /b", "pause 1", "GET /b", "pause 2", "GET /b", "pause 4", "GET /b"]

    @pytest.mark.parametrize("part", ["batch b ", "asked 4 times", "request-id req_1", "workspace", "deleted"])
    def test_says_of_a_missing_batch_what_to_check(self, part):
        assert part in str(run(flows.find("b"), missing())[0])

    def test_hands_on_the_last_404(self):
        error = run(flows.find("b"), missing())[0]
        assert (type(error), error.status, error.request_id) == (NotFoundError, 404, "req_1")

    @pytest.mark.parametrize("error", [APIConnectionError("lost"), refused(409), AccessDeniedError("no", status=401)])
    def test_leaves_other_errors_to_the_caller(self, error):
        assert run(flows.find("b"), error) == (error, ["GET /b"])


class TestCancel:
    def test_of_a_running_batch_is_one_call(self, batch):
        canceling = batch(processing_status="canceling")
        assert run(flows.cancel("b"), canceling) == (canceling, ["POST /b/cancel"])

    @pytest.mark.parametrize("status", [400, 403, 404, 405, 409, 410, 418, 422])
    def test_of_an_ended_batch_is_a_no_op_however_it_is_refused(self, status, batch):
        answers = (missing() if status == 404 else refused(status), batch(ended=True))
        assert run(flows.cancel("b"), *answers) == (batch(ended=True), ["POST /b/cancel", "GET /b"])

    @pytest.mark.parametrize("status", [400, 409])
    def test_of_a_canceling_batch_is_a_no_op_however_it_is_refused(self, status, batch):
        canceling = batch(processing_status="canceling")
        assert run(flows.cancel("b"), refused(status), canceling)[0] == canceling

    def test_of_a_batch_in_an_unknown_status_whose_cancel_has_begun_is_a_no_op(self, batch):
        stopping = batch(processing_status="stopping", cancel_initiated_at="2026-01-02T03:04:05Z")
        assert run(flows.cancel("b"), refused(400), stopping)[0] == stopping

    @pytest.mark.parametrize("status", [400, 403, 422])
    def test_that_is_refused_though_the_batch_runs_is_the_refusal(self, status, batch):
        refusal = refused(status)
        assert run(flows.cancel("b"), refusal, batch()) == (refusal, ["POST /b/cancel", "GET /b"])

    def test_that_is_refused_for_a_moment_is_made_again(self, batch):
        canceling = batch(processing_status="canceling")
        found, steps = run(flows.cancel("b"), refused(409), batch(), canceling)
        assert (found, steps) == (canceling, ["POST /b/cancel", "GET /b", "pause 1", "POST /b/cancel"])

    def test_that_is_refused_every_time_is_the_refusal_in_the_end(self, batch):
        refusal = refused(409)
        answers = [refusal, batch()] * 4
        found, steps = run(flows.cancel("b"), *answers)
        assert (found, steps.count("POST /b/cancel")) == (refusal, 4)

    def test_that_finds_no_batch_where_a_look_finds_one_says_to_check_the_gateway(self, batch):
        found, steps = run(flows.cancel("b"), *[missing(), batch()] * 4)
        assert (type(found), found.status, steps.count("POST /b/cancel")) == (APIStatusError, 404, 4)
        assert "cancel batch b: the API knows the batch, but answers 404" in str(found)
        assert "gateway" in str(found)

    def test_of_an_unknown_batch_is_not_found_in_the_end(self):
        found, steps = run(flows.cancel("b"), missing())
        assert (type(found), steps.count("GET /b")) == (NotFoundError, 4)

    @pytest.mark.parametrize("status", [401, 402, 408, 413, 429, 500, 503])
    def test_that_is_refused_for_other_reasons_does_not_look_at_the_batch(self, status):
        refusal = refused(status)
        assert run(flows.cancel("b"), refusal) == (refusal, ["POST /b/cancel"])


class TestDelete:
    def test_of_an_ended_batch_is_one_call(self):
        assert run(flows.delete("b"), DeletedBatch(id="b")) == (DeletedBatch(id="b"), ["DELETE /b"])

    @pytest.mark.parametrize("status", [400, 403, 404, 405, 409, 410, 418, 422])
    def test_of_a_running_batch_says_that_it_runs_however_it_is_refused(self, status, batch):
        found, steps = run(flows.delete("b"), missing() if status == 404 else refused(status), batch())
        assert (type(found), steps) == (BatchNotEndedError, ["DELETE /b", "GET /b"])

    @pytest.mark.parametrize("status", ["in_progress", "canceling", "unheard_of"])
    def test_of_a_batch_in_any_status_but_ended_says_so(self, status, batch):
        assert status in str(run(flows.delete("b"), refused(400), batch(processing_status=status))[0])

    def test_of_an_ended_batch_that_is_refused_is_the_refusal(self, batch):
        refusal = refused(400)
        assert run(flows.delete("b"), refusal, batch(ended=True))[0] is refusal

    @pytest.mark.parametrize("status", [404, 409])
    def test_of_an_ended_batch_that_is_refused_for_a_moment_is_made_again(self, status, batch):
        refusal = missing() if status == 404 else refused(409)
        found, steps = run(flows.delete("b"), refusal, batch(ended=True), DeletedBatch(id="b"))
        assert (found, steps.count("DELETE /b")) == (DeletedBatch(id="b"), 2)

    def test_of_an_unknown_batch_is_not_found(self):
        assert type(run(flows.delete("b"), missing())[0]) is NotFoundError

    def test_whose_answer_was_lost_and_that_finds_no_batch_has_worked(self):
        assert run(flows.delete("b"), missing(answer_was_lost=True), missing())[0] == DeletedBatch(id="b")

    def test_whose_answer_was_lost_makes_sure_that_the_batch_is_gone(self):
        steps = run(flows.delete("b"), missing(answer_was_lost=True), missing())[1]
        assert steps.count("GET /b") == 4

    def test_whose_answer_was_lost_once_has_worked_though_another_attempt_was_made_since(self, batch):
        answers = (missing(answer_was_lost=True), batch(ended=True), missing())
        assert run(flows.delete("b"), *answers)[0] == DeletedBatch(id="b")

    @pytest.mark.parametrize("lost", [True, False])
    def test_that_finds_no_batch_where_a_look_finds_one_has_not_worked(self, lost, batch):
        found = run(flows.delete("b"), *[missing(answer_was_lost=lost), batch(ended=True)] * 4)[0]
        assert (type(found), found.status) == (APIStatusError, 404)

    def test_whose_answer_was_lost_but_whose_batch_still_runs_says_so(self, batch):
        assert type(run(flows.delete("b"), missing(answer_was_lost=True), batch())[0]) is BatchNotEndedError


class TestResults:
    def test_of_an_ended_batch_are_opened_after_one_look(self, batch):
        found, steps = run(flows.open_results("b"), batch(ended=True), "the stream")
        assert (found, steps) == ((batch(ended=True), "the stream"), ["GET /b", "GET /b/results"])

    def test_of_a_running_batch_are_not_asked_for(self, batch):
        found, steps = run(flows.open_results("b"), batch())
        assert (type(found), steps) == (BatchNotEndedError, ["GET /b"])

    def test_of_an_archived_batch_are_gone(self, batch):
        archived = batch(ended=True, archived_at="2026-02-01T00:00:00Z")
        found, steps = run(flows.open_results("b"), archived)
        assert (type(found), steps, "2026-02-01" in str(found)) == (ResultsUnavailableError, ["GET /b"], True)

    def test_of_a_batch_that_is_archived_at_that_moment_are_gone(self, batch):
        archived = batch(ended=True, archived_at="2026-02-01T00:00:00Z")
        assert type(run(flows.open_results("b"), batch(ended=True), refused(410), archived)[0]) is (
            ResultsUnavailableError
        )

    def test_that_are_refused_without_a_reason_are_the_refusal(self, batch):
        refusal, ended = refused(400), batch(ended=True, results_url="https://api.anthropic.com/b/results")
        assert run(flows.open_results("b"), ended, refusal, ended)[0] is refusal

    def test_that_are_refused_as_not_found_though_the_batch_is_there_say_so(self, batch):
        ended = batch(ended=True, results_url="https://api.anthropic.com/b/results")
        found = run(flows.open_results("b"), ended, *[missing(), ended] * 4)[0]
        assert (type(found), "the API knows the batch" in str(found)) == (APIStatusError, True)

    @pytest.mark.parametrize(("days", "kind"), [(28, APIStatusError), (30, ResultsUnavailableError)])
    def test_that_are_refused_without_a_trace_of_them_are_gone_once_the_batch_is_old(self, days, kind, batch):
        created = (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()
        ended = batch(ended=True, created_at=created)
        found, steps = run(flows.open_results("b"), ended, refused(400), ended)
        assert (type(found), steps) == (kind, ["GET /b", "GET /b/results", "GET /b"])

    def test_of_an_unknown_batch_are_not_found(self):
        assert type(run(flows.open_results("b"), missing())[0]) is NotFoundError


@st.composite
def _scripts(draw, batch):
    looks = st.sampled_from([batch(), batch(ended=True), batch(processing_status="canceling"), DeletedBatch(id="b")])
    errors = st.one_of(
        st.builds(missing, st.booleans()),
        st.sampled_from([400, 401, 403, 409, 422, 429, 500, 503]).map(refused),
        st.just(APIConnectionError("lost")),
    )
    return draw(st.lists(looks | errors, min_size=1, max_size=30))


@pytest.mark.parametrize("flow", [flows.cancel, flows.delete], ids=["cancel", "delete"])
@given(data=st.data())
def test_a_change_is_asked_for_at_most_four_times_and_pauses_are_bounded(flow, data, batch):
    answers = [
        batch(ended=True) if isinstance(answer, DeletedBatch) else answer for answer in data.draw(_scripts(batch))
    ]
    steps = run(flow("b"), *answers)[1]
    changes = [step for step in steps if step.startswith(("POST", "DELETE"))]
    paused = sum(float(step.split()[1]) for step in steps if step.startswith("pause"))
    assert (1 <= len(changes) <= 4, paused <= 5 * sum(MISSING_PAUSES)) == (True, True)


@given(data=st.data())
def test_a_delete_never_claims_a_success_that_no_answer_bears_out(data, batch):
    answers = [
        answer
        for answer in data.draw(_scripts(batch))
        if not isinstance(answer, DeletedBatch) and not getattr(answer, "answer_was_lost", False)
    ] or [missing()]
    looks = [answer for answer in answers if isinstance(answer, Exception)] or [missing()]
    assert isinstance(run(flows.delete("b"), *looks)[0], BatchesError)
