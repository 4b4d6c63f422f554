"""What a caller means by cancel, delete and find, where the API leaves open how it answers.

A flow is a generator: it yields calls and pauses, is sent the answers (or thrown the errors), and returns the result.
The sync and the async client run the same flows, so they cannot drift apart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from airflow_provider_batches.api import endpoints
from airflow_provider_batches.api.endpoints import Call
from airflow_provider_batches.api.errors import (
    APIStatusError,
    BatchNotEndedError,
    NotFoundError,
    ResultsUnavailableError,
)
from airflow_provider_batches.api.models import DeletedBatch, MessageBatch
from airflow_provider_batches.api.retry import is_about_the_batch

log = logging.getLogger(__name__)

#: Seconds between looks at a batch that the API says it does not know; after the last one it is believed.
MISSING_PAUSES = (1.0, 2.0, 4.0)
#: How long after a batch's creation the API keeps its results.
KEPT = timedelta(days=29)
#: Answers that pass: the same call may succeed a moment later.
_PASSING = frozenset({404, 409})

T = TypeVar("T")


@dataclass(frozen=True)
class Pause:
    """Wait that many seconds, then go on."""

    seconds: float


Flow = Generator["Call[Any] | Pause", Any, T]


def find(batch_id: str) -> Flow[MessageBatch]:
    """Return the batch; that the API does not know it is believed only after asking several times over some seconds."""
    for pause in (*MISSING_PAUSES, None):
        try:
            batch: MessageBatch = yield endpoints.retrieve(batch_id)
            return batch
        except NotFoundError as error:
            if pause is None:
                raise missing(batch_id, error) from None
        log.info("The API does not know batch %s; asking again in %g s", batch_id, pause)
        yield Pause(pause)
    raise AssertionError("unreachable")  # pragma: no cover


def cancel(batch_id: str) -> Flow[MessageBatch]:
    """Return the batch once it is canceling or has ended, whoever saw to that."""

    def stopping(batch: MessageBatch) -> MessageBatch | None:
        stopped = batch.ended or batch.processing_status == "canceling" or batch.cancel_initiated_at
        return batch if stopped else None

    batch = yield from _settled(endpoints.cancel(batch_id), stopping)
    return batch


def delete(batch_id: str) -> Flow[DeletedBatch]:
    """Return once the batch is gone; a batch that has not ended is an error and stays as it is."""

    def deletable(batch: MessageBatch) -> None:
        if not batch.ended:
            raise BatchNotEndedError(batch, "can be deleted")

    try:
        deleted: DeletedBatch = yield from _settled(endpoints.delete(batch_id), deletable)
    except NotFoundError as error:
        if not error.answer_was_lost:
            raise
        log.info("Batch %s is gone: an earlier attempt deleted it, though its answer was lost", batch_id)
        return DeletedBatch(id=batch_id)
    return deleted


def open_results(batch_id: str, known: MessageBatch | None = None) -> Flow[tuple[MessageBatch, Any]]:
    """Return the batch and the open stream of its results.

    :param known: The batch as it was seen a moment ago, which saves a look at it.
    """

    def readable(batch: MessageBatch) -> None:
        if not batch.ended:
            raise BatchNotEndedError(batch, "has results")
        if batch.archived_at is not None:
            raise ResultsUnavailableError(
                f"The results of batch {batch.id} were archived at {batch.archived_at.isoformat()} and are gone: "
                f"the API keeps them for {KEPT.days} days after a batch's creation."
            )

    def refused(batch: MessageBatch) -> None:
        readable(batch)
        # `archived_at` may be left out.
        if batch.results_url is None and datetime.now(timezone.utc) - batch.created_at > KEPT:
            raise ResultsUnavailableError(
                f"The results of batch {batch.id}, created at {batch.created_at.isoformat()}, are gone: "
                f"the API keeps them for {KEPT.days} days after a batch's creation."
            )

    batch = known or (yield from find(batch_id))
    readable(batch)
    stream: Any = yield from _settled(endpoints.results(batch_id), refused)
    return batch, stream


def _settled(call: Call[Any], explain: Callable[[MessageBatch], T | None]) -> Flow[T]:
    """Make a call; where the API refuses it, look at the batch and let `explain` decide by its state.

    `explain` returns the call's result, raises the error that the state stands for, or returns None where the
    state does not explain the refusal. NotFoundError means that the API does not know the batch, and nothing else.
    """
    lost = False
    for pause in (*MISSING_PAUSES, None):
        try:
            answer: T = yield call
            return answer
        except APIStatusError as refusal:
            if not is_about_the_batch(refusal):
                raise
            log.info("%s Looking at the batch.", refusal)
            lost = lost or refusal.answer_was_lost
            try:
                batch = yield from find(call.batch_id)
            except NotFoundError as error:
                error.answer_was_lost = lost
                raise
            explained = explain(batch)
            if explained is not None:
                return explained
            if refusal.status not in _PASSING:
                raise
            if pause is None and isinstance(refusal, NotFoundError):
                raise _unserved(call, refusal) from None
            if pause is None:
                refusal.given_up(len(MISSING_PAUSES) + 1)
                raise
        yield Pause(pause)
    raise AssertionError("unreachable")  # pragma: no cover


def _unserved(call: Call[Any], refusal: NotFoundError) -> APIStatusError:
    """Return the error for a call that finds no batch where a look at the batch finds it."""
    return APIStatusError(
        f"Could not {call.action}: the API knows the batch, but answers {refusal.status} to this call "
        f"({refusal.message or 'no text'}; asked {len(MISSING_PAUSES) + 1} times; request-id {refusal.request_id}). "
        "Check the connection's host, and the gateway before the API.",
        status=refusal.status,
        error_type=refusal.error_type,
        message=refusal.message,
        request_id=refusal.request_id,
        retry_after=refusal.retry_after,
        should_retry=refusal.should_retry,
    )


def missing(batch_id: str, error: NotFoundError) -> NotFoundError:
    """Return the error for a batch whose last 404 is believed."""
    return NotFoundError(
        f"The API does not know batch {batch_id} (asked {len(MISSING_PAUSES) + 1} times; request-id "
        f"{error.request_id}). Check first that the key belongs to the batch's workspace, then whether somebody has "
        "deleted the batch already, then the ID.",
        status=error.status,
        error_type=error.error_type,
        message=error.message,
        request_id=error.request_id,
    )
