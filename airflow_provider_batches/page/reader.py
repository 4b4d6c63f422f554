"""Reads batches for all viewers of the page: one call at a time for each connection, and answers that are shared."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_provider_batches.api import (
    BatchesClient,
    BatchesError,
    ClientSettings,
    InvalidArgumentError,
    MessageBatch,
    NotFoundError,
)
from airflow_provider_batches.api.endpoints import MAX_PAGE
from airflow_provider_batches.api.models import read_batch
from airflow_provider_batches.api.pager import Walk
from airflow_provider_batches.hooks.batches import BatchesHook

#: Seconds for which an answer counts for all viewers, and for which pages of older batches are kept.
FRESH_SECONDS, KEPT_SECONDS = 5.0, 60.0
#: The most threads of the API server that may call the API, or wait for a call.
MAX_THREADS = 4
#: Seconds for each read or write of a call, at most.
MAX_TIMEOUT = 10.0
#: The most batches of a task that are retrieved one by one.
MAX_RETRIEVED = 20

T = TypeVar("T")


class BusyError(BatchesError):
    """Too many threads wait for the API."""


@dataclass(frozen=True)
class Page:
    """Some batches of the list, newest first."""

    data: list[dict[str, Any]]
    has_more: bool


@dataclass(frozen=True)
class Found:
    """Those of some batches that exist, the IDs of those that do not, and whether some were not looked up."""

    batches: list[MessageBatch]
    missing: list[str]
    partial: bool


#: What was read: the connection, and a batch, or the batch after which a page starts.
_Key = tuple[str, str, str | None]


@dataclass(frozen=True)
class _Kept:
    received: float
    value: Any
    error: BatchesError | None = None


class Reader:
    """Reads pages of the list of batches.

    :param settings_of: Returns the settings of a connection.
    :param clock: Returns the time in seconds.
    """

    def __init__(
        self,
        settings_of: Callable[[str], ClientSettings] = lambda conn_id: BatchesHook(conn_id).read_settings(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings_of = settings_of
        self._clock = clock
        self._threads = threading.BoundedSemaphore(MAX_THREADS)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._keeping = threading.Lock()
        self._kept: dict[_Key, _Kept] = {}
        self._clients: dict[str, BatchesClient] = {}

    def batches(self, conn_id: str, limit: int, after_id: str | None = None) -> tuple[list[MessageBatch], bool]:
        """Return batches, newest first, and whether there are older ones.

        :param after_id: Start after this batch. Default: with the newest one.
        :raises BatchesError: The list could not be read.
        """
        page = self._page_with(conn_id, after_id) or self._page(conn_id, after_id)
        ids = [raw.get("id") for raw in page.data]
        start = ids.index(after_id) + 1 if after_id in ids else 0
        rest = page.data[start : start + limit]
        return [read_batch(raw) for raw in rest], page.has_more or len(page.data) > start + limit

    def find(self, conn_id: str, batch_ids: list[str]) -> Found:
        """Find batches in the newest ones of the list. Older ones are retrieved one by one, up to `MAX_RETRIEVED`.

        :raises BatchesError: The list, or one of the batches, could not be read.
        """
        page = self._page(conn_id, None)
        listed = {str(raw.get("id")): raw for raw in page.data}
        found = {batch_id: read_batch(listed[batch_id]) for batch_id in batch_ids if batch_id in listed}
        missing = [batch_id for batch_id in batch_ids if batch_id not in listed]
        older = missing if page.has_more else []
        for batch_id in older[:MAX_RETRIEVED]:
            if batch := self._retrieved(conn_id, batch_id):
                found[batch_id] = batch
        unknown = older[MAX_RETRIEVED:]
        return Found(
            [found[batch_id] for batch_id in batch_ids if batch_id in found],
            [batch_id for batch_id in missing if batch_id not in found and batch_id not in unknown],
            bool(unknown),
        )

    def _page_with(self, conn_id: str, after_id: str | None) -> Page | None:
        """Return a kept page that has batches after this one."""
        oldest = self._clock() - KEPT_SECONDS
        for (kept_conn_id, kind, _), kept in list(self._kept.items()):
            if (kept_conn_id, kind) == (conn_id, "page") and kept.value and kept.received > oldest:
                page: Page = kept.value
                if after_id in [raw.get("id") for raw in page.data[:-1]]:
                    return page
        return None

    def _page(self, conn_id: str, after_id: str | None) -> Page:
        def read() -> Page:
            walk = Walk(MAX_PAGE, MAX_PAGE, after_id, None)
            page = self._client(conn_id).page(walk, retries=0, doubt=False)
            return Page(page.data, page.has_more)

        return self._shared((conn_id, "page", after_id), read)

    def _retrieved(self, conn_id: str, batch_id: str) -> MessageBatch | None:
        def read() -> MessageBatch | None:
            client = self._client(conn_id)
            try:
                return client.retrieve(batch_id, retries=0)
            except (InvalidArgumentError, NotFoundError):
                return None

        return self._shared((conn_id, "batch", batch_id), read)

    def _shared(self, key: _Key, read: Callable[[], T]) -> T:
        """Return what was read some seconds ago, by whomever, or read it."""
        kept = self._fresh(key)
        if kept is None:
            with self._turn(key[0]):
                kept = self._fresh(key) or self._keep(key, read)
        if kept.error:
            raise kept.error
        value: T = kept.value
        return value

    def _fresh(self, key: _Key) -> _Kept | None:
        kept = self._kept.get(key)
        return kept if kept and kept.received > self._clock() - FRESH_SECONDS else None

    def _keep(self, key: _Key, read: Callable[[], T]) -> _Kept:
        value, error = None, None
        try:
            value = read()
        except BatchesError as failure:
            error = failure
        now = self._clock()
        with self._keeping:
            recent = {each: kept for each, kept in self._kept.items() if kept.received > now - KEPT_SECONDS}
            self._kept = {**recent, key: _Kept(now, value, error)}
            return self._kept[key]

    @contextmanager
    def _turn(self, conn_id: str) -> Iterator[None]:
        if not self._threads.acquire(blocking=False):
            raise BusyError("The API is slow, and others wait for it. Retry in some seconds.")
        try:
            with self._locks[conn_id]:
                yield
        finally:
            self._threads.release()

    def _client(self, conn_id: str) -> BatchesClient:
        """Return the client of a connection. Its settings are read each time, since keys are rotated."""
        settings = self._settings_of(conn_id)
        settings = settings.model_copy(update={"timeout": min(settings.timeout, MAX_TIMEOUT)})
        client = self._clients.get(conn_id)
        if client is None or client.settings != settings:
            if client:
                client.close()
            client = self._clients[conn_id] = BatchesClient(settings)
        return client
