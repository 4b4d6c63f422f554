from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from hashlib import blake2b
from typing import Any

from airflow_provider_batches.emulator.behavior import Behavior
from airflow_provider_batches.emulator.messages import OTHER_RESULTS, TEXT, compact, errored, message

DAY = 24 * 3600.0
EXPIRES_AFTER = DAY
ARCHIVED_AFTER = 29 * DAY
CHUNK_BYTES = 1 << 18
#: Multiplied by this odd number, the indexes of requests stay distinct and no longer look like a count.
ODD = 0x9E3779B1
#: How a request ends, by its letter in :attr:`Batch.ends`.
OUTCOMES = {"s": "succeeded", "e": "errored", "c": "canceled", "x": "expired"}


@dataclass
class Batch:
    """A batch whose state is a function of the time; nothing happens in the background.

    Requests finish one after the other, evenly over ``batch_seconds``, in the given order. ``ends`` has a letter for
    the outcome of each, unless it is canceled or expires; empty: all succeed. ``models`` has each request's model, or
    one for all. ``given`` has the results that are not the default, as JSON by custom ID.
    """

    id: str
    created_at: float
    total: int
    batch_seconds: float
    cancel_seconds: float
    ends: str = ""
    custom_ids: list[str] | None = None
    models: list[str] | str = "claude-haiku-5-5"
    given: dict[str, str] = field(default_factory=dict)
    result_bytes: int = 0
    foreign: bool = False
    cancel_at: float | None = None
    interrupted: bool = True
    deleted: bool = False
    place: tuple[float, int] = (0.0, 0)
    retrieved: bool = False
    _rendered: tuple[object, bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.ends = self.ends or "s" * self.total

    def forget(self) -> None:
        """Drop all but the position in the list; the batch is deleted."""
        self.deleted, self.custom_ids, self._rendered = True, None, None
        self.ends, self.models, self.given = "", "", {}

    @property
    def expires_at(self) -> float:
        """When unfinished requests expire."""
        return self.created_at + EXPIRES_AFTER

    @property
    def archived_at(self) -> float:
        """When the results are archived."""
        return self.created_at + ARCHIVED_AFTER

    @property
    def ended_at(self) -> float:
        """When the batch ends, unless it is canceled later."""
        if self.cancel_at is not None:
            return min(self.cancel_at + self.cancel_seconds, self.expires_at)
        return min(self.created_at + self.batch_seconds, self.expires_at)

    def phase(self, now: float) -> str:
        """Return ``in_progress``, ``canceling``, ``ended`` or ``archived``."""
        if now >= self.ended_at:
            return "archived" if now >= self.archived_at else "ended"
        return "in_progress" if self.cancel_at is None else "canceling"

    def _final_ends(self) -> str:
        """Return how each request ends, unless the batch is canceled later."""
        stopped_at = self.expires_at if self.cancel_at is None else self.cancel_at
        if stopped_at >= self.created_at + self.batch_seconds or not self.interrupted:
            return self.ends
        done = math.floor(self.total * (stopped_at - self.created_at) / self.batch_seconds)
        return self.ends[:done] + ("x" if self.cancel_at is None else "c") * (self.total - done)

    def final_counts(self) -> dict[str, int]:
        """Return the number of requests by outcome, unless the batch is canceled later."""
        ends = self._final_ends()
        return {name: ends.count(letter) for letter, name in OUTCOMES.items()}

    def render(self, now: float, behavior: Behavior, origin: str, phase: str | None = None) -> bytes:
        """Return the MessageBatch object as JSON.

        :param origin: The origin of ``results_url``.
        :param phase: The phase to show instead of the current one.
        """
        phase = phase or self.phase(now)
        counted = now >= self.created_at + behavior.counts_lag
        key = (phase, self.cancel_at, behavior, origin, counted)
        if self._rendered is None or self._rendered[0] != key:
            self._rendered = (key, compact(self._object(phase, behavior, origin, counted)).encode())
        return self._rendered[1]

    def _object(self, phase: str, behavior: Behavior, origin: str, counted: bool) -> dict[str, object]:
        ended = phase in ("ended", "archived")
        counts = self.final_counts() if ended else {"succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        url = f"{behavior.results_host or origin}/v1/messages/batches/{self.id}/results"

        def time(when: float | None) -> str | None:
            return None if when is None else timestamp(when, behavior.times)

        optional = {
            "ended_at": time(self.ended_at) if ended else None,
            "archived_at": time(self.archived_at) if phase == "archived" else None,
            "cancel_initiated_at": time(self.cancel_at),
            "results_url": url if phase == "ended" else None,
        }
        if behavior.optional_fields == "absent":
            optional = {name: value for name, value in optional.items() if value is not None}
        extra = {"emulated_field": {"nested": [1, 2]}} if behavior.extra_fields else {}
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else phase,
            "request_counts": {"processing": 0 if ended or not counted else self.total, **counts, **extra},
            "created_at": time(self.created_at),
            "expires_at": time(self.expires_at),
            **optional,
            **extra,
        }

    def results(self, last_newline: bool = True) -> Iterator[bytes]:
        """Yield the results as JSONL in chunks of many lines, shuffled in a reproducible order."""
        ends, total, ids, models, given = self._final_ends(), self.total, self.custom_ids, self.models, self.given
        other = {letter: self._line(OTHER_RESULTS[OUTCOMES[letter]]) for letter in "cx"}
        error = self._line(errored("An error of the emulator.", request_id="req_NAME"))
        text = TEXT + "x" * self._padding(ends.count("s"))
        lines = {
            model: self._succeeded(model, text) for model in ([models] if isinstance(models, str) else set(models))
        }
        step = next(s for s in range(int(total * 0.618) + 1, 2 * total + 2) if math.gcd(s, total) == 1)
        chunk: list[bytes] = []
        size = 0
        for line in range(total):
            i = (line * step + step) % total
            custom_id = ids[i] if ids else f"req-{i:06d}"
            letter = ends[i]
            if letter in other:
                whole = other[letter] % custom_id.encode()
            elif given and custom_id in given:
                whole = b'{"custom_id":"%b","result":%b}\n' % (custom_id.encode(), given[custom_id].encode())
            else:
                form = error if letter == "e" else lines[models if isinstance(models, str) else models[i]]
                whole = form % (custom_id.encode(), i * ODD % (1 << 32))
            chunk.append(whole)
            size += len(whole)
            if size >= CHUNK_BYTES and line < total - 1:
                yield b"".join(chunk)
                chunk.clear()
                size = 0
        last = b"".join(chunk)
        yield last if last_newline else last[:-1]

    @cached_property
    def _name(self) -> str:
        """The unique part of the IDs of messages and errors; a format for the request's number."""
        return f"01{blake2b(self.id.encode(), digest_size=6).hexdigest()}%08x"

    def message_id(self, i: int) -> str:
        """Return the ID of the message for request number `i`."""
        return f"msg_{self._name}" % (i * ODD % (1 << 32))

    def _succeeded(self, model: str, text: str) -> bytes:
        return self._line({"type": "succeeded", "message": message(model, "msg_NAME", {"content": text})})

    def _line(self, result: dict[str, Any]) -> bytes:
        """Return a results line as a format for the custom ID and the request's number, which `NAME` contains."""
        text = compact(result).replace("%", "%%").replace("NAME", self._name, 1)
        return b'{"custom_id":"%%b","result":%b}\n' % text.encode()

    def _padding(self, succeeded: int) -> int:
        """Return the number of characters to append to each text, so that the results have about `result_bytes`."""
        line = self._succeeded(self.models if isinstance(self.models, str) else self.models[0], TEXT)
        return max(0, self.result_bytes // max(1, succeeded) - len(line) - 30)


def timestamp(when: float, form: str = "Z") -> str:
    """Return an RFC 3339 time in one of the forms of :attr:`Behavior.times`."""
    moment = datetime.fromtimestamp(when, timezone.utc)
    text = moment.isoformat(timespec="seconds" if form == "seconds" else "microseconds")
    return text if form == "offset" else text.replace("+00:00", "Z")
