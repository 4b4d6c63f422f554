"""The objects of the Message Batches API.

Fields are the API's own (https://docs.claude.com/en/api/retrieving-message-batches). Fields this package does not
know are kept, so that a snapshot taken today still holds what the API says tomorrow.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, Tag


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
        """The answer's `request-id` header, which Anthropic's support asks for; None where it had none."""
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
        """Whether the API is done with the batch. A status this package does not know counts as not ended."""
        return self.processing_status == "ended"

    def snapshot(self) -> dict[str, Any]:
        """The batch as plain JSON types."""
        return self.model_dump(mode="json")


class BatchPage(_Answer):
    """One page of a list of batches, newest first."""

    data: list[MessageBatch]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


class RawPage(_Answer):
    """A page whose batches are not read yet: of a thousand few may matter, and so many objects at once are what the
    garbage collector takes for the beginning of more.
    """

    data: list[dict[str, Any]]
    has_more: bool = False
    last_id: str | None = None


class DeletedBatch(_Answer):
    """The API's word that a batch is gone."""

    id: str
    type: str = "message_batch_deleted"


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


class SucceededResult(_Object):
    """The request was answered: `message` is a Messages API message."""

    type: Literal["succeeded"]
    message: dict[str, Any]


class ErroredResult(_Object):
    """The request failed."""

    type: Literal["errored"]
    error: ErrorEnvelope


class CanceledResult(_Object):
    """The batch was canceled before the request was sent to the model."""

    type: Literal["canceled"]


class ExpiredResult(_Object):
    """The batch expired before the request was sent to the model."""

    type: Literal["expired"]


class UnknownResult(_Object):
    """A kind of result this package does not know, passed on as it came."""

    type: str


_KNOWN_RESULTS = frozenset({"succeeded", "errored", "canceled", "expired"})


def _result_tag(value: Any) -> str:
    tag = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return tag if isinstance(tag, str) and tag in _KNOWN_RESULTS else "unknown"


class BatchResult(_Object):
    """One line of a batch's results."""

    custom_id: str
    result: Annotated[
        Annotated[SucceededResult, Tag("succeeded")]
        | Annotated[ErroredResult, Tag("errored")]
        | Annotated[CanceledResult, Tag("canceled")]
        | Annotated[ExpiredResult, Tag("expired")]
        | Annotated[UnknownResult, Tag("unknown")],
        Discriminator(_result_tag),
    ]
