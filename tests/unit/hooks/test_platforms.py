"""Which platform a connection names, who calls it there, and what contradicts itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_batches.api import ClientSettings, InvalidArgumentError
from airflow_provider_batches.api.aws import AwsIdentity
from airflow_provider_batches.api.aws import default_credentials as aws_default
from airflow_provider_batches.api.federation import Federation, TokenFile
from airflow_provider_batches.api.google import GoogleIdentity
from airflow_provider_batches.hooks.connection import read_settings
from airflow_provider_batches.hooks.credentials import (
    AwsConnection,
    AwsKeys,
    AwsProfile,
    GoogleConnection,
    TokenCallable,
    TokenConnection,
    TokenVariable,
)
from tests.unit.hooks.fakes import Connection

FEDERATED = {"federation_rule_id": "fdrl_1", "organization_id": "org", "identity_file": "/token"}
AWS = {"platform": "aws", "aws_region": "eu-west-1", "workspace_id": "wrkspc_1"}
GOOGLE = {"platform": "google", "gcp_project": "proj", "workspace_id": "wrkspc_1"}
#: A connection of the official provider, as its documentation shows it.
OFFICIAL_FEDERATED = {
    "workload_identity": {
        "identity_token_file": "/token",
        "federation_rule_id": "fdrl_1",
        "organization_id": "org",
        "service_account_id": "svac_1",
        "workspace_id": "wrkspc_1",
        "scope": "all",
    }
}


OTHERS = {
    "aws_default": Connection("aws_default", "aws", password="secret"),
    "gcp": Connection("gcp", "google_cloud_platform"),
    "azure": Connection("azure", "azure"),
    "mail": Connection("mail", "smtp"),
}


def read(extra: dict[str, Any], environment: dict[str, str] | None = None, **fields: Any) -> ClientSettings:
    connection = Connection(extra=json.dumps(extra), **fields)
    return read_settings(connection, environment or {}, get_connection=OTHERS.__getitem__)


class TestFederation:
    def test_takes_its_fields_and_needs_no_key(self) -> None:
        settings = read({**FEDERATED, "service_account_id": "svac_1", "workspace_id": "wrkspc_1"})

        assert settings.identity == Federation(TokenFile("/token"), "fdrl_1", "org", "svac_1", "wrkspc_1")
        assert (settings.api_key, settings.base_url) == (None, "https://api.anthropic.com")
        # The token belongs to its workspace, so no header names it.
        assert "anthropic-workspace-id" not in settings.request_headers()

    @pytest.mark.parametrize("conn_type", ["anthropic", "anthropic_batches"])
    def test_a_connection_of_the_official_provider_works_unchanged(self, conn_type: str) -> None:
        settings = read(OFFICIAL_FEDERATED, conn_type=conn_type)

        assert settings.identity == Federation(TokenFile("/token"), "fdrl_1", "org", "svac_1", "wrkspc_1")

    def test_takes_precedence_over_the_password_as_in_the_official_provider(self) -> None:
        settings = read(OFFICIAL_FEDERATED, conn_type="anthropic", password="sk-ant-1")

        assert (settings.api_key, settings.identity.federation_rule_id) == (None, "fdrl_1")

    @pytest.mark.parametrize(
        ("field", "value", "source"),
        [
            ("identity_file", "/a", TokenFile("/a")),
            ("identity_variable", "JWT", TokenVariable("JWT")),
            ("identity_callable", "a.b", TokenCallable("a.b")),
        ],
    )
    def test_takes_the_identity_token_from_where_the_connection_says(self, field: str, value: str, source: Any) -> None:
        ids = {name: FEDERATED[name] for name in ("federation_rule_id", "organization_id")}

        assert read({**ids, field: value}).identity.identity_token == source

    @pytest.mark.parametrize(("given", "audience"), [(None, "https://api.anthropic.com"), ("mine", "mine")])
    @pytest.mark.parametrize("conn_id", ["gcp", "azure"])
    def test_takes_the_identity_token_of_another_connection(
        self, conn_id: str, given: str | None, audience: str
    ) -> None:
        ids = {name: FEDERATED[name] for name in ("federation_rule_id", "organization_id")}
        source = read({**ids, "identity_conn_id": conn_id, "identity_audience": given}).identity.identity_token

        assert isinstance(source, TokenConnection)
        assert (source.other.connection, source.audience) == (OTHERS[conn_id], audience)

    def test_takes_from_the_environment_what_the_connection_lacks(self) -> None:
        variables = {
            "ANTHROPIC_FEDERATION_RULE_ID": "fdrl_env",
            "ANTHROPIC_ORGANIZATION_ID": "org_env",
            "ANTHROPIC_SERVICE_ACCOUNT_ID": "svac_env",
            "ANTHROPIC_WORKSPACE_ID": "default",
            "ANTHROPIC_IDENTITY_TOKEN_FILE": "/env",
        }

        assert read({}, variables).identity == Federation(
            TokenFile("/env"), "fdrl_env", "org_env", "svac_env", "default"
        )
        assert read(FEDERATED, variables).identity == Federation(
            TokenFile("/token"), "fdrl_1", "org", "svac_env", "default"
        )

    @pytest.mark.parametrize("variable", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
    def test_of_the_environment_comes_after_its_key(self, variable: str) -> None:
        variables = {variable: "k", "ANTHROPIC_FEDERATION_RULE_ID": "f", "ANTHROPIC_ORGANIZATION_ID": "o"}

        assert read({}, variables).identity is None
        # What the connection says comes first.
        assert read(FEDERATED, variables).identity.federation_rule_id == "fdrl_1"

    def test_a_literal_token_of_the_environment_is_read_when_it_is_needed(self) -> None:
        variables = {
            "ANTHROPIC_FEDERATION_RULE_ID": "f",
            "ANTHROPIC_ORGANIZATION_ID": "o",
            "ANTHROPIC_IDENTITY_TOKEN": "j",
        }

        assert read({}, variables).identity.identity_token == TokenVariable("ANTHROPIC_IDENTITY_TOKEN")

    def test_of_the_environment_goes_to_no_other_host(self) -> None:
        variables = {"ANTHROPIC_FEDERATION_RULE_ID": "f", "ANTHROPIC_ORGANIZATION_ID": "o"}

        with pytest.raises(InvalidArgumentError, match="host is set, but no API key, and ANTHROPIC_FEDERATION_RULE_ID"):
            read({}, variables, host="https://other.example")


class TestAws:
    def test_has_a_url_of_its_region_and_credentials_of_botocores_chain(self) -> None:
        settings = read(AWS)

        assert settings.base_url == "https://aws-external-anthropic.eu-west-1.api.aws"
        assert settings.identity == AwsIdentity("eu-west-1", aws_default)
        assert settings.request_headers()["anthropic-workspace-id"] == "wrkspc_1"
        assert settings.is_direct

    def test_takes_the_credentials_of_another_connection(self) -> None:
        found = read({**AWS, "aws_conn_id": "aws_default"}).identity.credentials

        assert isinstance(found, AwsConnection)
        assert (found.other.connection, found.region) == (OTHERS["aws_default"], "eu-west-1")

    def test_a_changed_connection_gives_other_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = read({**AWS, "aws_conn_id": "aws_default"})
        assert before == read({**AWS, "aws_conn_id": "aws_default"})
        monkeypatch.setitem(OTHERS, "aws_default", Connection("aws_default", "aws", password="rotated"))

        assert before != read({**AWS, "aws_conn_id": "aws_default"})
        assert "secret" not in repr(before)

    def test_sends_an_api_key_as_a_bearer_token(self) -> None:
        for settings in (read(AWS, password="k"), read(AWS, {"ANTHROPIC_AWS_API_KEY": "k"})):
            assert settings.identity is None
            assert (settings.api_key.get_secret_value(), settings.auth_scheme) == ("k", "bearer")  # type: ignore[union-attr]

    def test_takes_from_the_environment_what_the_connection_lacks(self) -> None:
        variables = {"AWS_DEFAULT_REGION": "us-west-2", "ANTHROPIC_AWS_WORKSPACE_ID": "w"}
        settings = read({"platform": "aws"}, variables)

        assert (settings.base_url, settings.workspace_id) == ("https://aws-external-anthropic.us-west-2.api.aws", "w")
        assert read({"platform": "aws"}, {**variables, "AWS_REGION": "us-east-1"}).identity.region == "us-east-1"
        other = read({"platform": "aws"}, {**variables, "ANTHROPIC_AWS_BASE_URL": "https://x.example"})
        assert other.base_url == "https://x.example"

    def test_a_connection_of_the_official_provider_works_unchanged(self) -> None:
        kwargs = {"workspace_id": "w", "timeout": 5}
        extra = {"platform": "aws", "aws_region": "us-east-1", "anthropic_client_kwargs": kwargs}
        settings = read(extra, conn_type="anthropic", password="ignored, as the official provider does")

        assert (settings.identity, settings.workspace_id, settings.timeout) == (AwsIdentity("us-east-1"), "w", 5)

    def test_takes_the_official_clients_arguments(self) -> None:
        def identity(**kwargs: Any) -> Any:
            arguments = {"workspace_id": "w", "aws_region": "us-east-1", **kwargs}
            return read({"platform": "aws", "anthropic_client_kwargs": arguments}, conn_type="anthropic").identity

        assert identity(aws_access_key="a", aws_secret_key="s").credentials == AwsKeys("a", "s")
        assert identity(aws_profile="p").credentials == AwsProfile("p")
        assert identity(api_key="k") is None


class TestGoogle:
    def test_has_a_url_of_its_workspace_and_the_default_credentials(self) -> None:
        settings = read(GOOGLE)

        prefix = "https://claude.googleapis.com/v1/projects/proj/locations/global/workspaces/wrkspc_1/invoke"
        assert (settings.base_url, settings.identity, settings.workspace_id) == (prefix, GoogleIdentity(), None)
        assert settings.is_direct

    def test_names_are_escaped_as_the_official_client_does(self) -> None:
        settings = read({**GOOGLE, "gcp_project": "example.com:proj", "gcp_location": "a b", "workspace_id": "w/../x"})

        expected = "/v1/projects/example.com:proj/locations/a%20b/workspaces/w%2F..%2Fx/invoke"
        assert settings.base_url == f"https://claude.googleapis.com{expected}"

    def test_a_host_replaces_googles_and_keeps_the_path(self) -> None:
        settings = read(GOOGLE, host="http://127.0.0.1:80")

        assert settings.base_url == "http://127.0.0.1:80/v1/projects/proj/locations/global/workspaces/wrkspc_1/invoke"

    def test_takes_the_credentials_of_another_connection(self) -> None:
        found = read({**GOOGLE, "gcp_conn_id": "gcp"}).identity.credentials

        assert isinstance(found, GoogleConnection)
        assert found.other.connection is OTHERS["gcp"]

    def test_takes_from_the_environment_what_the_connection_lacks(self) -> None:
        variables = {"GOOGLE_CLOUD_PROJECT": "g", "ANTHROPIC_GOOGLE_CLOUD_WORKSPACE_ID": "w"}
        extra = {"platform": "google"}

        assert "/projects/g/locations/global/workspaces/w/" in read(extra, variables).base_url
        more = {"ANTHROPIC_GOOGLE_CLOUD_PROJECT": "p", "ANTHROPIC_GOOGLE_CLOUD_LOCATION": "eu"}
        assert "/projects/p/locations/eu/" in read(extra, variables | more).base_url
        url = {"ANTHROPIC_GOOGLE_CLOUD_BASE_URL": "https://g.example/x"}
        assert read(extra, url).base_url == "https://g.example/x"


@pytest.mark.parametrize(
    ("extra", "fields", "problem"),
    [
        ({"platform": "azure"}, {}, "extra.platform is 'azure'. Supported: anthropic, aws, google."),
        ({"platform": "bedrock"}, {}, "Amazon Bedrock has batch inference of its own"),
        ({"platform": "vertex"}, {}, "Vertex AI has batch predictions of its own"),
        ({"platform": "foundry"}, {}, "Microsoft Foundry serves single messages only"),
        (FEDERATED, {"password": "k"}, "password and extra.federation_rule_id are both set"),
        ({**FEDERATED, "auth_scheme": "bearer"}, {}, "extra.auth_scheme and extra.federation_rule_id are both set"),
        ({**FEDERATED, "identity_variable": "A"}, {}, "extra.identity_file and extra.identity_variable are both set"),
        ({"federation_rule_id": "f"}, {}, "extra.organization_id is required for workload identity"),
        ({"organization_id": "o"}, {}, "extra.federation_rule_id is required for workload identity"),
        ({"federation_rule_id": "f", "organization_id": "o"}, {}, "Set one of identity_file, identity_variable"),
        ({**FEDERATED, "identity_audience": "a"}, {}, "identity_audience is set, but identity_conn_id is not"),
        ({**FEDERATED, "identity_file": 5}, {}, "extra.identity_file must be a string, not int"),
        (
            {"federation_rule_id": "f", "organization_id": "o", "identity_callable": "get_token"},
            {},
            "it must be an import path like package.function",
        ),
        (
            {"federation_rule_id": "f", "organization_id": "o", "identity_conn_id": "mail"},
            {},
            "extra.identity_conn_id names 'mail', of type 'smtp'; it must be 'google_cloud_platform' or 'azure'",
        ),
        ({**FEDERATED, "aws_region": "x"}, {}, "aws_region is set, but platform is 'anthropic'. Set platform to 'aws'"),
        ({**AWS, "federation_rule_id": "f"}, {}, "extra.federation_rule_id is set, but platform is 'aws'"),
        ({**AWS, "gcp_project": "p"}, {}, "extra.gcp_project is set, but platform is 'aws'"),
        ({**AWS, "aws_region": "Frankfurt!"}, {}, "it must be an AWS region like us-east-1"),
        ({"platform": "aws", "workspace_id": "w"}, {}, "extra.aws_region is required for this platform"),
        ({"platform": "aws", "aws_region": "us-east-1"}, {}, "extra.workspace_id is required for this platform"),
        ({**AWS, "aws_conn_id": "aws_default"}, {"password": "k"}, "password and extra.aws_conn_id are both set"),
        ({**AWS, "aws_conn_id": "mail"}, {}, "extra.aws_conn_id names 'mail', of type 'smtp'; it must be 'aws'"),
        (GOOGLE, {"password": "k"}, "password and platform 'google' are both set"),
        ({"platform": "google", "workspace_id": "w"}, {}, "extra.gcp_project is required for this platform"),
        ({"workload_identity": "x"}, {}, "extra.workload_identity must be a JSON object"),
        ({"workload_identity": {"file": "x"}}, {}, "extra.workload_identity has an unknown key: 'file'"),
        (
            {"workload_identity": {"federation_rule_id": "a"}, "federation_rule_id": "b"},
            {},
            "extra.federation_rule_id and extra.workload_identity.federation_rule_id differ",
        ),
        (FEDERATED, {"host": "http://other.example"}, "would send the credentials unencrypted; use https://"),
        (
            {**FEDERATED, "allow_http": True},
            {"host": "http://localhost.evil"},
            "would send the credentials unencrypted; use https://",
        ),
    ],
)
def test_a_contradiction_names_the_fields_and_the_remedy(
    extra: dict[str, Any], fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read(extra, **fields)
    assert problem in str(caught.value)
    assert "here" in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "extra", "problem"),
    [
        ({"api_key": "k"}, OFFICIAL_FEDERATED, "anthropic_client_kwargs.api_key and extra.federation_rule_id are both"),
        (
            {"aws_access_key": "a", "workspace_id": "w"},
            {"platform": "aws", "aws_region": "us-east-1"},
            "belong together",
        ),
    ],
)
def test_the_official_clients_arguments_may_not_contradict_either(
    kwargs: dict[str, str], extra: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=problem):
        read({**extra, "anthropic_client_kwargs": kwargs}, conn_type="anthropic")
