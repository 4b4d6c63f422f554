"""Access tokens: fetched once for all calls of a process, and renewed before they expire."""

from __future__ import annotations

import asyncio
import copy
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Hashable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from airflow_provider_batches.api.auth import SecretAuth
from airflow_provider_batches.api.errors import CredentialsError

#: A token is renewed if it expires within so many seconds or a fifth of its life, whichever is less.
RENEW_SECONDS, RENEW_SHARE = 120.0, 1 / 5
#: If it cannot be renewed, it is used until so many seconds or a tenth of its life before it expires.
LAST_SECONDS, LAST_SHARE = 30.0, 1 / 10
#: Seconds for which a failure to fetch a token counts for all calls, and the most if the server asks for more.
FAILURE_SECONDS, MAX_FAILURE_SECONDS = 5.0, 60.0
#: Seconds for which another token is not fetched, if the last two were refused and none was accepted in between.
REFUSED_SECONDS = 60.0
#: Seconds that a call waits for a token.
WAIT_SECONDS = 90.0


@dataclass(frozen=True)
class Token:
    """An access token.

    :param value: The token.
    :param created_at: When it was created, in seconds since the epoch.
    :param expires_at: When it expires, in seconds since the epoch.
    :param assertion: The secret that it was exchanged for, which texts must not show either.
    """

    value: str = field(repr=False)
    created_at: float
    expires_at: float
    assertion: str = field(default="", repr=False)

    @property
    def renew_at(self) -> float:
        """When it is renewed, in seconds since the epoch."""
        return self.expires_at - min(RENEW_SECONDS, (self.expires_at - self.created_at) * RENEW_SHARE)

    @property
    def usable_until(self) -> float:
        """Until when it is used if it cannot be renewed, in seconds since the epoch."""
        return self.expires_at - min(LAST_SECONDS, (self.expires_at - self.created_at) * LAST_SHARE)


class TokenSource(Hashable, Protocol):
    """Where tokens come from. Equal sources share their token."""

    def fetch(self) -> Token:
        """Return a new token. May block. Raises CredentialsError if there is none."""


class TokenCache:
    """The token of one source, for all clients, threads and event loops of this process.

    A thread of its own fetches each token, so a caller that is canceled does not end the fetch for the others.
    """

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._pending: Future[Token] | None = None
        self._error = CredentialsError("There is no token.")
        self._retry_at = 0.0
        self._keep_until = 0.0
        #: Texts must not show these: former tokens may still be in flight.
        self.secrets: deque[str] = deque(maxlen=8)

    def get(self) -> Token:
        """Return the token. Blocks while the first one is fetched.

        :raises CredentialsError: There is no token.
        """
        found = self._find()
        if isinstance(found, Token):
            return found
        try:
            return found.result(WAIT_SECONDS)
        except FutureTimeoutError:
            raise self._late() from None
        except CredentialsError as error:
            raise copy.copy(error) from None

    async def aget(self) -> Token:
        """Return the token, as `get` does, without blocking the event loop."""
        found = self._find()
        if isinstance(found, Token):
            return found
        try:
            return await asyncio.wait_for(asyncio.wrap_future(found), WAIT_SECONDS)
        except (FutureTimeoutError, asyncio.TimeoutError):
            raise self._late() from None
        except CredentialsError as error:
            raise copy.copy(error) from None

    def on_status(self, token: Token, status: int) -> None:
        """Record how the API answered a call with a token. Discard a token that it refused."""
        now = time.time()
        with self._lock:
            if status != 401:
                self._keep_until = 0.0
            elif self._token is token and now >= self._keep_until:
                self._token, self._keep_until = None, now + REFUSED_SECONDS

    def _find(self) -> Token | Future[Token]:
        now = time.time()
        with self._lock:
            token = self._token
            if token and now < token.renew_at:
                return token
            if self._pending is None and now >= self._retry_at:
                self._pending = Future()
                # A waiter that is canceled cannot cancel it.
                self._pending.set_running_or_notify_cancel()
                threading.Thread(target=self._fetch, args=(self._pending,), name="token", daemon=True).start()
            if token and now < token.usable_until:
                return token
            if self._pending:
                return self._pending
            raise copy.copy(self._error)

    def _fetch(self, pending: Future[Token]) -> None:
        token: Token | None = None
        try:
            token = self._source.fetch()
        except CredentialsError as failure:
            error = failure
        except Exception as failure:
            # Its text may contain secrets.
            error = CredentialsError(f"no token could be obtained ({type(failure).__name__}).")
        with self._lock:
            self._pending = None
            if token:
                self._token = token
                self.secrets.extend(filter(None, (token.value, token.assertion)))
            else:
                self._error = error
                seconds = min(MAX_FAILURE_SECONDS, max(FAILURE_SECONDS, error.retry_after or 0.0))
                self._retry_at = time.time() + seconds
        if token:
            pending.set_result(token)
        else:
            pending.set_exception(error)

    def _late(self) -> CredentialsError:
        return CredentialsError(f"no token was obtained within {WAIT_SECONDS:g} s.")


_caches: dict[TokenSource, TokenCache] = {}
# A thread of the parent process does not exist in its child.
os.register_at_fork(after_in_child=_caches.clear)


class TokenAuth(SecretAuth):
    """Signs requests with the token of a source.

    :param source: Where the token comes from.
    :param beta: A flag that is added to the `anthropic-beta` header. Default: none.
    :param on_token: Called with each new token by the sync client, for example to mask it. Default: nothing.
    """

    def __init__(self, source: TokenSource, beta: str = "", on_token: Callable[[str], None] | None = None) -> None:
        # A dict's setdefault is atomic.
        self._cache = _caches.setdefault(source, TokenCache(source))
        self._beta = beta
        self._on_token = on_token
        self._last: Token | None = None

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign a request of the sync client."""
        token = self._cache.get()
        if self._on_token and token is not self._last:
            self._last = token
            self._on_token(token.value)
        response = yield self._sign(request, token)
        self._cache.on_status(token, response.status_code)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sign a request of the async client."""
        token = await self._cache.aget()
        response = yield self._sign(request, token)
        self._cache.on_status(token, response.status_code)

    def _sign(self, request: httpx.Request, token: Token) -> httpx.Request:
        request.headers["authorization"] = f"Bearer {token.value}"
        if self._beta:
            flags = [*filter(None, request.headers.get("anthropic-beta", "").split(",")), self._beta]
            request.headers["anthropic-beta"] = ",".join(dict.fromkeys(flags))
        return request

    def secrets(self) -> Iterator[str]:
        """Iterate over the values that logs and errors must not show."""
        yield from tuple(self._cache.secrets)
