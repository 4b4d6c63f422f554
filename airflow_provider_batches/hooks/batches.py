"""The hook: an Airflow connection becomes a client, and each call of the API a method."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from asgiref.sync import sync_to_async

from airflow_provider_batches._compat import BaseHook, mask_secret
from airflow_provider_batches.api import (
    AsyncBatchesClient,
    BatchesClient,
    BatchesError,
    BatchTimeoutError,
    ClientSettings,
    MessageBatch,
    NotFoundError,
    Outcome,
    Verdict,
    Wait,
    check_batch_id,
)
from airflow_provider_batches.api.waiting import check_seconds
from airflow_provider_batches.hooks.connection import read_settings

if TYPE_CHECKING:
    from airflow_provider_batches.api import BatchRequest, BatchResult, DeletedBatch

#: The API ends every batch within 24 hours; seconds, with an hour to spare.
DEFAULT_TIMEOUT = 25 * 60 * 60.0
DEFAULT_POLL_INTERVAL = 60.0


class LoggerLike(Protocol):
    """The part of a logger that is used here: Airflow's is not the standard library's."""

    def info(self, event: str, /) -> Any:
        """Log a line."""


class BatchesHook(BaseHook):
    """Talks to Anthropic's Message Batches API through an Airflow connection.

    The connection is of type `anthropic_batches`; one of the official provider's type `anthropic` serves too.
    Errors are those of `airflow_provider_batches.api`, all subclasses of `BatchesError`.

    :param conn_id: The connection. Default `anthropic_default`.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "anthropic_default"
    conn_type = "anthropic_batches"
    hook_name = "Anthropic Message Batches"

    def __init__(self, conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's own fields, for Airflow 3.0 and 3.1."""
        from airflow_provider_batches.hooks.form import widgets

        return widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the form shows Airflow's fields, for Airflow 3.0 and 3.1."""
        from airflow_provider_batches.hooks.form import field_behaviour

        return field_behaviour()

    @cached_property
    def settings(self) -> ClientSettings:
        """What the connection says, checked; its secrets are masked in all logs from now on."""
        connection: Any = self.get_connection(self.conn_id)
        for secret in (connection.password, os.environ.get("ANTHROPIC_API_KEY")):
            if secret:
                mask_secret(secret)
        settings = read_settings(connection, os.environ)
        for secret in settings.secrets():
            mask_secret(secret)
        return settings

    def get_conn(self) -> BatchesClient:
        """Return the client, the same at each call."""
        return self._client

    @cached_property
    def _client(self) -> BatchesClient:
        return BatchesClient(self.settings)

    async def aget_conn(self) -> AsyncBatchesClient:
        """Return a new async client; close it with `async with` or `aclose()`.

        Looking up the connection, masking its secrets and reading certificates may block, in each Airflow version in
        another way, so all of it happens in a thread.
        """
        return await sync_to_async(lambda: AsyncBatchesClient(self.settings))()

    def close(self) -> None:
        """Close the client's connections; the next call opens new ones."""
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.close()

    def create_batch(self, requests: Iterable[Mapping[str, Any] | BatchRequest]) -> MessageBatch:
        """Create a batch, which costs money from then on. See BatchesClient.create.

        :param requests: 1 to 100,000 of `{"custom_id": ..., "params": {...}}`.
        """
        return self.get_conn().create(requests)

    def get_batch(self, batch_id: str) -> MessageBatch:
        """Return a batch as it is now. See BatchesClient.find."""
        return self.get_conn().find(batch_id)

    def list_batches(
        self, limit: int = 1000, after_id: str | None = None, before_id: str | None = None
    ) -> Iterator[MessageBatch]:
        """Iterate over all batches, newest first. See BatchesClient.list."""
        return self.get_conn().list(limit, after_id, before_id)

    def cancel_batch(self, batch_id: str) -> MessageBatch:
        """Cancel a batch; one that is canceling or has ended already is returned as it is. See BatchesClient.cancel."""
        return self.get_conn().cancel(batch_id)

    def delete_batch(self, batch_id: str) -> DeletedBatch:
        """Delete a batch that has ended. See BatchesClient.delete."""
        return self.get_conn().delete(batch_id)

    def stream_batch_results(self, batch_id: str) -> Iterator[BatchResult]:
        """Iterate over the results of a batch that has ended. See BatchesClient.results."""
        return self.get_conn().results(batch_id)

    def wait_for_batch(
        self,
        batch_id: str,
        poll_interval: float | timedelta = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
    ) -> MessageBatch:
        """Return a batch once it has ended; blocks this thread until then.

        :param batch_id: The batch.
        :param poll_interval: Seconds (or timedelta) between looks once the wait has settled; it looks more often at
            first.
        :param timeout: Seconds (or timedelta) until the wait is given up. Default: 25 hours.
        :raises InvalidArgumentError: An argument is wrong; nothing was sent.
        :raises BatchTimeoutError: The batch had not ended in time.
        :raises NotFoundError: The API does not know the batch.
        """
        now = time.time()
        wait = Wait(
            check_batch_id(batch_id),
            poll_interval=check_seconds("poll_interval", poll_interval),
            start_time=now,
            end_time=now + check_seconds("timeout", timeout),
        )
        outcome = look_until(wait, self.get_conn(), self.log).outcome
        if outcome is None:
            raise AssertionError("a wait without a limit of its own ends with an outcome")
        raise_unless_ended(outcome)
        return MessageBatch.model_validate(outcome.snapshot)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the API accepts the connection's key, and what to tell the person who asked."""
        try:
            page = self.get_conn().page(limit=1, retries=0)
        except BatchesError as error:
            return False, str(error)
        except Exception as error:
            # Whatever it is, its text may hold anything; its kind is safe to show.
            return False, f"The connection could not be used: {type(error).__name__}"
        seen = f"the newest batch is {page.data[0].id}" if page.data else "there are no batches yet"
        return True, f"{self.get_conn().settings.base_url} accepts the key; {seen}."


def look_until(
    wait: Wait,
    client: BatchesClient,
    log: LoggerLike,
    *,
    until: float = float("inf"),
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Verdict:
    """Look at a batch until its wait has an outcome, or the next look would come after `until` (epoch seconds)."""
    while True:
        answer: MessageBatch | BatchesError
        try:
            answer = client.retrieve(wait.batch_id, retries=0)
        except BatchesError as error:
            answer = error
        verdict = wait.heard(answer, clock())
        if verdict.news:
            log.info(verdict.news)
        if verdict.outcome or (clock() + verdict.pause > until and not wait.doubtful):
            return verdict
        sleep(verdict.pause)


def raise_unless_ended(outcome: Outcome) -> None:
    """Raise what a wait ended with, where it did not end with the batch's end."""
    if outcome.status == "timeout":
        raise BatchTimeoutError(outcome.message)
    if outcome.status == "missing":
        raise NotFoundError(outcome.message, status=404)
    if outcome.status != "ended":
        raise outcome.error or BatchesError(outcome.message)
