"""Platforms with Airflow's own connections: the hook, the Test button, waits."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from airflow_provider_batches.api import tokens
from airflow_provider_batches.api.errors import CredentialsError
from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.hooks.credentials import (
    GoogleConnection,
    OtherConnection,
    TokenCallable,
    TokenConnection,
    TokenVariable,
)
from airflow_provider_batches.waiting.wait import Wait
from tests.integration.platforms.conftest import KEY_ID, ORGANIZATION, RULE, SECRET, jwt


@pytest.fixture
def connect(platform_api: Emulator, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set a connection to the emulator, and return its hook."""

    def set_connection(extra: dict[str, Any], **fields: Any) -> BatchesHook:
        connection = {"conn_type": "anthropic_batches", "host": platform_api.url, "extra": extra, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", json.dumps(connection))
        return BatchesHook()

    return set_connection


def federated(token_file: Path, **more: Any) -> dict[str, Any]:
    return {
        "federation_rule_id": RULE,
        "organization_id": ORGANIZATION,
        "identity_file": str(token_file),
        **more,
    }


def test_the_test_button_is_green_with_federation(connect: Any, token_file: Path) -> None:
    ok, text = connect(federated(token_file)).test_connection()

    assert ok
    assert text.endswith("accepts the identity; there are no batches yet.")


def test_the_test_button_says_where_a_file_is_missing(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "api-server-1")
    ok, text = connect(federated(Path("/no/such/file"))).test_connection()

    assert not ok
    assert "'/no/such/file' cannot be read: No such file or directory" in text
    assert "The API server on api-server-1 ran this test; workers may differ." in text


def test_a_wait_outlasts_a_revoked_token_and_a_rotated_file(
    connect: Any, platform_api: Emulator, token_file: Path
) -> None:
    hook = connect(federated(token_file))
    batch_id = platform_api.add_batch(status="in_progress", batch_seconds=3600)
    polls = []

    def log(text: str, *_: Any) -> None:
        polls.append(text)

    def on_request(entry: Any) -> None:
        if entry.endpoint in ("list", "retrieve") and entry.status == 200 and not seen:
            seen.append(entry)
            platform_api.revoke_tokens()
            token_file.write_text(jwt())
            platform_api.clock.advance(7200)

    seen: list[Any] = []
    platform_api._settings.on_request = on_request
    now = time.time()
    wait = Wait(batch_id, poll_interval=0.05, start_time=now, end_time=now + 60)
    (outcome,) = hook.wait([wait], SimpleNamespace(info=log))

    assert outcome.status == "ended"
    assert platform_api.count("exchange") == 2


def test_access_tokens_are_masked_in_the_tasks_log(
    connect: Any, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked: list[str] = []
    monkeypatch.setattr("airflow_provider_batches.hooks.batches.mask_secret", masked.append)
    hook = connect(federated(token_file))
    list(hook.list_batches())

    assert [each for each in masked if each.startswith("sk-ant-oat01-emulator-")]


def test_the_credentials_of_an_aws_connection_sign(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("airflow.providers.amazon")
    aws = {"conn_type": "aws", "login": KEY_ID, "password": SECRET}
    monkeypatch.setenv("AIRFLOW_CONN_MY_AWS", json.dumps(aws))
    hook = connect(
        {"platform": "aws", "aws_region": "eu-central-1", "workspace_id": "default", "aws_conn_id": "my_aws"}
    )

    assert hook.test_connection()[0]
    assert SECRET not in f"{hook.settings!r}"
    changed = {**aws, "password": "rotated"}
    monkeypatch.setenv("AIRFLOW_CONN_MY_AWS", json.dumps(changed))
    assert hook.read_settings() != hook.settings


def test_a_connection_of_the_official_provider_works_with_federation_and_on_aws(
    connect: Any, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = {"identity_token_file": str(token_file), "federation_rule_id": RULE, "organization_id": ORGANIZATION}
    assert connect({"workload_identity": identity}, conn_type="anthropic").test_connection()[0]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    extra = {"platform": "aws", "aws_region": "us-east-1", "anthropic_client_kwargs": {"workspace_id": "default"}}
    assert connect(extra, conn_type="anthropic").test_connection()[0]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a stand-in for a hook of another provider, which looks its connection up as the real ones do."""

    def install(module: str, name: str, **methods: Any) -> None:
        def __init__(self: Any, **options: Any) -> None:
            (conn_id,) = options.values()
            self.connection = self.get_connection(conn_id)

        made = ModuleType(module)
        setattr(made, name, type(name, (), {"__init__": __init__, **methods}))
        for parent in [".".join(module.split(".")[:count]) for count in range(3, module.count(".") + 1)]:
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        monkeypatch.setitem(sys.modules, module, made)

    return install


def other(conn_type: str) -> OtherConnection:
    return OtherConnection.of(SimpleNamespace(conn_id="its_id", conn_type=conn_type, get_uri=lambda: "uri"))


GOOGLE_HOOK = "airflow.providers.google.common.hooks.base_google"


def test_the_credentials_of_a_google_connection_are_used(
    connect: Any, provider: Any, google_account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from google.oauth2 import service_account

    def get_credentials(self: Any) -> Any:
        assert self.connection.conn_id == "my_gcp"
        return service_account.Credentials.from_service_account_file(str(google_account))

    provider(GOOGLE_HOOK, "GoogleBaseHook", get_credentials=get_credentials)
    monkeypatch.setenv("AIRFLOW_CONN_MY_GCP", json.dumps({"conn_type": "google_cloud_platform"}))
    extra = {"platform": "google", "gcp_project": "p", "workspace_id": "w", "gcp_conn_id": "my_gcp"}

    assert connect(extra).test_connection()[0]


def test_the_identity_token_of_a_google_connection_is_that_of_its_account(
    provider: Any, google_account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import google.oauth2._client
    from google.oauth2 import service_account

    credentials = service_account.Credentials.from_service_account_file(str(google_account))
    provider(GOOGLE_HOOK, "GoogleBaseHook", get_credentials=lambda self: credentials)
    asked = []

    def grant(request: Any, token_uri: str, assertion: bytes, **_: Any) -> Any:
        asked.append((token_uri, assertion))
        return "id-token", None, {}

    monkeypatch.setattr(google.oauth2._client, "id_token_jwt_grant", grant)
    source = TokenConnection(other("google_cloud_platform"), "https://api.anthropic.com")

    assert source() == "id-token"
    assert asked[0][0].endswith("/token")


def test_the_identity_token_of_an_azure_connection_has_the_audience(provider: Any) -> None:
    def get_token(self: Any, scope: str) -> Any:
        return SimpleNamespace(token=f"token for {scope}")

    provider("airflow.providers.microsoft.azure.hooks.base_azure", "AzureBaseHook", get_token=get_token)

    assert TokenConnection(other("azure"), "api://mine")() == "token for api://mine/.default"


def test_a_failing_connection_is_named_without_its_text(provider: Any) -> None:
    def get_token(self: Any, scope: str) -> Any:
        raise RuntimeError("secret")

    provider("airflow.providers.microsoft.azure.hooks.base_azure", "AzureBaseHook", get_token=get_token)
    with pytest.raises(
        CredentialsError, match=r"identity_conn_id 'its_id' gave no identity token \(RuntimeError\)"
    ) as e:
        TokenConnection(other("azure"), "api://mine")()
    assert "secret" not in f"{e.value!r}"


@pytest.mark.parametrize(
    ("source", "package"),
    [
        (TokenConnection(other("azure"), "a"), "apache-airflow-providers-microsoft-azure"),
        (GoogleConnection(other("google_cloud_platform")), "apache-airflow-providers-google"),
    ],
)
def test_a_provider_that_is_missing_is_named(source: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_batches.api import auth

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(auth, "import_module", missing)
    with pytest.raises(CredentialsError, match=f"pip install {package}"):
        source()


def good() -> str:
    return "a.b.c"


def bad() -> str:
    raise RuntimeError("secret")


def wrong() -> int:
    return 5


class TestACallable:
    @pytest.fixture(autouse=True)
    def module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("my_identity")
        vars(module).update(good=good, bad=bad, wrong=wrong)
        monkeypatch.setitem(sys.modules, "my_identity", module)

    def test_returns_the_token(self) -> None:
        assert TokenCallable("my_identity.good")() == "a.b.c"

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("my_identity.bad", r"identity_callable 'my_identity.bad' failed \(RuntimeError\)"),
            ("my_identity.wrong", "returned int; it must return a string"),
            ("my_identity.gone", "cannot be imported .*has no attribute 'gone'"),
            ("not.a.module", "cannot be imported .*No module named 'not'"),
        ],
    )
    def test_that_does_not_is_named(self, path: str, text: str) -> None:
        with pytest.raises(CredentialsError, match=text) as caught:
            TokenCallable(path)()
        assert "secret" not in f"{caught.value!r}"


def test_a_variable_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    source = TokenVariable("MY_JWT")
    with pytest.raises(CredentialsError, match="the environment variable 'MY_JWT' is not set"):
        source()
    monkeypatch.setenv("MY_JWT", "a.b.c")

    assert source() == "a.b.c"
    assert tokens._caches == {}
