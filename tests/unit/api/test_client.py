from __future__ import annotations

import asyncio
import gc
import inspect

import httpx
import pytest

from airflow_provider_batches.api import flows
from airflow_provider_batches.api.client import AsyncBatchesClient, BatchesClient
from airflow_provider_batches.api.errors import AccessDeniedError, APIConnectionError, InvalidArgumentError
from airflow_provider_batches.api.settings import ClientSettings


def settings(**values):
    return ClientSettings.parse(**{"api_key": "sk-ant-canary", **values})


def public(kind):
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


# Closing has another name in each; a stream of bytes is read in threads, where it costs a third of the CPU; batches
# are looked for in the list by the poller.
ONLY_BLOCKING = {"close", "open_results"}
ONLY_ASYNC = {"aclose", "listed"}
SHARED = sorted(set(public(BatchesClient)) - ONLY_BLOCKING)


class TestBothClients:
    def test_have_the_same_methods_but_for_closing_raw_streams_and_the_poller(self):
        assert set(SHARED) == set(public(AsyncBatchesClient)) - ONLY_ASYNC

    @pytest.mark.parametrize("name", SHARED)
    def test_have_the_same_parameters(self, name):
        parameters = [inspect.signature(public(kind)[name]).parameters for kind in (BatchesClient, AsyncBatchesClient)]
        assert parameters[0] == parameters[1]

    @pytest.mark.parametrize("name", sorted(public(AsyncBatchesClient)))
    def test_differ_in_that_one_is_async(self, name):
        method = public(AsyncBatchesClient)[name]
        assert inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)


class Garbled(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that is not what its header says."""

    def __init__(self):
        self.closed = False

    def __iter__(self):
        yield b"no gzip"

    async def __aiter__(self):
        yield b"no gzip"

    def close(self):
        self.closed = True

    async def aclose(self):
        self.closed = True


class TestARefusedStream:
    @pytest.fixture
    def body(self):
        return Garbled()

    @pytest.fixture
    def transport(self, body, batch):
        def handle(request):
            if request.url.path.endswith("/results"):
                return httpx.Response(500, headers={"content-encoding": "gzip"}, stream=body)
            return httpx.Response(200, json=batch(id="b", ended=True).snapshot())

        return httpx.MockTransport(handle)

    def test_that_cannot_be_read_is_closed(self, body, transport):
        client = BatchesClient(settings(max_retries=0))
        client._http._transport = transport
        with pytest.raises(APIConnectionError, match="DecodingError"):
            next(client.results("b"))
        assert body.closed

    async def test_that_cannot_be_read_is_closed_by_the_async_client_too(self, body, transport):
        client = AsyncBatchesClient(settings(max_retries=0))
        client._http._transport = transport
        with pytest.raises(APIConnectionError, match="DecodingError"):
            await client.results("b").__anext__()
        assert body.closed


class TestRenewal:
    @pytest.mark.parametrize("kind", [BatchesClient, AsyncBatchesClient])
    def test_is_not_asked_of_who_cannot_renew(self, kind, monkeypatch):
        monkeypatch.setattr(flows, "KEY_PAUSES", (0.0,))
        envelope = {"type": "error", "error": {"type": "authentication_error", "message": "No."}, "request_id": "r"}
        client = kind(settings())
        client._http._transport = httpx.MockTransport(lambda _: httpx.Response(401, json=envelope))
        with pytest.raises(AccessDeniedError):
            client.retrieve("b") if kind is BatchesClient else asyncio.run(client.retrieve("b"))


@pytest.mark.parametrize("limit", [0, -1, True, "5"])
def test_a_list_checks_its_arguments_before_anything_is_sent(limit):
    with pytest.raises(InvalidArgumentError, match="limit: got"):
        next(BatchesClient(settings()).list(limit))


def test_a_client_that_nobody_closes_closes_itself():
    made = BatchesClient(settings())
    http = made._http
    del made
    gc.collect()
    assert http.is_closed
