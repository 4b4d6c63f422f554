"""Identities for the platforms, and an emulator that verifies them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from airflow_provider_batches.api import ClientSettings, aws, tokens
from airflow_provider_batches.api.aws import AwsIdentity
from airflow_provider_batches.api.federation import Federation, TokenFile
from airflow_provider_batches.api.google import GoogleIdentity, google_base_url
from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.hooks.credentials import AwsKeys

RULE, ORGANIZATION = "fdrl_01AB", "11111111-2222-3333-4444-555555555555"
#: AWS's own example.
KEY_ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
PLATFORMS = ("federation", "aws", "google")


def jwt(seconds: float = 3600.0, **claims: Any) -> str:
    """Return an identity token that expires in so many seconds."""
    parts = {"alg": "RS256"}, {"sub": "worker", "exp": time.time() + seconds, **claims}
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".c2ln"
    )


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forget the tokens and credentials of other tests."""
    tokens._caches.clear()
    aws._credentials.clear()
    yield
    tokens._caches.clear()
    aws._credentials.clear()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(jwt() + "\n")
    return path


@pytest.fixture
def platform_api() -> Iterator[Emulator]:
    with Emulator(aws_keys={KEY_ID: SECRET}, batch_seconds=0, federation_rule_id=RULE) as api:
        yield api


@pytest.fixture(scope="session")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encodings = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(*encodings, serialization.NoEncryption()).decode()


@pytest.fixture
def google_account(platform_api: Emulator, private_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the application default credentials to a service account whose token endpoint is the emulator's."""
    path = tmp_path / "account.json"
    account = {
        "type": "service_account",
        "project_id": "my-proj",
        "private_key_id": "1",
        "private_key": private_key,
        "client_email": "worker@my-proj.iam.gserviceaccount.com",
        "token_uri": f"{platform_api.url}/token",
    }
    path.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return path


@pytest.fixture
def settings_of(platform_api: Emulator, token_file: Path, google_account: Path) -> Callable[..., ClientSettings]:
    """Return the settings of a platform, with the emulator in its place."""

    def make(platform: str, **options: Any) -> ClientSettings:
        url = platform_api.url
        if platform == "federation":
            identity: Any = Federation(TokenFile(str(token_file)), RULE, ORGANIZATION)
            return ClientSettings(identity=identity, base_url=url, **options)
        if platform == "aws":
            identity = AwsIdentity("eu-central-1", AwsKeys(KEY_ID, SECRET))
            return ClientSettings(identity=identity, base_url=url, workspace_id="default", **options)
        prefix = google_base_url("my-proj", "us-central1", "wrkspc_01").split("googleapis.com")[1]
        return ClientSettings(identity=GoogleIdentity(), base_url=url + prefix, **options)

    return make
