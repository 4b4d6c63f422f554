"""The steps of each call, without I/O, shared by both clients.

A flow is a generator. It yields steps, receives their results or errors, and returns the result of the call. Both
clients execute the same flows, so their behavior is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar, cast

from airflow_provider_batches.api import endpoints
from airflow_provider_batches.api.endpoints import Call
from airflow_provider_batches.api.errors import (
    APIStatusError,
    BatchesError,
    BatchNotEndedError,
    InvalidResponseError,
    NotFoundError,
    ResultsUnavailableError,
)
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.models import BatchPage, DeletedBatch, MessageBatch, read_time
from airflow_provider_batches.api.pager import Pager
from airflow_provider_batches.api.retry import (
    KEY_PAUSES,
    NOT_FOUND_PAUSES,
    SPEND_LIMIT_PAUSES,
    WORKING_KEY_PAUSES,
    Retry,
)
from airflow_provider_batches.api.throttle import Throttle

log = logging.getLogger(__name__)

#: How long the API keeps results after the creation of a batch.
KEPT = timedelta(days=29)
#: Refusals that are retried if the state of the batch does not explain them, and the number of attempts.
_RETRIED = (403, 404, 409)
_ATTEMPTS = len(NOT_FOUND_PAUSES) + 1
_MAY_EXIST = (
    "The batch may have been created anyway, and a second one costs money, too. Check the list of batches before you "
    "retry."
)

T = TypeVar("T")


@dataclass(frozen=True)
class Pause:
    """A step: sleep."""

    seconds: float


class Renew:
    """A step: read the credentials again."""


Flow = Generator["Call[Any] | Pause | Renew", Any, T]


class Flows:
    """The steps of each call.

    :param attempts: How many times a call is sent before it fails.
    :param throttle: Paces the calls.
    """

    def __init__(self, attempts: int, throttle: Throttle) -> None:
        self.attempts = attempts
        self.throttle = throttle

    def call(
        self,
        call: Call[T],
        retries: int | None = None,
        *,
        doubt: bool = True,
        take: Callable[[T], None] = lambda answer: None,
    ) -> Flow[T]:
        """Send a call, and retry it while another attempt may help.

        :param retries: How often to retry. Default: `attempts` - 1. A poller passes 0, and polls again later.
        :param doubt: Whether to retry if the API refuses the key.
        :param take: Receives the answer, and raises an error if it is not valid.
        """
        retry: Retry | None = None
        lost = False
        while True:
            while (seconds := self.throttle.delay()) > 0:
                yield Pause(seconds)
            try:
                answer: T = yield call
                take(answer)
            except BatchesError as error:
                self.throttle.on_error(error)
                evidence = error.evidence
                stale = evidence.proof is Proof.KEY_REFUSED or error.untrusted
                retry = retry or self._retry(retries, doubt)
                may_exist = call.creates and evidence.in_doubt
                pause = None if may_exist else retry.pause(error)
                if pause is None:
                    error.answer_was_lost = lost
                    if retries == 0 and doubt and stale:
                        # For the next poll.
                        yield Renew()
                    if retry.failures > 1:
                        error.add(f"Gave up after {retry.failures} attempts.")
                    if may_exist and retries != 0:
                        error.add(_MAY_EXIST)
                    raise
                lost = lost or evidence.in_doubt
            else:
                self.throttle.on_answer()
                return answer
            yield Pause(pause)
            if stale:
                yield Renew()

    def _retry(self, retries: int | None, doubt: bool) -> Retry:
        doubts: dict[Proof, tuple[float, ...]] = {}
        if doubt and retries != 0:
            patient = self.throttle.patient
            doubts[Proof.KEY_REFUSED] = WORKING_KEY_PAUSES if patient and self.throttle.has_answered else KEY_PAUSES
            if patient:
                doubts[Proof.SPEND_LIMIT] = SPEND_LIMIT_PAUSES
        return self.throttle.retry(self.attempts if retries is None else retries + 1, doubts)

    def page(self, pager: Pager, retries: int | None = None, *, doubt: bool = True) -> Flow[BatchPage]:
        """Return the next page of the list."""
        while True:
            try:
                return (yield from self.call(pager.call, retries, doubt=doubt, take=pager.take))
            except APIStatusError as error:
                if not pager.restart(error):
                    raise

    def find(self, batch_id: str, seen: datetime | None = None, *, confirm: bool = False) -> Flow[MessageBatch]:
        """Return the batch. Retry a 404 three times over 7 s before raising NotFoundError."""
        pauses = iter(NOT_FOUND_PAUSES)
        while True:
            try:
                return (yield from self.call(endpoints.retrieve(batch_id)))
            except NotFoundError as error:
                if (pause := next(pauses, None)) is None:
                    if (seen or confirm) and (yield from self.listed({batch_id}, seen)):
                        raise listed_but_not_found(batch_id) from None
                    raise not_found(batch_id, error) from None
            log.info("Batch %s was not found; retrying in %g s", batch_id, pause)
            yield Pause(pause)

    def listed(self, batch_ids: Collection[str], since: datetime | None, retries: int | None = None) -> Flow[set[str]]:
        """Return which of the batches are in the list. Reads back to `since`, or only the first page if it is None."""
        pager, found = Pager(), set[str]()
        while not pager.ended and len(found) < len(batch_ids):
            page = yield from self.page(pager, retries)
            found |= {str(raw.get("id")) for raw in page.data} & set(batch_ids)
            last = read_time(page.data[-1].get("created_at")) if page.data else None
            if page.data and (since is None or (last and last < since)):
                break
        return found

    def cancel(self, batch_id: str, seen: datetime | None = None, *, confirm: bool = False) -> Flow[MessageBatch]:
        """Cancel the batch, and return it once it is canceling or has ended."""

        def stopping(batch: MessageBatch, _: int = 0) -> MessageBatch | None:
            stopped = batch.ended or batch.processing_status == "canceling" or batch.cancel_initiated_at
            return batch if stopped else None

        pauses = iter(NOT_FOUND_PAUSES)
        while True:
            call = endpoints.cancel(batch_id)
            batch: MessageBatch = yield from self._settled(call, stopping, seen, confirm=confirm, pauses=pauses)
            if stopping(batch):
                return batch
            if (pause := next(pauses, None)) is None:
                break
            yield Pause(pause)
        raise InvalidResponseError(
            f"Could not cancel batch {batch_id}: the API accepted the cancel, but the batch is still "
            f"{batch.processing_status} ({_ATTEMPTS} attempts; request-id {batch.request_id}). Cancel it again.",
            request_id=batch.request_id,
        )

    def delete(self, batch_id: str, seen: datetime | None = None) -> Flow[DeletedBatch]:
        """Delete the batch. A batch that has not ended is not deleted, and raises BatchNotEndedError."""

        def deletable(batch: MessageBatch, _: int) -> None:
            if not batch.ended:
                raise BatchNotEndedError(batch, "can be deleted")

        try:
            return cast(DeletedBatch, (yield from self._settled(endpoints.delete(batch_id), deletable, seen)))
        except NotFoundError as error:
            if not error.answer_was_lost:
                raise
            log.info("Batch %s no longer exists: an earlier attempt deleted it, but its answer was lost", batch_id)
            return DeletedBatch(id=batch_id, type="message_batch_deleted")

    def open_results(self, batch_id: str, known: MessageBatch | None = None) -> Flow[tuple[MessageBatch, Any]]:
        """Return the batch and the open stream of its results."""

        def refused(batch: MessageBatch, status: int) -> None:
            now = datetime.now(timezone.utc)
            if not batch.ended:
                raise BatchNotEndedError(batch, "has results")
            if status == 403:
                # The API refused the key.
                return
            if batch.archived_at and batch.archived_at <= now:
                raise _gone(batch, f"were archived at {batch.archived_at.isoformat()}")
            # The API may omit `archived_at`.
            if batch.created_at and batch.results_url is None and now - batch.created_at > KEPT:
                raise _gone(batch, f"(created at {batch.created_at.isoformat()}) no longer exist")

        batch = known or (yield from self.find(batch_id))
        if not batch.ended:
            raise BatchNotEndedError(batch, "has results")
        # Results may exist even if `results_url` and `archived_at` suggest otherwise, so only a refusal counts.
        stream: Any = yield from self._settled(endpoints.results(batch_id), refused, batch.listed_since)
        return batch, stream

    def _settled(
        self,
        call: Call[Any],
        explain: Callable[[MessageBatch, int], T | None],
        seen: datetime | None = None,
        *,
        confirm: bool = False,
        pauses: Iterator[float] | None = None,
    ) -> Flow[T]:
        """Send a call. If the API refuses it, retrieve the batch and pass it to `explain` with the status.

        `explain` returns the call's result, raises an error, or returns None if the state of the batch does not explain
        the refusal. NotFoundError is raised only if the batch itself cannot be found.
        """
        lost, pauses = False, pauses or iter(NOT_FOUND_PAUSES)
        while True:
            try:
                return cast(T, (yield from self.call(call)))
            except APIStatusError as refusal:
                if refusal.evidence.proof not in (Proof.NOT_FOUND, Proof.DEPENDS_ON_STATE):
                    raise
                log.info("%s Retrieving the batch.", refusal)
                lost = lost or refusal.answer_was_lost
                try:
                    batch = yield from self.find(call.batch_id, seen, confirm=confirm)
                except NotFoundError as error:
                    error.answer_was_lost = lost
                    raise
                status = refusal.status
                if (explained := explain(batch, status)) is not None:
                    return explained
                if status not in _RETRIED:
                    raise
                if (pause := next(pauses, None)) is None:
                    if status == 404:
                        raise _not_served(call, refusal) from None
                    refusal.add(f"Gave up after {_ATTEMPTS} attempts.")
                    raise
            yield Pause(pause)
            if status == 403:
                yield Renew()


def _gone(batch: MessageBatch, how: str) -> ResultsUnavailableError:
    return ResultsUnavailableError(
        f"The results of batch {batch.id} {how}. The API keeps results for {KEPT.days} days after a batch's creation."
    )


def _not_served(call: Call[Any], refusal: APIStatusError) -> APIStatusError:
    """Return the error for a call that answers 404 although the batch can be retrieved."""
    return refusal.reworded(
        APIStatusError,
        f"Could not {call.action}: the batch exists, but the API answers {refusal.status} to this call "
        f"({refusal.message or 'no text'}; {_ATTEMPTS} attempts; request-id {refusal.request_id}). "
        "Check the base URL, and any gateway in front of the API.",
    )


def not_found(batch_id: str, error: NotFoundError) -> NotFoundError:
    """Return the error for a batch that is still not found after retries."""
    return error.reworded(
        NotFoundError,
        f"Batch {batch_id} was not found ({_ATTEMPTS} attempts; request-id {error.request_id}). Check that the key "
        "belongs to the batch's workspace, that the batch has not been deleted, and that the ID is correct.",
    )


def listed_but_not_found(batch_id: str) -> InvalidResponseError:
    """Return the error for a batch that is in the list but cannot be retrieved."""
    return InvalidResponseError(
        f"The API lists batch {batch_id}, but answers 404 when it is retrieved. Retry, then check any gateway in "
        "front of the API."
    )
