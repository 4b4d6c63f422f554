"""An API that one fault comes over: at which request it begins, when it is over, and what was asked meanwhile."""

from __future__ import annotations

import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.emulator.app import _route
from tests.integration.reliability.clock import Clock
from tests.integration.reliability.matrix import DATE_SECONDS, LASTING, ONCE, ROWS, Row

#: Seconds for which the default `timeout` lets a read hang, and for which these tests do.
TIMEOUT, SHORT = 60.0, 0.05
#: Seconds that a request takes on the test's clock.
REQUEST = 0.01


def experiments(kind: str, names: Iterable[str]) -> list[Any]:
    """Return row, name and length of each: a fault that ends a call or a wait at once need not last for it.

    :param kind: `calls` or `waits`.
    :param names: Which of them.
    """
    return [
        pytest.param(row, name, length, id=f"{row.plain_name}-{name}-{length}")
        for row in ROWS
        for name in names
        for length in row.lasts
        if not (length == LASTING and getattr(row, kind)[name].once == getattr(row, kind)[name].lasting)
    ]


class Stage:
    """The API, in trouble from one request on.

    :param row: What goes wrong.
    :param length: For how long: `once` is over after one request.
    """

    def __init__(
        self, row: Row, length: str, clock: Clock, monkeypatch: pytest.MonkeyPatch, certificates: list[Path]
    ) -> None:
        self.clock = clock
        self.requests: Counter[str] = Counter()
        #: How many requests met the trouble.
        self.struck = 0
        self._held = socket.socket()
        self._endpoints: tuple[str, ...] = ()
        self._after = 0
        self._row, self._length = row, length
        self._active = self._begun = False
        self._monkeypatch = monkeypatch
        tls = row.trouble == "TLS error"
        self.api = Emulator(tls=_context(certificates[0]) if tls else None)
        self.api.start()
        self._other = Emulator(port=self.api.port, tls=_context(certificates[1]) if tls else None)
        url = self.api.url.replace("127.0.0.1", "localhost") if row.trouble == "DNS failure" else self.api.url
        extra = {"verify": str(certificates[0] / "cert.pem")} if tls else {}
        connection = {**json.loads(self.api.connection_json), "host": url, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", json.dumps(connection))
        self._watch()

    def strike(self, *endpoints: str, after: int = 0) -> None:
        """Set what meets the trouble: requests for these endpoints, or all where the row says `everywhere`.

        :param after: How many of them are answered before it begins.
        """
        self._endpoints, self._after = endpoints, after

    def close(self) -> None:
        self._held.close()
        self._other.close()
        self.api.close()

    def _watch(self) -> None:
        send, asend = httpx.Client.send, httpx.AsyncClient.send
        chunks = httpx.Response.aiter_raw

        def watched(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
            before = self._before(request)
            try:
                return send(client, request, **options)
            except httpx.ReadTimeout:
                self.clock.sleep(TIMEOUT)
                raise
            finally:
                self._done(before)

        async def awatched(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
            before = self._before(request)
            try:
                with self.clock.awaiting():
                    return await asend(client, request, **options)
            except httpx.ReadTimeout:
                self.clock.sleep(TIMEOUT)
                raise
            finally:
                self._done(before)

        async def awaited(response: httpx.Response, *options: Any) -> AsyncIterator[bytes]:
            found = chunks(response, *options)
            while True:
                with self.clock.awaiting():
                    chunk = await anext(found, None)
                if chunk is None:
                    return
                yield chunk

        self._monkeypatch.setattr(httpx.Response, "aiter_raw", awaited)
        self._monkeypatch.setattr(httpx.Client, "send", watched)
        self._monkeypatch.setattr(httpx.AsyncClient, "send", awatched)

    def _before(self, request: httpx.Request) -> bool:
        """Take note of a request; return whether it meets the trouble."""
        self.clock.sleep(REQUEST)
        endpoint, _ = _route(request.method, request.url.path)
        own = endpoint in self._endpoints
        if own and not self._begun and sum(self.requests[name] for name in self._endpoints) == self._after:
            self._begin()
        self.requests[endpoint] += 1
        strikes = self._active and (self._row.everywhere or self._on_the_way or own)
        hangs = strikes and not self._on_the_way and self._row.trouble.get("hang")  # type: ignore[union-attr]
        request.extensions["timeout"]["read"] = SHORT if hangs else TIMEOUT
        self.struck += strikes
        return strikes

    def _done(self, struck: bool) -> None:
        if struck and self._length == ONCE:
            self._end()

    @property
    def _on_the_way(self) -> bool:
        return isinstance(self._row.trouble, str)

    def _begin(self) -> None:
        self._begun = self._active = True
        if self._length not in (ONCE, LASTING):
            self.clock.at(self.clock.now + 600, self._end)
        match self._row.trouble:
            case "connection refused":
                self.api.stop()
                self._hold_port()
            case "TLS error":
                self.api.stop()
                self._other.start()
            case "DNS failure":
                # What is connected needs no name.
                self.api.stop()
                self.api.start()
                self._monkeypatch.setattr(socket, "getaddrinfo", _unknown_host)
            case dict(fault):
                for endpoint in ("any",) if self._row.everywhere else self._endpoints:
                    self.api.fault(Fault(endpoint, times=None, **_dated(fault)))
            case other:
                raise ValueError(other)

    def _end(self) -> None:
        self._active = False
        self.api.clear_faults()
        match self._row.trouble:
            case "connection refused":
                self.api.start()
                self._held.close()
            case "TLS error":
                self._other.stop()
                self.api.start()
            case "DNS failure":
                self._monkeypatch.setattr(socket, "getaddrinfo", _getaddrinfo)

    def _hold_port(self) -> None:
        """Keep the port of a stopped API from others, without listening."""
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind((self.api.host, self.api.port))


_getaddrinfo: Callable[..., Any] = socket.getaddrinfo


def _unknown_host(*_: Any, **__: Any) -> Any:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def _dated(fault: dict[str, Any]) -> dict[str, Any]:
    if fault.get("headers") != {"retry-after": "a date"}:
        return fault
    date = datetime.now(timezone.utc) + timedelta(seconds=DATE_SECONDS)
    return {**fault, "headers": {"retry-after": format_datetime(date, usegmt=True)}}


def _context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
