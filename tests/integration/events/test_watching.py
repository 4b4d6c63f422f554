"""Batches that end, as the trigger of a watcher sees them, against the emulator."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from airflow_provider_batches import _metrics
from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.triggers import events
from airflow_provider_batches.triggers.batches import _pollers, poller_of
from airflow_provider_batches.waiting import watch as watching
from airflow_provider_batches.waiting.cursor import Cursor
from airflow_provider_batches.waiting.wait import Wait

INTERVAL = 0.1


class Memory:
    """What is stored of a trigger."""

    value: Any = None
    sets = 0

    def __init__(self, *_: Any) -> None:
        """There is one."""

    async def get(self) -> Any:
        return Memory.value

    async def set(self, value: Any) -> None:
        Memory.value, Memory.sets = value, Memory.sets + 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EventMemory", Memory)
    monkeypatch.setattr(events, "MIN_INTERVAL", 0.01)
    monkeypatch.setattr(events, "RESTART_SECONDS", 0.1)
    monkeypatch.setattr(watching, "RETRY_SECONDS", 0.3)
    Memory.value, Memory.sets = None, 0


@pytest.fixture
def trigger(batches_emulator: Emulator) -> Callable[..., events.BatchesEndedTrigger]:
    def make(**options: Any) -> events.BatchesEndedTrigger:
        return events.BatchesEndedTrigger(**{"poll_interval": INTERVAL, "reminder": 0, **options})

    return make


class Watcher:
    """Runs a trigger, and collects its events."""

    def __init__(self, trigger: events.BatchesEndedTrigger) -> None:
        self.events: list[dict[str, Any]] = []
        self._task = asyncio.create_task(self._run(trigger))

    async def _run(self, trigger: events.BatchesEndedTrigger) -> None:
        async for event in trigger.run():
            self.events.append(event.payload)

    @property
    def ids(self) -> list[str]:
        return [batch["id"] for event in self.events for batch in event["batches"]]

    async def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{len(self.ids)} announced"
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def looked(api: Emulator, count: int = 2) -> None:
    """Return after some looks."""
    before = api.count("list")
    while api.count("list") < before + count:  # noqa: ASYNC110 - the emulator is in another thread
        await asyncio.sleep(0.01)


@pytest.fixture
async def watch(trigger: Callable[..., events.BatchesEndedTrigger]) -> AsyncIterator[Callable[..., Watcher]]:
    watchers: list[Watcher] = []

    def start(**options: Any) -> Watcher:
        watchers.append(Watcher(trigger(**options)))
        return watchers[-1]

    yield start
    for each in watchers:
        await each.stop()
    assert not any(_pollers.values())


async def test_events_count_in_airflows_metrics(
    watch: Callable[..., Watcher], batches_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, Any]] = []

    class Stats:
        def __getattr__(self, kind: str) -> Callable[..., None]:
            return lambda name, value, tags: sent.append((name.removeprefix("message_batches."), value))

    monkeypatch.setattr(_metrics, "stats", Stats)
    for _ in range(3):
        batches_emulator.add_batch(4, status="in_progress", batch_seconds=3600)
    watcher = watch()
    await looked(batches_emulator)
    batches_emulator.clock.advance(3700)
    await watcher.until(lambda: watcher.events)

    assert sum(value for name, value in sent if name == "announced") == 3
    assert ("poller.waits", 3) in sent
    assert sum(value for name, value in sent if name == "poller.requests") >= 3
    # The emulator's clock is ahead of this machine's.
    assert [value.total_seconds() for name, value in sent if name == "end_delay"] == [0.0]


async def test_a_batch_that_ends_is_an_event_and_those_that_ended_before_are_none(
    watch: Callable[..., Watcher], batches_emulator: Emulator
) -> None:
    batches_emulator.add_batch(status="ended", age_seconds=4000)
    running = batches_emulator.add_batch(4, status="in_progress", batch_seconds=3600)
    watcher = watch()
    await looked(batches_emulator)
    assert watcher.events == []
    batches_emulator.clock.advance(3700)
    await watcher.until(lambda: watcher.events)

    (event,) = watcher.events
    assert event["conn_id"] == "anthropic_default"
    (batch,) = event["batches"]
    assert (batch["id"], batch["request_counts"]["succeeded"]) == (running, 4)
    assert set(batch) == {"id", "created_at", "ended_at", "request_counts"}


async def test_an_end_shortly_before_the_first_start_does_not_count(
    watch: Callable[..., Watcher], batches_emulator: Emulator
) -> None:
    before = batches_emulator.add_batch(status="ended", age_seconds=3660)
    after = batches_emulator.add_batch(1, status="in_progress", batch_seconds=30)
    watcher = watch()
    await looked(batches_emulator)
    batches_emulator.clock.advance(40)
    await watcher.until(lambda: watcher.ids)
    await looked(batches_emulator)

    assert (watcher.ids, before in watcher.ids) == ([after], False)


async def test_ends_before_the_first_start_count_if_asked_for(
    watch: Callable[..., Watcher], batches_emulator: Emulator
) -> None:
    old = batches_emulator.add_batch(status="ended", age_seconds=86_400)
    recent = batches_emulator.add_batch(status="ended", age_seconds=4000)
    watcher = watch(look_back=7200.0)
    await watcher.until(lambda: watcher.events)

    assert (watcher.ids, old in watcher.ids) == ([recent], False)


async def test_a_thousand_ends_in_one_look_are_one_event(
    watch: Callable[..., Watcher], batches_emulator: Emulator
) -> None:
    expected = {batches_emulator.add_batch(1, status="in_progress", batch_seconds=600) for _ in range(1000)}
    watcher = watch()
    await looked(batches_emulator)
    batches_emulator.clock.advance(700)
    await watcher.until(lambda: watcher.events)
    await looked(batches_emulator, 5)

    assert len(watcher.events) == 1
    assert set(watcher.ids) == expected
    assert "ended_at" in watcher.events[0]["batches"][0]


async def test_very_many_are_ids_only(
    watch: Callable[..., Watcher], batches_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_DETAILED", 100)
    for _ in range(101):
        batches_emulator.add_batch(1, status="in_progress", batch_seconds=600)
    watcher = watch()
    await looked(batches_emulator)
    batches_emulator.clock.advance(700)
    await watcher.until(lambda: len(watcher.ids) == 101)

    assert set(watcher.events[0]["batches"][0]) == {"id"}


async def test_20_restarts_at_random_moments_lose_no_end(
    watch: Callable[..., Watcher], batches_emulator: Emulator
) -> None:
    chance = random.Random(7)
    batches = [
        batches_emulator.add_batch(1, status="in_progress", batch_seconds=chance.uniform(1, 600)) for _ in range(200)
    ]
    announced: list[str] = []
    for _ in range(20):
        watcher = watch()
        await asyncio.sleep(chance.uniform(0, 4 * INTERVAL))
        batches_emulator.clock.advance(30)
        await asyncio.sleep(chance.uniform(0, 2 * INTERVAL))
        await watcher.stop()
        announced += watcher.ids
    watcher = watch()
    await watcher.until(lambda: set(announced + watcher.ids) == set(batches))

    # An event whose cursor was not stored is fired again.
    assert len(announced) + len(watcher.ids) < 2 * len(batches)


async def test_a_deleted_batch_and_one_that_appears_late_do_not_disturb(
    watch: Callable[..., Watcher], batches_emulator: Emulator
) -> None:
    from dataclasses import replace

    watcher = watch()
    await looked(batches_emulator)
    batches_emulator.behavior = replace(batches_emulator.behavior, list_lag=200.0)
    late = batches_emulator.add_batch(1, status="in_progress", batch_seconds=100)
    await looked(batches_emulator)
    batches_emulator.clock.advance(250)
    await watcher.until(lambda: late in watcher.ids)

    assert watcher.ids == [late]


async def test_a_batch_that_cannot_be_read_disturbs_neither_the_watch_nor_a_wait(
    watch: Callable[..., Watcher],
    batches_emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from airflow_provider_batches.api.models import read_batch

    broken = batches_emulator.add_batch(1, status="in_progress", batch_seconds=36_000)
    running = batches_emulator.add_batch(1, status="in_progress", batch_seconds=600)

    def read(raw: dict[str, Any]) -> Any:
        return read_batch({**raw, "request_counts": None} if raw["id"] == broken else raw)

    monkeypatch.setattr(watching, "read_batch", read)
    now = time.time()
    wait = Wait(running, poll_interval=INTERVAL, start_time=now, end_time=now + 60)
    with poller_of("anthropic_default") as poller:
        waiting = asyncio.create_task(poller.wait([wait], time.time(), lambda text: None))
        watcher = watch()
        await looked(batches_emulator)
        batches_emulator.clock.advance(700)
        await watcher.until(lambda: watcher.ids == [running])
        (outcome,) = await waiting

    assert outcome.status == "ended"
    assert caplog.text.count(f"Batch {broken} is not watched") == 1


async def test_an_outage_is_outlasted_and_logged_once(
    watch: Callable[..., Watcher], batches_emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    running = batches_emulator.add_batch(1, status="in_progress", batch_seconds=600)
    watcher = watch()
    await looked(batches_emulator)
    batches_emulator.fault(Fault("any", times=None, status=500))
    batches_emulator.clock.advance(700)
    await looked(batches_emulator, 6)
    assert watcher.events == []
    batches_emulator.clear_faults()
    await watcher.until(lambda: watcher.ids == [running])

    assert caplog.text.count("Batches that end are not seen for now") == 1


async def test_a_key_that_rotates_is_outlasted(
    watch: Callable[..., Watcher], batches_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = batches_emulator.add_batch(1, status="in_progress", batch_seconds=600)
    watcher = watch()
    await looked(batches_emulator)
    batches_emulator._settings.api_key = "sk-ant-rotated"
    batches_emulator.clock.advance(700)
    await looked(batches_emulator)
    batches_emulator.api_key = "sk-ant-rotated"
    monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", batches_emulator.connection_json)

    await watcher.until(lambda: watcher.ids == [running])


async def test_a_connection_that_is_wrong_is_logged_once_and_tried_again(
    watch: Callable[..., Watcher],
    batches_emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recent = batches_emulator.add_batch(status="ended", age_seconds=4000)
    monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", '{"conn_type": "anthropic_batches", "password": "a b"}')
    watcher = watch(look_back=7200.0)
    await asyncio.sleep(0.5)
    monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", batches_emulator.connection_json)
    await watcher.until(lambda: watcher.ids == [recent])

    assert caplog.text.count("that end are not seen for now: password of connection") == 1


async def test_running_batches_and_their_waits_share_the_requests(
    watch: Callable[..., Watcher], batches_emulator: Emulator
) -> None:
    count, pages = 3000, 3
    ids = [batches_emulator.add_batch(1, status="in_progress", batch_seconds=36_000) for _ in range(count)]
    now = time.time()
    waits = [Wait(each, poll_interval=1.5, start_time=now - 999, end_time=now + 600) for each in ids]

    async def requests_of(seconds: float) -> int:
        before = batches_emulator.count()
        await asyncio.sleep(seconds)
        return batches_emulator.count() - before

    with poller_of("anthropic_default") as poller:
        waiting = asyncio.create_task(poller.wait(waits, time.time(), lambda text: None))
        await asyncio.sleep(1.5)
        alone = await requests_of(3.0)
        watcher = watch(poll_interval=1.5)
        await asyncio.sleep(1.5)
        together = await requests_of(3.0)
        waiting.cancel()
        await asyncio.wait([waiting])

    assert alone >= pages
    # At most one more for each look, of which there are two or three.
    assert together <= alone + pages + 3
    assert batches_emulator.count("retrieve") <= 3
    assert watcher.events == []


class TestTheReminder:
    async def test_follows_once_if_nothing_else_does(
        self, watch: Callable[..., Watcher], batches_emulator: Emulator
    ) -> None:
        batches_emulator.add_batch(status="ended", age_seconds=4000)
        watcher = watch(look_back=7200.0, reminder=0.3)
        await watcher.until(lambda: len(watcher.events) == 2)
        await looked(batches_emulator, 6)

        assert [len(event["batches"]) for event in watcher.events] == [1, 0]

    async def test_is_not_sent_without_an_event(
        self, watch: Callable[..., Watcher], batches_emulator: Emulator
    ) -> None:
        watcher = watch(reminder=0.05)
        await looked(batches_emulator, 5)

        assert watcher.events == []


class TestTheCursor:
    async def test_is_one_look_behind_the_events(
        self, watch: Callable[..., Watcher], batches_emulator: Emulator
    ) -> None:
        batch_id = batches_emulator.add_batch(status="ended", age_seconds=4000)
        watcher = watch(look_back=7200.0)
        await watcher.until(lambda: watcher.events)
        await watcher.until(lambda: batch_id in Memory.value["ids"])
        sets = Memory.sets
        await looked(batches_emulator, 4)

        assert Memory.sets == sets

    async def test_continues_where_it_stopped(self, watch: Callable[..., Watcher], batches_emulator: Emulator) -> None:
        first = batches_emulator.add_batch(status="ended", age_seconds=4000)
        watcher = watch(look_back=7200.0)
        await watcher.until(lambda: Memory.value and first in Memory.value["ids"])
        await watcher.stop()
        second = batches_emulator.add_batch(status="ended", age_seconds=3600)
        again = watch()
        await again.until(lambda: again.events)

        assert again.ids == [second]


@pytest.mark.feature("acknowledged")
class TestConfirmation:
    """Airflow 3.3 confirms each event, and the cursor is stored after that."""

    async def test_the_cursor_waits_for_it(
        self, trigger: Callable[..., events.BatchesEndedTrigger], batches_emulator: Emulator
    ) -> None:
        from types import SimpleNamespace

        batch_id = batches_emulator.add_batch(status="ended", age_seconds=4000)
        made = trigger(look_back=7200.0)
        assert made.shared_stream_key() is not None
        producer = made.create_shared_stream_producer(made.serialize()[1])
        items: asyncio.Queue[Any] = asyncio.Queue()
        payloads: list[Any] = []

        async def feed() -> None:
            async for item, payload in producer.open_stream():
                payloads.append(payload)
                items.put_nowait(item)

        async def stream() -> AsyncIterator[Any]:
            while True:
                yield await items.get()

        feeding = asyncio.create_task(feed())
        fired = made.filter_shared_stream(stream())
        event: Any = await asyncio.wait_for(anext(fired), 10)
        assert [each["id"] for each in event.payload["batches"]] == [batch_id]
        assert Memory.value["ids"] == {}
        confirmed = [SimpleNamespace(broker_payload=each, outcome=SimpleNamespace(is_clean=True)) for each in payloads]
        await producer.advance(confirmed)
        following = asyncio.create_task(anext(fired))  # type: ignore[arg-type]
        while batch_id not in Memory.value["ids"]:  # noqa: ASYNC110 - nothing reports it
            await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="could not be stored"):
            await producer.advance(
                [SimpleNamespace(broker_payload=events.Look([], Cursor(0)), outcome=SimpleNamespace(is_clean=False))]
            )
        for task in (following, feeding):
            task.cancel()
        await producer.aclose()
        assert not any(_pollers.values())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"poll_interval": 5}, "poll_interval: got 5; it must be 10 seconds or more"),
        ({"poll_interval": "soon"}, "poll_interval"),
        ({"look_back": -1}, "look_back"),
        ({"reminder": "x"}, "reminder"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MIN_INTERVAL", 10.0)
    with pytest.raises(ValueError, match=problem):
        events.BatchesEndedTrigger(**arguments)
