from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """The emulator's clock. It runs with the real one, unless a test advances or freezes it."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._frozen: float | None = None
        self.on_change: Callable[[], None] = lambda: None

    def now(self) -> float:
        """Return the emulated time in seconds since the epoch."""
        return time.time() + self._offset if self._frozen is None else self._frozen

    def advance(self, seconds: float) -> None:
        """Move the clock forward, even while it is frozen.

        :raises ValueError: If ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"seconds must not be negative, not {seconds}.")
        if self._frozen is None:
            self._offset += seconds
        else:
            self._frozen += seconds
        self.on_change()

    def freeze(self) -> None:
        """Stop the clock. Until `unfreeze`, only `advance` moves it."""
        self._frozen = self.now()
        self.on_change()

    def unfreeze(self) -> None:
        """Restart the clock from its current time."""
        self._offset = self.now() - time.time()
        self._frozen = None
        self.on_change()

    def state(self) -> dict[str, float | None]:
        """Return the arguments for `restore`."""
        return {"offset": self._offset, "frozen": self._frozen}

    def restore(self, offset: float, frozen: float | None) -> None:
        """Restore the clock of an earlier process."""
        self._offset, self._frozen = offset, frozen
