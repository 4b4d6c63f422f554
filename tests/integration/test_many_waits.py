"""Hundreds of waits under a limit of requests a minute, as a team on a small tier has it."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.triggers import batches as module
from airflow_provider_batches.triggers.batches import BatchEndedTrigger

POLL_INTERVAL = 3.0
WAITS = 300


async def _event(trigger: BatchEndedTrigger) -> tuple[str, float]:
    async for event in trigger.run():
        return event.payload["status"], time.time()
    raise AssertionError("no event")


async def test_300_waits_under_50_requests_a_minute_all_end_within_two_poll_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRST_POLL", 0.2)
    chance = random.Random(1)
    with Emulator(requests_per_minute=50) as api:
        monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", api.connection_json)
        now = time.time()
        lasting = [chance.uniform(0.5, 2 * POLL_INTERVAL) for _ in range(WAITS)]
        ids = [api.add_batch(requests=3, status="in_progress", batch_seconds=seconds) for seconds in lasting]
        triggers = [
            BatchEndedTrigger(
                batch_id=batch_id,
                conn_id="anthropic_default",
                poll_interval=POLL_INTERVAL,
                start_time=now - chance.uniform(0, 60),
                end_time=now + 60,
            )
            for batch_id in ids
        ]

        events = await asyncio.gather(*map(_event, triggers))

        assert {status for status, _ in events} == {"ended"}
        delays = [at - now - seconds for (_, at), seconds in zip(events, lasting, strict=True)]
        assert max(delays) < 2 * POLL_INTERVAL
        assert [request.status for request in api.requests if request.status == 429] == []
        assert api.count() < 50
    assert not any(module._pollers.values())
