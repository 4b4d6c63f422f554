"""A record for each batch of a teardown, and their summary."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import chain
from typing import Any
from urllib.parse import quote

from airflow_provider_batches.storage.folder import Folder

#: What a line of the full record leaves out.
_INTERNAL = ("retryable", "seen_since", "uncanceled")


@dataclass
class Record:
    """The record of one batch."""

    batch_id: str
    #: `left`, `deleted`, `already_gone`.
    outcome: str = "left"
    canceled: bool = False
    cancel_request_id: str | None = None
    ended: bool = False
    results: dict[str, Any] | None = None
    deleted_at: str | None = None
    delete_request_id: str | None = None
    error: str | None = None
    #: Whether a retry may help, if there is an error.
    retryable: bool = True
    #: If the batch has been seen: the earliest time at which it can be in the list, in seconds since the epoch.
    seen_since: float | None = None
    #: Whether it is still running, and billed, because a cancel failed and a retry may help.
    uncanceled: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.outcome != "left"

    @property
    def seen_at(self) -> datetime | None:
        """`seen_since` as a time."""
        return None if self.seen_since is None else datetime.fromtimestamp(self.seen_since, timezone.utc)


@dataclass
class Tally:
    """The summary of a teardown: the number of batches in each state, and the bytes of results saved."""

    selected: int = 0
    canceled: int = 0
    ended: int = 0
    saved: int = 0
    deleted: int = 0
    already_gone: int = 0
    failed: int = 0
    bytes_saved: int = 0

    def plus(self, records: Iterable[Record]) -> Tally:
        """Return the summary including these batches, which already count as `selected`."""
        tally = replace(self)
        for record in records:
            tally.canceled += record.canceled
            tally.ended += record.ended
            tally.deleted += record.outcome == "deleted"
            tally.already_gone += record.outcome == "already_gone"
            if record.results and not record.results["missing"]:
                tally.saved += 1
                tally.bytes_saved += record.results["size"]
        return tally

    def __str__(self) -> str:
        names = ("canceled", "ended", "saved", "deleted", "already_gone", "failed")
        done = ", ".join(f"{getattr(self, name):,} {name.replace('_', ' ')}" for name in names)
        return f"Batches selected: {self.selected:,}; {done}; {self.bytes_saved:,} bytes saved"


class FullRecord:
    """Writes the records of batches, one line each, next to their results or to the log.

    :param folder: Where results are saved. None: nowhere.
    :param task: The name of the task.
    :param log: The task's logger.
    """

    def __init__(self, folder: Folder | None, task: str, log: Any) -> None:
        self.folder = folder
        self._task = quote(task, safe="")
        self._log = log
        self._written: set[str] = set()

    def results(self) -> dict[str, dict[str, Any]]:
        """Return the saved results of all tries of the task, by batch."""
        if self.folder is None:
            return {}
        written = self.folder.subfolder("_teardown")
        names = [name for name in written.names() if name.startswith(f"{self._task}.")]
        found = {}
        for line in chain.from_iterable((written.read(name) or b"").splitlines() for name in names):
            # A damaged line must not fail a task that has done its work.
            with suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                if record["results"]["path"]:
                    found[str(record["batch_id"])] = record["results"]
        return found

    def write(self, records: Iterable[Record]) -> None:
        """Write the records that have not been written before."""
        new = [record for record in records if record.batch_id not in self._written]
        self._written.update(record.batch_id for record in new)
        lines = [
            json.dumps({name: value for name, value in vars(record).items() if name not in _INTERNAL}) for record in new
        ]
        if self.folder and lines:
            name = f"_teardown/{self._task}.{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%f}Z.jsonl"
            try:
                self.folder.write(name, "".join(f"{line}\n" for line in lines).encode())
                lines = [f"The full record is in {self.folder.uri(name)}; batches: {len(lines)}"]
            except Exception as error:
                self._log.warning("The full record could not be written (%s: %s)", type(error).__name__, error)
        for line in lines:
            self._log.info("%s", line)
