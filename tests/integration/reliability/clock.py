"""Time that a test owns: nobody waits for it, and it is the same for threads, event loops and the emulator."""

from __future__ import annotations

import asyncio
import heapq
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_provider_batches.hooks.batches import look_until

_monotonic = time.monotonic


class Clock:
    """A clock that moves on where somebody sleeps."""

    def __init__(self) -> None:
        self.start = self.now = float(int(time.time()))
        #: How many answers an event loop waits for, so that its timers may not run ahead of them.
        self.awaited = 0
        self._plans: list[tuple[float, int, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        until = self.now + max(0.0, seconds)
        while self._plans and self._plans[0][0] <= until:
            self.now, _, action = heapq.heappop(self._plans)
            action()
        self.now = until

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Do something at a time."""
        heapq.heappush(self._plans, (when, len(self._plans), action))

    @contextmanager
    def awaiting(self) -> Iterator[None]:
        """Let an event loop wait really for what happens in here."""
        self.awaited += 1
        try:
            yield
        finally:
            self.awaited -= 1


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or self._clock.awaited:
            begun = _monotonic()
            events = super().select(timeout)
            self._clock.sleep(_monotonic() - begun)
            return events
        events = super().select(0)
        if not events and timeout > 0:
            # A little more, since a time this large is not exact.
            self._clock.sleep(timeout + 1e-5)
        return events


class Loop(asyncio.SelectorEventLoop):
    """An event loop on a test's clock."""

    def __init__(self, clock: Clock) -> None:
        self._test_clock = clock
        super().__init__(_Selector(clock))

    def time(self) -> float:
        return self._test_clock.now - self._test_clock.start

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = super().run_in_executor(executor, func, *args)
        self._test_clock.awaited += 1
        future.add_done_callback(self._executed)
        return future

    def _executed(self, _: object) -> None:
        self._test_clock.awaited -= 1

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return socket.getaddrinfo(host, port, **options)  # no thread, which would outlive the loop


def install(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the time of this process by a test's; the servers of other threads keep loops of their own."""
    clock = Clock()
    monkeypatch.setitem(look_until.__kwdefaults__, "clock", clock.time)
    monkeypatch.setitem(look_until.__kwdefaults__, "sleep", clock.sleep)
    monkeypatch.setattr(time, "time", clock.time)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock
