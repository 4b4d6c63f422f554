"""Decides whether a wait for a batch continues, and when to poll next. No I/O, no clock."""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timezone

from airflow_provider_batches.api import BatchesError, MessageBatch, NotFoundError
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.flows import not_found
from airflow_provider_batches.api.retry import (
    KEY_PAUSES,
    NOT_FOUND_PAUSES,
    SPEND_LIMIT_PAUSES,
    WORKING_KEY_PAUSES,
    Retry,
)
from airflow_provider_batches.waiting.outcome import Outcome, Status, describe

#: Seconds between the first poll and the second. Later pauses double, up to the poll interval.
SECOND_POLL = 2.0
#: The most seconds that a `retry-after` delays the next poll.
MAX_RETRY_AFTER = 600.0
#: Seconds between log lines while nothing changes.
LOG_EVERY = 600.0
#: Failures that end a wait only if they persist, and the seconds between the polls until then.
_DOUBTS = {
    Proof.NOT_FOUND: NOT_FOUND_PAUSES,
    Proof.KEY_REFUSED: WORKING_KEY_PAUSES,
    Proof.SPEND_LIMIT: SPEND_LIMIT_PAUSES,
    Proof.WRONG_ADDRESS: (2.0, 4.0, 8.0, 16.0, 32.0),
}


@dataclass(frozen=True)
class Verdict:
    """The result of one poll.

    :param outcome: How the wait ends. None: it continues.
    :param pause: Seconds until the next poll.
    :param log_message: The message to log, if any.
    :param unconfirmed: Whether the outcome is valid only if the list does not have the batch either.
    """

    outcome: Outcome | None = None
    pause: float = 0.0
    log_message: str | None = None
    unconfirmed: bool = False


@dataclass(slots=True, eq=False)
class Wait:
    """Decides after each poll whether one wait continues.

    :param batch_id: The batch.
    :param poll_interval: Seconds between polls in the long run; at first, polls are more frequent.
    :param start_time: When the wait began, in seconds since the epoch.
    :param end_time: When it times out, in seconds since the epoch; the last poll is at this time.
    :param second_poll: Seconds between the first poll and the second.
    :param seen_since: If the batch has been seen: when it was created, or an earlier time, in seconds since the epoch.
    :param confirm: Whether to check the list before a batch that was never seen counts as missing.
    """

    batch_id: str
    _: KW_ONLY
    poll_interval: float
    start_time: float
    end_time: float
    second_poll: float = SECOND_POLL
    seen_since: float | None = None
    confirm: bool = False
    #: When the batch was created, in seconds since the epoch; None before the first answer.
    created_at: float | None = field(default=None, init=False)
    #: The last state as JSON text: with thousands of waits, objects would burden the garbage collector.
    _seen: str | None = field(default=None, init=False)
    _error: BatchesError | None = field(default=None, init=False)
    _retry: Retry | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)
    _logged: str = field(default="", init=False)
    _logged_at: float = field(default=0.0, init=False)

    @property
    def doubtful(self) -> bool:
        """Whether a failure is being confirmed. Another process would have to start over."""
        return self._error is not None and self._error.evidence.proof in _DOUBTS

    def on_answer(self, answer: MessageBatch | BatchesError, now: float) -> Verdict:
        """Return the verdict on the answer to a poll at `now`, in seconds since the epoch."""
        if isinstance(answer, MessageBatch):
            return self._on_batch(answer, now)
        self._error = answer
        proof = answer.evidence.proof
        if proof in _DOUBTS:
            has_worked = self.seen_since is not None
            self._retry = self._retry or Retry(1, _DOUBTS if has_worked else _DOUBTS | {Proof.KEY_REFUSED: KEY_PAUSES})
            pause = self._retry.pause(answer)
            if pause is not None:
                return self._continue(pause, now, answer)
            if isinstance(answer, NotFoundError):
                error = not_found(self.batch_id, answer)
                unconfirmed = self.confirm or self.seen_since is not None
                return Verdict(self._end("missing", str(error), error), unconfirmed=unconfirmed)
        # Not `retryable`: an outage does not end a wait, even if the answer forbids retries.
        if proof not in (Proof.NOTHING, Proof.RATE_LIMIT):
            return Verdict(self._end("refused", str(answer), answer))
        self._failures += 1
        return self._continue(self._bounded(2.0 ** min(self._failures, 20)), now, answer)

    def _on_batch(self, batch: MessageBatch, now: float) -> Verdict:
        self._seen = batch.model_dump_json()
        self.seen_since = batch.listed_since.timestamp()
        self.created_at = self.seen_since if batch.created_at else None
        self._error, self._retry, self._failures = None, None, 0
        if batch.ended:
            return Verdict(self._end("ended", f"Batch {self.batch_id} has ended: {describe(batch)}."))
        return self._continue(self._bounded(now - self.start_time), now, batch)

    def _bounded(self, pause: float) -> float:
        return min(self.poll_interval, max(self.second_poll, pause))

    def _continue(self, pause: float, now: float, answer: MessageBatch | BatchesError) -> Verdict:
        if now >= self.end_time:
            return Verdict(self._end("timeout", self._timeout_text(), self._error))
        retry_after = min(MAX_RETRY_AFTER, self._error.retry_after or 0.0) if self._error else 0.0
        pause = min(max(pause, retry_after), self.end_time - now)
        return Verdict(pause=pause, log_message=self._log_message(answer, pause, now))

    def _end(self, status: Status, message: str, error: BatchesError | None = None) -> Outcome:
        snapshot = json.loads(self._seen) if self._seen else None
        retryable = status == "refused" and error is not None and type(error).retryable
        return Outcome(status, self.batch_id, message, snapshot, error, retryable)

    def _log_message(self, answer: MessageBatch | BatchesError, pause: float, now: float) -> str | None:
        """Return a message if the state has changed, or if the last one is LOG_EVERY seconds old."""
        key = answer.processing_status if isinstance(answer, MessageBatch) else type(answer).__name__
        if key == self._logged and now - self._logged_at < LOG_EVERY:
            return None
        self._logged, self._logged_at = key, now
        if isinstance(answer, MessageBatch):
            return f"Batch {self.batch_id} is {describe(answer)}; next poll in {pause:.0f} s."
        return f"{answer} Next poll in {pause:.0f} s."

    def _timeout_text(self) -> str:
        until = datetime.fromtimestamp(self.end_time, timezone.utc).isoformat(timespec="seconds")
        batch = MessageBatch.model_validate_json(self._seen) if self._seen else None
        seen = f"its last known state is {describe(batch)}" if batch else "no poll has succeeded recently"
        error_text = f"; the last answer: {str(self._error).rstrip('.')}" if self._error else ""
        return (
            f"Batch {self.batch_id} had not ended at {until}, after {self.end_time - self.start_time:.0f} s: "
            f"{seen}{error_text}. The batch is still running. Increase `timeout`, or cancel it."
        )
