from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass


@dataclass
class LoggedRequest:
    """What is remembered of a request; secrets are not.

    ``endpoint`` is ``unknown`` for a path or method that the API does not have. ``auth`` tells how the key
    came (``x-api-key``, ``bearer``, ``both`` or None). ``status`` is None if there is no answer yet.
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
    """The last ``size`` requests, and how many there were of each endpoint."""

    def __init__(self, size: int) -> None:
        self.entries: deque[LoggedRequest] = deque(maxlen=size)
        self.counts: Counter[str] = Counter()

    def add(self, entry: LoggedRequest) -> None:
        """Append a request, which pushes out the oldest if there are too many."""
        self.entries.append(entry)
        self.counts[entry.endpoint] += 1

    def clear(self) -> None:
        """Forget all requests and counts."""
        self.entries.clear()
        self.counts.clear()
