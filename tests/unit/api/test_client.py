from __future__ import annotations

import gc
import inspect
import ssl
from itertools import pairwise

import httpx
import pytest

from airflow_provider_batches.api import client as client_module
from airflow_provider_batches.api import endpoints
from airflow_provider_batches.api.client import AsyncBatchesClient, BatchesClient, tls_context
from airflow_provider_batches.api.errors import (
    APIConnectionError,
    InvalidArgumentError,
    InvalidResponseError,
)
from airflow_provider_batches.api.models import BatchPage
from airflow_provider_batches.api.settings import ClientSettings

KEY = "sk-ant-canary"
CLIENTS = pytest.mark.parametrize("kind", [BatchesClient, AsyncBatchesClient])


def settings(**values):
    return ClientSettings.parse(**{"api_key": KEY, **values})


def public(kind):
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


# Closing has another name in each; a stream of bytes is read in threads, where it costs a third of the CPU.
ONLY_BLOCKING = {"close", "open_results"}


@pytest.mark.parametrize(
    ("causes", "says"),
    [
        ([httpx.ReadTimeout("")], "timed out"),
        ([httpx.ReadError("broken")], "broken"),
        ([httpx.ReadError(""), IndexError("pop from an empty deque")], "no details"),
        ([httpx.ReadError(""), RuntimeError("internal"), OSError(104, "reset by peer")], "[Errno 104] reset by peer"),
    ],
)
def test_an_error_without_a_text_says_what_the_network_said(causes, says):
    for error, cause in pairwise(causes):
        error.__cause__ = cause
    assert client_module._details(causes[0]) == says


class TestBothClients:
    def test_have_the_same_methods_but_for_closing_and_raw_streams(self):
        assert set(public(BatchesClient)) - ONLY_BLOCKING == set(public(AsyncBatchesClient)) - {"aclose"}

    @pytest.mark.parametrize("name", sorted(set(public(BatchesClient)) - ONLY_BLOCKING))
    def test_have_the_same_parameters(self, name):
        parameters = [inspect.signature(public(kind)[name]).parameters for kind in (BatchesClient, AsyncBatchesClient)]
        assert parameters[0] == parameters[1]

    @pytest.mark.parametrize("name", sorted(set(public(AsyncBatchesClient))))
    def test_differ_in_that_one_is_async(self, name):
        method = public(AsyncBatchesClient)[name]
        assert inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)

    @CLIENTS
    def test_do_not_show_the_key(self, kind):
        made = kind(settings())
        assert KEY not in f"{made!r} {made.settings!r}"

    @CLIENTS
    @pytest.mark.parametrize(
        "values", [{"verify": __file__}, {"proxy": "socks5h://proxy:1"}], ids=["no certificate", "no SOCKS"]
    )
    def test_that_cannot_be_made_say_which_settings_to_check(self, kind, values, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "socksio", None)
        with pytest.raises(InvalidArgumentError, match="verify, proxy: these settings"):
            kind(settings(**values))

    @CLIENTS
    def test_that_cannot_be_made_with_the_environments_proxy_say_so(self, kind, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy")
        with pytest.raises(InvalidArgumentError, match="or the environment's proxy"):
            kind(settings())

    @CLIENTS
    @pytest.mark.parametrize("proxy", ["http://user:hunter2/secret@host", "http://user:hunter2@ho\nst"])
    def test_that_cannot_be_made_do_not_show_the_environments_proxy(self, kind, proxy, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(InvalidArgumentError, match="the environment's proxy") as caught:
            kind(settings())
        assert "hunter2" not in str(caught.value)

    def test_that_cannot_look_the_environments_proxy_up_have_sent_nothing(self, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", "http://a..b:1")
        with pytest.raises(APIConnectionError, match="connection's host, port and proxy") as caught:
            BatchesClient(settings(max_retries=0)).page()
        assert not caught.value.sent

    @CLIENTS
    def test_follow_no_redirects(self, kind):
        assert kind(settings())._http.follow_redirects is False

    @CLIENTS
    @pytest.mark.parametrize(("timeout", "connect"), [(60, 10), (3, 3)])
    def test_connect_within_ten_seconds(self, kind, timeout, connect):
        assert kind(settings(timeout=timeout))._http.timeout == httpx.Timeout(timeout, connect=connect)


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
    def transport(self, body):
        return httpx.MockTransport(lambda _: httpx.Response(500, headers={"content-encoding": "gzip"}, stream=body))

    def test_that_cannot_be_read_is_closed(self, body, transport):
        client = BatchesClient(settings(max_retries=0))
        client._http = httpx.Client(base_url=settings().base_url, transport=transport)
        with pytest.raises(APIConnectionError, match="DecodingError"):
            client._call(endpoints.results("b"))
        assert body.closed

    async def test_that_cannot_be_read_is_closed_by_the_async_client_too(self, body, transport):
        client = AsyncBatchesClient(settings(max_retries=0))
        client._http = httpx.AsyncClient(base_url=settings().base_url, transport=transport)
        with pytest.raises(APIConnectionError, match="DecodingError"):
            await client._call(endpoints.results("b"))
        assert body.closed


class TestTheTLSContext:
    def test_is_shared_by_all_clients_of_a_process(self):
        assert tls_context(True) is tls_context(True)

    def test_checks_certificates_and_host_names(self):
        context = tls_context(True)
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)

    def test_checks_nothing_where_that_is_wished(self):
        assert tls_context(False).verify_mode is ssl.CERT_NONE

    def test_of_a_folder_checks_too(self, tmp_path):
        assert tls_context(str(tmp_path)).verify_mode is ssl.CERT_REQUIRED

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1:1"])
    def test_is_not_made_where_none_is_needed(self, url, monkeypatch):
        made = []
        monkeypatch.setattr(client_module, "tls_context", lambda verify: made.append(verify) or tls_context(verify))
        BatchesClient(settings(base_url=url))
        assert made == [url.startswith("https")]


class TestTheNextPage:
    def page(self, batch, **fields):
        return BatchPage(**{"data": [batch()], "has_more": True, "first_id": "f", "last_id": "l", **fields})

    @pytest.mark.parametrize(
        ("cursor", "expected"),
        [
            ({}, {"after_id": "l", "limit": "5"}),
            ({"after_id": "a"}, {"after_id": "l", "limit": "5"}),
            ({"before_id": "b"}, {"before_id": "f", "limit": "5"}),
        ],
    )
    def test_goes_on_in_the_same_direction_with_the_same_limit(self, cursor, expected, batch):
        assert client_module._next_page(endpoints.page(5, **cursor), self.page(batch)).params == expected

    @pytest.mark.parametrize("fields", [{"has_more": False}, {"data": []}])
    def test_is_none_where_there_is_nothing_more(self, fields, batch):
        assert client_module._next_page(endpoints.page(), self.page(batch, **fields)) is None

    @pytest.mark.parametrize("last_id", [None, "a"])
    def test_that_would_be_the_same_one_again_is_an_error_and_no_endless_loop(self, last_id, batch):
        with pytest.raises(InvalidResponseError, match="not behind which"):
            client_module._next_page(endpoints.page(after_id="a"), self.page(batch, last_id=last_id))


def test_a_client_that_nobody_closes_closes_itself():
    made = BatchesClient(settings())
    http = made._http
    del made
    gc.collect()
    assert http.is_closed
