"""Who may call the emulator: access tokens, and requests that are signed for AWS."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.emulator.access import EXCHANGE_BETA, GRANT_TYPE, TOKEN_BETA
from tests.unit.emulator.conftest import BATCHES

FLAGS = f"{TOKEN_BETA},{EXCHANGE_BETA}"
VERSION = {"anthropic-version": "2023-06-01"}
GOOGLE = "/v1/projects/p/locations/global/workspaces/w/invoke"


def jwt(seconds: float = 60.0) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + seconds}).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


@pytest.fixture
def api(emulate: Callable[..., Emulator]) -> Emulator:
    return emulate(token_seconds=1.0, federation_rule_id="rule", aws_keys={"AKID": "secret"})


@pytest.fixture
def http(api: Emulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, trust_env=False, verify=False) as http:
        yield http


def exchange(http: httpx.Client, flags: str = FLAGS, **changes: Any) -> httpx.Response:
    body = {"grant_type": GRANT_TYPE, "assertion": jwt(), "federation_rule_id": "rule", "organization_id": "o"}
    sent = {name: value for name, value in {**body, **changes}.items() if value is not None}
    return http.post("/v1/oauth/token", headers={"anthropic-beta": flags}, json=sent)


def google_token(http: httpx.Client) -> str:
    return str(http.post("/token", data={"grant_type": GRANT_TYPE, "assertion": jwt()}).json()["access_token"])


def call(http: httpx.Client, token: str, path: str = BATCHES, flags: str = TOKEN_BETA) -> httpx.Response:
    return http.get(path, headers={**VERSION, "authorization": f"Bearer {token}", "anthropic-beta": flags})


def test_a_token_is_accepted_until_it_expires(http: httpx.Client) -> None:
    found = exchange(http).json()
    assert (found["token_type"], found["expires_in"]) == ("Bearer", 1.0)
    assert call(http, found["access_token"]).status_code == 200
    time.sleep(1.05)
    answer = call(http, found["access_token"])

    assert (answer.status_code, answer.json()["error"]["message"]) == (401, "The access token has expired.")


def test_a_clock_that_is_moved_ends_no_token(api: Emulator, http: httpx.Client) -> None:
    token = exchange(http).json()["access_token"]
    api.clock.advance(7200)

    assert call(http, token).status_code == 200


@pytest.mark.parametrize(
    "revoke",
    [lambda api, http: api.revoke_tokens(), lambda api, http: http.delete("/_emulator/tokens").json()["tokens"]],
)
def test_a_revoked_token_is_refused(revoke: Callable[..., int], api: Emulator, http: httpx.Client) -> None:
    token = exchange(http).json()["access_token"]

    assert revoke(api, http) == 1
    assert call(http, token).status_code == 401


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"flags": TOKEN_BETA}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"assertion": None}, 400, "invalid_request"),
        ({"organization_id": ""}, 400, "invalid_request"),
        ({"federation_rule_id": "other"}, 401, "invalid_grant"),
        ({"assertion": jwt(-1)}, 401, "invalid_grant"),
    ],
    ids=["flags", "grant", "assertion", "organization", "rule", "expired"],
)
def test_a_wrong_exchange_is_refused_in_oauths_format(
    changes: dict[str, Any], status: int, error: str, http: httpx.Client
) -> None:
    answer = exchange(http, **changes)

    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["error_description"]


def test_a_token_needs_its_flag_and_its_platform(http: httpx.Client) -> None:
    token, of_google = exchange(http).json()["access_token"], google_token(http)

    assert (
        call(http, token, flags="").json()["error"]["message"] == f"OAuth tokens require anthropic-beta: {TOKEN_BETA}."
    )
    assert call(http, of_google, GOOGLE + BATCHES, flags="").status_code == 200
    for answer in (call(http, token, GOOGLE + BATCHES), call(http, of_google)):
        assert answer.json()["error"]["message"] == "This access token is for another platform."
    assert call(http, "sk-ant-emulator", GOOGLE + BATCHES).status_code == 401


def test_results_on_google_cloud_are_at_a_url_of_google_cloud(api: Emulator, http: httpx.Client) -> None:
    batch_id = api.add_batch(status="ended")
    batch = call(http, google_token(http), f"{GOOGLE}{BATCHES}/{batch_id}", flags="").json()

    assert batch["results_url"] == f"{api.url}{GOOGLE}{BATCHES}/{batch_id}/results"


class TestSigV4:
    """Requests that botocore has signed, and what can be wrong with one."""

    def signed(self, api: Emulator, path: str = BATCHES, key: str = "AKID", secret: str = "secret") -> dict[str, str]:
        auth = pytest.importorskip("botocore.auth")
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        host = api.url.removeprefix("http://")
        request = AWSRequest("GET", api.url + path, {**VERSION, "anthropic-workspace-id": "default", "host": host})
        auth.SigV4Auth(Credentials(key, secret), "aws-external-anthropic", "eu-west-1").add_auth(request)
        return dict(request.headers)

    @pytest.mark.parametrize(
        "path", [BATCHES, f"{BATCHES}?limit=2", f"{BATCHES}?limit=2&after_id=a%20b", f"{BATCHES}/a%20b"]
    )
    def test_a_right_signature_is_accepted(self, path: str, api: Emulator, http: httpx.Client) -> None:
        assert http.get(path, headers=self.signed(api, path)).status_code in (200, 404)
        assert api.requests[-1].auth == "aws"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"anthropic-version": "2026-10-21"}, "does not match the signature you provided"),
            ({"authorization": "AWS4-HMAC-SHA256 nonsense"}, "is not a valid SigV4 signature"),
            ({"x-amz-date": "yesterday"}, "x-amz-date: is required"),
        ],
    )
    def test_a_changed_header_is_noticed(
        self, changes: dict[str, str], message: str, api: Emulator, http: httpx.Client
    ) -> None:
        headers = {name.lower(): value for name, value in self.signed(api).items()} | changes

        assert message in http.get(BATCHES, headers=headers).json()["error"]["message"]

    def test_a_changed_query_is_noticed(self, api: Emulator, http: httpx.Client) -> None:
        answer = http.get(f"{BATCHES}?limit=3", headers=self.signed(api, f"{BATCHES}?limit=2"))

        assert answer.status_code == 403

    @pytest.mark.parametrize(("key", "secret"), [("OTHER", "secret"), ("AKID", "wrong")])
    def test_other_keys_are_refused(self, key: str, secret: str, api: Emulator, http: httpx.Client) -> None:
        assert http.get(BATCHES, headers=self.signed(api, key=key, secret=secret)).status_code == 403

    def test_the_workspace_is_required(self, api: Emulator, http: httpx.Client) -> None:
        headers = self.signed(api)
        del headers["anthropic-workspace-id"]

        assert "anthropic-workspace-id" in http.get(BATCHES, headers=headers).json()["error"]["message"]

    def test_an_old_signature_is_refused(
        self, api: Emulator, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        headers = self.signed(api)
        later = datetime.now(timezone.utc) + timedelta(seconds=301)
        monkeypatch.setattr("airflow_provider_batches.emulator.access.time.time", later.timestamp)

        assert "Signature expired" in http.get(BATCHES, headers=headers).json()["error"]["message"]
