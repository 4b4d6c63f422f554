"""What can go wrong between this package and the API: one class for each thing a caller would handle differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_batches.api.evidence import Evidence, Proof

if TYPE_CHECKING:
    from airflow_provider_batches.api.models import MessageBatch


class BatchesError(Exception):
    """Anything that went wrong with a call to the Message Batches API."""

    #: Whether the same call may succeed later without anybody changing anything.
    retryable = False
    #: Seconds after which the API asked for the next attempt, None if it did not say.
    retry_after: float | None = None
    #: The API's own word on retrying (`x-should-retry`), None if it did not say.
    should_retry: bool | None = None
    #: What the failure proves.
    evidence = Evidence(Proof.REFUSED)
    #: Whether an earlier attempt of the same call was not answered, so that it may have done its work.
    answer_was_lost = False
    #: Whether the server's certificate was refused: the CA file may have been replaced since it was read.
    untrusted = False
    #: What to do about it; settings are named in braces.
    hint = ""

    def add(self, text: str) -> None:
        """Add a sentence to the error's text."""
        self.args = (f"{self} {text}",)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled by calling their class with `args`, and those of the subclasses are others.
        return _remake, (type(self), self.args), self.__dict__


class InvalidArgumentError(BatchesError, ValueError):
    """An argument or a setting is wrong; nothing was sent.

    :param field: The argument or setting.
    :param problem: What is wrong with its value, and what is allowed.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


class APIConnectionError(BatchesError):
    """No answer came."""

    retryable = True
    evidence = Evidence(Proof.NOTHING, outage=True, in_doubt=True)


class InvalidResponseError(BatchesError):
    """The answer is not the API's own, or not what its reference promises; the next one may well be."""

    retryable = True
    evidence = Evidence(Proof.NOTHING, outage=True, in_doubt=True)
    hint = "Check {base_url}."

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class APIStatusError(BatchesError):
    """The API refused a call.

    :param summary: The whole story in one line, for people.
    :param status: HTTP status code.
    :param error_type: The API's `error.type`, None if the body has none.
    :param message: The API's `error.message`, or an excerpt of a body that was not the API's.
    :param request_id: The API's ID of the request, to quote to its support.
    :param retry_after: Seconds to wait before the next attempt, as the API asked.
    :param should_retry: The API's own word on retrying.
    """

    def __init__(
        self,
        summary: str,
        *,
        status: int,
        error_type: str | None = None,
        message: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(summary)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after
        self.should_retry = should_retry
        if should_retry is not None:
            self.retryable = should_retry

    def reworded(self, kind: type[StatusErrorT], summary: str) -> StatusErrorT:
        """Return the same refusal as an error of another class, with another text."""
        made = kind(summary, status=self.status, message=self.message)
        made.error_type, made.request_id = self.error_type, self.request_id
        return made


StatusErrorT = TypeVar("StatusErrorT", bound=APIStatusError)


class AccessDeniedError(APIStatusError):
    """401 or 403: the key is wrong, or may not do this. It was asked again before, since keys are rotated."""

    retryable = True
    evidence = Evidence(Proof.KEY_REFUSED)
    hint = "Check {api_key}, and that it may use batches."


class SpendLimitError(APIStatusError):
    """402, or 429 for a spend limit: it lasts until somebody pays or raises the limit."""

    evidence = Evidence(Proof.SPEND_LIMIT)
    hint = "This lasts until somebody raises the limit or pays."


class NotFoundError(APIStatusError):
    """404: the API does not know the batch, or the batch belongs to another workspace than the key.

    A 404 to a cancel, a delete or a read of results of a batch that can be retrieved is a plain APIStatusError.
    """

    evidence = Evidence(Proof.NOT_FOUND)
    hint = "Check first that the key belongs to the batch's workspace, then the ID."


class RequestTooLargeError(APIStatusError):
    """413: the request is over the API's limits; split the batch."""

    evidence = Evidence(Proof.TOO_LARGE)
    hint = "Split the batch."


class RateLimitError(APIStatusError):
    """429: too many requests a minute."""

    retryable = True
    evidence = Evidence(Proof.RATE_LIMIT)
    hint = "All batch calls of the organization share one limit of requests a minute."


class ServerError(APIStatusError):
    """408, 409 or 5xx: the API could not answer at this moment."""

    retryable = True
    evidence = Evidence(Proof.NOTHING, outage=True, in_doubt=True)


class BatchNotEndedError(BatchesError):
    """What was asked for is possible only once the batch has ended.

    :param batch: The batch as it is.
    :param wish: What is not possible yet, for example `can be deleted`.
    """

    retryable = True

    def __init__(self, batch: MessageBatch, wish: str) -> None:
        super().__init__(
            f"Batch {batch.id} is {batch.processing_status} and {wish} only once it has ended: cancel it or let it "
            "run, wait until it has ended, then try again."
        )
        self.batch = batch


class ResultsUnavailableError(BatchesError):
    """The batch has ended but has no results to read: they are archived 29 days after creation."""


class ResultsTruncatedError(BatchesError):
    """The results ended before every request's result had come."""

    retryable = True
    evidence = Evidence(Proof.NOTHING, in_doubt=True)


class BatchTimeoutError(BatchesError):
    """The batch had not ended when the time to wait for it was over; the batch is still running."""

    retryable = True


def _remake(kind: type[BatchesError], args: tuple[Any, ...]) -> BatchesError:
    return kind.__new__(kind, *args)


def shown(value: object) -> str:
    """Return a value for an error text, without the middle if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"
