from __future__ import annotations

import json
import math
import secrets
import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airflow_provider_batches.emulator.behavior import Behavior
from airflow_provider_batches.emulator.clock import Clock

DAY = 24 * 3600.0
EXPIRES_AFTER = DAY
ARCHIVED_AFTER = 29 * DAY
CHUNK_BYTES = 1 << 18


@dataclass
class Batch:
    """A batch, whose life is a function of the time: nothing happens in the background.

    Requests finish one after the other, evenly over ``batch_seconds``, in the order in which they were given.
    ``errored``, ``canceled`` and ``expired`` say how many of ``total`` end so if nothing comes in between.
    """

    id: str
    created_at: float
    total: int
    batch_seconds: float
    cancel_seconds: float
    errored: int = 0
    canceled: int = 0
    expired: int = 0
    custom_ids: list[str] | None = None
    model: str = "claude-sonnet-4-5"
    result_bytes: int = 0
    foreign: bool = False
    cancel_at: float | None = None
    interrupted: bool = True
    deleted: bool = False
    place: tuple[float, int] = (0.0, 0)
    looked_at: bool = False
    _rendered: tuple[object, bytes] | None = field(default=None, repr=False)

    @property
    def expires_at(self) -> float:
        """When whatever has not finished expires."""
        return self.created_at + EXPIRES_AFTER

    @property
    def archived_at(self) -> float:
        """When the results go away."""
        return self.created_at + ARCHIVED_AFTER

    @property
    def ended_at(self) -> float:
        """When the batch ends, as things stand."""
        if self.cancel_at is not None:
            return min(self.cancel_at + self.cancel_seconds, self.expires_at)
        return min(self.created_at + self.batch_seconds, self.expires_at)

    def phase(self, now: float) -> str:
        """Return ``in_progress``, ``canceling``, ``ended`` or ``archived``."""
        if now >= self.ended_at:
            return "archived" if now >= self.archived_at else "ended"
        return "in_progress" if self.cancel_at is None else "canceling"

    def final_counts(self) -> dict[str, int]:
        """Return how many requests end in which way, as things stand."""
        finishing = self.total - self.canceled - self.expired
        stopped_at = self.expires_at if self.cancel_at is None else self.cancel_at
        if stopped_at >= self.created_at + self.batch_seconds or not self.interrupted:
            done, canceled, expired = finishing, self.canceled, self.expired
        else:
            share = (stopped_at - self.created_at) / self.batch_seconds
            done = min(finishing, math.floor(self.total * share))
            canceled, expired = (0, self.total - done) if self.cancel_at is None else (self.total - done, 0)
        errored = done * self.errored // max(1, finishing)
        return {"succeeded": done - errored, "errored": errored, "canceled": canceled, "expired": expired}

    def render(self, now: float, behavior: Behavior, origin: str, phase: str | None = None) -> bytes:
        """Return the MessageBatch object as JSON, in another phase if given; ``results_url`` is at ``origin``."""
        phase = phase or self.phase(now)
        key = (phase, self.cancel_at, behavior, origin)
        if self._rendered is None or self._rendered[0] != key:
            self._rendered = (key, json.dumps(self._object(phase, behavior, origin)).encode())
        return self._rendered[1]

    def _object(self, phase: str, behavior: Behavior, origin: str) -> dict[str, object]:
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
            "request_counts": {"processing": 0 if ended else self.total, **counts, **extra},
            "created_at": time(self.created_at),
            "expires_at": time(self.expires_at),
            **optional,
            **extra,
        }

    def results(self, last_newline: bool = True) -> Iterator[bytes]:
        """Yield the results as JSONL in chunks of many lines, in a shuffled order that is always the same."""
        counts = self.final_counts()
        succeeded, errored, canceled = counts["succeeded"], counts["errored"], counts["canceled"]
        done, total, ids = succeeded + errored, self.total, self.custom_ids
        head, middle, tail = self._line_parts(succeeded)
        other = {kind: f'","result":{json.dumps(what)}}}\n'.encode() for kind, what in _OTHER_RESULTS.items()}
        step = next(s for s in range(int(total * 0.618) + 1, 2 * total + 2) if math.gcd(s, total) == 1)
        chunk: list[bytes] = []
        size = 0
        for line in range(total):
            i = (line * step + step) % total
            custom_id = (ids[i] if ids else f"req-{i:06d}").encode()
            if i >= done:
                kind = "canceled" if i < done + canceled else "expired"
            else:
                kind = "errored" if (i + 1) * errored // done > i * errored // done else "succeeded"
            if kind == "succeeded":
                parts = (head, custom_id, middle, b"%d" % i, tail)
            else:
                parts = (head, custom_id, other[kind], b"", b"")
            chunk.extend(parts)
            size += sum(map(len, parts))
            if size >= CHUNK_BYTES and line < total - 1:
                yield b"".join(chunk)
                chunk.clear()
                size = 0
        last = b"".join(chunk)
        yield last if last_newline else last[:-1]

    def _line_parts(self, succeeded: int) -> tuple[bytes, bytes, bytes]:
        """Return what stands before the custom ID, between it and the request's number, and after that."""
        # U+2028 and U+0085 are valid in JSON strings, and a trap for readers that split lines on them.
        text = "An answer of the emulator.\u2028It has\u0085odd line separators."
        parts: tuple[bytes, bytes, bytes] = (b"", b"", b"")
        for _ in range(2):
            message = {
                "id": "msg_NUMBER",
                "type": "message",
                "role": "assistant",
                "model": self.model,
                "content": [{"type": "text", "text": text}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 10, "output_tokens": 20, "service_tier": "batch"},
            }
            result = json.dumps({"type": "succeeded", "message": message}, ensure_ascii=False)
            before, after = result.split("NUMBER", 1)
            parts = b'{"custom_id":"', f'","result":{before}'.encode(), f"{after}}}\n".encode()
            text += "x" * (self.result_bytes // max(1, succeeded) - sum(map(len, parts)) - 15)
        return parts


_OTHER_RESULTS: dict[str, dict[str, object]] = {
    "errored": {
        "type": "errored",
        "error": {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "An error of the emulator."},
        },
    },
    "canceled": {"type": "canceled"},
    "expired": {"type": "expired"},
}


def timestamp(when: float, form: str = "Z") -> str:
    """Return an RFC 3339 time in one of the forms of :attr:`Behavior.times`."""
    moment = datetime.fromtimestamp(when, timezone.utc)
    text = moment.isoformat(timespec="seconds" if form == "seconds" else "microseconds")
    return text if form == "offset" else text.replace("+00:00", "Z")


class Store:
    """All batches, newest first, and the journal that keeps them over a restart.

    Each change is appended to the journal as one line before it is answered, so a process that is killed at any
    time loses nothing that a client was told.
    """

    def __init__(self, clock: Clock, state: Path | None = None) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self._batches: dict[str, Batch] = {}
        self._order: list[tuple[float, int, str]] = []
        self._state = state
        self.replayed_requests: list[dict[str, Any]] = []
        if state is not None and state.exists():
            self._replay(state)
        self._journal = None if state is None else state.open("ab", buffering=0)
        clock.on_change = lambda: self.record("clock", clock.state())

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def add(self, batch: Batch) -> Batch:
        """Take in a new batch."""
        with self.lock:
            self._add(batch)
            known = asdict(batch)
            self.record("add", {k: v for k, v in known.items() if not k.startswith("_")})
        return batch

    def _add(self, batch: Batch) -> None:
        batch.place = (batch.created_at, len(self._batches))
        self._batches[batch.id] = batch
        if not batch.foreign:
            insort(self._order, (*batch.place, batch.id))

    def get(self, batch_id: str) -> Batch | None:
        """Return a batch, also a deleted one (``deleted`` says so)."""
        return self._batches.get(batch_id)

    def cancel(self, batch: Batch, interrupts: bool) -> None:
        """Begin to cancel a batch that is in progress."""
        self._cancel(batch, self.clock.now(), interrupts)
        self.record("cancel", {"batch_id": batch.id, "when": batch.cancel_at, "interrupts": interrupts})

    def _cancel(self, batch: Batch, when: float, interrupts: bool) -> None:
        batch.cancel_at, batch.interrupted = when, interrupts

    def delete(self, batch: Batch) -> None:
        """Delete a batch; it is remembered as a place in the list only."""
        self._delete(batch)
        self.record("delete", {"batch_id": batch.id})

    def _delete(self, batch: Batch) -> None:
        with self.lock:
            batch.deleted, batch.custom_ids, batch._rendered = True, None, None
            del self._order[bisect_left(self._order, (*batch.place, batch.id))]

    def ids(self) -> list[str]:
        """Return the IDs of the batches that can be listed, newest first."""
        return [key[2] for key in reversed(self._order)]

    def page(self, limit: int, after_id: str | None = None, before_id: str | None = None) -> tuple[list[Batch], bool]:
        """Return up to ``limit`` batches, newest first, and whether there are more in that direction.

        :raises KeyError: if the batch to page on from never was in this list.
        """
        cursor = after_id if after_id is not None else before_id
        with self.lock:
            if cursor is None:
                start, stop = len(self._order) - limit, len(self._order)
            else:
                batch = self._batches[cursor]
                if batch.foreign:
                    raise KeyError(cursor)
                # The order is oldest first, so what comes after a batch in the list stands before it here.
                place = bisect_left(self._order, (*batch.place, batch.id))
                if after_id is not None:
                    start, stop = place - limit, place
                else:
                    start = place + (not batch.deleted)
                    stop = start + limit
            keys = self._order[max(0, start) : stop]
            more = stop < len(self._order) if after_id is None and cursor is not None else start > 0
            return [self._batches[key[2]] for key in reversed(keys)], more

    def record(self, event: str, data: dict[str, Any]) -> None:
        """Append an event to the journal."""
        if self._journal is not None:
            self._journal.write(json.dumps([event, data]).encode() + b"\n")

    def _replay(self, state: Path) -> None:
        apply: dict[str, Callable[..., None]] = {
            "add": lambda **data: self._add(Batch(**data)),
            "cancel": lambda batch_id, when, interrupts: self._cancel(self._batches[batch_id], when, interrupts),
            "delete": lambda batch_id: self._delete(self._batches[batch_id]),
            "clock": self.clock.restore,
            "request": lambda **data: self.replayed_requests.append(data),
        }
        whole = 0
        with state.open("rb") as lines:
            for line in lines:
                # A process killed in the middle of a write leaves half a line, which no client was told about.
                if not line.endswith(b"\n"):
                    break
                event, data = json.loads(line)
                apply[event](**data)
                whole += len(line)
        with state.open("ab") as journal:
            journal.truncate(whole)


def new_batch_id() -> str:
    """Return a fresh batch ID."""
    return f"msgbatch_01{secrets.token_hex(11)}"
