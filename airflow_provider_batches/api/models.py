"""The objects of the Message Batches API.

Fields are the API's own (https://docs.claude.com/en/api/retrieving-message-batches). Fields this package does not
know are kept, so that a snapshot taken today still holds what the API says tomorrow.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from airflow_provider_batches.api.errors import InvalidResponseError


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


Timestamp = Annotated[datetime, AfterValidator(_aware)]


class _Object(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)


class _Answer(_Object):
    """An object that is a whole answer of the API."""

    _request_id: str | None = PrivateAttr(default=None)

    @property
    def request_id(self) -> str | None:
        """The answer's `request-id` header, which Anthropic's support asks for; None if it had none."""
        return self._request_id


class RequestCounts(_Object):
    """How many requests of a batch are in which state; all but `processing` stay 0 until the batch has ended."""

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        """The number of requests in the batch."""
        return self.processing + self.succeeded + self.errored + self.canceled + self.expired


class MessageBatch(_Answer):
    """A message batch as the API sees it at one moment."""

    id: str
    type: str = "message_batch"
    processing_status: str
    request_counts: RequestCounts
    created_at: Timestamp
    expires_at: Timestamp
    ended_at: Timestamp | None = None
    cancel_initiated_at: Timestamp | None = None
    archived_at: Timestamp | None = None
    results_url: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the API is done with the batch. An unknown status counts as not ended."""
        return self.processing_status == "ended"

    def snapshot(self) -> dict[str, Any]:
        """The batch as plain JSON types."""
        return self.model_dump(mode="json")


class BatchPage(_Answer):
    """One page of a list of batches, newest first.

    `data` holds them as they came: few of a thousand may matter, and that many objects make the garbage collector run.
    """

    data: list[dict[str, Any]]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None

    def batches(self) -> list[MessageBatch]:
        """Return all batches of the page; one that cannot be read is an InvalidResponseError."""
        return [read_batch(raw) for raw in self.data]


def read_batch(raw: dict[str, Any]) -> MessageBatch:
    """Return a batch of a page; one that cannot be read is an InvalidResponseError."""
    try:
        return MessageBatch.model_validate(raw)
    except ValidationError as error:
        text = f"Could not list batches: a batch cannot be read ({error.error_count()} problems)."
        raise InvalidResponseError(text) from None


class DeletedBatch(_Answer):
    """The API's word that a batch is gone."""

    id: str
    type: Literal["message_batch_deleted"] = "message_batch_deleted"


class BatchRequest(_Object):
    """One request of a batch to be created: `params` is what the Messages API takes."""

    custom_id: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    params: dict[str, Any]


class ErrorDetail(_Object):
    """What went wrong, in the API's words."""

    type: str | None = None
    message: str | None = None
    details: Any = None


class ErrorEnvelope(_Object):
    """The body of every refusal that the API itself sends."""

    type: str = "error"
    error: ErrorDetail
    request_id: str | None = None


class Result(_Object):
    """How a request ended.

    :param type: `succeeded`, `errored`, `canceled` (before it was sent to the model), `expired` (likewise), or a kind
        that this package does not know.
    :param message: Of a request that succeeded: a Messages API message.
    :param error: Of a request that errored.
    """

    type: str
    message: dict[str, Any] | None = None
    error: ErrorEnvelope | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Result:
        needed = {"succeeded": self.message, "errored": self.error}
        if needed.get(self.type, True) is None:
            raise ValueError(f"a result of type {self.type} without what belongs to it")
        return self


class BatchResult(_Object):
    """One line of a batch's results."""

    custom_id: str
    result: Result
