"""What the operators that choose batches by age and state share."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from airflow.sdk import BaseOperator

from airflow_provider_batches.api import InvalidArgumentError, MessageBatch
from airflow_provider_batches.api.pacing import PacedClient
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.links.batches import BatchesConsoleLink
from airflow_provider_batches.teardown.job import Tally, Teardown
from airflow_provider_batches.teardown.selection import Selection, read_selection

#: The fewer of them, the more batches are chosen: one that was given must not become None on its way.
_NARROWING = ("older_than", "created_before", "statuses", "limit")


class ChoosingOperator(BaseOperator):
    """A task that chooses batches: its arguments, its hook, and how both are used."""

    operator_extra_links = (BatchesConsoleLink(),)
    ui_color = "#f3e5dc"

    def __init__(
        self,
        *,
        conn_id: str,
        batch_ids: str | list[str] | None = None,
        older_than: timedelta | str | None = None,
        created_before: datetime | str | None = None,
        statuses: list[str] | str | None = None,
        limit: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.batch_ids = batch_ids
        self.older_than = older_than
        self.created_before = created_before
        self.statuses = statuses
        self.limit = limit
        self._read_selection(None)
        self._given = {name for name in _NARROWING if getattr(self, name) is not None}

    @cached_property
    def hook(self) -> BatchesHook:
        """The hook of the task's connection."""
        return BatchesHook(conn_id=self.conn_id)

    def _read_selection(self, started: datetime | None) -> Selection:
        if started is not None:
            self._check_given(*_NARROWING)
        return read_selection(
            batch_ids=self.batch_ids,
            older_than=self.older_than,
            created_before=self.created_before,
            statuses=self.statuses,
            limit=self.limit,
            started=started,
        )

    def _check_given(self, *names: str) -> None:
        """Refuse a template, or a task before this one, that has given nothing."""
        for name in names:
            if name in self._given and getattr(self, name) is None:
                raise InvalidArgumentError(
                    f"{name}: got None from its template or from the task that it comes from; leave the argument out "
                    "if it is to have no value."
                )

    async def _select(self, selection: Selection, requests_per_minute: int | None = None) -> list[MessageBatch]:
        async with PacedClient(self.hook.settings, requests_per_minute) as client:
            return await Teardown(client, Tally(), self._say).select(selection)

    def _say(self, line: str) -> None:
        self.log.info("%s", line)
