"""Waits in one event loop, as a triggerer runs them: what they cost, and how soon the end of a batch is noticed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from statistics import median
from typing import Any

from benchmarks.measure import Control, Numbers, Pulse, main, memory
from benchmarks.sides import trigger

POLL_INTERVAL = 10.0
#: One wait in so many sees its batch end while it is measured.
ENDING = 10
#: Seconds after the measurement in which the last ends may still be noticed.
PATIENCE = 90.0


class Waits:
    """Runs triggers as Airflow's triggerer does, and notes when their events come."""

    def __init__(self, side: str) -> None:
        self.events: dict[str, tuple[float, dict[str, Any]]] = {}
        self._side = side
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, batch_ids: list[str]) -> None:
        for batch_id in batch_ids:
            # As TriggerRunner.create_triggers does, which lets other tasks run twice for each trigger.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self._tasks.append(asyncio.create_task(self._run(batch_id)))

    async def _run(self, batch_id: str) -> None:
        async for event in trigger(self._side, batch_id, POLL_INTERVAL).run():
            self.events[batch_id] = time.time(), event.payload

    async def until_noticed(self, batch_ids: list[str], seconds: float) -> None:
        """Return once there are events of all these batches, or after so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.events.keys() >= set(batch_ids):  # noqa: ASYNC110
            await asyncio.sleep(0.25)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def run(side: str, url: str, **options: Any) -> Numbers:
    trigger(side, "msgbatch_none", POLL_INTERVAL)  # imports what there is to import
    kinds: dict[str, Callable[..., Coroutine[Any, Any, Numbers]]] = {
        "steady": _steady,
        "behind": _behind,
        "limited": _limited,
    }
    return asyncio.run(kinds[options.pop("kind")](side, Control(url), **options))


async def _steady(side: str, api: Control, count: int, seconds: float) -> Numbers:
    """Many waits: the start, and then a steady state in which some batches end."""
    # The emulator's time stands still until the steady state is reached, however long the start takes.
    frozen = api.call("POST", "clock", {"freeze": True})["now"]
    ends = {}
    for _ in range(count // ENDING):
        left, age = random.uniform(0, seconds), random.uniform(10, 3600)
        (batch_id,) = api.add(age_seconds=age, batch_seconds=age + left)
        ends[batch_id] = frozen + left
    lasting = [
        batch_id
        for _ in range((count - len(ends)) // 10)
        for batch_id in api.add(10, age_seconds=random.uniform(10, 3600))
    ]
    (ended,) = api.add(age_seconds=3700, batch_seconds=60)
    batch_ids = [*ends, *lasting]
    random.shuffle(batch_ids)

    waits, pulse = Waits(side), Pulse()
    before, cpu, clock = memory(), time.process_time(), time.monotonic()
    await waits.start([*batch_ids, ended])
    # The last that was started: when it has been looked at, all have.
    await waits.until_noticed([ended], 600)
    start = {
        "start_seconds": time.monotonic() - clock,
        "start_cpu": time.process_time() - cpu,
        "start_block": pulse.worst,
    }
    start["start_requests"] = sum(api.call("GET", "requests?limit=0")["counts"].values())
    await asyncio.sleep(1.5 * POLL_INTERVAL)

    api.call("DELETE", "requests")
    shift = time.time() - api.call("POST", "clock", {"freeze": False})["now"]
    pulse.reset()
    cpu, clock = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    minutes = (time.monotonic() - clock) / 60
    cpu = time.process_time() - cpu
    sent = api.call("GET", "requests")["requests"]
    steady = {
        "cpu": cpu / minutes,
        "memory": memory("VmHWM") - before,
        "requests_minute": len(sent) / minutes,
        "requests_cycle": len(sent) / minutes * POLL_INTERVAL / 60,
        "requests_burst": _burst(sent),
        "block": pulse.worst,
        "block_cpu": pulse.worst_cpu,
        "block_gc": pulse.worst_gc,
    }
    await waits.until_noticed(list(ends), PATIENCE)
    await waits.stop()
    return {**start, **steady, **_delays(waits, {batch_id: end + shift for batch_id, end in ends.items()})}


async def _behind(side: str, api: Control, count: int, newer: int, seconds: float) -> Numbers:
    """A few waits whose batches stand far down the list."""
    batch_ids = [api.add(age_seconds=7200 + number)[0] for number in range(count)]
    for _ in range(newer // 10):
        api.add(10, age_seconds=random.uniform(10, 7000))
    waits = Waits(side)
    cpu = time.process_time()
    await waits.start(batch_ids)
    await asyncio.sleep(seconds)
    cpu = time.process_time() - cpu
    sent = api.call("GET", "requests")["requests"]
    await waits.stop()
    return {"requests_burst": _burst(sent), "requests_minute": len(sent) * 60 / seconds, "cpu": cpu * 60 / seconds}


async def _limited(side: str, api: Control, count: int, seconds: float, cap: float) -> Numbers:
    """Waits that share a limit of requests a minute."""
    ends = {}
    for _ in range(count):
        left, age = random.uniform(0, seconds), random.uniform(10, 3600)
        (batch_id,) = api.add(age_seconds=age, batch_seconds=age + left)
        ends[batch_id] = time.time() + left
    waits = Waits(side)
    clock = time.monotonic()
    await waits.start(list(ends))
    await waits.until_noticed(list(ends), cap)
    sent = api.call("GET", "requests")["requests"]
    await waits.stop()
    return {
        "seconds": time.monotonic() - clock,
        "requests": len(sent),
        "refused": sum(request["status"] == 429 for request in sent),
        **_delays(waits, ends),
    }


def _delays(waits: Waits, ends: dict[str, float]) -> Numbers:
    """How long after its batch's end each event came."""
    good = {"ended", "success"}
    noticed = [at - ends[id_] for id_, (at, event) in waits.events.items() if id_ in ends and event["status"] in good]
    failed = sum(event["status"] not in good for _, event in waits.events.values())
    return {
        "delay": median(noticed) if noticed else float("nan"),
        "delay_worst": max(noticed, default=float("nan")),
        "failed": failed,
        "unnoticed": len(ends) - len(noticed) - failed,
    }


def _burst(sent: list[dict[str, Any]]) -> int:
    """The most requests within half a poll interval: what one cycle takes at worst."""
    times = [request["time"] for request in sent]
    return max((sum(0 <= other - one < POLL_INTERVAL / 2 for other in times) for one in times[:2000]), default=0)


if __name__ == "__main__":
    main(run)
