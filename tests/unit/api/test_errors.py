from __future__ import annotations

import copy
import importlib
import inspect
import multiprocessing
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import airflow_provider_batches
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
from airflow_provider_batches.api.evidence import Evidence, Proof
from airflow_provider_batches.api.models import MessageBatch
from airflow_provider_batches.page import reader  # noqa: F401 - its errors are among the subclasses
from airflow_provider_batches.results import saving  # noqa: F401 - its errors are among the subclasses

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
        AccessDeniedError,
        APIConnectionError,
        InvalidResponseError,
        RateLimitError,
        ServerError,
        BatchNotEndedError,
        ResultsTruncatedError,
        BatchTimeoutError,
    ],
)
def test_what_may_pass_by_itself_is_retryable(kind):
    assert kind.retryable


@pytest.mark.parametrize(
    "kind",
    [
        BatchesError,
        InvalidArgumentError,
        APIStatusError,
        SpendLimitError,
        NotFoundError,
        RequestTooLargeError,
        ResultsUnavailableError,
    ],
)
def test_what_somebody_has_to_change_is_not_retryable(kind):
    assert not kind.retryable


def test_a_refusal_holds_what_the_api_said():
    error = APIStatusError(
        "all of it", status=418, error_type="t", message="m", request_id="req_1", retry_after=1.5, should_retry=True
    )
    found = (str(error), error.status, error.error_type, error.message, error.request_id)
    assert (*found, error.retry_after, error.should_retry) == ("all of it", 418, "t", "m", "req_1", 1.5, True)


def test_a_refusal_of_which_nothing_else_is_known_has_none():
    error = APIStatusError("s", status=500)
    found = (error.error_type, error.message, error.request_id, error.retry_after, error.should_retry)
    assert found == (None, "", None, None, None)


def test_no_answer_was_lost_unless_somebody_says_so():
    assert not APIStatusError("s", status=404).answer_was_lost


@pytest.mark.parametrize("kind", [APIConnectionError, InvalidResponseError])
def test_a_call_without_a_right_answer_may_have_worked_unless_somebody_says_otherwise(kind):
    assert kind("s").evidence == Evidence(Proof.NOTHING, outage=True, in_doubt=True)


@pytest.mark.parametrize("word", [True, False])
def test_the_apis_own_word_decides_whether_a_refusal_is_retryable(word):
    assert ServerError("s", status=503, should_retry=word).retryable is word


def test_a_wrong_argument_names_the_field_and_the_problem():
    error = InvalidArgumentError("limit", "got 0; it must be above 0.")
    assert (str(error), error.field, error.problem) == (
        "limit: got 0; it must be above 0.",
        "limit",
        "got 0; it must be above 0.",
    )


def test_a_sentence_can_be_added():
    error = BatchesError("It failed.")
    error.add("Given up.")
    assert str(error) == "It failed. Given up."


def test_a_refusal_can_be_reworded_as_another_one():
    refusal = NotFoundError("404", status=404, error_type="t", message="m", request_id="r", should_retry=True)
    made = refusal.reworded(APIStatusError, "Not served.")
    assert (type(made), str(made), made.status, made.error_type) == (APIStatusError, "Not served.", 404, "t")
    assert (made.message, made.request_id, made.should_retry, made.retryable) == ("m", "r", None, False)


def test_an_unreadable_answer_holds_its_request_id():
    assert InvalidResponseError("s", request_id="req_1").request_id == "req_1"


@pytest.mark.parametrize("part", ["msgbatch_1", "in_progress", "can be deleted", "Cancel it", "retry"])
def test_a_batch_that_has_not_ended_is_an_error_that_says_what_to_do(part, batch):
    assert part in str(BatchNotEndedError(batch(), "can be deleted"))


def test_a_batch_that_has_not_ended_is_handed_on(batch):
    running = batch()
    assert BatchNotEndedError(running, "can be deleted").batch is running


def every_error():
    """Return an error of each class, with all that it can hold."""
    for module in ("operators.results", "operators.submit", "operators.teardown"):
        importlib.import_module(f"airflow_provider_batches.{module}")
    ended = MessageBatch.model_validate({"id": "b", "processing_status": "ended", "request_counts": {}})
    left, kinds = [BatchesError], []
    while left:
        kinds.append(left.pop())
        left += kinds[-1].__subclasses__()
    for kind in kinds:
        if issubclass(kind, InvalidArgumentError):
            error = kind("limit", "got 0.")
        elif issubclass(kind, APIStatusError):
            error = kind("No.", status=429, error_type="x", message="m", request_id="req_1", retry_after=1.5)
        elif issubclass(kind, BatchNotEndedError):
            error = kind(ended, "can be deleted")
        else:
            error = kind("No.")
        error.add("Given up.")
        error.answer_was_lost, error.evidence = True, Evidence(Proof.NOTHING, outage=True)
        yield error


COPIES = {"pickled": lambda error: pickle.loads(pickle.dumps(error)), "copy": copy.copy, "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("error", [*every_error()], ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied_and_pickled_with_all_that_it_holds(error, copied):
    made = copied(error)
    assert (type(made), str(made), made.args, vars(made)) == (type(error), str(error), error.args, vars(error))


def _fail(_):
    raise NotFoundError("No such batch.", status=404, request_id="req_1")


def test_an_error_of_a_worker_process_reaches_the_one_that_waits_for_it():
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as pool, pytest.raises(NotFoundError, match="No such batch"):
        pool.map_async(_fail, [1]).get(timeout=60)
    with ProcessPoolExecutor(1, spawn) as pool, pytest.raises(NotFoundError, match="No such batch") as caught:
        pool.submit(_fail, 1).result(timeout=60)
    assert (caught.value.status, caught.value.request_id) == (404, "req_1")


def test_every_class_of_error_of_the_package_is_among_those_that_can_be_copied():
    source = Path(airflow_provider_batches.__file__).parent
    named = {
        name
        for path in source.rglob("*.py")
        for name in re.findall(r"^class (\w+Error)\(", path.read_text(), re.MULTILINE)
    }
    assert named <= {type(error).__name__ for error in every_error()}
