"""What can go wrong between this package and the API: one class for each thing a caller would handle differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_batches.api.models import MessageBatch


class BatchesError(Exception):
    """Anything that went wrong with a call to the Message Batches API."""

    #: Whether the same call may well succeed later without anybody changing anything.
    transient = False
    #: Seconds the API asked to be left alone, None where it did not say.
    retry_after: float | None = None
    #: The API's own word on trying again (`x-should-retry`), None where it did not say.
    should_retry: bool | None = None

    def given_up(self, attempts: int) -> None:
        """Say in the text how often the call was made in vain."""
        self.args = (f"{self} Given up after {attempts} attempts.",)

    @property
    def passing(self) -> bool:
        """Whether it is worth trying again: the API's own word, or what is known of this kind of error."""
        return self.transient if self.should_retry is None else self.should_retry


class InvalidArgumentError(BatchesError, ValueError):
    """An argument or a setting is wrong; nothing was sent."""


class APIConnectionError(BatchesError):
    """No answer came.

    :param message: What happened.
    :param sent: False where the request cannot have reached the API.
    """

    transient = True

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class InvalidResponseError(BatchesError):
    """The API's answer was not what its reference promises; the next one may well be."""

    transient = True

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class APIStatusError(BatchesError):
    """The API refused a call.

    :param summary: The whole story in one line, for people.
    :param status: HTTP status code.
    :param error_type: The API's `error.type`, None where the body was not the API's.
    :param message: The API's `error.message`, or an excerpt of a body that was not the API's.
    :param request_id: The API's ID of the request, to quote to its support.
    :param retry_after: Seconds to wait before the next attempt, as the API asked.
    :param should_retry: The API's own word on trying again.
    """

    #: Whether the answer to an earlier attempt of the same call was lost, so that it may have done its work.
    answer_was_lost = False

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


class AccessDeniedError(APIStatusError):
    """401 or 403: the key is wrong, or may not do this."""


class SpendLimitError(APIStatusError):
    """402, or 429 for a spend limit: it goes on until somebody pays or raises the limit."""


class NotFoundError(APIStatusError):
    """404: the API does not know the batch, or the batch belongs to another workspace than the key.

    A 404 to a cancel, a delete or a read of results, where a look at the batch finds it, is a plain APIStatusError.
    """


class RequestTooLargeError(APIStatusError):
    """413: the request is over the API's limits; split the batch."""


class RateLimitError(APIStatusError):
    """429: too many requests a minute."""

    transient = True


class ServerError(APIStatusError):
    """408, 409 or 5xx: the API could not answer at this moment."""

    transient = True


class BatchNotEndedError(BatchesError):
    """What was asked for is possible only once the batch has ended.

    :param batch: The batch as it is.
    :param wish: What is not possible yet, for example `can be deleted`.
    """

    transient = True

    def __init__(self, batch: MessageBatch, wish: str) -> None:
        super().__init__(
            f"Batch {batch.id} is {batch.processing_status} and {wish} only once it has ended: cancel it or let it "
            "run, wait until it has ended (BatchEndedSensor), then try again."
        )
        self.batch = batch


class ResultsUnavailableError(BatchesError):
    """The batch has ended but has no results to read: they are archived 29 days after creation."""


class ResultsTruncatedError(BatchesError):
    """The results ended before every request's result had come."""

    transient = True


class BatchTimeoutError(BatchesError):
    """The batch had not ended when the time to wait for it was over; the batch itself goes on."""

    transient = True
