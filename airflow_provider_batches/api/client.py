"""The sync and the async client. What differs between them is the `await`, nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import aclosing, closing, contextmanager
from datetime import datetime
from typing import Any, TypeVar, cast

import httpx

from airflow_provider_batches.api import endpoints
from airflow_provider_batches.api.endpoints import Call
from airflow_provider_batches.api.errors import BatchesError
from airflow_provider_batches.api.flows import Flow, Pause
from airflow_provider_batches.api.models import BatchPage, BatchRequest, BatchResult, DeletedBatch, MessageBatch
from airflow_provider_batches.api.pager import Pager, Walk
from airflow_provider_batches.api.streams import ResultBytes, ResultLines
from airflow_provider_batches.api.transport import BaseClient

T = TypeVar("T")


class BatchesClient(BaseClient[httpx.Client]):
    """The Message Batches API, blocking.

    Every method checks its arguments first (InvalidArgumentError, nothing is sent), retries failed calls as
    `settings.max_retries` allows, and raises a BatchesError if that did not help.

    :param settings: How to reach the API.
    :param throttle: What this client shares with others. Default: one of its own.
    :param renew: Reads the settings again after the key was refused. Default: they stay.
    """

    _kind = httpx.Client

    def __enter__(self) -> BatchesClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the API."""
        for _, http in self._opened:
            http.close()

    def create(self, requests: Iterable[Mapping[str, Any] | BatchRequest]) -> MessageBatch:
        """Create a batch: it costs money from now on.

        Never retried once the API may have created the batch: it cannot tell a repetition from a second batch.

        :param requests: 1 to 100,000 of `{"custom_id", "params"}`, 256 MiB at most.
        """
        return self._run(self._flows.call(endpoints.create(requests)))

    def retrieve(self, batch_id: str, *, retries: int | None = None) -> MessageBatch:
        """Return the batch as it is now.

        :param retries: How often to retry after a failure. Default: the settings' `max_retries`.
        :raises NotFoundError: The API does not know the batch at this moment; `find` makes sure.
        """
        return self._run(self._flows.call(endpoints.retrieve(batch_id), retries))

    def find(self, batch_id: str, seen: datetime | None = None, *, confirm: bool = False) -> MessageBatch:
        """Return the batch as it is now; a 404 is believed only once it came four times over 7 s.

        :param seen: When the batch was created, if it has been seen: it is gone only if the list does not have it.
        :param confirm: Whether the list must have answered before the batch counts as unknown. Default False.
        :raises NotFoundError: The API does not know the batch.
        """
        return self._run(self._flows.find(batch_id, seen, confirm=confirm))

    def page(self, pager: Pager | None = None, *, retries: int | None = None, doubt: bool = True) -> BatchPage:
        """Return the next page of the list.

        :param pager: Where the walk stands; it moves on. Default: the first 1,000 batches.
        :param retries: How often to retry after a failure. Default: the settings' `max_retries`.
        :param doubt: Whether a refused key is tried again. Default True.
        """
        return self._run(self._flows.page(pager or Pager(), retries, doubt=doubt))

    def list(
        self,
        limit: int | None = None,
        after_id: str | None = None,
        before_id: str | None = None,
        *,
        page_size: int = endpoints.MAX_PAGE,
    ) -> Iterator[MessageBatch]:
        """Iterate over the batches, newest first. Those iterated over may be deleted meanwhile.

        :param limit: How many batches at most. Default: all.
        :param after_id: Begin behind this batch and continue to the oldest.
        :param before_id: Begin before this batch and continue to the newest.
        :param page_size: Batches a page, 1 to 1000 (default).
        """
        walk = Walk(limit, page_size, after_id, before_id)
        while not walk.ended:
            yield from walk.new(self.page(walk))

    def cancel(self, batch_id: str, seen: datetime | None = None, *, confirm: bool = False) -> MessageBatch:
        """Return the batch once it is canceling or has ended, which it may have been before.

        :param seen: When the batch was created, if it has been seen: it is gone only if the list does not have it.
        :param confirm: Whether the list must have answered before the batch counts as unknown. Default False.
        :raises NotFoundError: The API does not know the batch.
        """
        return self._run(self._flows.cancel(batch_id, seen, confirm=confirm))

    def delete(self, batch_id: str, seen: datetime | None = None) -> DeletedBatch:
        """Delete the batch with its results.

        :param seen: When the batch was created, if it has been seen: it is gone only if the list does not have it.
        :raises BatchNotEndedError: The batch is still running: cancel it, wait for its end, then delete it.
        :raises NotFoundError: The API does not know the batch.
        """
        return self._run(self._flows.delete(batch_id, seen))

    def results(self, batch_id: str) -> Iterator[BatchResult]:
        """Iterate over the batch's results as they come, in any order, in constant memory.

        :raises BatchNotEndedError: The batch has no results yet.
        :raises ResultsUnavailableError: The results are archived, and gone.
        :raises ResultsTruncatedError: The stream ended early; what came before is right.
        """
        batch, response = self._run(self._flows.open_results(batch_id))
        lines = ResultLines(batch, self._redact)
        try:
            for chunk in response.iter_bytes():
                yield from lines.feed(chunk)
            yield from lines.end()
        except httpx.HTTPError as error:
            raise lines.cut_short(error) from None
        finally:
            response.close()

    @contextmanager
    def open_results(self, batch_id: str, known: MessageBatch | None = None) -> Iterator[ResultBytes]:
        """Open the batch's results as the bytes that the API sends. Lines are checked, not parsed.

        :param known: The batch as it was seen a moment ago, which saves a retrieval.
        :raises BatchNotEndedError: The batch has no results yet.
        :raises ResultsUnavailableError: The results are archived, and gone.
        """
        batch, response = self._run(self._flows.open_results(batch_id, known))
        try:
            lines = ResultLines(batch, self._redact)
            yield ResultBytes(lines, response.headers.get("request-id"), response.iter_bytes())
        finally:
            response.close()

    def _run(self, flow: Flow[T]) -> T:
        resume: Callable[[Any], Any] = flow.send
        value: Any = None
        try:
            while True:
                step = resume(value)
                resume, value = flow.send, None
                try:
                    if isinstance(step, Call):
                        value = self._send(step)
                    elif isinstance(step, Pause):
                        time.sleep(step.seconds)
                    else:
                        self._renew_settings()
                except BatchesError as error:
                    resume, value = flow.throw, error
        except StopIteration as stop:
            return cast(T, stop.value)

    def _send(self, call: Call[Any]) -> Any:
        http, stream = self._http, call.model is None
        try:
            response = http.send(self._request(call, http), stream=stream)
            if stream and response.is_success:
                return response
            if stream:
                with closing(response):
                    response.read()
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self._no_answer(call, error) from None
        return self._read(call, response)


class AsyncBatchesClient(BaseClient[httpx.AsyncClient]):
    """The Message Batches API for event loops; see BatchesClient, whose methods these are.

    :param settings: How to reach the API.
    :param throttle: What this client shares with others. Default: one of its own.
    :param renew: Reads the settings again after the key was refused, in a thread. Default: they stay.
    """

    _kind = httpx.AsyncClient

    async def __aenter__(self) -> AsyncBatchesClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to the API."""
        for _, http in self._opened:
            await http.aclose()

    async def create(self, requests: Iterable[Mapping[str, Any] | BatchRequest]) -> MessageBatch:
        """See BatchesClient.create."""
        return await self._run(self._flows.call(endpoints.create(requests)))

    async def retrieve(self, batch_id: str, *, retries: int | None = None) -> MessageBatch:
        """See BatchesClient.retrieve."""
        return await self._run(self._flows.call(endpoints.retrieve(batch_id), retries))

    async def find(self, batch_id: str, seen: datetime | None = None, *, confirm: bool = False) -> MessageBatch:
        """See BatchesClient.find."""
        return await self._run(self._flows.find(batch_id, seen, confirm=confirm))

    async def page(self, pager: Pager | None = None, *, retries: int | None = None, doubt: bool = True) -> BatchPage:
        """See BatchesClient.page."""
        return await self._run(self._flows.page(pager or Pager(), retries, doubt=doubt))

    async def listed(
        self, batch_ids: Collection[str], since: datetime | None, *, retries: int | None = None
    ) -> set[str]:
        """Return which of the batches the list has, read down to those created at `since`; None: its first page."""
        return await self._run(self._flows.listed(batch_ids, since, retries))

    async def list(
        self,
        limit: int | None = None,
        after_id: str | None = None,
        before_id: str | None = None,
        *,
        page_size: int = endpoints.MAX_PAGE,
    ) -> AsyncIterator[MessageBatch]:
        """See BatchesClient.list."""
        walk = Walk(limit, page_size, after_id, before_id)
        while not walk.ended:
            for batch in walk.new(await self.page(walk)):
                yield batch

    async def cancel(self, batch_id: str, seen: datetime | None = None, *, confirm: bool = False) -> MessageBatch:
        """See BatchesClient.cancel."""
        return await self._run(self._flows.cancel(batch_id, seen, confirm=confirm))

    async def delete(self, batch_id: str, seen: datetime | None = None) -> DeletedBatch:
        """See BatchesClient.delete."""
        return await self._run(self._flows.delete(batch_id, seen))

    async def results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        """See BatchesClient.results."""
        batch, response = await self._run(self._flows.open_results(batch_id))
        lines = ResultLines(batch, self._redact)
        try:
            async for chunk in response.aiter_bytes():
                for result in lines.feed(chunk):
                    yield result
            for result in lines.end():
                yield result
        except httpx.HTTPError as error:
            raise lines.cut_short(error) from None
        finally:
            await response.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        resume: Callable[[Any], Any] = flow.send
        value: Any = None
        try:
            while True:
                step = resume(value)
                resume, value = flow.send, None
                try:
                    if isinstance(step, Call):
                        value = await self._send(step)
                    elif isinstance(step, Pause):
                        await asyncio.sleep(step.seconds)
                    else:
                        await asyncio.to_thread(self._renew_settings)
                except BatchesError as error:
                    resume, value = flow.throw, error
        except StopIteration as stop:
            return cast(T, stop.value)

    async def _send(self, call: Call[Any]) -> Any:
        http, stream = self._http, call.model is None
        try:
            response = await http.send(self._request(call, http), stream=stream)
            if stream and response.is_success:
                return response
            if stream:
                async with aclosing(response):
                    await response.aread()
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self._no_answer(call, error) from None
        return self._read(call, response)
