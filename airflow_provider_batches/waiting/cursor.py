"""Remembers which ends of batches have been announced, so that a restart neither loses nor repeats one. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_batches.api import MessageBatch

#: Seconds by which an end may be seen later than ends after it.
OVERLAP = 300.0
#: The most IDs that are remembered. If more batches end within OVERLAP, a restart may announce some again.
MAX_IDS = 1000


@dataclass(frozen=True)
class Cursor:
    """What has been announced: all ends up to `until` - OVERLAP, and `ids` of those after that.

    :param until: The newest end that was announced, in seconds since the epoch.
    :param ids: The IDs of the batches that ended in the last OVERLAP seconds before `until`, and when.
    """

    until: float
    ids: dict[str, float] = field(default_factory=dict)

    def news(self, ended: Iterable[tuple[MessageBatch, bool]]) -> list[MessageBatch]:
        """Return the batches that have not been announced, in the order of their ends.

        A batch that was seen running is news regardless of when it ended, because it may be listed late.

        :param ended: Batches that have ended, and whether each was seen running.
        """
        found = [
            batch
            for batch, seen_running in ended
            if batch.id not in self.ids and (seen_running or ended_at(batch) > self.until - OVERLAP)
        ]
        return sorted(found, key=lambda batch: (ended_at(batch), batch.id))

    def after(self, announced: Iterable[MessageBatch]) -> Cursor:
        """Return the cursor once these batches have been announced."""
        ids = {**self.ids, **{batch.id: ended_at(batch) for batch in announced}}
        until = max([self.until, *ids.values()])
        recent = sorted((end, batch_id) for batch_id, end in ids.items() if end > until - OVERLAP)[-MAX_IDS:]
        return Cursor(until, {batch_id: end for end, batch_id in recent})

    def dump(self) -> dict[str, Any]:
        """Return the cursor as JSON types."""
        return {"until": self.until, "ids": self.ids}

    @classmethod
    def load(cls, stored: Any) -> Cursor | None:
        """Return the cursor that `dump` returned; None if there is none, or it cannot be read."""
        try:
            return cls(float(stored["until"]), {str(each): float(end) for each, end in stored["ids"].items()})
        except (AttributeError, LookupError, TypeError, ValueError):
            return None


def ended_at(batch: MessageBatch) -> float:
    """Return when a batch ended, in seconds since the epoch. Without that, when it was created."""
    return (batch.ended_at or batch.listed_since).timestamp()
