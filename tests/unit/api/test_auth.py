"""The one seam for signing: `settings.auth`."""

from __future__ import annotations

import asyncio
import hashlib
import hmac

import httpx
import pytest

from airflow_provider_batches.api import (
    APIConnectionError,
    AsyncBatchesClient,
    BatchesClient,
    BatchesError,
    ClientSettings,
    InvalidArgumentError,
    Throttle,
    endpoints,
    retry,
)
from airflow_provider_batches.api.auth import KeyAuth
from airflow_provider_batches.api.evidence import Evidence, Proof

KEY = "sk-ant-canary"
REQUESTS = [{"custom_id": "a", "params": {"model": "m"}}]


class SigningAuth(httpx.Auth):
    """Signs the hash of the body, as AWS does, with a secret that never leaves this process."""

    secret = "signing-secret-canary"

    def auth_flow(self, request):
        call = request.extensions["call"]
        signed = f"{request.method} {request.url.path} {call.body_sha256}".encode()
        request.headers["authorization"] = hmac.new(self.secret.encode(), signed, "sha256").hexdigest()
        yield request

    def secrets(self):
        yield self.secret


class LockedAuth(httpx.Auth):
    """Has no credentials: a file is missing, or an exchange has failed."""

    def __init__(self, error):
        self.errors = [error] if isinstance(error, Exception) else error

    def auth_flow(self, request):
        if self.errors:
            raise self.errors.pop(0)
        yield request

    def secrets(self):
        return iter(())


class Server:
    """Answers each request, and keeps them."""

    def __init__(self, batch_json):
        self.batch_json = batch_json
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        return httpx.Response(200, json=self.batch_json())


class Sync:
    def __init__(self, settings, server, throttle=None):
        self.client = BatchesClient(settings, throttle)
        # As the client makes it, but for the network.
        self.client._http._transport = httpx.MockTransport(server)

    def __getattr__(self, name):
        return getattr(self.client, name)


class Async(Sync):
    def __init__(self, settings, server, throttle=None):
        self.client = AsyncBatchesClient(settings, throttle)
        self.client._http._transport = httpx.MockTransport(server)

    def __getattr__(self, name):
        return lambda *args: asyncio.run(getattr(self.client, name)(*args))


@pytest.fixture
def server(batch_json):
    return Server(batch_json)


def settings(auth=None, **values):
    made = ClientSettings.parse(**{"api_key": KEY, "base_url": "https://api.anthropic.com", **values})
    if auth is not None:
        vars(made)["auth"] = auth
    return made


BOTH = pytest.mark.parametrize("kind", [Sync, Async], ids=["sync", "async"])


class TestTheKey:
    @pytest.mark.parametrize(
        ("scheme", "header", "value"), [("x-api-key", "x-api-key", KEY), ("bearer", "authorization", f"Bearer {KEY}")]
    )
    @BOTH
    def test_is_sent_in_one_header(self, kind, scheme, header, value, server):
        kind(settings(auth_scheme=scheme), server).retrieve("msgbatch_1")
        (request,) = server.requests
        assert {name: text for name, text in request.headers.items() if KEY in text} == {header: value}

    @BOTH
    def test_is_in_no_default_header(self, kind, server):
        made = kind(settings(), server)
        assert KEY not in str(made.client._http.headers.raw)

    @BOTH
    @pytest.mark.parametrize("show", [repr, str, lambda each: f"{each!r:>5}"])
    def test_is_in_no_repr(self, kind, show, server):
        client = kind(settings(), server).client
        shown = [client, client.settings, client.settings.auth, client._http, client._http.auth]
        assert KEY not in "".join(map(show, shown))

    @BOTH
    def test_is_in_no_error(self, kind):
        def echo(request):
            return httpx.Response(403, text=f"denied: {dict(request.headers)}")

        with pytest.raises(BatchesError) as caught:
            kind(settings(max_retries=0), echo).retrieve("msgbatch_1")
        error = caught.value
        assert "denied" in str(error)
        assert KEY not in f"{error} {error!r} {vars(error)} {error.__cause__}"

    def test_is_what_the_settings_take_out_of_texts(self):
        assert list(KeyAuth(KEY).secrets()) == [KEY]


class TestAnotherAuth:
    """A platform has its own way of signing."""

    @BOTH
    def test_signs_the_body_by_its_hash(self, kind, server):
        kind(settings(SigningAuth()), server).create(REQUESTS)
        (request,) = server.requests
        digest = hashlib.sha256(request.content).hexdigest()
        signed = f"POST /v1/messages/batches {digest}".encode()
        expected = hmac.new(SigningAuth.secret.encode(), signed, "sha256").hexdigest()
        assert (request.headers["authorization"], "x-api-key" in request.headers) == (expected, False)

    @BOTH
    def test_signs_an_empty_body_too(self, kind, server):
        kind(settings(SigningAuth()), server).retrieve("msgbatch_1")
        signed = f"GET /v1/messages/batches/msgbatch_1 {hashlib.sha256(b'').hexdigest()}".encode()
        expected = hmac.new(SigningAuth.secret.encode(), signed, "sha256").hexdigest()
        assert server.requests[0].headers["authorization"] == expected

    def test_hashes_a_body_once(self):
        call = endpoints.create(REQUESTS)
        assert call.body_sha256 is call.body_sha256

    @BOTH
    def test_signs_anew_at_each_attempt(self, kind, server, monkeypatch):
        monkeypatch.setattr(retry, "FIRST_BACKOFF", 0.0)
        signed = []

        class Counting(SigningAuth):
            def auth_flow(self, request):
                signed.append(request)
                yield from super().auth_flow(request)

        answers = [httpx.Response(503), httpx.Response(503)]
        made = kind(settings(Counting()), lambda request: answers.pop() if answers else server(request))
        made.retrieve("msgbatch_1")
        assert len({id(request) for request in signed}) == 3

    @BOTH
    def test_says_what_is_secret(self, kind):
        made = kind(settings(SigningAuth(), max_retries=0), lambda _: httpx.Response(400, text=SigningAuth.secret))
        with pytest.raises(BatchesError, match=r"400 Bad Request: \*\*\*"):
            made.retrieve("msgbatch_1")


class TestCredentialsThatAreMissing:
    """They are looked for before a body is sent, so that nothing reaches the server without them."""

    @BOTH
    @pytest.mark.parametrize("name", ["create", "retrieve", "cancel", "delete"])
    def test_send_nothing(self, kind, name, server):
        made = kind(settings(LockedAuth(InvalidArgumentError("token_file", "does not exist."))), server)
        with pytest.raises(InvalidArgumentError, match="token_file: does not exist"):
            getattr(made, name)(REQUESTS if name == "create" else "msgbatch_1")
        assert server.requests == []

    @BOTH
    def test_are_looked_for_again_even_for_a_create(self, kind, server, monkeypatch):
        """An exchange of tokens that fails has created no batch."""
        monkeypatch.setattr(retry, "FIRST_BACKOFF", 0.0)
        error = APIConnectionError("No token was issued.")
        error.evidence = Evidence(Proof.NOTHING, outage=True)
        throttle = Throttle()
        kind(settings(LockedAuth([error, error])), server, throttle).create(REQUESTS)
        assert (len(server.requests), throttle.answers) == (1, 1)
