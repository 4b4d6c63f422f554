"""Saves the results of a batch to a folder, whole or not at all.

`{id}.jsonl` holds the bytes as the API sent them. `{id}.json` is written after it and records its size and its SHA-256:
only both together are a saved batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from airflow_provider_batches import api
from airflow_provider_batches.api.endpoints import check_batch_id
from airflow_provider_batches.api.errors import StoppedError
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.retry import Retry
from airflow_provider_batches.storage.digest import digest
from airflow_provider_batches.storage.folder import Folder

log = logging.getLogger(__name__)

#: How often a stream is read until it is complete.
_READS = 5
#: The fields of a record whose results are not saved.
_UNSAVED: dict[str, Any] = {"lines": None, "size": None, "sha256": None, "request_id": None}
#: What `{id}.json` says of the results.
RECORDED = ("request_counts", "lines", "size", "sha256")


class SavedFileError(api.BatchesError):
    """A saved file is not what was written. Its batch must not be deleted."""

    retryable = True


@dataclass(frozen=True)
class Saved:
    """The saved results of a batch.

    :param path: The file with the results, None if there are none.
    :param size: The bytes of the results.
    :param missing: Why there are no results, None if there are.
    :param record: The content of `{id}.json`.
    :param fetched: Whether they were fetched now. False: they were saved before, and have been checked.
    """

    path: str | None
    size: int
    missing: str | None
    record: dict[str, Any]
    fetched: bool


class Saver:
    """Saves results to one folder.

    :param folder: The folder to save to.
    :param name: The file's name without its suffix. None: the batch's ID. Two batches may be given the same name by
        mistake, so `{name}.json` records the batch that owns it before the first result is fetched.
    :param task: The task that saves: the IDs of DAG, run and task, and the map index. A named file of another task of
        the same run is not replaced.
    :param stopped: Returns whether Airflow has stopped the task.
    :param sleep: Sleeps for some seconds, before a retry.
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
        """Return the name of a batch's files, without their suffix."""
        name = self._name or quote(check_batch_id(batch_id), safe="")
        # A file's name has 255 bytes at most, and no whole name has a "+".
        return (
            name if len(name) <= 200 or self._name else f"{name[:150]}+{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        )

    def save(self, client: api.BatchesClient, batch: api.MessageBatch) -> Saved:
        """Return the batch's saved results. They are fetched unless they are saved already, and whole.

        :param batch: The batch, ended.
        :raises ResultsTruncatedError: They were incomplete each time they were read.
        :raises InvalidArgumentError: The file belongs to another batch.
        """
        if saved := self.existing(batch.id):
            return saved
        retry = Retry(_READS)
        with self._claim(batch):
            while True:
                try:
                    return self._fetch(client, batch)
                except (api.ResultsTruncatedError, api.APIConnectionError) as error:
                    pause = retry.pause(error)
                    if pause is None:
                        raise
                    log.warning("%s Retrying in %.1f s", error, pause)
                    self._sleep(pause)

    def existing(self, batch_id: str) -> Saved | None:
        """Return the results that an earlier task saved, None if there are none or they are not whole.

        :raises InvalidArgumentError: The file belongs to another batch.
        """
        record = self._record(batch_id)
        if record is None:
            return None
        try:
            saved = self._saved(batch_id, record, fetched=False)
            self.check(batch_id, saved)
        except (ValueError, KeyError, TypeError, SavedFileError) as error:
            log.warning("The saved results of batch %s are not whole (%s); fetching them again", batch_id, error)
            return None
        return saved

    def check(self, batch_id: str, saved: Saved) -> None:
        """Read a saved file back, compare it with what was written, and flush it to the disk if it is local.

        :raises SavedFileError: It differs.
        """
        if saved.missing:
            return
        name = self.name(batch_id)
        try:
            size, sha256 = digest(self._until_stopped(self.folder.pieces(f"{name}.jsonl")))
        except FileNotFoundError:
            raise SavedFileError(f"{saved.path} does not exist.") from None
        if size != saved.size:
            raise SavedFileError(f"{saved.path} has {size} bytes instead of {saved.size}.")
        if sha256 != saved.record["sha256"]:
            raise SavedFileError(f"{saved.path} has another SHA-256 than the results had when they were fetched.")
        self.folder.settle(f"{name}.jsonl")
        self.folder.settle(f"{name}.json")

    def _record(self, batch_id: str) -> dict[str, Any] | None:
        """Return the content of `{name}.json`, None if it is not about this batch and may be replaced."""
        name = self.name(batch_id)
        try:
            record: dict[str, Any] = json.loads(self.folder.read(f"{name}.json") or b"{}")
            owner, task = (record["batch"]["id"], record.get("task") or []) if record else (None, [])
        except (ValueError, KeyError, TypeError) as error:
            log.warning("The record of batch %s cannot be read (%s: %s)", batch_id, type(error).__name__, error)
            return None
        if owner == batch_id:
            return record
        if owner and self._name and task[:2] == self._task[:2] and task != self._task:
            raise api.InvalidArgumentError(
                "path",
                f"got {self.folder.uri(name)}.jsonl, which is the file of batch {owner} in this run; batch {batch_id} "
                "would replace it. Give a folder, or put the batch's ID or {{ ti.map_index }} into the file's name.",
            )
        return None

    @contextmanager
    def _claim(self, batch: api.MessageBatch) -> Iterator[None]:
        """Record the owner of a chosen name before its results are fetched, for tasks that run at the same time."""
        if not self._name or self._record(batch.id):
            yield
            return
        file = f"{self._name}.json"
        claim = json.dumps({"batch": batch.snapshot(), "task": self._task, "missing": None, **_UNSAVED}).encode()
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

    def _check_owner(self, batch_id: str) -> None:
        # Some stores let several tasks create one file: the last one owns it.
        if self._name:
            self._record(batch_id)

    def _fetch(self, client: api.BatchesClient, batch: api.MessageBatch) -> Saved:
        name, missing, found = self.name(batch.id), None, _UNSAVED
        try:
            with client.open_results(batch.id, batch) as results, self.folder.writing(f"{name}.jsonl") as file:
                size, sha256 = digest(self._until_stopped(results), file.write)
                found = {"lines": results.lines, "size": size, "sha256": sha256, "request_id": results.request_id}
                self._check_owner(batch.id)
        except api.ResultsUnavailableError:
            missing = "archived"
        except api.APIStatusError as error:
            if not _has_none(batch, error):
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
        self._check_owner(batch.id)
        self.folder.write(f"{name}.json", json.dumps(record, indent=2).encode() + b"\n")
        return self._saved(batch.id, record, fetched=True)

    def _saved(self, batch_id: str, record: dict[str, Any], *, fetched: bool) -> Saved:
        path = None if record["missing"] else self.folder.uri(f"{self.name(batch_id)}.jsonl")
        return Saved(path, int(record["size"] or 0), record["missing"], record, fetched)

    def _until_stopped(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._stopped():
                raise StoppedError("The task was stopped.")
            yield chunk


def _has_none(batch: api.MessageBatch, error: api.APIStatusError) -> bool:
    """Whether the API refused because no request of the batch was answered."""
    counts = batch.request_counts
    # Counts of 0 are unknown counts.
    none_answered = counts.canceled + counts.expired == counts.total > 0
    # A refused key, a rate limit or an unknown batch does not prove that there are no results.
    is_about_results = error.evidence.proof in (Proof.DEPENDS_ON_STATE, Proof.REFUSED) and error.status != 403
    return batch.ended and batch.results_url is None and none_answered and is_about_results
