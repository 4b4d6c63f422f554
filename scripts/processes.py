"""The emulator as a process of its own, and the clean end of a script that has started processes."""

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
    """A client of the emulator in another process."""

    api_key = "sk-ant-emulator"

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.Client(base_url=self.url, timeout=10, trust_env=False)

    @property
    def connection_json(self) -> str:
        """The Airflow connection that leads to this emulator, as the value of an ``AIRFLOW_CONN_...`` variable."""
        return json.dumps({"conn_type": "anthropic_batches", "password": self.api_key, "host": self.url})

    def add_batches(self, **batch: Any) -> list[str]:
        """Make batches as ``Emulator.add_batch`` does and return their IDs."""
        ids: list[str] = self._call("POST", "batches", json=batch)["ids"]
        return ids

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests that the emulator has answered."""
        found: list[dict[str, Any]] = self._call("GET", "requests")["requests"]
        return found

    def is_up(self) -> bool:
        """Return whether the emulator answers."""
        with contextlib.suppress(httpx.TransportError):
            return self._client.get("/_emulator/health").status_code == 200
        return False

    def close(self) -> None:
        """Close the connection; the emulator goes on."""
        self._client.close()

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        return self._client.request(method, f"/_emulator/{path}", **kwargs).raise_for_status().json()


@contextlib.contextmanager
def emulator(*options: str) -> Iterator[EmulatorProcess]:
    """Run ``python -m airflow_provider_batches.emulator`` with these options on a free loopback port."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "airflow_provider_batches.emulator", "--port", str(port)]
    command[:0] = ends_with_this_process()
    process = subprocess.Popen(
        [*command, "--api-key", EmulatorProcess.api_key, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # Ctrl-C goes to the script alone, which then stops the emulator last.
        start_new_session=True,
    )
    client = EmulatorProcess(port)
    try:
        deadline = time.monotonic() + 30
        while not client.is_up():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("The emulator did not start.")
            time.sleep(0.05)
        yield client
    finally:
        client.close()
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def exit_on_signals() -> None:
    """Let the first SIGINT or SIGTERM end the script as an exception, so that what it has started is stopped.

    Later ones are ignored: they would interrupt just that.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, leave)
