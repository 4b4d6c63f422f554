"""Credentials that Airflow knows: of other connections, and identity tokens from variables and callables.

Each is called in a thread that has no event loop and no Airflow task, so the connections are read before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from airflow_provider_batches.api.auth import require
from airflow_provider_batches.api.errors import CredentialsError
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.google import SCOPE


@dataclass(frozen=True)
class OtherConnection:
    """Another Airflow connection. It differs from an earlier one if any of its fields has changed.

    :param connection: The connection.
    """

    connection: Any = field(repr=False, compare=False)
    uri: str = field(repr=False)

    @classmethod
    def of(cls, connection: Any) -> OtherConnection:
        """Return the connection with what identifies it."""
        return cls(connection, connection.get_uri())

    def __str__(self) -> str:
        return f"connection {self.connection.conn_id!r}"

    def hook(self, cls: type[Any], **options: Any) -> Any:
        """Return a hook of the connection, which does not look it up again."""
        known = type(cls.__name__, (cls,), {"get_connection": classmethod(lambda _, conn_id: self.connection)})
        return known(**options)


@dataclass(frozen=True)
class AwsConnection:
    """Returns the credentials of a connection of type `aws`."""

    other: OtherConnection
    region: str

    def __call__(self) -> Any:
        """Return credentials of botocore. Raises CredentialsError if the connection gives none."""
        require("airflow.providers.amazon.aws.hooks.base_aws", "apache-airflow-providers-amazon")
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        hook = self.other.hook(AwsBaseHook, aws_conn_id=self.other.connection.conn_id, client_type="sts")
        return hook.get_session(region_name=self.region).get_credentials()


@dataclass(frozen=True)
class AwsKeys:
    """Returns given credentials."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    def __call__(self) -> Any:
        """Return credentials of botocore."""
        from botocore.credentials import Credentials

        return Credentials(self.access_key, self.secret_key, self.session_token)


@dataclass(frozen=True)
class AwsProfile:
    """Returns the credentials of a profile in AWS's own configuration files."""

    profile: str

    def __call__(self) -> Any:
        """Return credentials of botocore."""
        from botocore.session import Session

        return Session(profile=self.profile).get_credentials()


@dataclass(frozen=True)
class GoogleConnection:
    """Returns the credentials of a connection of type `google_cloud_platform`."""

    other: OtherConnection

    def __call__(self) -> Any:
        """Return credentials of google-auth."""
        credentials = _google_hook(self.other).get_credentials()
        return credentials.with_scopes([SCOPE]) if getattr(credentials, "requires_scopes", False) else credentials


def _google_hook(other: OtherConnection) -> Any:
    require("airflow.providers.google.common.hooks.base_google", "apache-airflow-providers-google")
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook

    return other.hook(GoogleBaseHook, gcp_conn_id=other.connection.conn_id)


@dataclass(frozen=True)
class TokenVariable:
    """Returns an identity token from the environment."""

    name: str

    def __call__(self) -> str:
        """Return the value. Raises CredentialsError if it is not set."""
        if not (value := os.environ.get(self.name)):
            raise CredentialsError(f"{self} is not set in the environment of this process.")
        return value

    def __str__(self) -> str:
        return f"the environment variable {self.name!r}"


@dataclass(frozen=True)
class TokenCallable:
    """Returns the identity token that a function returns.

    :param path: Its import path, such as `my_company.identity.get_token`.
    """

    path: str

    def __call__(self) -> str:
        """Call the function. Raises CredentialsError if it cannot be imported, fails, or returns no text."""
        module, _, name = self.path.rpartition(".")
        try:
            function = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise CredentialsError(f"{self} cannot be imported ({error}).", proof=Proof.REFUSED) from None
        try:
            found = function()
        except Exception as error:
            # Its text may contain secrets.
            raise CredentialsError(f"{self} failed ({type(error).__name__}).") from None
        if not isinstance(found, str):
            kind = type(found).__name__
            raise CredentialsError(f"{self} returned {kind}; it must return a string.", proof=Proof.REFUSED)
        return found

    def __str__(self) -> str:
        return f"identity_callable {self.path!r}"


@dataclass(frozen=True)
class TokenConnection:
    """Returns the identity token of a Google or Azure connection.

    :param audience: Who the token is for.
    """

    other: OtherConnection
    audience: str

    def __call__(self) -> str:
        """Return the token. Raises CredentialsError if the connection gives none."""
        get = _google_id_token if self.other.connection.conn_type == "google_cloud_platform" else _azure_token
        try:
            return get(self.other, self.audience)
        except CredentialsError:
            raise
        except Exception as error:
            # Its text may contain secrets.
            raise CredentialsError(f"{self} gave no identity token ({type(error).__name__}).") from None

    def __str__(self) -> str:
        return f"identity_conn_id {self.other.connection.conn_id!r}"


def _google_id_token(other: OtherConnection, audience: str) -> str:
    credentials = _google_hook(other).get_credentials()
    from google.auth import compute_engine, impersonated_credentials
    from google.auth.transport.requests import Request
    from google.oauth2 import service_account

    # The library is untyped.
    account: Any = service_account
    impersonated: Any = impersonated_credentials
    engine: Any = compute_engine
    if isinstance(credentials, account.Credentials):
        made = account.IDTokenCredentials(
            signer=credentials.signer,
            service_account_email=credentials.service_account_email,
            token_uri=credentials._token_uri,
            target_audience=audience,
        )
    elif isinstance(credentials, impersonated.Credentials):
        made = impersonated.IDTokenCredentials(credentials, target_audience=audience, include_email=True)
    else:
        made = engine.IDTokenCredentials(Request(), audience, use_metadata_identity_endpoint=True)
    made.refresh(Request())
    return str(made.token)


def _azure_token(other: OtherConnection, audience: str) -> str:
    require("airflow.providers.microsoft.azure.hooks.base_azure", "apache-airflow-providers-microsoft-azure")
    from airflow.providers.microsoft.azure.hooks.base_azure import AzureBaseHook

    hook = other.hook(AzureBaseHook, conn_id=other.connection.conn_id)
    return str(hook.get_token(f"{audience.removesuffix('/.default')}/.default").token)
