"""The errors of the client: one class for each case that a caller would handle differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_batches.api.evidence import Evidence, Proof

if TYPE_CHECKING:
    from airflow_provider_batches.api.models import MessageBatch


class BatchesError(Exception):
    """Base class of all errors of a call to the Message Batches API."""

    #: Whether the same call may succeed later without any change.
    retryable = False
    #: Seconds to wait before a retry, as the API asked (`retry-after`); None if absent.
    retry_after: float | None = None
    #: Whether the API asks for a retry (`x-should-retry`); None if absent.
    should_retry: bool | None = None
    #: What the failure proves.
    evidence = Evidence(Proof.REFUSED)
    #: Whether an earlier attempt of the same call got no answer, so that it may have succeeded.
    answer_was_lost = False
    #: Whether verifying the server's certificate failed: the CA file may have been replaced since it was read.
    untrusted = False
    #: What to do about it, with names of settings in braces.
    hint = ""

    def add(self, text: str) -> None:
        """Add a sentence to the error's text."""
        self.args = (f"{self} {text}",)

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, unpickling calls the class with `args`, which the subclasses' constructors do not accept.
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


class CredentialsError(BatchesError):
    """No credentials could be obtained, so the call was not sent.

    :param problem: What is wrong.
    :param proof: `NOTHING` if a retry may succeed (default), `KEY_REFUSED` if the identity was refused, `REFUSED` if a
        setting is wrong.
    :param retry_after: Seconds to wait before a retry, as the server asked.
    """

    def __init__(self, problem: str, *, proof: Proof = Proof.NOTHING, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.evidence = Evidence(proof, outage=proof is Proof.NOTHING)
        self.retryable = proof is not Proof.REFUSED
        self.retry_after = retry_after


class APIConnectionError(BatchesError):
    """The API did not answer."""

    retryable = True
    evidence = Evidence(Proof.NOTHING, outage=True, in_doubt=True)


class InvalidResponseError(BatchesError):
    """The answer is not from the API, or not what its reference documents. A retry may succeed."""

    retryable = True
    evidence = Evidence(Proof.NOTHING, outage=True, in_doubt=True)
    hint = "Check {base_url}."

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class APIStatusError(BatchesError):
    """The API refused a call.

    :param summary: The text of the error, in one line.
    :param status: HTTP status code.
    :param error_type: The API's `error.type`; None if it is absent.
    :param message: The API's `error.message`, or an excerpt of a body that is not from the API.
    :param request_id: The API's ID of the request, which its support asks for.
    :param retry_after: Seconds to wait before a retry, as the API asked.
    :param should_retry: Whether the API asks for a retry.
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
        """Return this error as one of another class, with another text."""
        made = kind(summary, status=self.status, message=self.message)
        made.error_type, made.request_id = self.error_type, self.request_id
        return made


StatusErrorT = TypeVar("StatusErrorT", bound=APIStatusError)


class AccessDeniedError(APIStatusError):
    """401 or 403: the key is wrong or lacks permission. Raised after retries, because keys are rotated."""

    retryable = True
    evidence = Evidence(Proof.KEY_REFUSED)
    hint = "Check {api_key}, and that it may use batches."


class SpendLimitError(APIStatusError):
    """402, or 429 for a spend limit: retries fail until the bill is paid or the limit is raised."""

    evidence = Evidence(Proof.SPEND_LIMIT)
    hint = "Raise the spend limit or pay the bill. Retries fail until then."


class NotFoundError(APIStatusError):
    """404: the batch does not exist, or it belongs to another workspace than the key.

    If cancel, delete or results returns 404 but the batch can be retrieved, the error is a plain APIStatusError.
    """

    evidence = Evidence(Proof.NOT_FOUND)
    hint = "Check that the key belongs to the batch's workspace, then check the ID."


class RequestTooLargeError(APIStatusError):
    """413: the request exceeds the API's size limit. Split the batch."""

    evidence = Evidence(Proof.TOO_LARGE)
    hint = "Split the batch."


class RateLimitError(APIStatusError):
    """429: the rate limit is exceeded."""

    retryable = True
    evidence = Evidence(Proof.RATE_LIMIT)
    hint = "All batch calls of the organization share one rate limit of requests a minute."


class ServerError(APIStatusError):
    """408, 409 or 5xx: the API is temporarily unable to answer."""

    retryable = True
    evidence = Evidence(Proof.NOTHING, outage=True, in_doubt=True)


class BatchNotEndedError(BatchesError):
    """The call requires a batch that has ended, and this one has not.

    :param batch: The current state of the batch.
    :param wish: What is not possible yet, for example `can be deleted`.
    """

    retryable = True

    def __init__(self, batch: MessageBatch, wish: str) -> None:
        super().__init__(
            f"Batch {batch.id} is {batch.processing_status} and {wish} only after it has ended. Cancel it or let it "
            "run, wait until it has ended, then retry."
        )
        self.batch = batch


class ResultsUnavailableError(BatchesError):
    """The batch has ended but has no results to read: they are archived 29 days after creation."""


class ResultsTruncatedError(BatchesError):
    """The stream of results ended before the result of every request was received."""

    retryable = True
    evidence = Evidence(Proof.NOTHING, in_doubt=True)


class BatchTimeoutError(BatchesError):
    """The wait timed out before the batch ended. The batch is still running."""

    retryable = True


class StoppedError(BatchesError):
    """The caller stopped the work before it was done."""

    retryable = True


def _remake(kind: type[BatchesError], args: tuple[Any, ...]) -> BatchesError:
    return kind.__new__(kind, *args)


def shown(value: object) -> str:
    """Return a value for an error text; a long one is shortened in the middle."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"
