"""An API in memory, for tests that run a poller without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_batches.api import BatchesError, BatchPage, InvalidResponseError, MessageBatch, NotFoundError
from airflow_provider_batches.api.evidence import Evidence, Proof
from airflow_provider_batches.api.pager import Pager
from airflow_provider_batches.api.throttle import Throttle

NEWEST = datetime(2026, 11, 1, tzinfo=timezone.utc)
PAGE = 10


def a_batch(number: int, status: str = "in_progress") -> MessageBatch:
    created = NEWEST - timedelta(seconds=number)
    counts = {"succeeded": 3} if status == "ended" else {"processing": 3}
    return MessageBatch.model_validate(
        {
            "id": f"b{number}",
            "processing_status": status,
            "request_counts": counts,
            "created_at": created,
            "expires_at": created + timedelta(days=1),
        }
    )


def created_at(number: int) -> float:
    return a_batch(number).created_at.timestamp()


def wrong_address() -> InvalidResponseError:
    error = InvalidResponseError("a proxy answers")
    error.evidence = Evidence(Proof.WRONG_ADDRESS)
    return error


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


class FakeClient:
    """An API whose list holds batches b0 (newest), b1, ... and that counts what it is asked."""

    def __init__(self, batches: int = 0, clock: Callable[[], float] | None = None) -> None:
        self.throttle = Throttle(clock=clock) if clock else Throttle()
        self.batches = {f"b{number}": a_batch(number) for number in range(batches)}
        self.asked: list[str] = []
        self.in_flight = self.most_in_flight = 0
        #: What everything is answered, or a page, or a retrieval.
        self.error: BatchesError | None = None
        self.page_errors: dict[int, BatchesError] = {}
        self.errors: dict[str, BatchesError] = {}
        self.unreadable: set[str] = set()
        #: Batches that the list has, and that cannot be retrieved.
        self.hidden: set[str] = set()
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True

    async def page(self, pager: Pager, *, retries: int) -> BatchPage:
        assert retries == 0
        ids = list(self.batches)
        after = pager.call.params.get("after_id")
        start = ids.index(str(after)) + 1 if after else 0
        await self._ask("page", self.page_errors.get(start // PAGE))
        found = ids[start : start + PAGE]
        data: list[dict[str, Any]] = [
            {"id": batch_id} if batch_id in self.unreadable else self.batches[batch_id].model_dump()
            for batch_id in found
        ]
        page = BatchPage(data=data, has_more=start + PAGE < len(ids), last_id=found[-1] if found else None)
        pager.take(page)
        return page

    async def retrieve(self, batch_id: str, *, retries: int) -> MessageBatch:
        assert retries == 0
        error = self.errors.get(batch_id)
        if batch_id not in self.batches or batch_id in self.hidden:
            error = error or NotFoundError("unknown", status=404)
        await self._ask(batch_id, error)
        return self.batches[batch_id]

    async def listed(self, batch_ids: Collection[str], since: datetime | None, *, retries: int) -> set[str]:
        assert retries == 0
        await self._ask(f"listed {','.join(sorted(batch_ids))} since {since and since.timestamp()}", None)
        return set(batch_ids) & set(self.batches)

    async def _ask(self, what: str, error: BatchesError | None) -> None:
        self.asked.append(what)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        if error := self.error or error:
            self.throttle.on_error(error)
            raise error
        self.throttle.on_answer()

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self.batches[f"b{number}"] = a_batch(number, "ended")

    def take_asked(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked
