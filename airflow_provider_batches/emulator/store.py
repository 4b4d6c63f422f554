from __future__ import annotations

import json
import secrets
import threading
from bisect import bisect_left, insort
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_batches.emulator.batch import Batch
from airflow_provider_batches.emulator.clock import Clock


class Store:
    """All batches, and the journal that keeps them across restarts.

    Each change is appended to the journal as one line before it is answered. So a process that is killed loses no
    change that a client has been informed of.
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
        """Add a new batch."""
        with self.lock:
            self._add(batch)
            self.record("add", {k: v for k, v in vars(batch).items() if not k.startswith("_")})
        return batch

    def _add(self, batch: Batch) -> None:
        batch.place = (batch.created_at, len(self._batches))
        self._batches[batch.id] = batch
        if not batch.foreign:
            insort(self._order, (*batch.place, batch.id))

    def get(self, batch_id: str) -> Batch | None:
        """Return a batch, even a deleted one (see ``deleted``)."""
        return self._batches.get(batch_id)

    def cancel(self, batch: Batch, interrupts: bool) -> None:
        """Start to cancel a batch that is in progress."""
        self._cancel(batch, self.clock.now(), interrupts)
        self.record("cancel", {"batch_id": batch.id, "when": batch.cancel_at, "interrupts": interrupts})

    def _cancel(self, batch: Batch, when: float, interrupts: bool) -> None:
        batch.cancel_at, batch.interrupted = when, interrupts

    def delete(self, batch: Batch) -> None:
        """Delete a batch; only its position in the list is kept."""
        self._delete(batch)
        self.record("delete", {"batch_id": batch.id})

    def _delete(self, batch: Batch) -> None:
        with self.lock:
            batch.forget()
            del self._order[bisect_left(self._order, (*batch.place, batch.id))]

    def ids(self) -> list[str]:
        """Return the IDs of the batches that can be listed, newest first."""
        return [key[2] for key in reversed(self._order)]

    def page(
        self, limit: int, after_id: str | None = None, before_id: str | None = None, lag: float = 0.0
    ) -> tuple[list[Batch], bool]:
        """Return up to ``limit`` batches, newest first, and whether there are more in that direction.

        :param lag: Seconds until a new batch is in the list.
        :raises KeyError: If the cursor has never been in this list.
        """
        cursor = after_id if after_id is not None else before_id
        with self.lock:
            newest = bisect_left(self._order, (self.clock.now() - lag, 0, "")) if lag else len(self._order)
            if cursor is None:
                start, stop = newest - limit, newest
            else:
                batch = self._batches[cursor]
                if batch.foreign:
                    raise KeyError(cursor)
                # `_order` has the oldest first, the list has the newest first.
                place = bisect_left(self._order, (*batch.place, batch.id))
                if after_id is not None:
                    start, stop = place - limit, place
                else:
                    start = place + (not batch.deleted)
                    stop = start + limit
            stop = min(stop, newest)
            keys = self._order[max(0, start) : max(0, stop)]
            more = stop < newest if after_id is None and cursor is not None else start > 0
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
                # A process that was killed while writing leaves an incomplete line, and has not answered its request.
                if not line.endswith(b"\n"):
                    break
                event, data = json.loads(line)
                apply[event](**data)
                whole += len(line)
        with state.open("ab") as journal:
            journal.truncate(whole)


def new_batch_id() -> str:
    """Return a new batch ID."""
    return f"msgbatch_01{secrets.token_hex(11)}"
