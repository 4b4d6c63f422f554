"""What the measuring processes share. Standard library only: it runs in the official provider's environment too.

A case is a function `run(side, url, **options)` that returns numbers by name, in a module that is run by itself:

    python -m benchmarks.imports '{"side": "ours"}'
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

Numbers = dict[str, float]


def main(run: Callable[..., Numbers]) -> None:
    """Run a case with the options of the command line and print its numbers as one JSON line."""
    out = os.fdopen(os.dup(1), "w")
    # What the measured code logs is formatted as ever, and then dropped.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    print(json.dumps(run(**json.loads(sys.argv[1]))), file=out, flush=True)


def memory(field: str = "VmRSS") -> float:
    """Return the MB this process uses now, or has used at most (`VmHWM`)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


class Control:
    """Steers the emulator."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc

    def call(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection(self._host)
        with closing(connection):
            connection.request(method, f"/_emulator/{path}", None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
        if answer.status != 200:
            raise RuntimeError(text.decode())
        return json.loads(text)

    def add(self, count: int = 1, **batch: Any) -> list[str]:
        """Make batches that do not end by themselves, or as `batch` says; return their IDs."""
        ids: list[str] = self.call("POST", "batches", {"count": count, "batch_seconds": 20_000, **batch})["ids"]
        return ids


class Pulse:
    """Feels an event loop's pulse: for how long it was blocked at worst, and by garbage collection.

    It looks at the times at which the loop waits for the next thing to happen. A timer would cost more than what is
    measured: half a second of CPU in a minute.
    """

    def __init__(self) -> None:
        selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        self._select: Callable[[float | None], Any] = selector.select
        selector.select = self._timed_select
        gc.callbacks.append(self._collected)
        self.reset()

    def reset(self) -> None:
        self.worst = self.worst_cpu = self.worst_gc = 0.0
        self._woke, self._cpu = time.perf_counter(), time.thread_time()

    def _timed_select(self, timeout: float | None) -> Any:
        self.worst = max(self.worst, time.perf_counter() - self._woke)
        self.worst_cpu = max(self.worst_cpu, time.thread_time() - self._cpu)
        found = self._select(timeout)
        self._woke, self._cpu = time.perf_counter(), time.thread_time()
        return found

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_started = time.perf_counter()
        else:
            self.worst_gc = max(self.worst_gc, time.perf_counter() - self._gc_started)
            # In whichever thread it runs, nothing else does meanwhile.
            self.worst = max(self.worst, self.worst_gc)
