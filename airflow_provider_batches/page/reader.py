"""Reads batches for all viewers of the page: one call at a time for each connection, and answers that are shared."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from airflow_provider_batches.api import BatchesClient, BatchesError, ClientSettings, MessageBatch, NotFoundError
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


class BusyError(BatchesError):
    """Too many threads wait for the API."""


@dataclass(frozen=True)
class Page:
    """Some batches of the list, newest first."""

    data: list[dict[str, Any]]
    has_more: bool


@dataclass(frozen=True)
class _Kept:
    received: float
    page: Page | None
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
        self._kept: dict[tuple[str, str | None], _Kept] = {}
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

    def find(self, conn_id: str, batch_ids: list[str]) -> tuple[list[MessageBatch], list[str]]:
        """Return those of the batches that exist, and the IDs of those that were not found.

        Those that are not among the newest ones of the list are retrieved, up to MAX_RETRIEVED; the rest is left out.

        :raises BatchesError: A batch could not be looked up.
        """
        page = self._page(conn_id, None)
        listed = {str(raw.get("id")): raw for raw in page.data}
        older = [batch_id for batch_id in batch_ids if batch_id not in listed]
        found = {batch_id: read_batch(listed[batch_id]) for batch_id in batch_ids if batch_id in listed}
        missing = [] if page.has_more else older
        for batch_id in older[:MAX_RETRIEVED] if page.has_more else ():
            with self._turn(conn_id):
                try:
                    found[batch_id] = self._client(conn_id).retrieve(batch_id, retries=0)
                except NotFoundError:
                    missing.append(batch_id)
        return [found[batch_id] for batch_id in batch_ids if batch_id in found], missing

    def _page_with(self, conn_id: str, after_id: str | None) -> Page | None:
        """Return a kept page that has batches after this one."""
        oldest = self._clock() - KEPT_SECONDS
        for (kept_conn_id, _), kept in list(self._kept.items()):
            if kept_conn_id == conn_id and kept.page and kept.received > oldest:
                ids = [raw.get("id") for raw in kept.page.data]
                if after_id in ids[:-1]:
                    return kept.page
        return None

    def _page(self, conn_id: str, after_id: str | None) -> Page:
        key = (conn_id, after_id)
        kept = self._fresh(key)
        if kept is None:
            with self._turn(conn_id):
                kept = self._fresh(key) or self._read(key)
        if kept.error:
            raise kept.error
        assert kept.page is not None  # noqa: S101 - one of them is set
        return kept.page

    def _fresh(self, key: tuple[str, str | None]) -> _Kept | None:
        kept = self._kept.get(key)
        return kept if kept and kept.received > self._clock() - FRESH_SECONDS else None

    def _read(self, key: tuple[str, str | None]) -> _Kept:
        conn_id, after_id = key
        page, error = None, None
        try:
            walk = Walk(MAX_PAGE, MAX_PAGE, after_id, None)
            read = self._client(conn_id).page(walk, retries=0, doubt=False)
            page = Page(read.data, read.has_more)
        except BatchesError as failure:
            error = failure
        now = self._clock()
        self._kept = {each: kept for each, kept in self._kept.items() if kept.received > now - KEPT_SECONDS}
        self._kept[key] = _Kept(now, page, error)
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
