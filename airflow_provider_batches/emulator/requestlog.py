from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass


@dataclass
class LoggedRequest:
    """The log entry of a request, without secrets.

    ``endpoint`` is ``unknown`` for a path or method that the API does not have. ``auth`` is the kind of header that had
    the key: ``x-api-key``, ``bearer``, ``aws`` for a signature, ``both`` or None. ``status`` is None if there is no
    answer yet.
    """

    time: float
    method: str
    path: str
    query: dict[str, str]
    endpoint: str
    batch_id: str | None
    auth: str | None
    headers: dict[str, str]
    request_id: str
    status: int | None = None
    faulted: bool = False


class RequestLog:
    """The last ``size`` requests, and the number of all requests by endpoint."""

    def __init__(self, size: int) -> None:
        self.entries: deque[LoggedRequest] = deque(maxlen=size)
        self.counts: Counter[str] = Counter()

    def add(self, entry: LoggedRequest) -> None:
        """Append a request; if the log is full, this drops the oldest."""
        self.entries.append(entry)
        self.counts[entry.endpoint] += 1

    def clear(self) -> None:
        """Remove all requests and counts."""
        self.entries.clear()
        self.counts.clear()
