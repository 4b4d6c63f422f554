"""Runs the emulator in a separate process, and ends scripts cleanly that have started processes."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import httpx

from scripts.real_airflow import ends_with_this_process, free_ports


class EmulatorProcess:
    """The emulator in another process, and a client for it.

    :param options: Options for ``python -m airflow_provider_batches.emulator``.
    """

    api_key = "sk-ant-emulator"

    def __init__(self, *options: str) -> None:
        (self._port,) = free_ports(1)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        self._client = httpx.Client(base_url=self.url, timeout=10, trust_env=False)

    @property
    def connection_json(self) -> str:
        """The Airflow connection to this emulator, as the value of an ``AIRFLOW_CONN_...`` variable."""
        return json.dumps({"conn_type": "anthropic_batches", "password": self.api_key, "host": self.url})

    def add_batches(self, **batch: Any) -> list[str]:
        """Add batches as ``Emulator.add_batch`` does, and return their IDs."""
        ids: list[str] = self._call("POST", "batches", json=batch)["ids"]
        return ids

    def fault(self, **fault: Any) -> None:
        """Set a fault."""
        self._call("POST", "faults", json=fault)

    def ids(self) -> list[str]:
        """Return the IDs of all batches, newest first."""
        ids: list[str] = self._call("GET", "batches")["ids"]
        return ids

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests that the emulator has answered."""
        found: list[dict[str, Any]] = self._call("GET", "requests")["requests"]
        return found

    def count(self, endpoint: str) -> int:
        """Return the number of requests to an endpoint, such as ``delete``."""
        return int(self._call("GET", "requests", params={"limit": 0})["counts"].get(endpoint, 0))

    def is_up(self) -> bool:
        """Return whether the emulator answers."""
        with contextlib.suppress(httpx.TransportError):
            return self._client.get("/_emulator/health").status_code == 200
        return False

    def start(self) -> None:
        """Start the emulator, on the same port each time, and return once it answers."""
        command = [sys.executable, "-m", "airflow_provider_batches.emulator", "--port", str(self._port)]
        command[:0] = ends_with_this_process()
        self._process = subprocess.Popen(
            [*command, "--api-key", self.api_key, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Ctrl-C reaches only the script, which then stops the emulator last.
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while not self.is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("The emulator did not start.")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill the emulator (SIGKILL)."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop the emulator, and close the connection to it."""
        self._client.close()
        if self._process:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self.kill()

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        return self._client.request(method, f"/_emulator/{path}", **kwargs).raise_for_status().json()


@contextlib.contextmanager
def emulator(*options: str) -> Iterator[EmulatorProcess]:
    """Run ``python -m airflow_provider_batches.emulator`` with these options on a free loopback port."""
    process = EmulatorProcess(*options)
    try:
        process.start()
        yield process
    finally:
        process.stop()


def exit_on_signals() -> None:
    """Turn the first SIGINT or SIGTERM into an exception, so that the script stops the processes that it has started.

    Later signals are ignored, because they would interrupt the cleanup.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, leave)
