"""Paces all calls of a client: the rate limit, the pause after a 429, and the state of an outage."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from airflow_provider_batches.api.errors import BatchesError
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.retry import Retry, backoff

log = logging.getLogger(__name__)

#: Seconds between calls after the first 429. Each further 429 doubles them, and each answer reduces them by 10 %.
FIRST_GAP = 0.05
LAST_GAP = 2.0
EASE = 0.9
#: Seconds of nothing but 429 after which a patient client gives up.
RATE_LIMIT_SECONDS = 3600.0
#: Seconds of an outage after which a patient client gives up, and between its attempts until then.
OUTAGE_SECONDS = 900.0
OUTAGE_PAUSE = 30.0


class Throttle:
    """Decides when the next call may start. Clients in several threads can share one.

    :param requests_per_minute: The most calls per minute. Default None: no limit until a 429.
    :param patient: Whether calls keep retrying during outages and rate limits, beyond their usual attempts.
    :param has_answered: Whether this base URL has answered correctly before.
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
        #: Whether this base URL has answered correctly.
        self.has_answered = has_answered
        #: The number of answered calls, including refused ones.
        self.answers = 0
        #: The number of attempts that were started, and of those that were answered with a 429.
        self.attempts = self.refusals = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._min_gap = self._gap = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next = self._held_until = 0.0
        self._holds = 0
        self._answered_at = clock()
        self._down_since: float | None = None
        self._is_outlasting = False

    def delay(self) -> float:
        """Return the seconds until the next call may start. 0 reserves the start for the caller."""
        with self._lock:
            now = self._clock()
            start = max(self._next, self._held_until)
            if start <= now:
                self._next = now + self._gap
                self.attempts += 1
            return max(0.0, start - now)

    @property
    def hold_seconds(self) -> float:
        """The remaining seconds of the pause after a 429, or 0."""
        return max(0.0, self._held_until - self._clock())

    def retry(self, attempts: int, doubts: Mapping[Proof, tuple[float, ...]]) -> Retry:
        """Return the retry policy for a call that has failed for the first time."""
        return _PatientRetry(attempts, doubts, self) if self.patient else Retry(attempts, doubts)

    def on_answer(self) -> None:
        """Record a correct answer."""
        self.has_answered = True
        self._record_answer()

    def on_error(self, error: BatchesError) -> None:
        """Record a failed call."""
        if error.evidence.proof is Proof.RATE_LIMIT:
            self.refusals += 1
            self._hold(error)
        elif error.evidence.outage:
            with self._lock:
                self._down_since = self._clock() if self._down_since is None else self._down_since
        elif error.evidence.proof is not Proof.WRONG_ADDRESS:
            self._record_answer()

    def gave_up(self, error: BatchesError) -> bool:
        """Whether further calls cannot help: the API has never answered, or its outage has lasted too long."""
        if error.evidence.outage:
            return self._down_since is not None and not self.outlasts(error)
        return error.evidence.proof is Proof.WRONG_ADDRESS

    def outlasts(self, error: BatchesError) -> bool:
        """Whether to keep retrying: the outage or the rate limit has not lasted too long."""
        if error.evidence.proof is Proof.RATE_LIMIT:
            return self._clock() - self._answered_at < RATE_LIMIT_SECONDS
        since = self._down_since
        return self.has_answered and (since is None or self._clock() - since < OUTAGE_SECONDS)

    def outlast(self, error: BatchesError) -> float:
        """Return the seconds until the next attempt in an outage. Logs the outage once."""
        with self._lock:
            was_outlasting, self._is_outlasting = self._is_outlasting, True
        if not was_outlasting:
            log.warning("%s All calls wait until the API answers again, for at most %.0f s.", error, OUTAGE_SECONDS)
        return max(OUTAGE_PAUSE, backoff(1, error))

    def _record_answer(self) -> None:
        with self._lock:
            self._answered_at, self._holds, self._down_since = self._clock(), 0, None
            self.answers += 1
            self._gap = max(self._min_gap, self._gap * EASE if self._gap > FIRST_GAP / 10 else 0.0)
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
        log.info("Rate limit reached: all calls pause for %.1f s", pause)


class _PatientRetry(Retry):
    """Keeps retrying during outages and rate limits: attempts do not count while no call is answered."""

    __slots__ = ("_answers", "_throttle", "_unanswered")
    _retried = (*Retry._retried, Proof.WRONG_ADDRESS)

    def __init__(self, attempts: int, doubts: Mapping[Proof, tuple[float, ...]], throttle: Throttle) -> None:
        super().__init__(attempts, doubts)
        self._throttle = throttle
        self._answers = throttle.answers
        self._unanswered = 0

    def pause(self, error: BatchesError) -> float | None:
        """Return the seconds until the next attempt; None to give up."""
        throttle, answers = self._throttle, self._throttle.answers
        unanswered = error.evidence.outage and answers == self._answers
        self._answers, self._unanswered = answers, self._unanswered + 1 if unanswered else 0
        is_held = error.evidence.proof is Proof.RATE_LIMIT and error.should_retry is not False
        if not unanswered and not is_held:
            return super().pause(error)
        self.failures += 1
        if unanswered and self._unanswered < self._attempts:
            return backoff(self._unanswered, error)
        if not throttle.outlasts(error):
            return None
        return 0.0 if is_held else throttle.outlast(error)
