"""What both clients do: the steps of each call, without the I/O.

A flow is a generator: it yields steps, is sent what they bring (or thrown their errors), and returns the result. Both
clients carry out the same steps, so they cannot drift apart.
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

#: How long after a batch's creation the API keeps its results.
KEPT = timedelta(days=29)
#: Refusals that may pass although the state of the batch does not explain them, and how often such a call is made.
_MOMENTARY = (403, 404, 409)
_ATTEMPTS = len(NOT_FOUND_PAUSES) + 1
_MAY_EXIST = (
    "The batch may have been created all the same, and a second one would cost money too: look into the list of "
    "batches before you try again."
)

T = TypeVar("T")


@dataclass(frozen=True)
class Pause:
    """A step: wait that many seconds."""

    seconds: float


class Renew:
    """A step: read the credentials again."""


Flow = Generator["Call[Any] | Pause | Renew", Any, T]


class Flows:
    """The steps of each call.

    :param attempts: How often a call is made in all if nothing comes of it.
    :param throttle: What this client's calls share.
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
        """Make a call until it is answered, or until another attempt cannot help; who polls has no retries.

        :param take: Takes the answer, or raises what is wrong with it.
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
                        # Who polls asks again later.
                        yield Renew()
                    if retry.failures > 1:
                        error.add(f"Given up after {retry.failures} attempts.")
                    if may_exist:
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
        """Return the batch. That the API does not know it is believed only after four retrievals over 7 s."""
        pauses = iter(NOT_FOUND_PAUSES)
        while True:
            try:
                return (yield from self.call(endpoints.retrieve(batch_id)))
            except NotFoundError as error:
                if (pause := next(pauses, None)) is None:
                    if (seen or confirm) and (yield from self.listed({batch_id}, seen)):
                        raise listed_all_the_same(batch_id) from None
                    raise not_found(batch_id, error) from None
            log.info("The API does not know batch %s; retrying in %g s", batch_id, pause)
            yield Pause(pause)

    def listed(self, batch_ids: Collection[str], since: datetime | None, retries: int | None = None) -> Flow[set[str]]:
        """Return which of the batches the list has, read down to those created at `since`; None: its first page."""
        pager, found = Pager(), set[str]()
        while not pager.ended and len(found) < len(batch_ids):
            page = yield from self.page(pager, retries)
            found |= {str(raw.get("id")) for raw in page.data} & set(batch_ids)
            last = read_time(page.data[-1].get("created_at")) if page.data else None
            if page.data and (since is None or (last and last < since)):
                break
        return found

    def cancel(self, batch_id: str, seen: datetime | None = None, *, confirm: bool = False) -> Flow[MessageBatch]:
        """Return the batch once it is canceling or has ended, no matter who canceled it."""

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
            f"Could not cancel batch {batch_id}: the API accepts the cancel, but the batch is still "
            f"{batch.processing_status} ({_ATTEMPTS} attempts; request-id {batch.request_id}). Cancel it again.",
            request_id=batch.request_id,
        )

    def delete(self, batch_id: str, seen: datetime | None = None) -> Flow[DeletedBatch]:
        """Return once the batch is gone; a batch that has not ended is an error and stays."""

        def deletable(batch: MessageBatch, _: int) -> None:
            if not batch.ended:
                raise BatchNotEndedError(batch, "can be deleted")

        try:
            return cast(DeletedBatch, (yield from self._settled(endpoints.delete(batch_id), deletable, seen)))
        except NotFoundError as error:
            if not error.answer_was_lost:
                raise
            log.info("Batch %s is gone: an earlier attempt deleted it, though its answer was lost", batch_id)
            return DeletedBatch(id=batch_id, type="message_batch_deleted")

    def open_results(self, batch_id: str, known: MessageBatch | None = None) -> Flow[tuple[MessageBatch, Any]]:
        """Return the batch and the open stream of its results."""

        def refused(batch: MessageBatch, status: int) -> None:
            now = datetime.now(timezone.utc)
            if not batch.ended:
                raise BatchNotEndedError(batch, "has results")
            if status == 403:
                # It is about the key.
                return
            if batch.archived_at and batch.archived_at <= now:
                raise _gone(batch, f"were archived at {batch.archived_at.isoformat()} and are gone")
            # `archived_at` may be left out.
            if batch.created_at and batch.results_url is None and now - batch.created_at > KEPT:
                raise _gone(batch, f"of {batch.created_at.isoformat()} are gone")

        batch = known or (yield from self.find(batch_id))
        if not batch.ended:
            raise BatchNotEndedError(batch, "has results")
        # Only a refusal proves that there are no results; the fields of the batch do not.
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
        """Make a call; if the API refuses it, retrieve the batch and let `explain` decide by its state and the status.

        `explain` returns the call's result, raises the error that the state stands for, or returns None if the state
        does not explain the refusal. NotFoundError means that the API does not know the batch, and nothing else.
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
                if status not in _MOMENTARY:
                    raise
                if (pause := next(pauses, None)) is None:
                    if status == 404:
                        raise _not_served(call, refusal) from None
                    refusal.add(f"Given up after {_ATTEMPTS} attempts.")
                    raise
            yield Pause(pause)
            if status == 403:
                yield Renew()


def _gone(batch: MessageBatch, how: str) -> ResultsUnavailableError:
    return ResultsUnavailableError(
        f"The results of batch {batch.id} {how}: the API keeps them for {KEPT.days} days after a batch's creation."
    )


def _not_served(call: Call[Any], refusal: APIStatusError) -> APIStatusError:
    """Return the error for a call that does not find a batch that can be retrieved."""
    return refusal.reworded(
        APIStatusError,
        f"Could not {call.action}: the API knows the batch, but answers {refusal.status} to this call "
        f"({refusal.message or 'no text'}; {_ATTEMPTS} attempts; request-id {refusal.request_id}). "
        "Check the base URL, and the gateway before the API.",
    )


def not_found(batch_id: str, error: NotFoundError) -> NotFoundError:
    """Return the error for a batch whose last 404 is believed."""
    return error.reworded(
        NotFoundError,
        f"The API does not know batch {batch_id} ({_ATTEMPTS} attempts; request-id {error.request_id}). Check first "
        "that the key belongs to the batch's workspace, then whether somebody has deleted the batch already, then the "
        "ID.",
    )


def listed_all_the_same(batch_id: str) -> InvalidResponseError:
    """Return the error for a batch that cannot be retrieved although the list has it."""
    return InvalidResponseError(
        f"The API lists batch {batch_id}, but answers 404 to retrieving it. Try again, then check the gateway before "
        "the API."
    )
