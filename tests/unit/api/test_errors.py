from __future__ import annotations

import inspect

import pytest

from airflow_provider_batches.api import errors
from airflow_provider_batches.api.errors import (
    AccessDeniedError,
    APIConnectionError,
    APIStatusError,
    BatchesError,
    BatchNotEndedError,
    BatchTimeoutError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTooLargeError,
    ResultsTruncatedError,
    ResultsUnavailableError,
    ServerError,
    SpendLimitError,
)

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_can_be_caught_as_one(kind):
    assert issubclass(kind, BatchesError)


def test_a_wrong_argument_is_a_value_error_as_everywhere_in_python():
    assert issubclass(InvalidArgumentError, ValueError)


@pytest.mark.parametrize(
    "kind",
    [AccessDeniedError, SpendLimitError, NotFoundError, RequestTooLargeError, RateLimitError, ServerError],
)
def test_every_refusal_can_be_caught_as_a_refusal(kind):
    assert issubclass(kind, APIStatusError)


@pytest.mark.parametrize(
    "kind",
    [
        APIConnectionError,
        InvalidResponseError,
        RateLimitError,
        ServerError,
        BatchNotEndedError,
        ResultsTruncatedError,
        BatchTimeoutError,
    ],
)
def test_what_may_pass_by_itself_is_transient(kind):
    assert kind.transient


@pytest.mark.parametrize(
    "kind",
    [
        BatchesError,
        InvalidArgumentError,
        APIStatusError,
        AccessDeniedError,
        SpendLimitError,
        NotFoundError,
        RequestTooLargeError,
        ResultsUnavailableError,
    ],
)
def test_what_somebody_has_to_change_is_not_transient(kind):
    assert not kind.transient


def test_a_refusal_holds_what_the_api_said():
    error = APIStatusError(
        "all of it", status=418, error_type="t", message="m", request_id="req_1", retry_after=1.5, should_retry=True
    )
    found = (str(error), error.status, error.error_type, error.message, error.request_id)
    assert (*found, error.retry_after, error.should_retry) == ("all of it", 418, "t", "m", "req_1", 1.5, True)


def test_a_refusal_of_which_nothing_else_is_known_holds_none():
    error = APIStatusError("s", status=500)
    found = (error.error_type, error.message, error.request_id, error.retry_after, error.should_retry)
    assert found == (None, "", None, None, None)


def test_no_answer_was_lost_unless_somebody_says_so():
    assert not APIStatusError("s", status=404).answer_was_lost


def test_a_lost_connection_may_have_sent_the_request_unless_somebody_says_otherwise():
    assert APIConnectionError("s").sent


def test_an_unreadable_answer_holds_its_request_id():
    assert InvalidResponseError("s", request_id="req_1").request_id == "req_1"


@pytest.mark.parametrize("part", ["msgbatch_1", "in_progress", "can be deleted", "cancel it", "BatchEndedSensor"])
def test_a_batch_that_has_not_ended_is_an_error_that_says_what_to_do(part, batch):
    assert part in str(BatchNotEndedError(batch(), "can be deleted"))


def test_a_batch_that_has_not_ended_is_handed_on(batch):
    running = batch()
    assert BatchNotEndedError(running, "can be deleted").batch is running
