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
    """The Message Batches API on a local port, until the `with` block ends.

    Batches are kept in memory, also between `stop` and `start`.

    :param host: Address to listen on; without ``allow_remote``, a loopback address.
    :param port: Port to listen on; 0 selects a free one.
    :param api_key: The only accepted key; None accepts any.
    :param batch_seconds: Seconds that a batch takes.
    :param cancel_seconds: Seconds until a canceled batch ends; 0: it has ended at the next poll.
    :param requests_per_minute: Rate limit for all endpoints together; None: no limit.
    :param error_fraction: Share of the requests that end as ``errored``, 0 to 1.
    :param answers: The answers to requests: a dict by ``custom_id``, or a function of the request
        (``{"custom_id", "params"}``). An answer is a text; a list of content blocks; a dict with fields of the
        message (``content``, ``stop_reason``, ``usage`` ...), or with ``error`` (``{"type", "message"}``); None for the
        default: JSON or a tool call if the request's ``output_config`` or ``tool_choice`` requires it, otherwise a
        fixed text.
    :param outcomes: How requests end, by ``custom_id``: ``errored``, ``canceled``, ``expired``.
    :param workspace_id: The key's workspace, which ``anthropic-workspace-id`` may name.
    :param federation_rule_id: The only federation rule that accepts identity tokens; None: any.
    :param token_seconds: Seconds, in real time, until an access token expires.
    :param aws_keys: Secret access key by access key ID, for requests that are signed for AWS.
    :param body_seconds: Seconds without a byte after which an incomplete request is answered with 408.
    :param behavior: How it behaves in cases that the API's documentation leaves open; see `Behavior`.
    :param state: File that keeps batches and clock across restarts of the process.
    :param allow_remote: Whether ``host`` may be a non-loopback address. Anyone who reaches the port can then read
        and change everything, because ``/_emulator/`` requires no key.
    :param log_size: The number of requests to keep in the log.
    :param max_requests: The most requests in a batch.
    :param max_bytes: The most bytes in a batch.
    :param tls: The context to serve ``https`` with.
    :param on_request: Called with each request when its answer is known.
    :raises ValueError: If ``host`` is not a loopback address and ``allow_remote`` is not set.
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
        federation_rule_id: str | None = None,
        token_seconds: float = 3600.0,
        aws_keys: Mapping[str, str] | None = None,
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
            raise ValueError(f"{host} is not a loopback address. Set allow_remote to listen there.")
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
            federation_rule_id=federation_rule_id,
            token_seconds=token_seconds,
            aws_keys=aws_keys,
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
        """The value of ``AIRFLOW_CONN_...`` for a connection to this emulator. It contains the key."""
        return json.dumps({"conn_type": "anthropic_batches", "password": self.api_key, "host": self.url})

    @property
    def behavior(self) -> Behavior:
        """How it behaves in cases that the API's documentation leaves open. May be set at any time."""
        return self._app.behavior

    @behavior.setter
    def behavior(self, behavior: Behavior) -> None:
        self._app.behavior = behavior

    @property
    def answers(self) -> Answers | None:
        """The answers to requests of batches that are created from now on; see `Emulator`."""
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
        """Return the number of requests so far, to one endpoint (``create``, ...) or to all."""
        return self._app.log.counts[endpoint] if endpoint else sum(self._app.log.counts.values())

    def clear_requests(self) -> None:
        """Remove the requests and their counts."""
        self._app.log.clear()

    def revoke_tokens(self) -> int:
        """Refuse all access tokens issued so far, and return their number."""
        return self._app.access.revoke()

    def fault(self, fault: Fault) -> ArmedFault:
        """Set a fault; ``hits`` of the returned object is the number of requests that it made fail."""
        return self._app.faults.add(fault)

    def clear_faults(self) -> None:
        """Remove all faults."""
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

        :param requests: Their number, a list of custom IDs, or a list of requests as in a create.
        :param id: Its ID; by default a new one.
        :param status: ``in_progress`` (ends ``batch_seconds`` from now), ``canceling`` (ends ``cancel_seconds``
            from now, or in an hour if that is 0), ``ended``, or None: according to its age.
        :param age_seconds: Seconds since it was created.
        :param outcomes: The number of requests that end as ``succeeded``, ``errored``, ``canceled`` and ``expired``; or
            how requests end, by ``custom_id``.
        :param answers: The answers to its requests; by default the emulator's.
        :param result_bytes: Approximate size of its results in bytes; texts are padded to reach it.
        :param batch_seconds: Seconds that it takes; by default the emulator's.
        :param cancel_seconds: Seconds that a cancel takes; by default the emulator's.
        :param foreign: Whether it belongs to another workspace, so that this key cannot see it.
        :raises ValueError: If these contradict each other.
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
        """Return a batch as the API shows it; None if it is unknown or deleted."""
        batch = self._store.get(batch_id)
        if batch is None or batch.deleted:
            return None
        found: dict[str, Any] = json.loads(batch.render(self.clock.now(), self.behavior, self.url))
        return found

    def ids(self) -> list[str]:
        """Return the IDs of all batches in the list, newest first."""
        return self._store.ids()

    def start(self) -> None:
        """Start to listen, after a `stop` on the same port.

        :raises OSError: If the port is in use.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # asyncio sets TCP_NODELAY only if the socket names its protocol; otherwise each answer takes 40 ms.
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
        """Close the port and all connections immediately; do nothing if it is not running."""
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
        # uvicorn's Server is not used, because it handles signals and takes tenths of a second to stop.
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
