"""Reads which platform serves the API, and who calls it there. No I/O, except for other connections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.api.aws import AwsIdentity, aws_base_url
from airflow_provider_batches.api.federation import Federation, TokenFile
from airflow_provider_batches.api.google import GoogleIdentity, google_base_url
from airflow_provider_batches.hooks.credentials import (
    AwsConnection,
    AwsKeys,
    AwsProfile,
    GoogleConnection,
    OtherConnection,
    TokenCallable,
    TokenConnection,
    TokenVariable,
)

#: Field of a federation: its environment variable, as the official client reads it.
FEDERATION = {
    "federation_rule_id": "ANTHROPIC_FEDERATION_RULE_ID",
    "organization_id": "ANTHROPIC_ORGANIZATION_ID",
    "service_account_id": "ANTHROPIC_SERVICE_ACCOUNT_ID",
}
#: Where the identity token comes from: one of these fields. Airflow hides the value of a field named `token`.
TOKEN_SOURCES = ("identity_file", "identity_variable", "identity_conn_id", "identity_callable")
#: The fields that belong to one platform.
FIELDS_OF = {
    "anthropic": (*FEDERATION, *TOKEN_SOURCES, "identity_audience"),
    "aws": ("aws_region", "aws_conn_id"),
    "google": ("gcp_project", "gcp_location", "gcp_conn_id"),
}
#: What other platforms of Anthropic's models serve instead.
_NOT_SERVED = {
    "bedrock": "Amazon Bedrock has batch inference of its own, on files in S3",
    "vertex": "Vertex AI has batch predictions of its own, on BigQuery and Cloud Storage",
    "foundry": "Microsoft Foundry serves single messages only",
}
_AUDIENCE = "https://api.anthropic.com"
_REGION = re.compile(r"[a-z]{2}[a-z0-9-]{2,30}\Z")


@dataclass
class Reader:
    """Turns the platform's fields of a connection into settings of the client.

    :param where: The connection, as an error text begins.
    :param name: The connection, as it stands inside a text.
    :param values: The settings so far; `api_key` and `base_url` are the connection's own.
    :param environment: What counts if the connection is silent.
    :param get_connection: Returns another connection.
    :param is_official: Whether the connection has the official provider's type.
    """

    where: str
    name: str
    values: dict[str, Any]
    environment: Mapping[str, str]
    get_connection: Callable[[str], Any]
    is_official: bool = False
    #: Names of settings in error texts.
    labels: dict[str, str] = field(default_factory=dict)

    def read(self) -> None:
        """Set `identity`, or `api_key`, and what the platform needs."""
        platform = str(self.values.pop("platform", None) or "anthropic").lower()
        if platform not in FIELDS_OF:
            what = f"{_NOT_SERVED[platform]}, not this API. " if platform in _NOT_SERVED else ""
            self._fail(f"extra.platform is {platform!r}. {what}Supported: {', '.join(FIELDS_OF)}.")
        for other, names in FIELDS_OF.items():
            if other != platform and (found := [name for name in names if name in self.values]):
                self._fail(
                    f"extra.{found[0]} is set, but platform is {platform!r}. Set platform to {other!r}, or remove "
                    f"{found[0]}."
                )
        {"anthropic": self._anthropic, "aws": self._aws, "google": self._google}[platform]()

    def _anthropic(self) -> None:
        given = {name: self.values.pop(name) for name in FIELDS_OF["anthropic"] if name in self.values}
        if given:
            if "api_key" in self.values and not self._is_official_password:
                self._fail(f"{self._own('api_key')} and extra.{next(iter(given))} are both set. Remove one of them.")
            self.values.pop("api_key", None)
            self._federate(given)
        elif "api_key" not in self.values:
            self._from_environment()

    @property
    def _is_official_password(self) -> bool:
        """Whether the key is the password of a connection in which the official provider would not use it."""
        return self.is_official and self.labels["api_key"].startswith("password")

    def _federate(self, given: dict[str, Any]) -> None:
        """Set the identity of a federation; what the connection lacks comes from the environment."""
        if "auth_scheme" in self.values:
            self._fail("extra.auth_scheme and extra.federation_rule_id are both set. Remove auth_scheme.")
        found = {name: given.get(name) or self.environment.get(variable) for name, variable in FEDERATION.items()}
        for name in ("federation_rule_id", "organization_id"):
            if not found[name]:
                self._fail(f"extra.{name} is required for workload identity. Set it, or {FEDERATION[name]}.")
        workspace_id = self.values.pop("workspace_id", None) or self.environment.get("ANTHROPIC_WORKSPACE_ID")
        self.values["identity"] = Federation(
            self._token_source(given),
            str(found["federation_rule_id"]),
            str(found["organization_id"]),
            found["service_account_id"] or None,
            workspace_id or None,
        )
        self.labels["api_key"] = f"federation rule {found['federation_rule_id']!r} of {self.name}"

    def _token_source(self, given: dict[str, Any]) -> Callable[[], str]:
        sources = [name for name in TOKEN_SOURCES if name in given]
        if len(sources) > 1:
            self._fail(f"extra.{sources[0]} and extra.{sources[1]} are both set. Remove one of them.")
        audience = given.get("identity_audience")
        if audience and sources != ["identity_conn_id"]:
            self._fail("extra.identity_audience is set, but identity_conn_id is not. Remove one, or set both.")
        if not sources:
            if path := self.environment.get("ANTHROPIC_IDENTITY_TOKEN_FILE"):
                return TokenFile(path)
            if self.environment.get("ANTHROPIC_IDENTITY_TOKEN"):
                return TokenVariable("ANTHROPIC_IDENTITY_TOKEN")
            self._fail(f"workload identity requires an identity token. Set one of {', '.join(TOKEN_SOURCES)}.")
        value = given[sources[0]]
        if not isinstance(value, str):
            self._fail(f"extra.{sources[0]} must be a string, not {type(value).__name__}.")
        if sources[0] == "identity_conn_id":
            other = self._other(value, sources[0], "google_cloud_platform", "azure")
            return TokenConnection(other, str(audience or _AUDIENCE))
        if sources[0] == "identity_callable" and "." not in value:
            self._fail(f"extra.identity_callable is {value!r}; it must be an import path like package.function.")
        kinds: dict[str, Callable[[str], Callable[[], str]]] = {
            "identity_file": TokenFile,
            "identity_variable": TokenVariable,
            "identity_callable": TokenCallable,
        }
        return kinds[sources[0]](value)

    def _from_environment(self) -> None:
        """Set the key or the identity of the environment, in the official client's order."""
        variables = {"ANTHROPIC_API_KEY": "x-api-key", "ANTHROPIC_AUTH_TOKEN": "bearer"}
        variable = next((each for each in variables if self.environment.get(each)), None)
        federated = all(self.environment.get(FEDERATION[name]) for name in ("federation_rule_id", "organization_id"))
        if variable is None and not federated:
            self._fail(
                "no API key is set. Put it into the password, set ANTHROPIC_API_KEY in the environment of the workers "
                "and the triggerer, or set federation_rule_id."
            )
        source = variable or FEDERATION["federation_rule_id"]
        self._own_host(source, "ANTHROPIC_BASE_URL", _AUDIENCE)
        if variable:
            self.values["api_key"] = self.environment[variable]
            self.values.setdefault("auth_scheme", variables[variable])
            self.labels["api_key"] = self.labels["auth_scheme"] = f"{variable} in the environment"
        else:
            self._federate({})

    def _own_host(self, source: str, variable: str, default: str) -> None:
        """Use the URL of the environment, because its credentials belong to it and may not go to another host."""
        own, given = self.environment.get(variable), self.values.get("base_url")
        if given is not None and str(given).rstrip("/") != (own or "").rstrip("/"):
            self._fail(
                f"host is set, but no API key, and {source} of the environment belongs to "
                f"{variable if own else default}. Put the host's key into the password."
            )
        self._use_url(variable)

    def _use_url(self, variable: str) -> bool:
        """Use a URL of the environment if the connection has none. Return whether it is used."""
        url = self.environment.get(variable)
        if not url or "base_url" in self.values:
            return False
        self.values["base_url"] = url
        self.labels["base_url"] = f"{variable} in the environment"
        return True

    def _aws(self) -> None:
        region = self._need("aws_region", ("AWS_REGION", "AWS_DEFAULT_REGION"), pop=True)
        if not _REGION.match(region):
            self._fail(f"extra.aws_region is {region!r}; it must be an AWS region like us-east-1.")
        self._need("workspace_id", ("ANTHROPIC_AWS_WORKSPACE_ID",))
        conn_id = self.values.pop("aws_conn_id", None)
        keys = {name: self.values.pop(name, None) for name in ("aws_access_key", "aws_secret_key", "aws_session_token")}
        profile = self.values.pop("aws_profile", None)
        if self._is_official_password:
            self.values.pop("api_key", None)
        ways = {
            "password": "api_key" in self.values,
            "extra.aws_conn_id": conn_id,
            "aws_access_key": any(keys.values()),
        }
        chosen = [way for way, value in ways.items() if value]
        if len(chosen) > 1:
            self._fail(f"{chosen[0]} and {chosen[1]} are both set. Remove one of them.")
        if not chosen and not profile and (key := self.environment.get("ANTHROPIC_AWS_API_KEY")):
            self._own_host("ANTHROPIC_AWS_API_KEY", "ANTHROPIC_AWS_BASE_URL", aws_base_url(region))
            self.values["api_key"] = key
            self.labels["api_key"] = "ANTHROPIC_AWS_API_KEY in the environment"
        else:
            self._use_url("ANTHROPIC_AWS_BASE_URL")
        self.values.setdefault("base_url", aws_base_url(region))
        if "api_key" in self.values:
            self.values["auth_scheme"] = "bearer"
            return
        credentials: dict[str, Any] = {}
        if conn_id:
            credentials["credentials"] = AwsConnection(self._other(conn_id, "aws_conn_id", "aws"), region)
        elif any(keys.values()):
            if not (keys["aws_access_key"] and keys["aws_secret_key"]):
                self._fail("aws_access_key and aws_secret_key belong together. Set both, or neither.")
            credentials["credentials"] = AwsKeys(*keys.values())
        elif profile:
            credentials["credentials"] = AwsProfile(str(profile))
        self.values["identity"] = AwsIdentity(region, **credentials)
        self.labels["api_key"] = f"the AWS role and its policy for {self.name}"

    def _google(self) -> None:
        conn_id = self.values.pop("gcp_conn_id", None)
        if "api_key" in self.values and not self.is_official:
            self._fail(
                "password and platform 'google' are both set. Remove the password: Google's credentials are used."
            )
        self.values.pop("api_key", None)
        if not self._use_url("ANTHROPIC_GOOGLE_CLOUD_BASE_URL"):
            projects = ("ANTHROPIC_GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_PROJECT")
            project = self._need("gcp_project", projects, pop=True)
            workspace_id = self._need("workspace_id", ("ANTHROPIC_GOOGLE_CLOUD_WORKSPACE_ID",), pop=True)
            location = self.values.get("gcp_location") or self.environment.get("ANTHROPIC_GOOGLE_CLOUD_LOCATION")
            url = google_base_url(project, str(location or "global"), workspace_id)
            if host := self.values.get("base_url"):
                # A gateway, or an emulator: the path is the same.
                url = f"{str(host).rstrip('/')}/v1/{url.split('/v1/')[1]}"
            self.values["base_url"] = url
        for name in ("gcp_project", "gcp_location", "workspace_id"):
            self.values.pop(name, None)
        other = self._other(conn_id, "gcp_conn_id", "google_cloud_platform") if conn_id else None
        self.values["identity"] = GoogleIdentity(GoogleConnection(other)) if other else GoogleIdentity()
        self.labels["api_key"] = f"the Google account and its roles for {self.name}"

    def _need(self, name: str, variables: tuple[str, ...], *, pop: bool = False) -> str:
        """Return a field that the platform requires, from the connection or the environment."""
        value = self.values.get(name) or next(filter(None, map(self.environment.get, variables)), None)
        if not value:
            self._fail(f"extra.{name} is required for this platform. Set it, or {variables[0]} in the environment.")
        self.values[name] = value
        return str(self.values.pop(name) if pop else value)

    def _other(self, conn_id: object, name: str, *conn_types: str) -> OtherConnection:
        connection = self.get_connection(str(conn_id))
        if connection.conn_type not in conn_types:
            allowed = " or ".join(map(repr, conn_types))
            self._fail(f"extra.{name} names {conn_id!r}, of type {connection.conn_type!r}; it must be {allowed}.")
        return OtherConnection.of(connection)

    def _own(self, name: str) -> str:
        return self.labels[name].removesuffix(f" of {self.name}")

    def _fail(self, problem: str) -> Any:
        raise InvalidArgumentError(self.where, problem)


def federation_of(where: str, extra: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of the official provider's `workload_identity`, under the names of this provider."""
    given = extra.get("workload_identity") or {}
    if not isinstance(given, dict):
        raise InvalidArgumentError(where, "extra.workload_identity must be a JSON object.")
    supported = (*FEDERATION, "identity_token_file", "workspace_id", "scope")
    for name, value in given.items():
        if name not in supported:
            raise InvalidArgumentError(
                where, f"extra.workload_identity has an unknown key: {name!r}. Supported: {', '.join(supported)}."
            )
        own = "identity_file" if name == "identity_token_file" else str(name)
        # The official client never sends the scope either.
        if name != "scope" and value not in (None, ""):
            if extra.get(own) not in (None, "", value):
                raise InvalidArgumentError(
                    where, f"extra.{own} and extra.workload_identity.{name} differ. Remove one of them."
                )
            yield own, value
