"""Signs requests. A platform that signs them differently needs another `httpx.Auth` with a `secrets` method."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import httpx


class KeyAuth(httpx.Auth):
    """Signs requests with a key.

    Another auth class can read the hash of the body from `request.extensions["call"].body_sha256`. If it has no
    credentials, it raises a BatchesError, and nothing is sent.

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
