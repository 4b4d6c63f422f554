"""A real Airflow without a key: the identity token is rotated and the access token revoked while a batch runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_batches.emulator import Emulator
from scripts.real_airflow import RealAirflow
from tests.integration.platforms.conftest import ORGANIZATION, RULE, jwt

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_the_whole_life_of_a_batch_and_the_official_client_beside_it(
    airflow: RealAirflow, api: Emulator, tmp_path: Path
) -> None:
    anthropic = pytest.importorskip("anthropic")
    token_file = tmp_path / "token"
    secrets = [jwt(name="first"), jwt(name="second")]
    token_file.write_text(secrets[0])
    extra = {"federation_rule_id": RULE, "organization_id": ORGANIZATION, "identity_file": str(token_file)}
    connection = {"connection_id": "federated", "conn_type": "anthropic_batches", "host": api.url}
    before, api.answers = set(api.ids()), None
    airflow.api("POST", "/connections", json={**connection, "extra": json.dumps(extra)})
    airflow.api("PATCH", "/dags/federated", json={"is_paused": False})
    api.clear_requests()
    run_id = airflow.trigger_dag("federated", {"folder": tmp_path.as_uri()})
    airflow.wait_for_task("federated", run_id, "wait", "deferred")

    credentials = anthropic.WorkloadIdentityCredentials(
        identity_token_provider=anthropic.IdentityTokenFile(str(token_file)),
        federation_rule_id=RULE,
        organization_id=ORGANIZATION,
    )
    with anthropic.Anthropic(credentials=credentials, base_url=api.url) as official:
        assert {batch.id for batch in official.messages.batches.list(limit=100)} >= set(api.ids()) - before

    secrets += api._app.access._tokens
    token_file.write_text(secrets[1])
    api.revoke_tokens()
    api.clock.advance(7200)
    assert airflow.wait_for_run("federated", run_id) == "success"
    secrets += api._app.access._tokens

    assert set(api.ids()) == before
    assert len(list((tmp_path / "results").glob("*.jsonl"))) == 2
    calls = [request for request in api.requests if request.endpoint != "exchange"]
    assert {request.auth for request in calls} == {"bearer"}
    assert [request.status for request in calls if request.endpoint == "create"] == [200, 200]
    # One for the official client, two for the triggerer, and one for each process of a task.
    assert 4 <= api.count("exchange") <= 12
    assert len(secrets) > 4
    files = [path.read_bytes() for path in airflow.home.rglob("*") if path.is_file()]
    assert [secret[:40] for secret in secrets for data in files if secret.encode() in data] == []
    assert any(run_id.encode() in data for data in files)
