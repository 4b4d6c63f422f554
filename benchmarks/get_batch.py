"""`hook.get_batch`: the first call of a fresh process after its imports, and the same call again and again."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import cache
from statistics import median
from typing import Any

from benchmarks.measure import Control, Numbers, main
from benchmarks.sides import KEY, hook

CALLS = 500


def run(side: str, url: str) -> Numbers:
    (batch_id,) = Control(url).add()
    get = _bare(url) if side == "httpx" else _hook(side)
    gc.collect()
    times, cpu = [], [time.process_time()]
    for _ in range(CALLS + 1):
        start = time.perf_counter()
        get(batch_id)
        times.append(time.perf_counter() - start)
        cpu.append(time.process_time())
    return {
        "first": times[0] * 1000,
        "repeated": median(times[1:]) * 1000,
        "cpu": (cpu[-1] - cpu[0]) / (CALLS + 1) * 1000,
        "cpu_repeated": (cpu[-1] - cpu[1]) / CALLS * 1000,
    }


def _hook(side: str) -> Callable[[str], Any]:
    made = hook(side)
    return lambda batch_id: made.get_batch(batch_id)


def _bare(url: str) -> Callable[[str], Any]:
    """The least that httpx can do: no models, no errors, no retries."""
    import httpx

    @cache
    def client() -> httpx.Client:
        return httpx.Client(base_url=url, headers={"x-api-key": KEY, "anthropic-version": "2023-06-01"})

    return lambda batch_id: client().get(f"/v1/messages/batches/{batch_id}").raise_for_status().json()


if __name__ == "__main__":
    main(run)
