"""The sync and the async client. What differs between them is the `await`, nothing else."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import httpx
from tenacity import AsyncRetrying, Retrying

from airflow_provider_batches.api import endpoints, flows
from airflow_provider_batches.api.answers import read_answer
from airflow_provider_batches.api.endpoints import Call
from airflow_provider_batches.api.errors import (
    APIConnectionError,
    APIStatusError,
    BatchesError,
    InvalidArgumentError,
    InvalidResponseError,
    ServerError,
)
from airflow_provider_batches.api.flows import Flow, Pause
from airflow_provider_batches.api.models import (
    BatchPage,
    BatchRequest,
    BatchResult,
    DeletedBatch,
    MessageBatch,
    RawPage,
)
from airflow_provider_batches.api.retry import schedule
from airflow_provider_batches.api.settings import ClientSettings
from airflow_provider_batches.api.streams import ResultBytes, ResultLines

T = TypeVar("T")
C = TypeVar("C", httpx.Client, httpx.AsyncClient)

#: The request cannot have reached the API: no connection came about.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    # The name of a proxy that the environment names: what a setting names has been checked.
    UnicodeError,
)
_CONNECT_SECONDS = 10.0
_UNSENT_HINT = "Check the connection's host, port and proxy."
_CERTIFICATE_HINT = "Name the CA file of whoever signed the host's certificate in the connection's verify."
_DOUBT_HINT = (
    "The batch may have been created all the same, and a second one would cost money too: look into the list of "
    "batches before you try again."
)


@lru_cache(maxsize=8)
def tls_context(verify: bool | str) -> ssl.SSLContext:
    """Return the TLS context that all clients of this process with this `verify` share: making one costs 50 ms."""
    if isinstance(verify, str):
        folder = os.path.isdir(verify)
        return ssl.create_default_context(cafile=None if folder else verify, capath=verify if folder else None)
    return httpx.create_ssl_context(verify=verify)


class _Exchange:
    """One call over all its attempts: reads what comes back and remembers whether an answer was lost."""

    def __init__(self, call: Call[Any], settings: ClientSettings, request: httpx.Request) -> None:
        self.call = call
        self.settings = settings
        self.request = request
        self._lost = False

    def read(self, response: httpx.Response) -> Any:
        try:
            return read_answer(
                self.call, response.status_code, response.headers, response.content, self.settings.redact
            )
        except APIStatusError as error:
            error.answer_was_lost = self._lost
            raise self._redacted(error, lost=isinstance(error, ServerError) and error.status != 409) from None
        except InvalidResponseError as error:
            raise self._redacted(error, lost=True) from None

    def failed(self, error: httpx.HTTPError | UnicodeError) -> APIConnectionError:
        """Return what to raise where no answer came."""
        sent = not isinstance(error, _NOT_SENT)
        hint = "" if sent else _CERTIFICATE_HINT if "CERTIFICATE_VERIFY_FAILED" in str(error) else _UNSENT_HINT
        # The client's own errors only: httpx's hold the request with its headers.
        text = (
            f"Could not {self.call.action}: no answer from {self.settings.base_url} "
            f"({type(error).__name__}: {_details(error)}). {hint}"
        )
        return self._redacted(APIConnectionError(text.strip(), sent=sent), lost=sent)

    def _redacted(self, error: BatchesErrorT, lost: bool) -> BatchesErrorT:
        """Return the error without secrets; `lost` where the request may have done its work all the same."""
        self._lost = self._lost or lost
        if lost and not self.call.repeatable:
            error.args = (f"{error} {_DOUBT_HINT}",)
        error.args = tuple(self.settings.redact(str(arg)) for arg in error.args)
        if isinstance(error, APIStatusError):
            error.message = self.settings.redact(error.message)
            error.error_type = error.error_type and self.settings.redact(error.error_type)
        return error


BatchesErrorT = TypeVar("BatchesErrorT", bound=BatchesError)


def _details(error: BaseException) -> str:
    """Return what an error says, or what has caused it: httpx's errors of the async client are often silent."""
    if isinstance(error, httpx.TimeoutException):
        return "timed out"
    cause: BaseException | None = error
    # What the event loop's libraries raise among themselves says nothing to a reader.
    while cause and not (str(cause) and isinstance(cause, (httpx.HTTPError, OSError))):
        cause = cause.__cause__ or cause.__context__
    return str(cause) if cause else "no details"


class _BaseClient(Generic[C]):
    """Builds requests and reads answers; a subclass sends them."""

    _http: C

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings

    def _http_options(self) -> dict[str, Any]:
        settings = self.settings
        plain = settings.base_url.startswith("http://") and settings.proxy is None
        return {
            "base_url": settings.base_url,
            "headers": settings.request_headers(),
            "timeout": httpx.Timeout(settings.timeout, connect=min(settings.timeout, _CONNECT_SECONDS)),
            "proxy": settings.proxy,
            # A plain connection needs no certificates, and reading them takes its time.
            "verify": tls_context(False) if plain else tls_context(settings.verify),
            "follow_redirects": False,
            # This machine is reached directly: a proxy of the environment would get the key over plain HTTP.
            "trust_env": not (plain and settings.is_loopback),
        }

    def _make(self, kind: type[C]) -> C:
        try:
            return kind(**self._http_options())
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            # A file that holds no certificates, SOCKS without its package, a broken proxy in the environment: part of
            # whose password may be what the error says is wrong.
            says = (
                str(error)
                if isinstance(error, (ImportError, OSError))
                else "a proxy is no URL like http://proxy.example:3128"
            )
            raise InvalidArgumentError(
                "verify, proxy: these settings, or the environment's proxy, cannot be used: "
                f"{self.settings.redact(says)}"
            ) from None

    def _exchange(self, call: Call[Any]) -> _Exchange:
        headers = {"content-type": "application/json"} if call.body is not None else None
        request = self._http.build_request(
            call.method, call.path, params=call.params or None, content=call.body, headers=headers
        )
        return _Exchange(call, self.settings, request)

    def _attempts(self, retries: int | None) -> int:
        return 1 + (self.settings.max_retries if retries is None else retries)


class BatchesClient(_BaseClient[httpx.Client]):
    """The Message Batches API, blocking.

    :param settings: How to reach the API.

    Every method checks its arguments first (InvalidArgumentError, nothing is sent), makes failed calls again as
    `settings.max_retries` allows, and raises a BatchesError where that did not help.
    """

    def __init__(self, settings: ClientSettings) -> None:
        super().__init__(settings)
        self._http = self._make(httpx.Client)
        # A client that nobody closes, as that of a hook, does not leave its connections to the garbage collector.
        weakref.finalize(self, self._http.close).atexit = False

    def __enter__(self) -> BatchesClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the API."""
        self._http.close()

    def create(self, requests: Iterable[Mapping[str, Any] | BatchRequest]) -> MessageBatch:
        """Create a batch: it costs money from now on.

        Never made again once the request may have reached the API, since the API cannot tell a repetition from a
        second batch.

        :param requests: 1 to 100,000 of `{"custom_id", "params"}`, 256 MiB at most.
        """
        return self._call(endpoints.create(requests))

    def retrieve(self, batch_id: str, *, retries: int | None = None) -> MessageBatch:
        """Return the batch as it is now.

        :param retries: How often to ask again after a failure. Default: the settings' `max_retries`.
        :raises NotFoundError: The API does not know the batch at this moment; `find` makes sure.
        """
        return self._call(endpoints.retrieve(batch_id), retries)

    def find(self, batch_id: str) -> MessageBatch:
        """Return the batch as it is now; a 404 is believed only once it came four times over 7 s.

        :raises NotFoundError: The API does not know the batch.
        """
        return self._run(flows.find(batch_id))

    def page(
        self,
        limit: int = endpoints.MAX_PAGE,
        after_id: str | None = None,
        before_id: str | None = None,
        *,
        retries: int | None = None,
    ) -> BatchPage:
        """Return one page of batches, newest first.

        :param limit: Batches on the page, 1 to 1000 (default).
        :param after_id: Only batches older than this one.
        :param before_id: Only batches newer than this one.
        :param retries: How often to ask again after a failure. Default: the settings' `max_retries`.
        """
        return self._call(endpoints.page(limit, after_id, before_id), retries)

    def raw_page(self, after_id: str | None = None, *, retries: int | None = None) -> RawPage:
        """Return one page of up to 1000 batches, newest first, as they came: cheaper where few of them matter.

        :param after_id: Only batches older than this one.
        :param retries: How often to ask again after a failure. Default: the settings' `max_retries`.
        """
        return self._call(endpoints.raw_page(after_id), retries)

    def list(
        self, limit: int = endpoints.MAX_PAGE, after_id: str | None = None, before_id: str | None = None
    ) -> Iterator[MessageBatch]:
        """Iterate over all batches, page by page.

        :param limit: Batches a page, 1 to 1000 (default).
        :param after_id: Begin behind this batch and go on to the oldest.
        :param before_id: Begin before this batch and go on to the newest.
        """
        call: Call[BatchPage] | None = endpoints.page(limit, after_id, before_id)
        while call:
            found = self._call(call)
            yield from found.data
            call = _next_page(call, found)

    def cancel(self, batch_id: str) -> MessageBatch:
        """Return the batch once it is canceling or has ended, which it may have been before.

        :raises NotFoundError: The API does not know the batch.
        """
        return self._run(flows.cancel(batch_id))

    def delete(self, batch_id: str) -> DeletedBatch:
        """Delete the batch with its results.

        :raises BatchNotEndedError: The batch still runs: cancel it, wait for its end, then delete it.
        :raises NotFoundError: The API does not know the batch.
        """
        return self._run(flows.delete(batch_id))

    def results(self, batch_id: str) -> Iterator[BatchResult]:
        """Iterate over the batch's results as they come, in any order, in constant memory.

        :raises BatchNotEndedError: The batch has no results yet.
        :raises ResultsUnavailableError: The results are archived, and gone.
        :raises ResultsTruncatedError: The stream ended early; what came before is right.
        """
        batch, response = self._run(flows.open_results(batch_id))
        lines = ResultLines(batch)
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
        """Open the batch's results as the bytes that the API sends, which are not looked into.

        :param known: The batch as it was seen a moment ago, which saves a look at it.
        :raises BatchNotEndedError: The batch has no results yet.
        :raises ResultsUnavailableError: The results are archived, and gone.
        """
        batch, response = self._run(flows.open_results(batch_id, known))
        try:
            yield ResultBytes(batch, response.headers.get("request-id"), response.iter_bytes())
        finally:
            response.close()

    def _run(self, flow: Flow[T]) -> T:
        resume, value = flow.send, cast(Any, None)
        while True:
            try:
                step = resume(value)
            except StopIteration as stop:
                return cast(T, stop.value)
            try:
                resume, value = flow.send, self._take(step)
            except BatchesError as error:
                resume, value = cast(Any, flow.throw), error

    def _take(self, step: Call[Any] | Pause) -> Any:
        return time.sleep(step.seconds) if isinstance(step, Pause) else self._call(step)

    def _call(self, call: Call[T], retries: int | None = None) -> T:
        attempts = Retrying(**schedule(call, self._attempts(retries)))
        return cast(T, attempts(self._attempt, self._exchange(call)))

    def _attempt(self, exchange: _Exchange) -> Any:
        stream = exchange.call.model is None
        try:
            response = self._http.send(exchange.request, stream=stream)
            if stream and response.is_success:
                return response
            try:
                response.read()
            finally:
                response.close()
        except (httpx.HTTPError, UnicodeError) as error:
            raise exchange.failed(error) from None
        return exchange.read(response)


class AsyncBatchesClient(_BaseClient[httpx.AsyncClient]):
    """The Message Batches API for event loops; see BatchesClient, whose methods these are.

    :param settings: How to reach the API.
    """

    def __init__(self, settings: ClientSettings) -> None:
        super().__init__(settings)
        self._http = self._make(httpx.AsyncClient)

    async def __aenter__(self) -> AsyncBatchesClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to the API."""
        await self._http.aclose()

    async def create(self, requests: Iterable[Mapping[str, Any] | BatchRequest]) -> MessageBatch:
        """See BatchesClient.create."""
        return await self._call(endpoints.create(requests))

    async def retrieve(self, batch_id: str, *, retries: int | None = None) -> MessageBatch:
        """See BatchesClient.retrieve."""
        return await self._call(endpoints.retrieve(batch_id), retries)

    async def find(self, batch_id: str) -> MessageBatch:
        """See BatchesClient.find."""
        return await self._run(flows.find(batch_id))

    async def page(
        self,
        limit: int = endpoints.MAX_PAGE,
        after_id: str | None = None,
        before_id: str | None = None,
        *,
        retries: int | None = None,
    ) -> BatchPage:
        """See BatchesClient.page."""
        return await self._call(endpoints.page(limit, after_id, before_id), retries)

    async def raw_page(self, after_id: str | None = None, *, retries: int | None = None) -> RawPage:
        """See BatchesClient.raw_page."""
        return await self._call(endpoints.raw_page(after_id), retries)

    async def list(
        self, limit: int = endpoints.MAX_PAGE, after_id: str | None = None, before_id: str | None = None
    ) -> AsyncIterator[MessageBatch]:
        """See BatchesClient.list."""
        call: Call[BatchPage] | None = endpoints.page(limit, after_id, before_id)
        while call:
            found = await self._call(call)
            for batch in found.data:
                yield batch
            call = _next_page(call, found)

    async def cancel(self, batch_id: str) -> MessageBatch:
        """See BatchesClient.cancel."""
        return await self._run(flows.cancel(batch_id))

    async def delete(self, batch_id: str) -> DeletedBatch:
        """See BatchesClient.delete."""
        return await self._run(flows.delete(batch_id))

    async def results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        """See BatchesClient.results."""
        batch, response = await self._run(flows.open_results(batch_id))
        lines = ResultLines(batch)
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
        resume, value = flow.send, cast(Any, None)
        while True:
            try:
                step = resume(value)
            except StopIteration as stop:
                return cast(T, stop.value)
            try:
                resume, value = flow.send, await self._take(step)
            except BatchesError as error:
                resume, value = cast(Any, flow.throw), error

    async def _take(self, step: Call[Any] | Pause) -> Any:
        return await (asyncio.sleep(step.seconds) if isinstance(step, Pause) else self._call(step))

    async def _call(self, call: Call[T], retries: int | None = None) -> T:
        attempts = AsyncRetrying(**self._schedule(call, self._attempts(retries)))
        return cast(T, await attempts(self._attempt, self._exchange(call)))

    def _schedule(self, call: Call[Any], attempts: int) -> dict[str, Any]:
        return schedule(call, attempts)

    async def _attempt(self, exchange: _Exchange) -> Any:
        stream = exchange.call.model is None
        try:
            response = await self._http.send(exchange.request, stream=stream)
            if stream and response.is_success:
                return response
            try:
                await response.aread()
            finally:
                await response.aclose()
        except (httpx.HTTPError, UnicodeError) as error:
            raise exchange.failed(error) from None
        return exchange.read(response)


def _next_page(call: Call[BatchPage], found: BatchPage) -> Call[BatchPage] | None:
    backwards = "before_id" in call.params
    cursor = found.first_id if backwards else found.last_id
    name = "before_id" if backwards else "after_id"
    if not found.has_more or not found.data:
        return None
    if cursor is None or cursor == call.params.get(name):
        raise InvalidResponseError(
            "Could not list batches: the API says there are more, but not behind which "
            f"(request-id {found.request_id}).",
            request_id=found.request_id,
        )
    return endpoints.page(int(call.params["limit"]), **{name: cursor})
