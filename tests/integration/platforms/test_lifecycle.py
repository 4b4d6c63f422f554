"""All calls on each platform, with tokens that end, are revoked or cannot be had."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_batches.api import (
    AccessDeniedError,
    AsyncBatchesClient,
    BatchesClient,
    BatchesError,
    ClientSettings,
    retry,
    tokens,
)
from airflow_provider_batches.api.errors import CredentialsError
from airflow_provider_batches.emulator import Emulator, Fault
from tests.integration.platforms.conftest import PLATFORMS, SECRET, jwt

Settings = Callable[..., ClientSettings]
EACH = pytest.mark.parametrize("platform", PLATFORMS)
REQUESTS = [
    {
        "custom_id": f"r{number}",
        "params": {"model": "claude-haiku-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]},
    }
    for number in range(3)
]


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_BACKOFF", 0.001)
    monkeypatch.setattr("airflow_provider_batches.api.flows.KEY_PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr("airflow_provider_batches.api.flows.WORKING_KEY_PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(tokens, "FAILURE_SECONDS", 0.2)


@EACH
def test_the_sync_client_has_all_calls(platform: str, settings_of: Settings, platform_api: Emulator) -> None:
    client = BatchesClient(settings_of(platform, anthropic_beta="files-api-2025-04-14"))
    batch = client.create(REQUESTS)
    assert [each.id for each in client.list()] == [batch.id]
    client.cancel(batch.id)
    assert len(list(client.results(batch.id))) == 3
    assert client.count_tokens(REQUESTS[0]["params"]) > 0  # type: ignore[arg-type]
    client.delete(batch.id)

    assert platform_api.ids() == []
    assert platform_api.count("exchange") == (0 if platform == "aws" else 1)
    kinds = {request.auth for request in platform_api.requests if request.endpoint != "exchange"}
    assert kinds == {"aws" if platform == "aws" else "bearer"}


@EACH
async def test_the_async_client_has_all_calls(platform: str, settings_of: Settings, platform_api: Emulator) -> None:
    async with AsyncBatchesClient(settings_of(platform)) as client:
        batch = await client.create(REQUESTS)
        assert [each.id async for each in client.list()] == [batch.id]
        await client.cancel(batch.id)
        assert len([each async for each in client.results(batch.id)]) == 3
        await client.delete(batch.id)

    assert platform_api.ids() == []


@pytest.mark.parametrize("platform", ["federation", "google"])
def test_a_revoked_token_is_replaced_and_a_create_is_sent_once_more_only(
    platform: str, settings_of: Settings, platform_api: Emulator
) -> None:
    client = BatchesClient(settings_of(platform))
    client.create(REQUESTS)
    assert platform_api.revoke_tokens() == 1
    client.create(REQUESTS)

    assert len(platform_api.ids()) == 2
    assert platform_api.count("exchange") == 2
    assert [request.status for request in platform_api.requests if request.endpoint == "create"] == [200, 401, 200]


def test_tokens_are_renewed_before_they_expire(settings_of: Settings, platform_api: Emulator) -> None:
    platform_api._settings.token_seconds = 1.0
    client = BatchesClient(settings_of("federation"))
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        client.page(retries=0)
        time.sleep(0.02)

    assert {request.status for request in platform_api.requests} == {200}
    # A token of 1 s is renewed after 0.8 s.
    assert 3 <= platform_api.count("exchange") <= 4


def test_200_calls_over_threads_and_loops_are_right_while_the_token_ends(
    settings_of: Settings, platform_api: Emulator
) -> None:
    batch_id = platform_api.add_batch()
    settings = settings_of("federation")
    client = BatchesClient(settings)
    client.retrieve(batch_id)
    platform_api.revoke_tokens()

    async def on_a_loop() -> list[str]:
        async with AsyncBatchesClient(settings) as each:
            found = await asyncio.gather(*(each.retrieve(batch_id) for _ in range(50)))
            return [batch.id for batch in found]

    with ThreadPoolExecutor(22) as pool:
        loops = [pool.submit(asyncio.run, on_a_loop()) for _ in range(2)]
        calls = [pool.submit(client.retrieve, batch_id) for _ in range(100)]
        found = [call.result().id for call in calls] + [each for loop in loops for each in loop.result()]

    assert found == [batch_id] * 200
    assert platform_api.count("exchange") == 2


async def test_20_waiters_and_a_failing_exchange_make_one_exchange(
    settings_of: Settings, platform_api: Emulator
) -> None:
    platform_api.fault(Fault("exchange", times=None, status=500, delay=0.2))
    async with AsyncBatchesClient(settings_of("federation", max_retries=0)) as client:
        found = await asyncio.gather(*(client.page(retries=0) for _ in range(20)), return_exceptions=True)

    assert {type(error) for error in found} == {CredentialsError}
    assert platform_api.count("exchange") == 1
    assert platform_api.count("list") == 0


@pytest.mark.parametrize(
    ("fault", "text", "retryable", "exchanges"),
    [
        ({"status": 500}, "answered 500", True, 2),
        ({"status": 429, "headers": {"retry-after": "1"}}, "answered 429", True, 2),
        ({"status": 529}, "answered 529", True, 2),
        ({"html": True}, "answered 502 without a text", True, 2),
        ({"body": "<html>", "status": 200}, "has no valid token", True, 2),
        ({"body": '{"access_token": "t"}', "status": 200}, "has no valid token", True, 2),
        ({"body": '{"access_token": "", "expires_in": 60}', "status": 200}, "has no valid token", True, 2),
        ({"body": '{"access_token": "a b", "expires_in": 60}', "status": 200}, "has no valid token", True, 2),
        ({"body": '{"access_token": "a", "expires_in": -1}', "status": 200}, "has no valid token", True, 2),
        ({"drop": True}, "no answer from", True, 2),
        ({"redirect": "http://127.0.0.1:1"}, "answered 307", True, 2),
        (
            {"status": 401, "body": '{"error": "invalid_grant", "error_description": "no rule"}'},
            r"401 invalid_grant: no rule .* Check that federation rule 'fdrl_01AB' accepts .* set workspace_id",
            True,
            1,
        ),
    ],
)
def test_an_exchange_that_fails_is_explained_and_nothing_else_is_sent(
    fault: dict[str, Any],
    text: str,
    retryable: bool,
    exchanges: int,
    settings_of: Settings,
    platform_api: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "FIRST_BACKOFF", 0.3)
    platform_api.fault(Fault("exchange", times=None, **fault))
    with pytest.raises(CredentialsError, match=f"^Could not list batches: no access token: .*{text}") as caught:
        BatchesClient(settings_of("federation", max_retries=1)).page()

    assert caught.value.retryable is retryable
    assert (platform_api.count("exchange"), platform_api.count("list")) == (exchanges, 0)


def test_a_create_is_retried_after_an_exchange_that_failed(settings_of: Settings, platform_api: Emulator) -> None:
    platform_api.fault(Fault("exchange", status=503))
    client = BatchesClient(settings_of("federation", max_retries=5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "FIRST_BACKOFF", 0.1)
        client.create(REQUESTS)

    assert platform_api.count("create") == 1


def test_a_rotated_file_is_read_again(settings_of: Settings, platform_api: Emulator, token_file: Path) -> None:
    settings = settings_of("federation")
    token_file.unlink()
    with pytest.raises(CredentialsError, match=f"the identity token in '{token_file}' cannot be read: No such file"):
        BatchesClient(settings.model_copy(update={"max_retries": 0})).page()
    token_file.write_text(jwt())
    time.sleep(tokens.FAILURE_SECONDS)

    BatchesClient(settings).page()


@pytest.mark.parametrize(
    ("content", "text", "retryable"),
    [
        (b"", "is empty", True),
        (b"\n", "is empty", True),
        (b"a.b\n.c", "is not a JWT: it has characters that a JWT never has", False),
        (b"\xef\xbb\xbfabc", "is not a JWT", False),
        (b"\xff\xfe", "is not a JWT", False),
        (b"x" * 16_385, "is not a JWT: it has 16385 characters", False),
        (jwt(-5).encode(), "is a JWT that expired [0-9]+ s ago", True),
    ],
    ids=["empty", "blank", "lines", "bom", "bytes", "large", "expired"],
)
def test_a_file_without_a_valid_token_sends_nothing(
    content: bytes, text: str, retryable: bool, settings_of: Settings, platform_api: Emulator, token_file: Path
) -> None:
    settings = settings_of("federation", max_retries=0)
    token_file.write_bytes(content)
    with pytest.raises(CredentialsError, match=text) as caught:
        BatchesClient(settings).page()

    assert caught.value.retryable is retryable
    assert platform_api.count() == 0


@pytest.mark.parametrize("content", [b"x" * 16_384, b"a.b.c"], ids=["large", "short"])
def test_a_token_of_up_to_16_kib_is_sent(content: bytes, settings_of: Settings, token_file: Path) -> None:
    settings = settings_of("federation")
    token_file.write_bytes(content)

    BatchesClient(settings).page()


class TestSecrets:
    """No token, identity token or secret key is in an error, whoever quotes it."""

    @EACH
    def test_an_answer_that_quotes_the_request_is_redacted(
        self, platform: str, settings_of: Settings, token_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = {"federation": token_file.read_text().strip(), "aws": SECRET}
        secrets = {own[platform]} if platform in own else set()

        def quote(self: Any, request: httpx.Request) -> httpx.Response:
            request.read()
            if request.url.path.endswith("/token"):
                return httpx.Response(200, json={"access_token": "access-canary-1", "expires_in": 600})
            secrets.add(request.headers["authorization"].removeprefix("Bearer "))
            return httpx.Response(403, text=f"denied: {sorted(secrets)}")

        monkeypatch.setattr(httpx.HTTPTransport, "handle_request", quote)
        settings = settings_of(platform, max_retries=0)
        client = BatchesClient(settings)
        with pytest.raises(BatchesError) as caught:
            client.retrieve("msgbatch_1")

        shown = f"{caught.value!r} {vars(caught.value)} {settings!r} {settings.auth!r} {client!r}"
        assert "denied: " in shown
        # A signature is not a secret.
        assert [each for each in secrets if each in shown and not each.startswith("AWS4")] == []

    def test_a_refusal_of_the_exchange_that_quotes_the_identity_token_is_redacted(
        self, settings_of: Settings, platform_api: Emulator, token_file: Path
    ) -> None:
        assertion = token_file.read_text().strip()
        body = json.dumps({"error": {"type": "invalid_request_error", "message": f"assertion {assertion}"}})
        platform_api.fault(Fault("exchange", times=None, status=400, body=body))
        with pytest.raises(CredentialsError, match=r"assertion \*\*\*") as caught:
            BatchesClient(settings_of("federation", max_retries=0)).page()

        assert assertion not in f"{caught.value!r} {vars(caught.value)} {caught.value.__cause__}"


def test_a_token_that_is_refused_names_the_rule(settings_of: Settings, platform_api: Emulator) -> None:
    platform_api.fault(Fault("list", times=None, status=401))
    label = {"api_key": "federation rule 'fdrl_01AB' of connection 'x'"}
    with pytest.raises(AccessDeniedError, match="Check federation rule 'fdrl_01AB' of connection 'x', and that it may"):
        BatchesClient(settings_of("federation", labels=label)).page()

    # Four attempts, but not four exchanges.
    assert (platform_api.count("list"), platform_api.count("exchange")) == (4, 2)


def test_aws_keys_that_rotate_are_read_again(settings_of: Settings, platform_api: Emulator) -> None:
    from airflow_provider_batches.api.aws import AwsIdentity
    from airflow_provider_batches.hooks.credentials import AwsKeys

    keys = {"secret": "old"}

    def find() -> Any:
        return AwsKeys("AKIDEXAMPLE", keys["secret"])()

    base = settings_of("aws")
    client = BatchesClient(base.model_copy(update={"identity": AwsIdentity("eu-central-1", find)}))
    with pytest.raises(BatchesError, match="signature we calculated does not match"):
        client.page(retries=0)
    keys["secret"] = SECRET

    client.page(retries=0)


def test_no_aws_credentials_are_an_error_with_a_remedy(settings_of: Settings, platform_api: Emulator) -> None:
    from airflow_provider_batches.api.aws import AwsIdentity

    settings = settings_of("aws").model_copy(update={"identity": AwsIdentity("eu-central-1", lambda: None)})
    with pytest.raises(CredentialsError, match=r"no AWS credentials were found\. Give this machine a role"):
        BatchesClient(settings).page(retries=0)

    assert platform_api.count() == 0


@pytest.mark.parametrize(
    ("platform", "module", "extra"), [("aws", "botocore", "[aws]"), ("google", "google.auth", "[google]")]
)
def test_a_package_that_is_missing_is_named(
    platform: str, module: str, extra: str, settings_of: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batches.api import auth

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(auth, "import_module", missing)
    with pytest.raises(CredentialsError, match=f"pip install 'airflow-provider-batches\\{extra[:-1]}\\]'") as caught:
        BatchesClient(settings_of(platform)).page()

    assert not caught.value.retryable
