"""Stores which batches a task has selected, so that each of its tries processes the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_batches._compat import TaskMemory
from airflow_provider_batches.api import InvalidArgumentError, MessageBatch
from airflow_provider_batches.api.errors import StoppedError
from airflow_provider_batches.teardown.record import Record

_CHOSEN = "chosen"


class Choice:
    """The batches that a task has selected.

    :param memory: Where they are stored. None: nowhere, since each try selects the same ones.
    """

    def __init__(self, memory: TaskMemory | None) -> None:
        self._memory = memory

    def stored(self, asked: Sequence[str], *, is_retry: bool) -> list[Record] | None:
        """Return what an earlier try has selected; None if this one is to select.

        :param asked: The arguments of the selection, as text.
        :param is_retry: Whether Airflow retries the task.
        :raises InvalidArgumentError: The arguments have changed between two tries.
        """
        note = self._memory.get(_CHOSEN) if self._memory else None
        if not note or (not is_retry and (note["asked"] != asked or note["finished"])):
            return None
        if note["asked"] != asked:
            raise InvalidArgumentError(
                "older_than, created_before, statuses, limit, conn_id",
                f"they have changed since this task selected its batches, from {', '.join(note['asked'])} to "
                f"{', '.join(asked)}. No batch was changed. Clear the task to select again.",
            )
        return [Record(batch_id, seen_since=note["seen_since"]) for batch_id in note["batch_ids"]]

    def store(self, batches: Sequence[MessageBatch], asked: Sequence[str]) -> None:
        """Store what this try has selected.

        :raises StoppedError: It cannot be read back.
        """
        if self._memory:
            oldest = batches[0].listed_since.timestamp() if batches else None
            note: dict[str, Any] = {"batch_ids": [batch.id for batch in batches], "seen_since": oldest}
            note |= {"asked": asked, "finished": False}
            self._memory.set(_CHOSEN, note)
            if self._memory.get(_CHOSEN) != note:
                # Airflow returns nothing to a try that it has given up, even if another try has stored a selection.
                raise StoppedError(
                    "The selection cannot be read back: Airflow has given up this try. No batch was changed."
                )

    def finish(self) -> None:
        """Let the next run of the task select again."""
        if self._memory:
            note = self._memory.get(_CHOSEN) if self._memory.expires else None
            if note:
                # If Airflow does not receive this success, the retry must not select more batches.
                self._memory.set(_CHOSEN, {**note, "finished": True})
            else:
                self._memory.delete(_CHOSEN)
