"""The objects of the Message Batches API.

Fields have the API's names (https://docs.claude.com/en/api/retrieving-message-batches). Unknown fields are kept, so
that snapshots include fields that the API adds later.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from airflow_provider_batches.api.errors import InvalidResponseError

#: Earlier than any batch: reading the list back to this time reads all of it.
EPOCH = datetime.fromtimestamp(0, timezone.utc)


def _if_readable(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    # An unreadable optional field must not prevent a wait or a delete.
    try:
        return read(value)
    except ValidationError:
        return None


def _aware(value: Any, read: ValidatorFunctionWrapHandler) -> datetime | None:
    time: datetime | None = _if_readable(value, read)
    if time and time.tzinfo is None:
        time = time.replace(tzinfo=timezone.utc)
    # Some languages encode a missing time as the year 1, or as 0.
    return time if time and time > EPOCH else None


#: None if the time is absent or cannot be read.
Timestamp = Annotated[datetime | None, WrapValidator(_aware)]
Text = Annotated[str | None, WrapValidator(_if_readable)]
#: Reads a time outside a model.
read_time = TypeAdapter[datetime | None](Timestamp).validate_python


class _Object(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)


Model = TypeVar("Model", bound=_Object)


def read_json(text: str) -> Any:
    """Return JSON that a strict parser rejects: lone surrogates become U+FFFD, and huge integers become strings."""
    # Python refuses to parse longer integers.
    found = json.loads(text, strict=False, parse_int=lambda digits: int(digits) if len(digits) < 4000 else digits)
    return json.loads(
        json.dumps(found, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


def read_model(model: type[Model], body: bytes) -> Model:
    """Parse JSON into a model. Raises ValidationError if it does not match."""
    try:
        # What model_validate_json calls, without its overhead on each line of results.
        found: Model = model.__pydantic_validator__.validate_json(body)
        return found
    except ValidationError as error:
        strict = error
    try:
        return model.model_validate(read_json(body.decode(json.detect_encoding(body), "replace")))
    except (ValueError, RecursionError):
        raise strict from None


class _Answer(_Object):
    """The top-level object of an answer."""

    _request_id: str | None = PrivateAttr(default=None)

    @property
    def request_id(self) -> str | None:
        """The answer's `request-id` header, which Anthropic's support asks for; None if absent."""
        return self._request_id


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


class RequestCounts(_Object):
    """The number of requests in each state. All but `processing` stay 0 until the batch has ended.

    An unknown counter is kept and added to the total. If one cannot be read, all are 0, which means unknown, because a
    batch has at least one request.
    """

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, counts: Any) -> Any:
        if not isinstance(counts, dict):
            return counts
        counts = {name: count for name, count in counts.items() if count is not None}
        return counts if all(map(_is_count, (counts.get(name, 0) for name in cls.model_fields))) else {}

    @property
    def by_state(self) -> dict[str, int]:
        """The counters by name, including unknown ones."""
        return {name: count for name, count in self.model_dump().items() if _is_count(count)}

    @property
    def total(self) -> int:
        """The number of requests in the batch."""
        return sum(self.by_state.values())


class MessageBatch(_Answer):
    """The state of a message batch at one moment.

    :param id: The batch's ID.
    :param processing_status: `in_progress`, `canceling`, `ended`, or an unknown status.
    :param request_counts: The number of requests in each state.
    :param created_at: When it was created. None, like all times here, if it is absent or cannot be read.
    :param expires_at: When unfinished requests expire, 24 hours after its creation.
    :param ended_at: When the last request ended; None before.
    :param cancel_initiated_at: When it was canceled; None if it was not.
    :param archived_at: When its results were archived and could no longer be read.
    :param results_url: The URL of the results; None if there are none, or none yet.
    """

    id: str
    type: Text = "message_batch"
    processing_status: str
    request_counts: RequestCounts
    created_at: Timestamp = None
    expires_at: Timestamp = None
    ended_at: Timestamp = None
    cancel_initiated_at: Timestamp = None
    archived_at: Timestamp = None
    results_url: Text = None

    @property
    def ended(self) -> bool:
        """Whether processing has ended. An unknown status without `ended_at` counts as not ended."""
        return self.processing_status == "ended" or self.ended_at is not None

    @property
    def listed_since(self) -> datetime:
        """The time to read the list back to, to find the batch: its creation, or the epoch if that is unknown."""
        return self.created_at or EPOCH

    def snapshot(self) -> dict[str, Any]:
        """The batch as plain JSON types."""
        return self.model_dump(mode="json")


class BatchPage(_Answer):
    """One page of a list of batches, newest first.

    `data` holds plain dictionaries: parsing a thousand batches of which few matter would cost time and memory.
    """

    data: list[dict[str, Any]]
    has_more: bool
    first_id: Text = None
    last_id: Text = None

    def batches(self) -> list[MessageBatch]:
        """Return all batches of the page. Raises InvalidResponseError if one cannot be read."""
        return [read_batch(raw) for raw in self.data]


def read_batch(raw: dict[str, Any]) -> MessageBatch:
    """Return a batch of a page. Raises InvalidResponseError if it cannot be read."""
    try:
        return MessageBatch.model_validate(raw)
    except ValidationError as error:
        text = f"Could not list batches: a batch cannot be read ({error.error_count()} problems)."
        raise InvalidResponseError(text) from None


class DeletedBatch(_Answer):
    """The API's confirmation that a batch was deleted."""

    id: str
    type: Literal["message_batch_deleted"]


class TokenCount(_Answer):
    """How many tokens the input of a request has."""

    input_tokens: int


class BatchRequest(_Object):
    """One request of a batch to be created. `params` are those of the Messages API."""

    custom_id: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    params: dict[str, Any]


class ErrorDetail(_Object):
    """The error object inside an error envelope."""

    type: str | None = None
    message: str | None = None
    details: Any = None


class ErrorEnvelope(_Object):
    """The body of every error that the API sends."""

    type: str = "error"
    error: ErrorDetail
    request_id: str | None = None


class Result(_Object):
    """How a request ended.

    :param type: `succeeded`, `errored`, `canceled` or `expired` (both before it was sent to the model), or unknown.
    :param message: The Messages API message of a request that succeeded.
    :param error: The error of a request that errored.
    """

    type: str
    message: dict[str, Any] | None = None
    error: ErrorEnvelope | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Result:
        if self.message is None and (self.type == "succeeded" or (self.type == "errored" and self.error is None)):
            raise ValueError(f"a result of type {self.type} has no message or error")
        return self


class BatchResult(_Object):
    """One line of a batch's results.

    :param custom_id: The `custom_id` of the request.
    :param result: How the request ended.
    """

    custom_id: str
    result: Result

    @property
    def text(self) -> str | None:
        """The text blocks of the message, joined; None if the request did not succeed."""
        if self.result.type != "succeeded" or self.result.message is None:
            return None
        content = self.result.message.get("content")
        blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
        return "".join(str(block.get("text") or "") for block in blocks if block.get("type") == "text")
