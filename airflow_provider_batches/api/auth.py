"""Signs requests with a key, and what other ways of signing have in common."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import httpx

from airflow_provider_batches.api.errors import CredentialsError
from airflow_provider_batches.api.evidence import Proof

if TYPE_CHECKING:
    from airflow_provider_batches.api.settings import ClientSettings


def require(module: str, package: str) -> None:
    """Raise CredentialsError if an optional package is not installed."""
    try:
        import_module(module)
    except ImportError:
        raise CredentialsError(f"it requires pip install {package}.", proof=Proof.REFUSED) from None


class SecretAuth(httpx.Auth):
    """Signs requests, and knows which values are secret.

    It can read the hash of the body from `request.extensions["call"].body_sha256`. If it has no credentials, it raises
    a CredentialsError, and nothing is sent.
    """

    def secrets(self) -> Iterator[str]:
        """Iterate over the values that logs and errors must not show."""
        return iter(())


class Identity(Protocol):
    """Who calls the API, instead of a key. Equal identities are interchangeable."""

    def auth(self, settings: ClientSettings) -> SecretAuth:
        """Return what signs the requests of a client."""


class KeyAuth(SecretAuth):
    """Signs requests with a key.

    :param key: The key or token.
    :param scheme: `x-api-key`, or `bearer` for gateways and OAuth.
    """

    def __init__(self, key: str, scheme: str = "x-api-key") -> None:
        self._key = key
        self._header = ("authorization", f"Bearer {key}") if scheme == "bearer" else ("x-api-key", key)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign a request."""
        name, value = self._header
        request.headers[name] = value
        yield request

    def secrets(self) -> Iterator[str]:
        """Iterate over the values that logs and errors must not show."""
        yield self._key
