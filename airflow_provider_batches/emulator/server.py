from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_batches.emulator.behavior import Behavior
from airflow_provider_batches.emulator.clock import Clock
from airflow_provider_batches.emulator.faults import ArmedFault, Fault
from airflow_provider_batches.emulator.messages import Answers
from airflow_provider_batches.emulator.requestlog import LoggedRequest
from airflow_provider_batches.emulator.seeding import seed
from airflow_provider_batches.emulator.settings import Settings
from airflow_provider_batches.emulator.store import Store

if TYPE_CHECKING:
    import asyncio
    import ssl

    from uvicorn import Config

BACKLOG = 2048


class Emulator:
    """The Message Batches API on a local port, for as long as the context lasts.

    Batches live in memory, and survive `stop` and `start` of the same object.

    :param host: address to listen on; only loopback unless ``allow_remote``.
    :param port: port to listen on; 0 takes a free one.
    :param api_key: the only key that is accepted; None accepts any.
    :param batch_seconds: how long a batch takes.
    :param cancel_seconds: how long a canceled batch takes to end; 0: it has ended when next looked at.
    :param requests_per_minute: limit for all batch endpoints together; None: no limit.
    :param error_fraction: share of the requests that end as ``errored``.
    :param answers: what requests are answered with: a dict by ``custom_id``, or a function of the request
        (``{"custom_id", "params"}``). An answer is the text; a list of content blocks; a dict with fields of the
        message (``content``, ``stop_reason``, ``usage`` ...), or with ``error`` (``{"type", "message"}``); None for the
        default: JSON or a call of a tool if the request's ``output_config`` or ``tool_choice`` asks for it, else a
        fixed text.
    :param outcomes: how requests end, by ``custom_id``: ``errored``, ``canceled``, ``expired``.
    :param workspace_id: the key's workspace, which ``anthropic-workspace-id`` may name.
    :param body_seconds: after how long without a byte an incomplete request is answered with 408.
    :param behavior: how it behaves where the API's behavior is not known; see `Behavior`.
    :param state: file that keeps batches and clock over a restart of the process.
    :param allow_remote: listen on other than loopback addresses too. Anybody who reaches the port can then read
        and change everything, since ``/_emulator/`` asks for no key.
    :param log_size: how many requests are remembered.
    :param max_requests: limit of requests in a batch.
    :param max_bytes: limit of bytes in a batch.
    :param tls: serve ``https`` with this context.
    :param on_request: called with each request when its answer is known.
    :raises ValueError: if ``host`` is not loopback and ``allow_remote`` is not set.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = "sk-ant-emulator",
        batch_seconds: float = 3600.0,
        cancel_seconds: float = 0.0,
        requests_per_minute: int | None = None,
        error_fraction: float = 0.0,
        answers: Answers | None = None,
        outcomes: Mapping[str, str] | None = None,
        workspace_id: str = "default",
        body_seconds: float = 60.0,
        behavior: Behavior | None = None,
        state: str | Path | None = None,
        allow_remote: bool = False,
        log_size: int = 10_000,
        max_requests: int = 100_000,
        max_bytes: int = 256 * 1024 * 1024,
        tls: ssl.SSLContext | None = None,
        on_request: Callable[[LoggedRequest], None] | None = None,
    ) -> None:
        from airflow_provider_batches.emulator.app import App
        from airflow_provider_batches.emulator.control import control

        if not (allow_remote or host == "localhost" or _is_loopback(host)):
            raise ValueError(f"{host} is not a loopback address; allow_remote is needed to listen there.")
        self.host = host
        self.port = port
        self.api_key = api_key
        self.clock = Clock()
        self._settings = Settings(
            api_key=api_key,
            batch_seconds=batch_seconds,
            cancel_seconds=cancel_seconds,
            requests_per_minute=requests_per_minute,
            error_fraction=error_fraction,
            answers=answers,
            outcomes=outcomes,
            workspace_id=workspace_id,
            body_seconds=body_seconds,
            max_requests=max_requests,
            max_bytes=max_bytes,
            log_size=log_size,
            on_request=on_request,
        )
        self._tls = tls
        self._store = Store(self.clock, None if state is None else Path(state))
        self._app = App(self._store, self._settings, behavior or Behavior(), control)
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    def __enter__(self) -> Emulator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The base URL for clients."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    @property
    def connection_json(self) -> str:
        """An Airflow connection to it, as ``AIRFLOW_CONN_...`` takes it; it holds the key."""
        return json.dumps({"conn_type": "anthropic_batches", "password": self.api_key, "host": self.url})

    @property
    def behavior(self) -> Behavior:
        """How it behaves where the API's behavior is not known; may be set at any time."""
        return self._app.behavior

    @behavior.setter
    def behavior(self, behavior: Behavior) -> None:
        self._app.behavior = behavior

    @property
    def answers(self) -> Answers | None:
        """What batches that are created from now on are answered with; see `Emulator`."""
        return self._settings.answers

    @answers.setter
    def answers(self, answers: Answers | None) -> None:
        self._settings.answers = answers

    @property
    def outcomes(self) -> Mapping[str, str] | None:
        """How requests of batches that are created from now on end, by ``custom_id``; see `Emulator`."""
        return self._settings.outcomes

    @outcomes.setter
    def outcomes(self, outcomes: Mapping[str, str] | None) -> None:
        self._settings.outcomes = outcomes

    @property
    def requests(self) -> list[LoggedRequest]:
        """The requests so far, oldest first; at most ``log_size``."""
        return list(self._app.log.entries)

    def count(self, endpoint: str | None = None) -> int:
        """Return how many requests there were, of one endpoint (``create``, ...) or in all."""
        return self._app.log.counts[endpoint] if endpoint else sum(self._app.log.counts.values())

    def clear_requests(self) -> None:
        """Forget the requests and their counts."""
        self._app.log.clear()

    def fault(self, fault: Fault) -> ArmedFault:
        """Set a fault; ``.hits`` of what is returned tells how often it has struck."""
        return self._app.faults.add(fault)

    def clear_faults(self) -> None:
        """Forget all faults."""
        self._app.faults.clear()

    def add_batch(
        self,
        requests: int | Sequence[Any] = 100,
        *,
        id: str | None = None,
        status: str | None = None,
        age_seconds: float = 0.0,
        outcomes: Mapping[str, Any] | None = None,
        answers: Answers | None = None,
        result_bytes: int = 0,
        batch_seconds: float | None = None,
        cancel_seconds: float | None = None,
        foreign: bool = False,
    ) -> str:
        """Add a batch without HTTP and return its ID.

        :param requests: how many, or a list of custom IDs, or of requests as in a create.
        :param id: its ID; by default a new one.
        :param status: ``in_progress`` (ends ``batch_seconds`` from now), ``canceling`` (ends ``cancel_seconds``
            from now, in an hour if that is 0), ``ended``, or None: what its age makes of it.
        :param age_seconds: how long ago it was created.
        :param outcomes: how many requests end as ``succeeded``, ``errored``, ``canceled`` and ``expired``; or how those
            of some custom IDs end.
        :param answers: what its requests are answered with, if not what the emulator's are.
        :param result_bytes: about how large its results are in all; filled up with text.
        :param batch_seconds: how long it takes, if not as long as others.
        :param cancel_seconds: how long a cancel takes, if not as long as for others.
        :param foreign: whether it belongs to another workspace, where this key does not see it.
        :raises ValueError: if these contradict each other.
        """
        return seed(
            self._store,
            self._settings,
            requests,
            id=id,
            status=status,
            age_seconds=age_seconds,
            outcomes=outcomes,
            answers=answers,
            result_bytes=result_bytes,
            batch_seconds=batch_seconds,
            cancel_seconds=cancel_seconds,
            foreign=foreign,
        ).id

    def batch(self, batch_id: str) -> dict[str, Any] | None:
        """Return a batch as the API shows it, None if it is unknown or deleted."""
        batch = self._store.get(batch_id)
        if batch is None or batch.deleted:
            return None
        found: dict[str, Any] = json.loads(batch.render(self.clock.now(), self.behavior, self.url))
        return found

    def ids(self) -> list[str]:
        """Return the IDs of all batches that the list endpoint shows, newest first."""
        return self._store.ids()

    def start(self) -> None:
        """Listen; on the same port as before if it has run before.

        :raises OSError: if the port is taken.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # With the protocol named asyncio sets TCP_NODELAY; without, each answer takes 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        ready = threading.Event()
        args = (listener, _config(self._app), ready)
        self._thread = threading.Thread(target=self._run, args=args, name="emulator", daemon=True)
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Close the port and all connections at once; does nothing if it does not run."""
        if self._thread is not None:
            self._stop()
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Stop permanently and close the state file."""
        self.stop()
        self._store.close()

    def _run(self, listener: socket.socket, config: Config, ready: threading.Event) -> None:
        import asyncio

        try:
            asyncio.run(self._serve(listener, config, ready))
        finally:
            ready.set()

    async def _serve(self, listener: socket.socket, config: Config, ready: threading.Event) -> None:
        # uvicorn's protocol without its Server, which takes tenths of seconds to stop and handles signals.
        import asyncio

        from uvicorn.server import ServerState

        loop = asyncio.get_running_loop()
        state = ServerState()
        protocol_class: Any = config.http_protocol_class

        def connection() -> asyncio.Protocol:
            protocol = protocol_class(config=config, server_state=state, app_state={}, _loop=loop)
            protocol.access_log = False
            return cast(asyncio.Protocol, protocol)

        server = await loop.create_server(connection, sock=listener, ssl=self._tls, backlog=BACKLOG)
        stopped = asyncio.Event()
        self._stop = partial(loop.call_soon_threadsafe, stopped.set)
        ready.set()
        await stopped.wait()
        server.close()
        for protocol in list(state.connections):
            protocol.transport.abort()
        await asyncio.sleep(0)
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)


def _config(app: Any) -> Config:
    from importlib.util import find_spec

    from uvicorn import Config

    http: Any = "httptools" if find_spec("httptools") else "h11"
    config = Config(app, http=http, ws="none", lifespan="off", log_config=None, timeout_keep_alive=60)
    config.load()
    return config


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
