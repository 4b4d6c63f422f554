"""Submits all requests of a plan, each exactly once. docs/submit.md has the protocol, and what it cannot promise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from airflow_provider_batches.api import BatchesClient, BatchesError, MessageBatch, NotFoundError
from airflow_provider_batches.api.errors import StoppedError
from airflow_provider_batches.api.models import EPOCH
from airflow_provider_batches.storage.folder import StorageError
from airflow_provider_batches.submission.doubt import SETTLE_SECONDS, Resolver
from airflow_provider_batches.submission.ledger import ChunkState, Ledger, Plan
from airflow_provider_batches.submission.sending import Sender, check_address

log = logging.getLogger(__name__)


#: How often chunks are tried in a row before the task fails.
MOST_TRIES = 5


class UndecidedError(BatchesError):
    """It is not known whether a chunk became a batch, so it is not sent again."""

    retryable = True


class ReplacedError(BatchesError):
    """There is a newer plan of the submission."""


@dataclass(frozen=True)
class Pending:
    """What must happen before a submission can continue.

    :param batch_ids: Batches that may belong to it, and must end.
    :param seconds: Seconds to wait if there are none.
    :param text: The reason, for people.
    """

    batch_ids: list[str]
    seconds: float
    text: str


@dataclass
class Submission:
    """Submits a plan: sends what was not sent, and looks for what may have been sent.

    :param client: The client.
    :param ledger: The ledger.
    :param plan: The plan.
    :param settle_seconds: Seconds after which a batch that is not in the list was never created. Default 900.
    :param stopped: Returns whether Airflow has stopped the task.
    :param on_batch: Called with all batch IDs so far whenever one is recorded.
    """

    client: BatchesClient
    ledger: Ledger
    plan: Plan
    settle_seconds: float = SETTLE_SECONDS
    stopped: Callable[[], bool] = lambda: False
    on_batch: Callable[[list[str]], None] = lambda batch_ids: None
    _resolver: Resolver = field(init=False)

    def __post_init__(self) -> None:
        check_address(self.client, self.plan)
        self._resolver = Resolver(self.client, self.ledger, self.plan, self.settle_seconds)

    def states(self) -> list[ChunkState]:
        """Return the state of each chunk.

        :raises ReplacedError: There is a newer plan.
        """
        records = self.ledger.records()
        if records.plan != self.plan.number:
            raise ReplacedError(
                f"Submission {self.plan.submission_id!r} has a newer plan, {records.plan}, which another task made. "
                "This task sends nothing more."
            )
        states = [records.state(self.plan.number, number) for number in range(len(self.plan.chunks))]
        for number, state in enumerate(states):
            if len(state.batch_ids) > 1:
                log.error("Chunk %d has several batches: %s. Cancel all but one.", number + 1, state.batch_ids)
        return states

    def batch_ids(self) -> list[str]:
        """Return the batches so far, in the order of their chunks."""
        return [state.batch_ids[0] for state in self.states() if state.batch_ids]

    def advance(self) -> Pending | None:
        """Send what can be sent. Returns None once each chunk is a batch, or else what to wait for.

        :raises BatchesError: A chunk could not be sent. Those that were sent are recorded.
        """
        sender = Sender(self.client, self.ledger, self.plan, self.stopped)
        tries = 0
        while True:
            states = self.states()
            for number, state in enumerate(states):
                if state.status == "unsent":
                    if self.stopped():
                        raise StoppedError("The task was stopped. A retry sends the remaining requests.")
                    if sender.send(number):
                        self.on_batch(self.batch_ids())
            states, tries = self.states(), tries + 1
            if tries > MOST_TRIES and any(state.status == "unsent" for state in states):
                raise UndecidedError(
                    f"Chunks of submission {self.plan.submission_id!r} were not sent in {tries} attempts: the store "
                    "takes too long to create a file, or the process is suspended again and again. Retry later."
                )
            doubtful = {number: state for number, state in enumerate(states) if state.status == "doubt"}
            if doubtful and (pending := self._resolve(doubtful)):
                return pending
            if all(state.status == "sent" for state in self.states()):
                return None

    def lost(self) -> dict[str, str]:
        """Return those of its batches that will have no results, and why: `deleted`, `canceled` or `expired`."""
        lost = {}
        for batch_id in self.batch_ids():
            try:
                # Each was seen, so that the whole list must not have it.
                batch = self.client.find(batch_id, EPOCH)
            except NotFoundError:
                lost[batch_id] = "deleted"
                continue
            counts = batch.request_counts
            if batch.cancel_initiated_at:
                lost[batch_id] = "canceled"
            elif batch.ended and counts.expired == counts.total > 0:
                lost[batch_id] = "expired"
        return lost

    def remove_requests(self) -> None:
        """Remove the files with the requests, which have all been sent. The ledger stays."""
        for chunk in self.plan.chunks:
            with suppress(StorageError):
                self.ledger.folder.remove(chunk.file)

    def _resolve(self, doubtful: dict[int, ChunkState]) -> Pending | None:
        """Record what is found, and void what was never created. Returns what to wait for, or None to continue."""
        running, unreadable, seconds, waiting = dict[str, None](), dict[str, None](), list[float](), list[int]()
        for number, doubt in self._resolver.look(doubtful).items():
            if doubt.batch:
                self._record(number, doubtful[number], doubt.batch)
                continue
            running.update(dict.fromkeys(doubt.running))
            unreadable.update(dict.fromkeys(doubt.unreadable))
            if doubt.running or doubt.unreadable or doubt.settles_in > 0:
                waiting.append(number + 1)
                seconds.append(doubt.settles_in)
            else:
                reason = "the list of batches has no batch of this chunk"
                self.ledger.void(self.plan.number, number, doubtful[number].attempt, reason)
                log.info("Chunk %d was not created: %s. Sending it again.", number + 1, reason)
        if not waiting:
            return None
        chunks = f"Chunks {', '.join(map(str, waiting))} of submission {self.plan.submission_id!r}"
        text = f"{chunks} may have been sent, but no answer was received."
        if running:
            return Pending(list(running), 0.0, f"{text} Their batches may be: {', '.join(running)}, still running.")
        if unreadable:
            raise UndecidedError(
                f"{text} Their batches may be: {', '.join(unreadable)}, whose results cannot be read. If they are "
                "another team's, or are no longer needed, delete them and retry."
            )
        return Pending(
            [], min(seconds), f"{text} If no batch appears within {min(seconds):.0f} s, they are sent again."
        )

    def _record(self, number: int, state: ChunkState, batch: MessageBatch) -> None:
        about = {"batch": batch.snapshot(), "request_id": batch.request_id, "found": True}
        self.ledger.record_batch(self.plan.number, number, state.attempt, batch.id, about)
        log.info("Chunk %d is batch %s: its results have this task's tag", number + 1, batch.id)
        self.on_batch(self.batch_ids())
