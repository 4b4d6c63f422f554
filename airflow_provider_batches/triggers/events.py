"""The trigger that fires an event when batches end, for the watcher of an asset."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_batches import _metrics
from airflow_provider_batches._arguments import read_seconds
from airflow_provider_batches._compat import EventMemory, shared_stream_producer
from airflow_provider_batches.api import InvalidArgumentError, MessageBatch
from airflow_provider_batches.triggers.batches import poller_of
from airflow_provider_batches.waiting.cursor import OVERLAP, Cursor
from airflow_provider_batches.waiting.watch import LIFE, Watch

log = logging.getLogger(__name__)

#: None before Airflow 3.3.
SharedStreamProducer: Any = shared_stream_producer()

#: An event names each batch with its times and counts, up to so many batches; beyond, their IDs only.
MAX_DETAILED = 1000
MIN_INTERVAL = 10.0
#: Seconds until watching begins again after an unexpected error.
RESTART_SECONDS = 60.0


@dataclass(frozen=True)
class Look:
    """What one look has found.

    :param batches: The batches that have ended and were not announced before.
    :param cursor: What has been announced once these are.
    :param is_stored: Whether the event of an earlier look is stored, and this only carries its cursor.
    """

    batches: list[MessageBatch]
    cursor: Cursor
    is_stored: bool = False


async def looks(conn_id: str, interval: float, cursor: Cursor) -> AsyncGenerator[Look, None]:
    """Yield what each look finds, forever. Failures are logged."""
    logged = ""
    while True:
        # No await between finding the poller and joining it, or it could be dropped meanwhile.
        with poller_of(conn_id) as poller:
            watch = Watch(interval, cursor.until - LIFE, log.error)
            try:
                async with poller.watching(watch):
                    while True:
                        found = cursor.news(await watch.next())
                        logged = ""
                        cursor = cursor.after(found)
                        yield Look(found, cursor)
            except Exception as error:
                # Its text may contain secrets, unless it is the client's.
                text = str(error) if isinstance(error, InvalidArgumentError) else type(error).__name__
                if text != logged:
                    log.error("Batches of connection %r that end are not seen for now: %s", conn_id, text)
                logged = text
        await asyncio.sleep(RESTART_SECONDS)


@dataclass(eq=False, repr=False)
class BatchesEndedTrigger(BaseEventTrigger):
    """Fires an event for the batches of a connection's workspace that have ended, for an `AssetWatcher`.

    Any batch counts, regardless of who submitted it. There is one event for each look that finds some:
    `{"conn_id": ..., "batches": [{"id", "created_at", "ended_at", "request_counts"}, ...]}`. Looks share their requests
    with all deferred waits of the connection. After a restart, it continues where it stopped. docs/react.md says what
    is not promised.

    :param conn_id: The connection. Default `anthropic_default`.
    :param poll_interval: Seconds between looks, at least 10. Default 60.
    :param look_back: Seconds before the very first start of which ends count. Default 0.
    :param reminder: Seconds after an event until an event without batches follows, unless another one has. Airflow may
        leave an event unconsumed until the next one. Default 600; 0: never.
    """

    conn_id: str = "anthropic_default"
    poll_interval: float = 60.0
    look_back: float = 0.0
    reminder: float = 600.0

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for name in ("poll_interval", "look_back", "reminder"):
            value: Any = getattr(self, name)
            setattr(self, name, value.total_seconds() if isinstance(value, timedelta) else value)
        read_seconds("poll_interval", self.poll_interval)
        if self.poll_interval < MIN_INTERVAL:
            raise InvalidArgumentError("poll_interval", f"got {self.poll_interval!r}; it must be 10 seconds or more.")
        for name in ("look_back", "reminder"):
            if getattr(self, name):
                read_seconds(name, getattr(self, name))
        self._remind_at = float("inf")

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return name, {field.name: getattr(self, field.name) for field in fields(self)}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire events. Before Airflow 3.3, nothing confirms that one is stored, so the cursor is one look behind."""
        memory = EventMemory(self, f"message_batches_ended__{self.conn_id}")
        cursor = stored = await self._begin(memory)
        async with aclosing(looks(self.conn_id, self.poll_interval, cursor)) as found:
            async for look in found:
                if cursor != stored:
                    await memory.set(cursor.dump())
                    stored = cursor
                for event in self._events(look.batches):
                    yield event
                cursor = look.cursor

    def shared_stream_key(self) -> Hashable | None:
        """Return a key of this trigger's own: Airflow 3.3 confirms the events of shared streams only."""
        return ("message_batches_ended", self.trigger_id) if SharedStreamProducer is not None else None

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> Any:
        """Return what finds the batches that end, and learns which events are stored (Airflow 3.3+)."""
        return _Producer(kwargs["conn_id"], kwargs["poll_interval"])

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Fire an event for each look that has found batches; store the cursor once Airflow has stored the event."""
        memory = EventMemory(self, f"message_batches_ended__{self.conn_id}")
        async for look in shared_stream:
            if isinstance(look, asyncio.Future):
                look.set_result(await self._begin(memory))
            elif look.is_stored:
                await memory.set(look.cursor.dump())
            else:
                for event in self._events(look.batches):
                    yield event

    async def _begin(self, memory: EventMemory) -> Cursor:
        """Return the stored cursor, or store the first one."""
        cursor = Cursor.load(await memory.get())
        if cursor is None:
            # `news` looks OVERLAP seconds further back, and the batches it finds there do not count yet.
            cursor = Cursor(time.time() - self.look_back + OVERLAP)
            await memory.set(cursor.dump())
        return cursor

    def _events(self, batches: list[MessageBatch]) -> list[TriggerEvent]:
        now = time.time()
        if batches:
            _metrics.count("announced", len(batches), conn_id=self.conn_id)
            _metrics.report_delay(self.conn_id, (batch.ended_at for batch in batches if batch.ended_at))
            self._remind_at = now + self.reminder if self.reminder else float("inf")
        elif now < self._remind_at:
            return []
        else:
            self._remind_at = float("inf")
        return [TriggerEvent({"conn_id": self.conn_id, "batches": _described(batches)})]


def _described(batches: list[MessageBatch]) -> list[dict[str, Any]]:
    names = ("id", "created_at", "ended_at", "request_counts") if len(batches) <= MAX_DETAILED else ("id",)
    return [{name: value for name, value in batch.snapshot().items() if name in names} for batch in batches]


class _Producer(SharedStreamProducer or object):  # type: ignore[misc]
    """Finds batches that end for one trigger, and passes on which events Airflow has stored."""

    def __init__(self, conn_id: str, interval: float) -> None:
        self._conn_id = conn_id
        self._interval = interval
        self._queue: asyncio.Queue[Look] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def open_stream(self) -> AsyncIterator[tuple[Any, Any]]:
        """Yield a future for the cursor, which the trigger has, then each look."""
        cursor: asyncio.Future[Cursor] = asyncio.get_running_loop().create_future()
        yield cursor, None
        self._task = asyncio.create_task(self._watch(await cursor))
        while True:
            look = await self._queue.get()
            yield look, look

    async def _watch(self, cursor: Cursor) -> None:
        async for look in looks(self._conn_id, self._interval, cursor):
            self._queue.put_nowait(look)

    async def advance(self, batch: Sequence[Any]) -> None:
        """Pass the cursor of the last stored event on."""
        stored = None
        for item in batch:
            if isinstance(item.broker_payload, Look) and not item.broker_payload.is_stored:
                if not item.outcome.is_clean:
                    raise RuntimeError("An event could not be stored. Watching begins again from the cursor.")
                stored = item.broker_payload if item.broker_payload.batches else stored
        if stored:
            self._queue.put_nowait(Look([], stored.cursor, is_stored=True))

    async def aclose(self) -> None:
        """Stop."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
