"""Saves the results of a batch to a folder of an object storage, whole or not at all.

`{id}.jsonl` holds the bytes as the API sent them. `{id}.json` is written after it and says what has to be in it: only
both together are a saved batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from airflow_provider_batches.api import (
    APIConnectionError,
    APIStatusError,
    BatchesClient,
    BatchesError,
    InvalidArgumentError,
    MessageBatch,
    ResultsTruncatedError,
    ResultsUnavailableError,
)
from airflow_provider_batches.api.endpoints import check_batch_id
from airflow_provider_batches.api.retry import pause
from airflow_provider_batches.teardown.storage import Digest, Folder

log = logging.getLogger(__name__)

#: How often a stream that is cut short is read, in all.
READS = 5


class SavedFileError(BatchesError):
    """A saved file is not what was written; nothing is deleted because of it."""

    transient = True


class StoppedError(BatchesError):
    """The task was told to stop."""

    transient = True


@dataclass(frozen=True)
class Saved:
    """What is known of a batch's saved results.

    :param path: Where the results are. None: there are none, for the reason in `missing`.
    :param record: What `{id}.json` holds.
    :param fetched: Whether they were fetched now. False: they were there already, and have been checked.
    """

    path: str | None
    record: dict[str, Any]
    fetched: bool = True

    @property
    def size(self) -> int:
        """The bytes of the results."""
        return int(self.record["size"] or 0)

    @property
    def missing(self) -> str | None:
        """Why the batch has no results, None where it has."""
        missing: str | None = self.record["missing"]
        return missing


class Saver:
    """Saves results to one folder.

    :param folder: Where to.
    :param name: The file's name without its ending. None: the batch's ID. Two batches may be given the same name by
        mistake, so `{name}.json` says whose it is from before the first result is fetched.
    :param task: Who saves: the IDs of DAG, run and task, and the map index. A named file of another task of the same
        run is not replaced.
    :param stopped: Says that the task has been told to stop.
    """

    def __init__(
        self,
        folder: Folder,
        name: str | None = None,
        *,
        task: Sequence[str] = (),
        stopped: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = folder
        self._name = name
        self._task = list(task)
        self._stopped = stopped
        self._sleep = sleep
        folder.sweep()

    def name(self, batch_id: str) -> str:
        """Return the name of a batch's files, without their ending."""
        return self._name or quote(check_batch_id(batch_id), safe="")

    def save(self, client: BatchesClient, batch: MessageBatch) -> Saved:
        """Return the batch's results as they are saved, having fetched them unless they are there and whole.

        :param batch: The batch, ended.
        :raises ResultsTruncatedError: They were cut short each time they were read.
        :raises InvalidArgumentError: The file is another batch's.
        """
        saved = self.existing(batch.id)
        if saved:
            return saved
        with self._claim(batch):
            for read in range(1, READS + 1):
                try:
                    return self._fetch(client, batch)
                except (ResultsTruncatedError, APIConnectionError) as error:
                    if read == READS:
                        raise
                    log.warning("%s Reading them again.", error)
                    self._sleep(pause(read, error))
        raise AssertionError("unreachable")  # pragma: no cover

    def existing(self, batch_id: str) -> Saved | None:
        """Return what an earlier task has saved, None where it is not there, or not whole.

        :raises InvalidArgumentError: The file is another batch's.
        """
        record = self._record(batch_id)
        if record is None:
            return None
        try:
            saved = self._saved(self.name(batch_id), record, fetched=False)
            self.check(batch_id, saved)
        except (ValueError, KeyError, TypeError, SavedFileError) as error:
            log.warning("What is saved of batch %s is not whole (%s); fetching it again", batch_id, error)
            return None
        return saved

    def check(self, batch_id: str, saved: Saved) -> None:
        """Read a saved file back and hold it against what was written.

        :raises SavedFileError: It is not the same.
        """
        if saved.missing:
            return
        name = f"{self.name(batch_id)}.jsonl"
        size = self.folder.size(name)
        if size != saved.size:
            raise SavedFileError(f"{saved.path} has {size} bytes instead of {saved.size}.")
        digest = hashlib.sha256()
        for piece in self.folder.pieces(name):
            self._go_on()
            digest.update(piece)
        for each in (name, f"{self.name(batch_id)}.json"):
            self.folder.settle(each)
        if digest.hexdigest() != saved.record["sha256"]:
            raise SavedFileError(f"{saved.path} has another SHA-256 than the results had when they were read.")

    def _record(self, batch_id: str) -> dict[str, Any] | None:
        """Return what `{name}.json` says of the batch, None where it is not there or cannot be read."""
        name = self.name(batch_id)
        try:
            record: dict[str, Any] = json.loads(self.folder.read(f"{name}.json") or b"{}")
            owner = record["batch"]["id"] if record else None
        except (ValueError, KeyError, TypeError) as error:
            log.warning("The record of batch %s cannot be read (%s: %s)", batch_id, type(error).__name__, error)
            return None
        if owner == batch_id:
            return record
        if owner is not None and self._name is not None and self._is_rival(record.get("task") or []):
            raise InvalidArgumentError(
                f"path: got {self.folder.uri(name)}.jsonl, which is the file of batch {owner} in this run; batch "
                f"{batch_id} would replace it. Give a folder, or put the batch's ID or {{{{ ti.map_index }}}} into the "
                "file's name."
            )
        return None

    def _is_rival(self, task: list[str]) -> bool:
        return task[:2] == self._task[:2] and task != self._task

    @contextmanager
    def _claim(self, batch: MessageBatch) -> Iterator[None]:
        """Say whose a chosen name is while results are fetched: two tasks that run at once meet here."""
        if self._name is None or self._record(batch.id):
            yield
            return
        file = f"{self._name}.json"
        unsaved = {"size": None, "sha256": None, "missing": None}
        claim = json.dumps({"batch": batch.snapshot(), "task": self._task, **unsaved}).encode()
        before = self.folder.read(file)
        try:
            self.folder.create(file, claim)
        except FileExistsError:
            if self._record(batch.id) is None:
                self.folder.write(file, claim)
        try:
            yield
        except BaseException:
            with suppress(Exception):
                if self.folder.read(file) == claim:
                    self.folder.write(file, before) if before else self.folder.remove(file)
            raise

    def _still_own(self, batch_id: str) -> None:
        # Where several create a file and all succeed, the last one has it.
        if self._name is not None:
            self._record(batch_id)

    def _fetch(self, client: BatchesClient, batch: MessageBatch) -> Saved:
        name = self.name(batch.id)
        found: dict[str, Any] = {"lines": None, "size": None, "sha256": None, "request_id": None}
        missing = None
        try:
            with (
                client.open_results(batch.id, batch) as results,
                self.folder.writing(f"{name}.jsonl") as file,
                Digest(file) as digest,
            ):
                for chunk in results:
                    self._go_on()
                    digest.add(chunk)
                found["sha256"] = digest.end()
                found |= {"lines": results.lines, "size": digest.size, "request_id": results.request_id}
                self._still_own(batch.id)
        except ResultsUnavailableError:
            missing = "archived"
        except APIStatusError as error:
            if not has_none(batch, error):
                raise
            missing = "none"
        record = {
            "batch": batch.snapshot(),
            "request_counts": batch.request_counts.model_dump(mode="json"),
            "results": None if missing else f"{name}.jsonl",
            "missing": missing,
            **found,
            **({"task": self._task} if self._name else {}),
            "saved_at": datetime.now(timezone.utc).isoformat(),
        }
        self._still_own(batch.id)
        self.folder.write(f"{name}.json", json.dumps(record, indent=2).encode() + b"\n")
        return self._saved(name, record)

    def _saved(self, name: str, record: dict[str, Any], fetched: bool = True) -> Saved:
        return Saved(None if record["missing"] else self.folder.uri(f"{name}.jsonl"), record, fetched)

    def _go_on(self) -> None:
        if self._stopped():
            raise StoppedError("The task was told to stop.")


def has_none(batch: MessageBatch, error: APIStatusError) -> bool:
    """Whether a refusal to hand out results is explained by a batch in which nothing was answered."""
    answered = batch.request_counts.succeeded + batch.request_counts.errored
    return batch.ended and batch.results_url is None and not answered and 400 <= error.status < 500
