"""How a wait ends, for one batch or for several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_batches.api import BatchesError, MessageBatch, RequestCounts

Status = Literal["ended", "missing", "refused", "timeout"]


@dataclass(frozen=True)
class Outcome:
    """How a wait ended, for one batch or for several.

    :param status: `ended`: all have ended. `missing`: the API does not know one. `refused`: the API refuses to answer.
        `timeout`: the time is over.
    :param snapshot: The batch as it was last seen, or for several what `combine` says of them.
    :param retryable: Whether another wait may end better, if this one has not ended with the batch's end.
    """

    status: Status
    batch_id: str | list[str]
    message: str
    snapshot: dict[str, Any] | None = None
    error: BatchesError | None = None
    retryable: bool = False

    @property
    def request_counts(self) -> RequestCounts:
        """The requests of the batch, or of all batches together."""
        return RequestCounts.model_validate((self.snapshot or {}).get("request_counts", {}))

    def failure(self, *, ignore_if_missing: bool = False, fail_on_partial_error: bool = False) -> str | None:
        """Return why the outcome fails a task, None if it does not.

        :param ignore_if_missing: Whether a batch that the API does not know is success.
        :param fail_on_partial_error: Whether errored or expired requests are a failure.
        """
        if self.status != "ended":
            return None if self.status == "missing" and ignore_if_missing else self.message
        failed = self.request_counts.errored + self.request_counts.expired
        if not failed or not fail_on_partial_error:
            return None
        return (
            f"{self.message} {failed} requests did not succeed, and fail_on_partial_error is set. The results of the "
            "others can still be read."
        )

    def ends_the_others(self, *, ignore_if_missing: bool = False) -> bool:
        """Whether a wait for several batches that includes this one has failed already."""
        # The time is over for all at once: those that have ended by then count as ended.
        return self.status != "timeout" and self.failure(ignore_if_missing=ignore_if_missing) is not None

    def event(self) -> dict[str, Any]:
        """Return the outcome as plain JSON types, for a trigger's event."""
        return {
            "status": self.status,
            "batch_id": self.batch_id,
            "message": self.message,
            "batch": self.snapshot,
            "retryable": self.retryable,
        }

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Outcome:
        """Return the outcome that `event` was made from."""
        retryable = event.get("retryable", False)
        return cls(event["status"], event["batch_id"], event["message"], event["batch"], retryable=retryable)


def combine(batch_ids: list[str], outcomes: Sequence[Outcome], *, ignore_if_missing: bool = False) -> Outcome:
    """Return the outcome of a wait for several batches.

    Its snapshot holds `total`, `ended` and `missing` (IDs), and the `request_counts` of all that have ended.

    :param batch_ids: All that are waited for.
    :param outcomes: How the waits that are over have ended.
    :param ignore_if_missing: Whether a batch that the API does not know counts as done.
    """
    ended = [outcome for outcome in outcomes if outcome.status == "ended"]
    missing = [str(outcome.batch_id) for outcome in outcomes if outcome.status == "missing"]
    totals = Counter[str]()
    for outcome in ended:
        totals.update(outcome.request_counts.by_state)
    text = f"{len(ended)} of {len(batch_ids)} batches have ended"
    if missing:
        named = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
        text += f", {len(missing)} are unknown to the API ({named})"
    text += f": {describe_counts(RequestCounts(**totals))}." if ended else "."
    snapshot = {"total": len(batch_ids), "ended": len(ended), "missing": missing, "request_counts": dict(totals)}
    for status in ("refused", "missing", "timeout"):
        for worst in outcomes:
            if worst.status == status and not (status == "missing" and ignore_if_missing):
                text = f"{text} {worst.message}"
                return Outcome(worst.status, batch_ids, text, snapshot, worst.error, worst.retryable)
    return Outcome("ended", batch_ids, text, snapshot)


def describe(batch: MessageBatch) -> str:
    """Return the batch's state for people, for example `in_progress (100 requests)`."""
    if batch.ended:
        return describe_counts(batch.request_counts)
    created = f", created {batch.created_at.isoformat(timespec='seconds')}" if batch.created_at else ""
    return f"{batch.processing_status} ({batch.request_counts.total} requests{created})"


def describe_counts(counts: RequestCounts) -> str:
    """Return how the requests ended, for people."""
    known = ("succeeded", "errored", "canceled", "expired")
    parts = [f"{getattr(counts, name)} {name}" for name in known if getattr(counts, name)]
    return f"{', '.join(parts) or 'none'} of {counts.total} requests"
