"""How a request is signed. A platform with another way of signing has another `httpx.Auth` with `secrets`."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import httpx


class KeyAuth(httpx.Auth):
    """Signs requests with a key.

    Another auth finds the hash of the body at `request.extensions["call"].body_sha256`. If it has no credentials, it
    raises a BatchesError, and nothing is sent.

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
        """Iterate over what must not be seen."""
        yield self._key
