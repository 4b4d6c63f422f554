"""A StatsD server for tests, and the settings that make an Airflow report to it."""

from __future__ import annotations

import re
import socket
import threading
from collections import defaultdict
from types import TracebackType

_LINE = re.compile(r"airflow\.message_batches\.([\w.-]+):(-?[\d.]+)\|(c|g|ms)\b")


class StatsD:
    """Collects this package's metrics from UDP packets.

    :param values: The values of each metric, in the order of their arrival.
    """

    def __init__(self) -> None:
        self.values: defaultdict[str, list[float]] = defaultdict(list)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> StatsD:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An empty packet ends the thread.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    @property
    def env(self) -> dict[str, str]:
        """The settings of an Airflow that reports here."""
        host, port = self._socket.getsockname()
        settings = {"STATSD_ON": "True", "STATSD_HOST": host, "STATSD_PORT": str(port), "STATSD_PREFIX": "airflow"}
        return {f"AIRFLOW__METRICS__{name}": value for name, value in settings.items()}

    def total(self, name: str) -> float:
        """Return the sum of a counter."""
        return sum(self.values[name])

    def _receive(self) -> None:
        while packet := self._socket.recv(65536):
            for name, value, _ in _LINE.findall(packet.decode()):
                self.values[name].append(float(value))
