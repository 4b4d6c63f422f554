"""Whether a failed call is retried, and when: the one policy for calls, waits and whoever reads results again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping

from airflow_provider_batches.api.errors import BatchesError
from airflow_provider_batches.api.evidence import Proof

#: Seconds before the first retry and at most before a later one, as the reference client has them.
FIRST_BACKOFF = 0.5
LAST_BACKOFF = 8.0
JITTER = 0.25
#: No answer can make a call wait longer than this, in seconds.
MAX_PAUSE = 60.0
#: Seconds between retrievals of a batch that the API says it does not know; after the last one it is believed.
NOT_FOUND_PAUSES = (1.0, 2.0, 4.0)
#: The same for a refused key, which may have been rotated; the second is for one that has worked before.
KEY_PAUSES = (1.0, 3.0, 6.0)
WORKING_KEY_PAUSES = (*KEY_PAUSES, 20.0, 30.0)
#: Seconds before a poller or a patient client believes a spend limit.
SPEND_LIMIT_PAUSES = (10.0,)


def backoff(attempt: int, error: BatchesError | None = None, chance: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after attempt number `attempt` (from 1) failed with `error`.

    0.5 s doubling to 8 s, up to a quarter taken off at random; a `retry_after` that asks for more wins, up to 60 s.
    """
    pause = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt - 1, 10)) * (1 - JITTER * chance())
    asked = (error.retry_after if error else None) or 0.0
    return min(MAX_PAUSE, max(pause, asked * (1 + JITTER * chance())))


class Retry:
    """Says after each failure of one call when to try again.

    :param attempts: How often a call is made in all if its failures prove nothing.
    :param doubts: Seconds between the attempts after failures that are believed only if they last.
    """

    __slots__ = ("_attempts", "_counts", "_doubts", "failures")
    _retried: tuple[Proof, ...] = (Proof.NOTHING, Proof.RATE_LIMIT)

    def __init__(self, attempts: int, doubts: Mapping[Proof, tuple[float, ...]] | None = None) -> None:
        self._attempts = attempts
        self._doubts = doubts or {}
        #: How often the call has failed.
        self.failures = 0
        self._counts = Counter[Proof]()

    def pause(self, error: BatchesError) -> float | None:
        """Return the seconds until the next attempt, None to give up."""
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
