"""Builds requests and reads responses, for both clients."""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar

import httpx

from airflow_provider_batches.api.bodies import ANSWER_SECONDS, LARGE
from airflow_provider_batches.api.endpoints import Call
from airflow_provider_batches.api.errors import APIConnectionError, CredentialsError, InvalidArgumentError
from airflow_provider_batches.api.evidence import judge
from airflow_provider_batches.api.flows import Flows
from airflow_provider_batches.api.responses import read_response
from airflow_provider_batches.api.settings import ClientSettings
from airflow_provider_batches.api.throttle import Throttle

T = TypeVar("T")
C = TypeVar("C", httpx.Client, httpx.AsyncClient)

log = logging.getLogger(__name__)

#: Errors without a connection: the request cannot have reached the API.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
_CONNECT_SECONDS = 10.0


@lru_cache(maxsize=8)
def tls_context(verify: bool | str, ca_file: tuple[int, int] | None = None) -> ssl.SSLContext:
    """Return a TLS context, shared by all clients with the same `verify`, because creating one takes 50 ms.

    :param ca_file: The version of the CA file.
    """
    if isinstance(verify, str):
        folder = os.path.isdir(verify)
        return ssl.create_default_context(cafile=None if folder else verify, capath=verify if folder else None)
    return httpx.create_ssl_context(verify=verify)


class BaseClient(Generic[C]):
    """Builds requests and reads responses; a subclass sends them."""

    _kind: type[C]

    def __init__(
        self,
        settings: ClientSettings,
        throttle: Throttle | None = None,
        renew: Callable[[], ClientSettings] | None = None,
    ) -> None:
        self.settings = settings
        self.throttle = throttle or Throttle()
        self._flows = Flows(1 + settings.max_retries, self.throttle)
        self._renew = renew
        self._renewing = threading.Lock()
        #: Includes former settings, because their calls may still be in flight and quote the former key.
        self._opened: list[tuple[ClientSettings, C]] = []
        self._http: C = self._open(settings)
        #: The `Date` of the last answer, and when it came.
        self._dated: tuple[str, float] | None = None

    def server_time(self) -> float:
        """Return the time of the API's clock in seconds since the epoch; this machine's before the first answer."""
        try:
            date, received = self._dated or ("", 0.0)
            return parsedate_to_datetime(date).timestamp() + time.monotonic() - received
        except ValueError:
            return time.time()

    def _open(self, settings: ClientSettings) -> C:
        plain = settings.base_url.startswith("http://") and settings.proxy is None
        try:
            http = self._kind(
                auth=settings.auth,
                base_url=settings.base_url,
                headers=settings.request_headers(),
                timeout=httpx.Timeout(settings.timeout, connect=min(settings.timeout, _CONNECT_SECONDS)),
                proxy=settings.proxy,
                # Plain HTTP needs no certificates, and reading them is slow.
                verify=tls_context(False) if plain else tls_context(*settings.trust),
                follow_redirects=False,
                # Loopback ignores the environment's proxy, which would receive the key over plain HTTP.
                trust_env=not (plain and settings.is_loopback),
            )
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            # A CA file without certificates, SOCKS without its package, or the environment's proxy, whose password the
            # error's text may quote.
            known = isinstance(error, (ImportError, OSError))
            reason = (
                f"{settings.verify}: {error}"
                if known
                else "a proxy is not a URL like http://proxy.example:3128, or the environment's NO_PROXY has an entry "
                "that is not a name or an address (IPv6 without brackets)"
            )
            raise InvalidArgumentError(
                f"{settings.label('verify')}, {settings.label('proxy')}",
                f"these settings, or the environment's proxy, cannot be used: {settings.redact(reason)}",
            ) from None
        self._opened.append((settings, http))
        if isinstance(http, httpx.Client):
            # Closes the connections of a client that is never closed, like a hook's.
            weakref.finalize(self, http.close).atexit = False
        return http

    def _renew_settings(self) -> None:
        """Read the settings again, and use them if they have changed. Blocks."""
        before = self.settings
        with self._renewing:
            if self._renew is None or self.settings is not before:
                return
            try:
                settings = self._renew()
                http = self._http if settings == before else self._open(settings)
            except Exception as error:
                # Its text may contain secrets.
                log.warning("The settings could not be read again: %s", type(error).__name__)
                return
            if settings != before:
                self.throttle.has_answered &= settings.base_url == before.base_url
                self._http, self.settings = http, settings

    def _request(self, call: Call[Any], http: C) -> httpx.Request:
        # Faster than `http.build_request`, which merges URLs and headers for each call.
        headers, timeout = http.headers, http.timeout.as_dict()
        if call.body is not None:
            # With its length, so that a body that breaks off is not a complete request.
            about = {"content-type": "application/json", "content-length": str(call.body.size)}
            headers = httpx.Headers({**headers, **about})
            if call.body.size > LARGE:
                timeout["read"] = max(timeout["read"] or 0.0, ANSWER_SECONDS)
        return httpx.Request(
            call.method,
            str(http.base_url).rstrip("/") + call.path,
            params=call.params or None,
            headers=headers,
            cookies=http.cookies,
            content=self._content(call),
            extensions={"call": call, "timeout": timeout},
        )

    def _content(self, call: Call[Any]) -> Any:
        return call.body.pieces() if call.body else None

    def _read(self, call: Call[T], response: httpx.Response) -> T:
        if date := response.headers.get("date"):
            self._dated = date, time.monotonic()
        answered = self.throttle.has_answered
        return read_response(call, response, self.settings, has_answered=answered, redact=self._redact)

    def _no_answer(
        self, call: Call[Any], error: httpx.HTTPError | httpx.InvalidURL | UnicodeError
    ) -> APIConnectionError:
        sent, settings = not isinstance(error, _NOT_SENT), self.settings
        hint = ""
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            hint = f" Set {settings.label('verify')} to the CA file that the host's certificate is signed with."
        elif not sent or isinstance(error, (httpx.InvalidURL, UnicodeError)):
            # The environment's proxy has an invalid name, or, after sending, a redirect has one.
            hint = f" Check {settings.label('base_url')} and {settings.label('proxy')}."
        what = ": ".join(filter(None, (type(error).__name__, _details(error))))
        text = f"Could not {call.action}: no answer from {settings.base_url} ({what}).{hint}"
        # Not httpx's error, which holds the request with its headers.
        made = APIConnectionError(self._redact(text))
        made.evidence = judge(call, None, sent=sent)
        made.untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
        return made

    def _not_sent(self, call: Call[Any], error: CredentialsError) -> CredentialsError:
        error.args = (self._redact(f"Could not {call.action}: {error}"),)
        return error

    def _redact(self, text: str) -> str:
        for settings, _ in self._opened:
            text = settings.redact(text)
        return text


def _details(error: BaseException) -> str:
    """Return the first text in the chain of an error, because httpx's are often empty."""
    cause: BaseException | None = error
    while cause and not (str(cause) and isinstance(cause, (httpx.HTTPError, OSError))):
        cause = cause.__cause__ or cause.__context__
    return str(cause or "")
