"""Whether a wait for a batch goes on, and when to look next. Pure: no I/O and no clock of its own.

The worker's loop, the trigger and the poller all ask this one piece, so they cannot drift apart.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from airflow_provider_batches.api.errors import BatchesError, InvalidArgumentError, NotFoundError
from airflow_provider_batches.api.flows import MISSING_PAUSES, missing
from airflow_provider_batches.api.models import MessageBatch, RequestCounts

Status = Literal["ended", "missing", "refused", "timeout"]

#: Seconds before the second look; the pauses double from there up to the poll interval.
FIRST_PAUSE = 2.0
#: The most seconds for which an API that asks to be left alone (`retry-after`) is left alone.
MAX_ASKED_PAUSE = 600.0
#: Seconds between signs of life in the log of a wait in which nothing happens.
SIGN_OF_LIFE = 600.0


def check_seconds(name: str, value: object) -> float:
    """Return a duration in seconds.

    :raises InvalidArgumentError: It is none.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
        raise InvalidArgumentError(f"{name}: got {value!r}; it must be a timedelta or a number of seconds above 0.")
    return float(seconds)


@dataclass(frozen=True)
class Outcome:
    """How a wait ended, for one batch or for several.

    `ended`: all have ended. `missing`: the API does not know one. `refused`: the API will not answer, and asking
    again is no use. `timeout`: the time is over. `snapshot` is the batch as it was last seen, or for several what
    `combine` says of them.
    """

    status: Status
    batch_id: str | list[str]
    message: str
    snapshot: dict[str, Any] | None = None
    error: BatchesError | None = None

    @property
    def request_counts(self) -> RequestCounts:
        """The requests of the batch, or of all batches together."""
        return RequestCounts.model_validate((self.snapshot or {}).get("request_counts", {}))

    def failure(self, *, ignore_if_missing: bool = False, fail_on_partial_error: bool = False) -> str | None:
        """Return why the outcome fails a task, None where it does not.

        :param ignore_if_missing: Whether a batch that the API does not know is success.
        :param fail_on_partial_error: Whether errored or expired requests are failure.
        """
        if self.status == "missing" and ignore_if_missing:
            return None
        if self.status != "ended":
            return self.message
        failed = self.request_counts.errored + self.request_counts.expired
        if failed and fail_on_partial_error:
            return (
                f"{self.message} {failed} requests did not succeed, and fail_on_partial_error is set. The results of "
                "the others can still be read."
            )
        return None

    def ends_the_others(self, *, ignore_if_missing: bool = False) -> bool:
        """Whether a wait for several batches that includes this one has failed, so that the others are pointless."""
        # The time is over for all at once: those that have ended by then count as ended.
        return self.status != "timeout" and self.failure(ignore_if_missing=ignore_if_missing) is not None

    def event(self) -> dict[str, Any]:
        """Return the outcome as plain JSON types, for a trigger's event."""
        return {
            "status": self.status,
            "batch_id": self.batch_id,
            "message": self.message,
            "batch": self.snapshot,
        }

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Outcome:
        """Return the outcome that `event` was made from."""
        return cls(event["status"], event["batch_id"], event["message"], event["batch"])


def combine(batch_ids: list[str], outcomes: Sequence[Outcome], *, ignore_if_missing: bool = False) -> Outcome:
    """Return the outcome of a wait for several batches.

    Its snapshot holds `total`, `ended` and `missing` (IDs), and the `request_counts` of all that have ended.

    :param batch_ids: All that are waited for.
    :param outcomes: How the waits that are over have ended.
    :param ignore_if_missing: Whether a batch that the API does not know counts as done with.
    """
    ended = [outcome for outcome in outcomes if outcome.status == "ended"]
    missing_ids = [str(outcome.batch_id) for outcome in outcomes if outcome.status == "missing"]
    worst: Outcome | None = None
    for status in ("refused", "missing", "timeout"):
        found = [outcome for outcome in outcomes if outcome.status == status]
        if found and not worst and not (status == "missing" and ignore_if_missing):
            worst = found[0]
    totals = Counter[str]()
    for outcome in ended:
        totals.update({name: getattr(outcome.request_counts, name) for name in RequestCounts.model_fields})
    text = f"{len(ended)} of {len(batch_ids)} batches have ended"
    if missing_ids:
        shown = ", ".join(missing_ids[:5]) + (" and more" if len(missing_ids) > 5 else "")
        text += f", {len(missing_ids)} are unknown to the API ({shown})"
    text += f": {_requests(RequestCounts(**totals))}." if ended else "."
    if worst:
        text += f" {worst.message}"
    snapshot = {
        "total": len(batch_ids),
        "ended": len(ended),
        "missing": missing_ids,
        "request_counts": dict(totals),
    }
    return Outcome(worst.status if worst else "ended", batch_ids, text, snapshot, worst.error if worst else None)


@dataclass(frozen=True)
class Verdict:
    """What follows from one look: the wait's outcome, or the seconds until the next look; and what is worth logging."""

    outcome: Outcome | None = None
    pause: float = 0.0
    news: str | None = None


class Wait:
    """Decides, look by look, whether one wait goes on.

    :param batch_id: The batch waited for.
    :param poll_interval: Seconds between looks once the wait has settled; it looks more often at first.
    :param start_time: When the wait began, in seconds since the epoch.
    :param end_time: When it is given up, in seconds since the epoch; the last look is at this time.
    :param first_pause: Seconds between the first look and the second.
    """

    __slots__ = (
        "_failures",
        "_missing",
        "_said",
        "_said_at",
        "_seen",
        "_trouble",
        "batch_id",
        "end_time",
        "first_pause",
        "poll_interval",
        "start_time",
    )

    def __init__(
        self,
        batch_id: str,
        *,
        poll_interval: float,
        start_time: float,
        end_time: float,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self.batch_id = batch_id
        self.poll_interval = poll_interval
        self.start_time = start_time
        self.end_time = end_time
        self.first_pause = first_pause
        #: The last batch, as text: thousands of waits keep theirs, and objects would burden the garbage collector.
        self._seen: str | None = None
        self._trouble: BatchesError | None = None
        self._missing = 0
        self._failures = 0
        self._said = ""
        self._said_at = 0.0

    @property
    def answered(self) -> bool:
        """Whether a look has brought anything."""
        return self._seen is not None or self._trouble is not None

    @property
    def doubtful(self) -> bool:
        """Whether the API has said that it does not know the batch, though not often enough to be believed.

        The next look should not be put off then: another wait would begin to doubt anew.
        """
        return 0 < self._missing <= len(MISSING_PAUSES)

    def heard(self, answer: MessageBatch | BatchesError, now: float) -> Verdict:
        """Judge what a look at `now` (seconds since the epoch) brought."""
        if isinstance(answer, MessageBatch):
            return self._heard_batch(answer, now)
        self._trouble = answer
        if isinstance(answer, NotFoundError):
            return self._heard_404(answer, now)
        # Not `passing`: whatever an answer says of itself, an outage does not end a wait, and a wrong key does.
        if not answer.transient:
            return Verdict(self._outcome("refused", str(answer), answer))
        self._failures += 1
        return self._go_on(self._settling(2.0 ** min(self._failures, 20)), now, answer)

    def _heard_batch(self, batch: MessageBatch, now: float) -> Verdict:
        self._seen = batch.model_dump_json()
        self._trouble, self._missing, self._failures = None, 0, 0
        if batch.ended:
            return Verdict(self._outcome("ended", f"Batch {self.batch_id} has ended: {describe(batch)}."))
        return self._go_on(self._settling(now - self.start_time), now, batch)

    def _heard_404(self, error: NotFoundError, now: float) -> Verdict:
        self._missing += 1
        if self._missing <= len(MISSING_PAUSES):
            return self._go_on(MISSING_PAUSES[self._missing - 1], now, error)
        believed = missing(self.batch_id, error)
        return Verdict(self._outcome("missing", str(believed), believed))

    def _settling(self, pause: float) -> float:
        return min(self.poll_interval, max(self.first_pause, pause))

    def _go_on(self, pause: float, now: float, answer: MessageBatch | BatchesError) -> Verdict:
        if now >= self.end_time:
            return Verdict(self._outcome("timeout", self._timeout_text(), self._trouble))
        asked = min(MAX_ASKED_PAUSE, self._trouble.retry_after or 0.0) if self._trouble else 0.0
        pause = min(max(pause, asked), self.end_time - now)
        return Verdict(pause=pause, news=self._news(answer, pause, now))

    def _outcome(self, status: Status, message: str, error: BatchesError | None = None) -> Outcome:
        return Outcome(status, self.batch_id, message, json.loads(self._seen) if self._seen else None, error)

    def _news(self, answer: MessageBatch | BatchesError, pause: float, now: float) -> str | None:
        """Return a line where something has changed, and now and then where nothing has."""
        key = answer.processing_status if isinstance(answer, MessageBatch) else type(answer).__name__
        if key == self._said and now - self._said_at < SIGN_OF_LIFE:
            return None
        self._said, self._said_at = key, now
        if isinstance(answer, MessageBatch):
            return f"Batch {self.batch_id} is {describe(answer)}; looking again in {pause:.0f} s."
        return f"{answer} Looking again in {pause:.0f} s."

    def _timeout_text(self) -> str:
        until = datetime.fromtimestamp(self.end_time, timezone.utc).isoformat(timespec="seconds")
        batch = MessageBatch.model_validate_json(self._seen) if self._seen else None
        seen = f"it was last seen {describe(batch)}" if batch else "no look at it succeeded lately"
        trouble = f"; the last answer: {str(self._trouble).rstrip('.')}" if self._trouble else ""
        return (
            f"Batch {self.batch_id} had not ended at {until}, after {self.end_time - self.start_time:.0f} s: "
            f"{seen}{trouble}. The batch itself goes on: wait longer (timeout), or cancel it."
        )


def describe(batch: MessageBatch) -> str:
    """Return the batch's state for people, for example `in_progress (100 requests)`."""
    counts = batch.request_counts
    if not batch.ended:
        created = batch.created_at.isoformat(timespec="seconds")
        return f"{batch.processing_status} ({counts.total} requests, created {created})"
    return _requests(counts)


def _requests(counts: RequestCounts) -> str:
    known = ("succeeded", "errored", "canceled", "expired")
    parts = [f"{getattr(counts, name)} {name}" for name in known if getattr(counts, name)]
    return f"{', '.join(parts) or 'none'} of {counts.total} requests"
