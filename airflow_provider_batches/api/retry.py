"""Decides whether and when a failed call is retried. The only retry policy of this package."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping

from airflow_provider_batches.api.errors import BatchesError
from airflow_provider_batches.api.evidence import Proof

#: Seconds before the first retry, and the most before a later one, as in the official client.
FIRST_BACKOFF = 0.5
LAST_BACKOFF = 8.0
JITTER = 0.25
#: The most seconds between two attempts, regardless of `retry-after`.
MAX_PAUSE = 60.0
#: Seconds between attempts after a 404.
NOT_FOUND_PAUSES = (1.0, 2.0, 4.0)
#: Seconds between attempts after the key was refused, since keys are rotated; more if the key has worked before.
KEY_PAUSES = (1.0, 3.0, 6.0)
WORKING_KEY_PAUSES = (*KEY_PAUSES, 20.0, 30.0)
#: Seconds before a poller or a patient client retries after a spend limit.
SPEND_LIMIT_PAUSES = (10.0,)


def backoff(attempt: int, error: BatchesError | None = None, chance: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after attempt number `attempt` (from 1) failed with `error`.

    0.5 s doubling to 8 s, minus up to 25 % at random. A longer `retry_after` takes precedence, up to 60 s.
    """
    pause = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt - 1, 10)) * (1 - JITTER * chance())
    retry_after = (error.retry_after if error else None) or 0.0
    return min(MAX_PAUSE, max(pause, retry_after * (1 + JITTER * chance())))


class Retry:
    """Decides after each failure of one call when to retry.

    :param attempts: The number of attempts if the failures prove nothing.
    :param doubts: For failures that may be temporary: the seconds between attempts.
    """

    __slots__ = ("_attempts", "_counts", "_doubts", "failures")
    _retried: tuple[Proof, ...] = (Proof.NOTHING, Proof.RATE_LIMIT)

    def __init__(self, attempts: int, doubts: Mapping[Proof, tuple[float, ...]] | None = None) -> None:
        self._attempts = attempts
        self._doubts = doubts or {}
        #: The number of failed attempts.
        self.failures = 0
        self._counts = Counter[Proof]()

    def pause(self, error: BatchesError) -> float | None:
        """Return the seconds until the next attempt; None to give up."""
        self.failures += 1
        proof = error.evidence.proof
        if error.should_retry and proof not in self._doubts:
            proof = Proof.NOTHING
        if proof in self._doubts:
            left = self._doubts[proof][self._counts[proof] :]
            self._counts[proof] += 1
            return min(MAX_PAUSE, max(left[0], error.retry_after or 0.0)) if left else None
        if proof not in self._retried or error.should_retry is False:
            return None
        self._counts[Proof.NOTHING] += 1
        attempt = self._counts[Proof.NOTHING]
        return backoff(attempt, error) if attempt < self._attempts else None
