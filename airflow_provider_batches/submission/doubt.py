"""Finds out whether a chunk that may have been sent became a batch."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import cast

from airflow_provider_batches.api import BatchesClient, BatchesError, BatchResult, MessageBatch
from airflow_provider_batches.submission.ledger import ChunkState, Ledger, Plan

log = logging.getLogger(__name__)

#: Seconds before a claim at which its batch may seem to have been created, since clocks differ.
MARGIN = 300.0
#: Default seconds after the deadline of a claim at which a batch that is not in the list will never be there.
SETTLE_SECONDS = 900.0


@dataclass
class Doubt:
    """What is known of a chunk that may have been sent.

    :param running: Batches that may be the chunk's, and have no results yet.
    :param unreadable: Batches that may be the chunk's, and whose results cannot be read.
    :param batch: The chunk's batch, if it was found.
    :param settles_in: Seconds until a batch that is not found was never created.
    """

    running: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    batch: MessageBatch | None = None
    settles_in: float = 0.0


class Resolver:
    """Looks for the batches of chunks in doubt in the list of batches.

    :param client: The client.
    :param ledger: The ledger.
    :param plan: The plan.
    :param settle_seconds: Seconds after a claim's deadline at which its batch must be in the list.
    """

    def __init__(self, client: BatchesClient, ledger: Ledger, plan: Plan, settle_seconds: float) -> None:
        self._client = client
        self._ledger = ledger
        self._plan = plan
        self._settle = settle_seconds
        #: Ended batches whose results have another tag.
        self._foreign: set[str] = set()

    def look(self, states: Mapping[int, ChunkState]) -> dict[int, Doubt]:
        """Return what is known of these chunks.

        :raises BatchesError: The list could not be read as a whole.
        """
        claims = {
            number: self._ledger.claims(self._plan.number, number, state.attempt) for number, state in states.items()
        }
        # A batch of an earlier attempt that the list shows late counts, too.
        since = min(claim["claimed_at"] for each in claims.values() for claim in each) - MARGIN
        doubts = {number: Doubt() for number in states}
        for batch in self._listed(datetime.fromtimestamp(since, timezone.utc)):
            wanted = [number for number in states if self._may_be(batch, number) and not doubts[number].batch]
            if not wanted:
                continue
            tag = self._tag(batch) if batch.ended else None
            for number in wanted:
                if not batch.ended:
                    doubts[number].running.append(batch.id)
                elif tag is None:
                    doubts[number].unreadable.append(batch.id)
                elif tag == self._plan.chunks[number].tag:
                    doubts[number].batch = batch
        now = self._client.server_time()
        for number, each in claims.items():
            settled = max(claim["claimed_at"] + claim["deadline"] for claim in each) + self._settle
            doubts[number].settles_in = max(0.0, settled - now)
        return doubts

    def _listed(self, since: datetime) -> list[MessageBatch]:
        """Return the batches created since then that are not recorded in the ledger."""
        found = []
        for batch in self._client.list():
            if batch.created_at and batch.created_at < since:
                break
            found.append(batch)
        # Read after the list: another task may have recorded its batch meanwhile.
        known = self._ledger.records().batch_ids | self._foreign
        return [batch for batch in found if batch.id not in known]

    def _may_be(self, batch: MessageBatch, number: int) -> bool:
        # Counts of 0 say nothing.
        return batch.request_counts.total in (0, self._plan.chunks[number].requests)

    def _tag(self, batch: MessageBatch) -> str | None:
        """Return the tag of a batch's results; None if they cannot be read."""
        try:
            with closing(cast(Generator[BatchResult], self._client.results(batch.id))) as results:
                tag = next(results).custom_id.partition("-")[0]
        except BatchesError as error:
            log.warning("Batch %s may be one of this task's: its results cannot be read. %s", batch.id, error)
            return None
        if tag not in {chunk.tag for chunk in self._plan.chunks}:
            self._foreign.add(batch.id)
        return tag
