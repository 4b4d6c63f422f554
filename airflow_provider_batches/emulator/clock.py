from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """The emulator's time: runs with the real clock unless a test moves or stops it."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._frozen: float | None = None
        self.on_change: Callable[[], None] = lambda: None

    def now(self) -> float:
        """Return the emulated time in seconds since 1970."""
        return time.time() + self._offset if self._frozen is None else self._frozen

    def advance(self, seconds: float) -> None:
        """Move the clock forward, also while it is frozen.

        :raises ValueError: if ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError("The clock only moves forward.")
        if self._frozen is None:
            self._offset += seconds
        else:
            self._frozen += seconds
        self.on_change()

    def freeze(self) -> None:
        """Stop the clock; only `advance` moves it then."""
        self._frozen = self.now()
        self.on_change()

    def unfreeze(self) -> None:
        """Let the clock run on from where it stands."""
        self._offset = self.now() - time.time()
        self._frozen = None
        self.on_change()

    def state(self) -> dict[str, float | None]:
        """Return what `restore` needs after a restart."""
        return {"offset": self._offset, "frozen": self._frozen}

    def restore(self, offset: float, frozen: float | None) -> None:
        """Take over the clock of an earlier process."""
        self._offset, self._frozen = offset, frozen
