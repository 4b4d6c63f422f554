"""Says now and then how far a step over many batches has come. Pure but for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds between lines.
INTERVAL = 30.0


class Progress:
    """Counts one step.

    :param step: What is done, for example `Deleting`.
    :param total: For how many batches.
    :param say: Takes the lines.
    """

    def __init__(
        self, step: str, total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._step = step
        self._total = total
        self._say = say
        self._clock = clock
        self._done = 0
        self._began = self._said = clock()

    def advance(self) -> None:
        """Count one more batch."""
        self._done += 1
        now = self._clock()
        if now - self._said < INTERVAL and self._done < self._total:
            return
        self._said = now
        seconds = max(now - self._began, 0.001)
        rate = self._done / seconds
        left = f", about {(self._total - self._done) / rate:.0f} s left" if self._done < self._total else ""
        self._say(f"{self._step}: {self._done:,} of {self._total:,} batches in {seconds:.1f} s ({rate:.1f}/s{left})")
