"""The base class of operators that select batches by age and state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_batches._base import BatchesOperator
from airflow_provider_batches.api import AsyncBatchesClient, InvalidArgumentError, MessageBatch, Throttle
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.teardown.job import Tally, Teardown
from airflow_provider_batches.teardown.selection import Selection, read_selection
from airflow_provider_batches.waiting.thread import run_in_thread

if TYPE_CHECKING:
    from airflow_provider_batches._base import Templated

#: Arguments that narrow the selection. If one that was given rendered to None, more batches would be selected.
_NARROWING = ("older_than", "created_before", "statuses", "limit")


class SelectingOperator(BatchesOperator):
    """A task that selects batches."""

    #: Only the teardown can be given its batches by ID.
    batch_ids: Any = None

    def __init__(
        self,
        *,
        older_than: Templated[timedelta | str] | None = None,
        created_before: Templated[datetime | str] | None = None,
        statuses: Templated[Sequence[str] | str] | None = None,
        limit: Templated[int | str] | None = None,
        conn_id: Templated[str] = BatchesHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(conn_id=conn_id, **kwargs)
        self.older_than: Any = older_than
        self.created_before: Any = created_before
        self.statuses: Any = statuses
        self.limit: Any = limit
        self._given = {name for name in _NARROWING if getattr(self, name) is not None}

    def _read_selection(self, started: datetime | None) -> Selection:
        if started is not None:
            self._check_given("batch_ids", *_NARROWING)
        given = {name: getattr(self, name) for name in ("batch_ids", *_NARROWING)}
        return read_selection(**given, started=started)

    def _check_given(self, *names: str) -> None:
        """Refuse an argument whose template, or upstream task, rendered it as `None`."""
        for name in names:
            if name in self._given and getattr(self, name) is None:
                raise InvalidArgumentError(
                    name, "its template or upstream task gave None. Omit the argument if no value is needed."
                )

    def _client(self, throttle: Throttle) -> AsyncBatchesClient:
        return AsyncBatchesClient(self.hook.settings, throttle, self.hook.read_settings)

    def _select(self, selection: Selection, requests_per_minute: int | None = None) -> list[MessageBatch]:
        async def select() -> list[MessageBatch]:
            async with self._client(Throttle(requests_per_minute, patient=True)) as client:
                return await Teardown(client, Tally(), self.log).select(selection)

        return run_in_thread(select())
