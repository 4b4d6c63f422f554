"""What all calls of a client share: a pace, a pause after a 429, and what is known of an outage."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from airflow_provider_batches.api.errors import BatchesError
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.retry import Retry, backoff

log = logging.getLogger(__name__)

#: Seconds between calls after the first 429; each further one doubles them, each answer takes a part off again.
FIRST_GAP = 0.05
LAST_GAP = 2.0
EASE = 0.9
#: Seconds without an answer after which a patient client gives up a call that meets 429 after 429.
RATE_LIMIT_SECONDS = 3600.0
#: Seconds of an outage that a patient client outlasts, and between the attempts of a call meanwhile.
OUTAGE_SECONDS = 900.0
OUTAGE_PAUSE = 30.0


class Throttle:
    """Says when the next call may start. Clients in several threads can share one.

    :param requests_per_minute: The most calls a minute. None: as many as the API takes.
    :param patient: Whether calls outlast outages and rate limits instead of failing after their usual attempts.
    :param has_answered: Whether the API is known to have answered at this address before.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        *,
        patient: bool = False,
        has_answered: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.patient = patient
        #: Whether a right answer has come from the base URL.
        self.has_answered = has_answered
        #: How many calls the API has answered, refusals included.
        self.answers = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._least_gap = self._gap = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next = self._held_until = 0.0
        self._holds = 0
        self._answered_at = clock()
        self._down_since: float | None = None
        self._is_outlasting = False

    def delay(self) -> float:
        """Return the seconds until the next call may start; if there are none, the caller takes its turn now."""
        with self._lock:
            now = self._clock()
            start = max(self._next, self._held_until)
            if start <= now:
                self._next = now + self._gap
            return max(0.0, start - now)

    @property
    def hold_seconds(self) -> float:
        """Seconds for which all calls are held after a 429; 0 if they are not."""
        return max(0.0, self._held_until - self._clock())

    def retry(self, attempts: int, doubts: Mapping[Proof, tuple[float, ...]]) -> Retry:
        """Return what says when a call that has failed for the first time is tried again."""
        return _PatientRetry(attempts, doubts, self) if self.patient else Retry(attempts, doubts)

    def on_answer(self) -> None:
        """Note a right answer."""
        self.has_answered = True
        self._is_up()

    def on_error(self, error: BatchesError) -> None:
        """Note a call that failed."""
        if error.evidence.proof is Proof.RATE_LIMIT:
            self._hold(error)
        elif error.evidence.outage:
            with self._lock:
                self._down_since = self._clock() if self._down_since is None else self._down_since
        elif error.evidence.proof is not Proof.WRONG_ADDRESS:
            self._is_up()

    def gave_up(self, error: BatchesError) -> bool:
        """Whether the API is out of reach for all calls: it has never answered, or not for a long time."""
        if error.evidence.outage:
            return self._down_since is not None and not self.outlasts(error)
        return error.evidence.proof is Proof.WRONG_ADDRESS

    def outlasts(self, error: BatchesError) -> bool:
        """Whether what the error is part of is worth outlasting: an outage, or a rate limit."""
        if error.evidence.proof is Proof.RATE_LIMIT:
            return self._clock() - self._answered_at < RATE_LIMIT_SECONDS
        since = self._down_since
        return self.has_answered and (since is None or self._clock() - since < OUTAGE_SECONDS)

    def outlast(self, error: BatchesError) -> float:
        """Return the seconds until the next attempt in an outage; the first one is logged."""
        with self._lock:
            was_outlasting, self._is_outlasting = self._is_outlasting, True
        if not was_outlasting:
            log.warning("%s All calls wait until the API answers again, %.0f s at most.", error, OUTAGE_SECONDS)
        return max(OUTAGE_PAUSE, backoff(1, error))

    def _is_up(self) -> None:
        with self._lock:
            self._answered_at, self._holds, self._down_since = self._clock(), 0, None
            self.answers += 1
            self._gap = max(self._least_gap, self._gap * EASE if self._gap > FIRST_GAP / 10 else 0.0)
            was_outlasting, self._is_outlasting = self._is_outlasting, False
        if was_outlasting:
            log.info("The API answers again")

    def _hold(self, error: BatchesError) -> None:
        with self._lock:
            now = self._clock()
            if now < self._held_until:
                return
            self._holds += 1
            pause = backoff(self._holds, error)
            self._held_until = now + pause
            self._gap = min(LAST_GAP, max(2 * self._gap, FIRST_GAP))
        log.info("The rate limit is reached: all calls are held for %.1f s", pause)


class _PatientRetry(Retry):
    """Outlasts outages and rate limits: attempts between which nobody was answered do not count."""

    __slots__ = ("_answers", "_in_vain", "_throttle")
    _retried = (*Retry._retried, Proof.WRONG_ADDRESS)

    def __init__(self, attempts: int, doubts: Mapping[Proof, tuple[float, ...]], throttle: Throttle) -> None:
        super().__init__(attempts, doubts)
        self._throttle = throttle
        self._answers = throttle.answers
        self._in_vain = 0

    def pause(self, error: BatchesError) -> float | None:
        """Return the seconds until the next attempt, None to give up."""
        throttle, answers = self._throttle, self._throttle.answers
        in_vain = error.evidence.outage and answers == self._answers
        self._answers, self._in_vain = answers, self._in_vain + 1 if in_vain else 0
        is_held = error.evidence.proof is Proof.RATE_LIMIT and error.should_retry is not False
        if not in_vain and not is_held:
            return super().pause(error)
        self.failures += 1
        if in_vain and self._in_vain < self._attempts:
            return backoff(self._in_vain, error)
        if not throttle.outlasts(error):
            return None
        return 0.0 if is_held else throttle.outlast(error)
