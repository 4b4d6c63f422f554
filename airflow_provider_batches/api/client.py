"""The sync and the async client. They differ only in `await`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import aclosing, closing, contextmanager
from datetime import datetime
from typing import Any, TypeVar, cast

import httpx

from airflow_provider_batches.api import endpoints
from airflow_provider_batches.api.bodies import Body
from airflow_provider_batches.api.endpoints import Call
from airflow_provider_batches.api.errors import BatchesError, CredentialsError
from airflow_provider_batches.api.flows import Flow, Pause
from airflow_provider_batches.api.models import BatchPage, BatchRequest, BatchResult, DeletedBatch, MessageBatch
from airflow_provider_batches.api.pager import Pager, Walk
from airflow_provider_batches.api.streams import ResultBytes, ResultLines
from airflow_provider_batches.api.transport import BaseClient

T = TypeVar("T")


class BatchesClient(BaseClient[httpx.Client]):
    """Calls the Message Batches API. All methods block.

    Every method checks its arguments before it sends anything, and raises InvalidArgumentError if one is wrong. It
    retries failed calls up to `settings.max_retries` times, then raises a BatchesError.

    :param settings: How to reach the API.
    :param throttle: Paces the calls of all clients that share it. Default: not shared.
    :param renew: Reads the settings again after the API has refused the key. Default: the settings never change.
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
        """Create a batch, which costs money from then on.

        All requests are checked and encoded before the first byte is sent; a large body is kept in a temporary file,
        and waits up to 600 s for its answer. Never retried if the API may have created the batch, because it would
        create, and bill, a second one.

        :param requests: 1 to 100,000 of `{"custom_id", "params"}`, up to 256,000,000 bytes.
        """
        return self._run(self._flows.call(endpoints.create(requests)))

    def create_once(self, body: Body) -> MessageBatch:
        """Create a batch from an encoded body, in one attempt.

        If it fails, `error.evidence.in_doubt` says whether the API may have created the batch.
        """
        return self._run(self._flows.call(endpoints.create_from(body), 0, doubt=False))

    def count_tokens(self, params: Mapping[str, Any]) -> int:
        """Return how many input tokens a request with these `params` has. Costs nothing."""
        return self._run(self._flows.call(endpoints.count_tokens(params))).input_tokens

    def retrieve(self, batch_id: str, *, retries: int | None = None) -> MessageBatch:
        """Return the current state of the batch.

        :param retries: How often to retry after a failure. Default: the settings' `max_retries`.
        :raises NotFoundError: The API returned one 404. A single 404 can be wrong: `find` retries it.
        """
        return self._run(self._flows.call(endpoints.retrieve(batch_id), retries))

    def find(self, batch_id: str, seen: datetime | None = None, *, confirm: bool = False) -> MessageBatch:
        """Return the current state of the batch; retry a 404 three times over 7 s.

        :param seen: When the batch was created, if it has been seen. A 404 is then checked against the list of batches.
        :param confirm: Whether to check a 404 against the list even if the batch was never seen. Default False.
        :raises NotFoundError: The batch was not found.
        """
        return self._run(self._flows.find(batch_id, seen, confirm=confirm))

    def page(self, pager: Pager | None = None, *, retries: int | None = None, doubt: bool = True) -> BatchPage:
        """Return the next page of the list.

        :param pager: Holds the position in the list, and is advanced. Default: the first 1,000 batches.
        :param retries: How often to retry after a failure. Default: the settings' `max_retries`.
        :param doubt: Whether to retry if the API refuses the key. Default True.
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
        """Iterate over the batches, newest first. Batches already returned may be deleted during the iteration.

        :param limit: The maximum number of batches. Default: all.
        :param after_id: Start after this batch and continue to the oldest.
        :param before_id: Start before this batch and continue to the newest.
        :param page_size: Batches per page, 1 to 1000 (default).
        """
        walk = Walk(limit, page_size, after_id, before_id)
        while not walk.ended:
            yield from walk.new(self.page(walk))

    def cancel(self, batch_id: str, seen: datetime | None = None, *, confirm: bool = False) -> MessageBatch:
        """Cancel the batch and return it; a batch that is canceling or has ended is returned unchanged.

        :param seen: When the batch was created, if it has been seen. A 404 is then checked against the list of batches.
        :param confirm: Whether to check a 404 against the list even if the batch was never seen. Default False.
        :raises NotFoundError: The batch was not found.
        """
        return self._run(self._flows.cancel(batch_id, seen, confirm=confirm))

    def delete(self, batch_id: str, seen: datetime | None = None) -> DeletedBatch:
        """Delete the batch with its results.

        :param seen: When the batch was created, if it has been seen. A 404 is then checked against the list of batches.
        :raises BatchNotEndedError: The batch is still running. Cancel it, wait until it ends, then delete it.
        :raises NotFoundError: The batch was not found.
        """
        return self._run(self._flows.delete(batch_id, seen))

    def results(self, batch_id: str) -> Iterator[BatchResult]:
        """Iterate over the batch's results while they arrive, in any order, in constant memory.

        :raises BatchNotEndedError: The batch has no results yet.
        :raises ResultsUnavailableError: The results are archived and can no longer be read.
        :raises ResultsTruncatedError: The stream ended early. The results returned before are valid.
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

        :param known: A recent state of the batch, to avoid another retrieval.
        :raises BatchNotEndedError: The batch has no results yet.
        :raises ResultsUnavailableError: The results are archived and can no longer be read.
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
        except CredentialsError as error:
            raise self._not_sent(call, error) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self._no_answer(call, error) from None
        return self._read(call, response)


class AsyncBatchesClient(BaseClient[httpx.AsyncClient]):
    """Calls the Message Batches API from an event loop, with the methods of BatchesClient.

    :param settings: How to reach the API.
    :param throttle: Paces the calls of all clients that share it. Default: not shared.
    :param renew: Like BatchesClient's, called in a thread. Default: the settings never change.
    """

    _kind = httpx.AsyncClient

    def _content(self, call: Call[Any]) -> Any:
        async def pieces(body: Body) -> AsyncIterator[bytes]:
            for piece in body.pieces():
                yield piece

        return pieces(call.body) if call.body else None

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

    async def create_once(self, body: Body) -> MessageBatch:
        """See BatchesClient.create_once."""
        return await self._run(self._flows.call(endpoints.create_from(body), 0, doubt=False))

    async def count_tokens(self, params: Mapping[str, Any]) -> int:
        """See BatchesClient.count_tokens."""
        return (await self._run(self._flows.call(endpoints.count_tokens(params)))).input_tokens

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
        """Return which of the batches are in the list. Reads back to `since`, or only the first page if it is None."""
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
        except CredentialsError as error:
            raise self._not_sent(call, error) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self._no_answer(call, error) from None
        return self._read(call, response)
