from __future__ import annotations

import asyncio
import ssl
from itertools import pairwise

import httpx
import pytest

from airflow_provider_batches.api import endpoints, transport
from airflow_provider_batches.api.client import AsyncBatchesClient, BatchesClient
from airflow_provider_batches.api.errors import APIConnectionError, InvalidArgumentError
from airflow_provider_batches.api.settings import ClientSettings
from airflow_provider_batches.api.transport import tls_context

KEY = "sk-ant-canary"
CLIENTS = pytest.mark.parametrize("kind", [BatchesClient, AsyncBatchesClient])
RETRIEVE = endpoints.retrieve("b")


def settings(**values):
    return ClientSettings.parse(**{"api_key": KEY, **values})


class TestAClientThatCannotBeMade:
    @CLIENTS
    @pytest.mark.parametrize(
        "values", [{"verify": __file__}, {"proxy": "socks5h://proxy:1"}], ids=["no certificate", "no SOCKS"]
    )
    def test_says_which_settings_to_check(self, kind, values, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "socksio", None)
        with pytest.raises(InvalidArgumentError, match=r"^the CA, proxy: these settings"):
            kind(settings(labels={"verify": "the CA"}, **values))

    @CLIENTS
    @pytest.mark.parametrize(
        "proxy", ["gopher://proxy", "http://user:hunter2/secret@host", "http://user:hunter2@ho\nst"]
    )
    def test_does_not_show_the_environments_proxy(self, kind, proxy, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(InvalidArgumentError, match="or the environment's proxy, cannot be used") as caught:
            kind(settings())
        assert "hunter2" not in str(caught.value)


class TestTheHTTPClient:
    @CLIENTS
    def test_follows_no_redirects(self, kind):
        assert kind(settings())._http.follow_redirects is False

    @CLIENTS
    @pytest.mark.parametrize(("timeout", "connect"), [(60, 10), (3, 3)])
    def test_connects_within_ten_seconds(self, kind, timeout, connect):
        assert kind(settings(timeout=timeout))._http.timeout == httpx.Timeout(timeout, connect=connect)


CREATE = endpoints.create([{"custom_id": "a", "params": {}}])


def content(request):
    """Return a request's body, which an async client streams asynchronously."""

    async def read():
        return b"".join([piece async for piece in request.stream])

    return b"".join(request.stream) if isinstance(request.stream, httpx.SyncByteStream) else asyncio.run(read())


class TestARequest:
    @pytest.mark.parametrize(
        "call",
        [
            RETRIEVE,
            endpoints.retrieve("a:b@c!$&'()*+;=~-_."),
            endpoints.page(5, after_id="b"),
            endpoints.cancel("b"),
            endpoints.delete("b"),
            endpoints.results("b"),
            CREATE,
        ],
        ids=lambda call: f"{call.method} {call.path[20:]}",
    )
    @pytest.mark.parametrize("base_url", ["https://a.example", "https://a.example:8443/gateway/x", "http://[::1]:80"])
    @CLIENTS
    def test_is_what_httpx_would_build(self, kind, base_url, call):
        client = kind(settings(base_url=base_url, headers={"X-Mine": "1"}, anthropic_beta="a,b"))
        client._http.cookies.set("session", "1")
        expected = client._http.build_request(
            call.method,
            call.path,
            params=call.params or None,
            content=call.body and call.body.read(),
            headers={"content-type": "application/json"} if call.body else None,
        )
        built = client._request(call, client._http)
        assert (built.method, built.url) == (expected.method, expected.url)
        assert sorted(built.headers.multi_items()) == sorted(expected.headers.multi_items())
        assert content(built) == expected.read()
        assert built.extensions == {**expected.extensions, "call": call}

    @pytest.mark.parametrize(("timeout", "seconds"), [(60, 600.0), (900, 900.0)])
    def test_of_a_large_create_waits_ten_minutes_for_the_answer(self, timeout, seconds):
        client = BatchesClient(settings(timeout=timeout))
        large = endpoints.create([{"custom_id": "a", "params": {"x": "y" * 1024 * 1024}}])
        assert client._request(large, client._http).extensions["timeout"]["read"] == seconds

    @CLIENTS
    def test_streams_its_body_once(self, kind):
        client = kind(settings())
        built = client._request(CREATE, client._http)
        content(built)
        with pytest.raises(httpx.StreamConsumed):
            content(built)


class TestNoAnswer:
    def error(self, cause, **values):
        return BatchesClient(settings(**values))._no_answer(RETRIEVE, cause)

    @pytest.mark.parametrize(
        ("causes", "says"),
        [
            ([httpx.ReadError("broken")], "(ReadError: broken)"),
            ([httpx.ReadTimeout("")], "(ReadTimeout)"),
            ([httpx.ReadError(""), IndexError("pop from an empty deque")], "(ReadError)"),
            (
                [httpx.ReadError(""), RuntimeError("internal"), OSError(104, "reset by peer")],
                "(ReadError: [Errno 104] reset by peer)",
            ),
        ],
    )
    def test_says_what_the_network_said(self, causes, says):
        for error, cause in pairwise(causes):
            error.__cause__ = cause
        expected = f"Could not retrieve batch b: no answer from https://api.anthropic.com {says}."
        assert str(self.error(causes[0])) == expected

    @pytest.mark.parametrize(
        ("kind", "sent"),
        [
            (httpx.ConnectError, False),
            (httpx.ConnectTimeout, False),
            (httpx.PoolTimeout, False),
            (httpx.ProxyError, False),
            (httpx.UnsupportedProtocol, False),
            (httpx.ReadTimeout, True),
            (httpx.WriteTimeout, True),
            (httpx.ReadError, True),
            (httpx.WriteError, True),
            (httpx.RemoteProtocolError, True),
            (httpx.DecodingError, True),
        ],
    )
    def test_says_whether_the_request_may_have_reached_the_api(self, kind, sent):
        error = self.error(kind("x"))
        assert (error.evidence.in_doubt, "Check base_url and proxy." in str(error)) == (sent, not sent)

    def test_says_how_to_trust_a_certificate(self):
        error = self.error(httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), labels={"verify": "extra.verify"})
        assert "Set extra.verify to the CA file that the host's certificate is signed with." in str(error)

    def test_does_not_show_secrets(self):
        error = self.error(httpx.ProxyError(f"407 for {KEY} confidential"), proxy="http://user:confidential@proxy:1")
        assert "407 for *** ***" in str(error)

    def test_does_not_hold_the_request(self):
        """It has the key in its headers, and tracebacks may show what an error holds."""
        client = BatchesClient(settings(max_retries=0))
        client._http._transport = httpx.MockTransport(lambda request: (_ for _ in ()).throw(httpx.ReadError("x")))
        with pytest.raises(APIConnectionError) as caught:
            client.retrieve("b")
        assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)

    def test_of_a_proxy_whose_name_cannot_be_encoded_is_in_doubt_as_that_of_a_redirect_is(self, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", "http://a..b:1")
        with pytest.raises(APIConnectionError, match="Check base_url and proxy") as caught:
            BatchesClient(settings(max_retries=0)).page()
        assert caught.value.evidence.in_doubt


class TestRenewal:
    def renewed(self, *found):
        """Return a client that has renewed its settings to each of those found."""
        left = list(found)
        client = BatchesClient(settings(api_key="key-number-0"), renew=lambda: left.pop(0)())
        client.throttle.has_answered = True
        for _ in found:
            client._renew_settings()
        return client

    def test_continues_with_other_settings_and_keeps_the_former_connections_open(self):
        client = self.renewed(lambda: settings(api_key="key-number-1"))
        keys = [made.api_key.get_secret_value() for made in (*(each for each, _ in client._opened), client.settings)]
        assert keys == ["key-number-0", "key-number-1", "key-number-1"]
        assert [http.is_closed for _, http in client._opened] == [False, False]

    def test_closes_all_connections_in_the_end(self):
        client = self.renewed(*(lambda n=n: settings(api_key=f"key-number-{n}") for n in (1, 2)))
        client.close()
        assert [http.is_closed for _, http in client._opened] == [True, True, True]

    def test_with_the_same_settings_changes_nothing(self):
        client = self.renewed(lambda: settings(api_key="key-number-0"))
        assert len(client._opened) == 1

    def test_that_fails_keeps_the_settings_and_logs_no_secret(self, caplog):
        def fail():
            raise RuntimeError(f"backend down, {KEY}")

        client = self.renewed(fail)
        assert client.settings.api_key.get_secret_value() == "key-number-0"
        assert caplog.messages == ["The settings could not be read again: RuntimeError"]

    def test_hides_all_keys_that_were_ever_used(self):
        client = self.renewed(lambda: settings(api_key="key-number-1"), lambda: settings(api_key="key-number-2"))
        assert client._redact("key-number-0 key-number-1 key-number-2") == "*** *** ***"

    @pytest.mark.parametrize(("url", "answered"), [("https://api.anthropic.com", True), ("https://b.example", False)])
    def test_knows_nothing_of_another_address(self, url, answered):
        client = self.renewed(lambda: settings(api_key="key-number-1", base_url=url))
        assert client.throttle.has_answered is answered

    def test_with_settings_that_cannot_be_used_keeps_the_former_ones(self):
        client = self.renewed(lambda: settings(api_key="key-number-1", verify=__file__))
        assert client.settings.api_key.get_secret_value() == "key-number-0"


class TestTheTLSContext:
    def test_is_shared_by_all_clients_of_a_process(self):
        assert tls_context(True) is tls_context(True)

    def test_checks_certificates_and_host_names(self):
        context = tls_context(True)
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)

    def test_checks_nothing_if_that_is_wished(self):
        assert tls_context(False).verify_mode is ssl.CERT_NONE

    def test_of_a_folder_checks_too(self, tmp_path):
        assert tls_context(str(tmp_path)).verify_mode is ssl.CERT_REQUIRED

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1:1"])
    def test_is_made_only_if_it_is_needed(self, url, monkeypatch):
        made = []
        monkeypatch.setattr(transport, "tls_context", lambda verify, *_: made.append(verify) or tls_context(verify))
        BatchesClient(settings(base_url=url))
        assert made == [url.startswith("https")]
