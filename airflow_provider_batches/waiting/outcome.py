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

    :param status: `ended`: all have ended. `missing`: one was not found. `refused`: the API refused the call.
        `timeout`: the wait timed out.
    :param snapshot: The last known state of the batch; for several, the summary of `combine`.
    :param retryable: Whether a retry may succeed, if the status is not `ended`.
    """

    status: Status
    batch_id: str | list[str]
    message: str
    snapshot: dict[str, Any] | None = None
    error: BatchesError | None = None
    retryable: bool = False

    @property
    def request_counts(self) -> RequestCounts:
        """The request counts of the batch, or the totals of several."""
        return RequestCounts.model_validate((self.snapshot or {}).get("request_counts", {}))

    def failure(self, *, ignore_if_missing: bool = False, fail_on_partial_error: bool = False) -> str | None:
        """Return why the outcome fails a task; None if it does not.

        :param ignore_if_missing: Whether a batch that was not found is success.
        :param fail_on_partial_error: Whether errored or expired requests are a failure.
        """
        if self.status != "ended":
            return None if self.status == "missing" and ignore_if_missing else self.message
        failed = self.request_counts.errored + self.request_counts.expired
        if not failed or not fail_on_partial_error:
            return None
        return (
            f"{self.message} {failed} requests did not succeed, and fail_on_partial_error is set. The results of the "
            "other requests can still be read."
        )

    def fails_all(self, *, ignore_if_missing: bool = False) -> bool:
        """Whether this outcome fails a wait for several batches before all have ended."""
        # All time out together, and those that have ended still count as ended.
        return self.status != "timeout" and self.failure(ignore_if_missing=ignore_if_missing) is not None

    def event(self) -> dict[str, Any]:
        """Return the outcome as JSON types, for a trigger's event."""
        return {
            "status": self.status,
            "batch_id": self.batch_id,
            "message": self.message,
            "batch": self.snapshot,
            "retryable": self.retryable,
        }

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Outcome:
        """Return the outcome that `event` returned."""
        retryable = event.get("retryable", False)
        return cls(event["status"], event["batch_id"], event["message"], event["batch"], retryable=retryable)


def combine(batch_ids: list[str], outcomes: Sequence[Outcome], *, ignore_if_missing: bool = False) -> Outcome:
    """Return the outcome of a wait for several batches.

    Its snapshot holds `total`, `ended` and `missing` (IDs), and the total `request_counts` of the ended batches.

    :param batch_ids: All batches of the wait.
    :param outcomes: The outcomes so far.
    :param ignore_if_missing: Whether a batch that was not found counts as done.
    """
    ended = [outcome for outcome in outcomes if outcome.status == "ended"]
    missing = [str(outcome.batch_id) for outcome in outcomes if outcome.status == "missing"]
    totals = Counter[str]()
    for outcome in ended:
        totals.update(outcome.request_counts.by_state)
    text = f"{len(ended)} of {len(batch_ids)} batches have ended"
    if missing:
        named = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
        text += f", {len(missing)} were not found ({named})"
    text += f": {describe_counts(RequestCounts(**totals))}." if ended else "."
    snapshot = {"total": len(batch_ids), "ended": len(ended), "missing": missing, "request_counts": dict(totals)}
    for status in ("refused", "missing", "timeout"):
        for worst in outcomes:
            if worst.status == status and not (status == "missing" and ignore_if_missing):
                text = f"{text} {worst.message}"
                return Outcome(worst.status, batch_ids, text, snapshot, worst.error, worst.retryable)
    return Outcome("ended", batch_ids, text, snapshot)


def describe(batch: MessageBatch) -> str:
    """Return the batch's state as text, for example `in_progress (100 requests)`."""
    if batch.ended:
        return describe_counts(batch.request_counts)
    created = f", created {batch.created_at.isoformat(timespec='seconds')}" if batch.created_at else ""
    return f"{batch.processing_status} ({batch.request_counts.total} requests{created})"


def describe_counts(counts: RequestCounts) -> str:
    """Return how the requests ended as text, for example `9 succeeded, 1 errored of 10 requests`."""
    known = ("succeeded", "errored", "canceled", "expired")
    parts = [f"{getattr(counts, name)} {name}" for name in known if getattr(counts, name)]
    return f"{', '.join(parts) or 'none'} of {counts.total} requests"
