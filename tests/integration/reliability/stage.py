"""An API with the faults of one row: when they begin and end, and the requests meanwhile."""

from __future__ import annotations

import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.emulator import Fault as EmulatorFault
from airflow_provider_batches.emulator.routes import route
from tests.integration.reliability.clock import Clock
from tests.integration.reliability.matrix import A_DATE, GONE, LASTING, ONCE, RETRY_AFTER, ROWS, Fault, Row, Term

#: Seconds of the default `timeout`, and the real seconds that these tests wait instead.
TIMEOUT, SHORT = 60.0, 0.05
#: Seconds that a request takes on the test's clock.
REQUEST = 0.01
_EMPTY_PAGE = {"body": '{"data": [], "has_more": false, "first_id": null, "last_id": null}'}


def experiments(kind: str, names: Iterable[str], rows: Iterable[Row] = ROWS, once: Iterable[Row] = ROWS) -> list[Any]:
    """Return each row with each name and length. If a lasting fault makes no difference, it is left out.

    :param kind: `calls` or `waits`.
    :param names: The calls or the ways to wait.
    :param once: The rows that are also tested with a fault that occurs once.
    """
    return [
        pytest.param(row, name, length, id=f"{row.plain_name}-{name}-{length}")
        for row in rows
        for name in names
        if name in getattr(row, kind)
        for length in _lengths(row, getattr(row, kind)[name], row in once)
    ]


def _lengths(row: Row, term: Term, once: bool) -> list[str]:
    if term.once == term.lasting:
        return list(row.lasts[:1])
    return [length for length in row.lasts if once or length != ONCE]


class Stage:
    """The API, with faults from one request on.

    :param row: The faults.
    :param length: How long they last: `once`, for one request.
    :param start: The index of the first fault.
    """

    def __init__(
        self, row: Row, length: str, clock: Clock, monkeypatch: pytest.MonkeyPatch, certificates: list[Path], start: int
    ) -> None:
        self.clock = clock
        self.requests: Counter[str] = Counter()
        #: The faults that requests have had.
        self.met: list[Fault] = []
        self.begun_at = 0.0
        self._held = socket.socket()
        self._endpoints: tuple[str, ...] = ()
        self._after = 0
        self._row, self._length = row, length
        first = start % len(row.faults)
        self._before_api = row.faults[first].options is None
        #: In order. A fault in front of the API does not change.
        self._faults = row.faults[first : first + 1] if self._before_api else row.faults[first:] + row.faults[:first]
        self._is_active = False
        self._monkeypatch = monkeypatch
        name = self._faults[0].name
        tls = name == "TLS error"
        self.api = Emulator(tls=_context(certificates[0]) if tls else None)
        self.api.start()
        self._other = Emulator(port=self.api.port, tls=_context(certificates[1]) if tls else None)
        url = self.api.url.replace("127.0.0.1", "localhost") if name == "DNS failure" else self.api.url
        extra = {"verify": str(certificates[0] / "cert.pem")} if tls else {}
        connection = {**json.loads(self.api.connection_json), "host": url, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", json.dumps(connection))
        self._watch()

    def strike(self, *endpoints: str, after: int = 0) -> None:
        """Set the requests with faults: those to these endpoints, or all if the row has `everywhere`.

        :param after: The number of these requests that succeed first.
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
            struck = self._before(request)
            try:
                return send(client, request, **options)
            except httpx.ReadTimeout:
                self.clock.sleep(TIMEOUT)
                raise
            finally:
                self._after_request(struck)

        async def awatched(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
            struck = self._before(request)
            try:
                with self.clock.awaiting():
                    return await asend(client, request, **options)
            except httpx.ReadTimeout:
                self.clock.sleep(TIMEOUT)
                raise
            finally:
                self._after_request(struck)

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
        """Count a request and inject the next fault into it; return whether it has a fault."""
        self.clock.sleep(REQUEST)
        endpoint, _ = route(request.method, request.url.path)
        own = endpoint in self._endpoints
        # Otherwise, the pauses of other threads would end before the fault has begun.
        with self.clock.stopped:
            if own and not self.begun_at and sum(self.requests[name] for name in self._endpoints) == self._after:
                self._begin()
            self.requests[endpoint] += 1
        struck = self._is_active and (self._row.everywhere or self._before_api or own)
        struck = struck and not (self._length == ONCE and self.met)
        request.extensions["timeout"]["read"] = TIMEOUT
        if struck:
            fault = self._faults[len(self.met) % len(self._faults)]
            self.met.append(fault)
            if fault.options is not None:
                options = _EMPTY_PAGE if fault.name == GONE and endpoint == "list" else _dated(fault.options)
                self.api.fault(EmulatorFault(endpoint, **options))
                if "hang" in options:
                    request.extensions["timeout"]["read"] = SHORT
        return struck

    def _after_request(self, struck: bool) -> None:
        if struck and self._length == ONCE:
            self._end()

    def _begin(self) -> None:
        self._is_active, self.begun_at = True, self.clock.now
        fault = self._faults[0]
        if fault.name == "TLS error":
            self.api.stop()
            self._other.start()
        elif fault.name == "DNS failure":
            # An open connection needs no DNS lookup.
            self.api.stop()
            self.api.start()
            self._monkeypatch.setattr(socket, "getaddrinfo", _unknown_host)
        elif self._before_api:
            self.api.stop()
            self._hold_port()
        elif fault.is_foreign:
            self.api.behavior = replace(self.api.behavior, request_id=False)
        if self._length not in (ONCE, LASTING):
            self.clock.at(self.clock.now + 600, self._end)

    def _end(self) -> None:
        self._is_active = False
        self.api.clear_faults()
        self.api.behavior = replace(self.api.behavior, request_id=True)
        name = self._faults[0].name
        if name == "TLS error":
            self._other.stop()
            self.api.start()
        elif name == "DNS failure":
            self._monkeypatch.setattr(socket, "getaddrinfo", _getaddrinfo)
        elif self._before_api:
            self.api.start()
            self._held.close()

    def _hold_port(self) -> None:
        """Bind the port of a stopped API, so that no other process uses it, without listening."""
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind((self.api.host, self.api.port))


_getaddrinfo: Callable[..., Any] = socket.getaddrinfo


def _unknown_host(*_: Any, **__: Any) -> Any:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def _dated(options: Any) -> dict[str, Any]:
    if options.get("headers") != {"retry-after": A_DATE}:
        return dict(options)
    date = datetime.now(timezone.utc) + timedelta(seconds=RETRY_AFTER)
    return {**options, "headers": {"retry-after": format_datetime(date, usegmt=True)}}


def _context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
