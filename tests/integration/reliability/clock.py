"""A simulated clock for tests, so that pauses take no real time. Threads and event loops share it."""

from __future__ import annotations

import asyncio
import heapq
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_batches.api import Throttle
from airflow_provider_batches.teardown import job

_monotonic = time.monotonic
#: The emulator's thread, whose event loop uses real time.
_EMULATOR = "emulator"


class Clock:
    """A clock that advances when code sleeps."""

    def __init__(self) -> None:
        self.start = self.now = float(int(time.time()))
        #: The number of answers that event loops wait for; their timers must not fire before these arrive.
        self.awaited = 0
        #: While it is held, the clock does not advance.
        self.stopped = threading.RLock()
        self._plans: list[tuple[float, int, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.stopped:
            until = self.now + max(0.0, seconds)
            while self._plans and self._plans[0][0] <= until:
                self.now, _, action = heapq.heappop(self._plans)
                action()
            self.now = until

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Run `action` at a time."""
        heapq.heappush(self._plans, (when, len(self._plans), action))

    @contextmanager
    def awaiting(self) -> Iterator[None]:
        """Let event loops spend real time while this context lasts."""
        self.awaited += 1
        try:
            yield
        finally:
            self.awaited -= 1

    def await_thread(self, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """Let event loops spend real time until a thread has ended."""

        def done(_: object) -> None:
            self.awaited -= 1

        self.awaited += 1
        future.add_done_callback(done)
        return future


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
            # Slightly more, because floats of this size are not exact.
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
        return self._test_clock.await_thread(super().run_in_executor(executor, func, *args))

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        with self._test_clock.awaiting():
            await super().shutdown_default_executor()

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return socket.getaddrinfo(host, port, **options)  # no thread, which would outlive the loop


def install(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the time in this process by a test's clock, except in the emulator's event loop."""
    clock = Clock()
    new_event_loop, wrap_future = asyncio.events.new_event_loop, asyncio.wrap_future

    def make() -> asyncio.AbstractEventLoop:
        # The other loops belong to a task: in the main thread, or in the thread that runs its coroutines.
        return new_event_loop() if threading.current_thread().name == _EMULATOR else Loop(clock)

    monkeypatch.setattr(asyncio.events, "new_event_loop", make)
    monkeypatch.setattr(asyncio, "wrap_future", lambda future: clock.await_thread(wrap_future(future)))
    monkeypatch.setattr(time, "time", clock.time)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(job, "time", SimpleNamespace(monotonic=clock.time))
    monkeypatch.setitem(Throttle.__init__.__kwdefaults__, "clock", clock.time)
    return clock
