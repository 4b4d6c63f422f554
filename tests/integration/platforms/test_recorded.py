"""The requests of each platform, beside those that were recorded from the official SDK."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from airflow_provider_batches.api import AsyncBatchesClient, BatchesClient, ClientSettings
from airflow_provider_batches.api.aws import AwsIdentity, SigV4Auth
from airflow_provider_batches.api.federation import Federation
from airflow_provider_batches.api.google import GoogleIdentity, google_base_url
from airflow_provider_batches.hooks.credentials import AwsKeys
from tests.integration.platforms.conftest import KEY_ID, ORGANIZATION, RULE, SECRET

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())
REQUESTS = [
    {
        "custom_id": "one",
        "params": {"model": "claude-haiku-5-5", "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]},
    }
]
BATCH = {
    "id": "msgbatch_01AAAA",
    "type": "message_batch",
    "processing_status": "ended",
    "request_counts": {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 1, "expired": 0},
    "created_at": "2026-11-01T00:00:00Z",
    "ended_at": "2026-11-01T00:10:00Z",
    "results_url": "https://x",
}
#: Headers that say who calls.
AUTH = ("authorization", "anthropic-beta", "anthropic-workspace-id")


def answer(request: httpx.Request) -> httpx.Response:
    path = request.url.path
    if path.endswith("/oauth/token"):
        return httpx.Response(200, json={"access_token": "sk-ant-oat01-minted-001", "expires_in": 600})
    if path.endswith("/results"):
        return httpx.Response(200, content=b'{"custom_id":"one","result":{"type":"canceled"}}\n')
    if request.method == "DELETE":
        return httpx.Response(200, json={"id": BATCH["id"], "type": "message_batch_deleted"})
    if request.method == "GET" and path.endswith("/batches"):
        return httpx.Response(200, json={"data": [], "has_more": False})
    return httpx.Response(200, json=BATCH)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """All requests, which reach no network."""
    found: list[httpx.Request] = []

    def handle(self: Any, request: httpx.Request) -> httpx.Response:
        request.read()
        found.append(request)
        return answer(request)

    async def ahandle(self: Any, request: httpx.Request) -> httpx.Response:
        await request.aread()
        found.append(request)
        return answer(request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", ahandle)
    return found


def call_all(settings: ClientSettings) -> None:
    client = BatchesClient(settings)
    client.create(REQUESTS)
    client.retrieve("msgbatch_01AAAA")
    list(client.list(page_size=2, after_id="msgbatch_01BB"))
    client.cancel("msgbatch_01AAAA")
    client.delete("msgbatch_01AAAA")
    list(client.results("msgbatch_01AAAA"))


def acall_all(settings: ClientSettings) -> None:
    async def run() -> None:
        async with AsyncBatchesClient(settings) as client:
            await client.create(REQUESTS)
            await client.retrieve("msgbatch_01AAAA")
            _ = [batch async for batch in client.list(page_size=2, after_id="msgbatch_01BB")]
            await client.cancel("msgbatch_01AAAA")
            await client.delete("msgbatch_01AAAA")
            _ = [result async for result in client.results("msgbatch_01AAAA")]

    asyncio.run(run())


BOTH = pytest.mark.parametrize("call", [call_all, acall_all], ids=["sync", "async"])


def line(method: str, url: str) -> tuple[str, str, dict[str, list[str]]]:
    parts = urlsplit(url)
    return method, parts.path, parse_qs(parts.query)


def of_recorded(each: dict[str, Any]) -> tuple[Any, ...]:
    headers = {name.lower(): value for name, value in each["headers"]}
    found = {name: headers[name] for name in AUTH if name in headers}
    return line(*each["line"].split()), found, each["body"] and json.loads(each["body"])


def of_sent(request: httpx.Request) -> tuple[Any, ...]:
    headers = {name: request.headers[name] for name in AUTH if name in request.headers}
    return line(request.method, str(request.url)), headers, (request.content and json.loads(request.content)) or ""


JWT = json.loads(RECORDED["federation"][0]["body"])["assertion"]


@BOTH
def test_federation(call: Callable[[ClientSettings], None], sent: list[httpx.Request]) -> None:
    # Another object for each client, so that each has a token of its own.
    identity = Federation(lambda: JWT, RULE, ORGANIZATION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_batches.api.federation._expires_at", lambda jwt: float("inf"))
        call(ClientSettings(identity=identity, base_url="http://127.0.0.1:1"))

    assert list(map(of_sent, sent)) == list(map(of_recorded, RECORDED["federation"]))
    assert "anthropic-version" not in sent[0].headers
    assert sent[0].headers["content-type"] == "application/json"


def test_federation_with_all_fields(sent: list[httpx.Request]) -> None:
    identity = Federation(lambda: f" {JWT}\n", RULE, ORGANIZATION, "svac_01", "wrkspc_01")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_batches.api.federation._expires_at", lambda jwt: float("inf"))
        BatchesClient(ClientSettings(identity=identity, base_url="http://127.0.0.1:1")).retrieve("msgbatch_01AAAA")

    assert of_sent(sent[0]) == of_recorded(RECORDED["federation_all"][0])


@BOTH
def test_google(
    call: Callable[[ClientSettings], None], sent: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = SimpleNamespace(token="ya29.TOKEN", expiry=None, refresh=lambda request: None)
    base_url = google_base_url("my-proj", "us-central1", "wrkspc_01")
    call(ClientSettings(identity=GoogleIdentity(lambda: credentials), base_url=base_url))

    assert list(map(of_sent, sent)) == list(map(of_recorded, RECORDED["google"]))


@BOTH
def test_aws(call: Callable[[ClientSettings], None], sent: list[httpx.Request]) -> None:
    identity = AwsIdentity("eu-central-1", AwsKeys(KEY_ID, SECRET, "FQoGZXIvYXdzSESSION"))
    call(ClientSettings(identity=identity, base_url="http://127.0.0.1:1", workspace_id="wrkspc_01"))

    def signed(value: str) -> tuple[str, ...]:
        """Return the parts of a signature that do not depend on the other headers and the time."""
        names = set(value.split("SignedHeaders=")[1].split(",")[0].split(";"))
        required = {name for name in names if not name.startswith("x-stainless")} - {"accept-encoding", "content-type"}
        return re.sub(r"/\d{8}/", "/DATE/", value.split(", ")[0]), *sorted(required)

    for ours, theirs in zip(map(of_sent, sent), map(of_recorded, RECORDED["aws_session_token"]), strict=True):
        ours[1]["authorization"], theirs[1]["authorization"] = (
            signed(each[1]["authorization"]) for each in (ours, theirs)
        )
        assert ours == theirs
    assert {request.headers["x-amz-security-token"] for request in sent} == {"FQoGZXIvYXdzSESSION"}


@pytest.mark.parametrize(("name", "token"), [("aws", None), ("aws_session_token", "FQoGZXIvYXdzSESSION")])
def test_the_signature_of_the_recorded_requests_is_the_same(
    name: str, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = pytest.importorskip("botocore.auth")
    if not hasattr(auth, "get_current_datetime"):
        pytest.skip("This botocore reads the time in another way.")
    moment = datetime(2026, 11, 25, 12, tzinfo=timezone.utc).replace(tzinfo=None)
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: moment)
    signer = SigV4Auth(AwsIdentity("eu-central-1", AwsKeys(KEY_ID, SECRET, token)))
    for each in RECORDED[name]:
        from hashlib import sha256

        method, path = each["line"].split()
        recorded = {header.lower(): value for header, value in each["headers"]}
        own = {header: recorded.pop(header, None) for header in ("authorization", "x-amz-date", "x-amz-security-token")}
        # DELETE has its length after signing.
        call = SimpleNamespace(body_sha256=sha256(each["body"].encode()).hexdigest())
        url = f"http://{recorded['host']}{path}"
        request = httpx.Request(method, url, headers=recorded, content=each["body"] or None, extensions={"call": call})
        if "content-length" not in own["authorization"].split("SignedHeaders=")[1]:  # type: ignore[union-attr]
            request.headers.pop("content-length", None)
        next(signer.sync_auth_flow(request))

        assert {header: request.headers.get(header) for header in own} == own
