"""The hook: creates a client from an Airflow connection, with one method for each call of the API."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from airflow_provider_batches._arguments import read_batch_id, read_seconds
from airflow_provider_batches._compat import BaseHook, mask_secret
from airflow_provider_batches.api import (
    AsyncBatchesClient,
    BatchesClient,
    BatchesError,
    BatchTimeoutError,
    ClientSettings,
    MessageBatch,
    NotFoundError,
    Throttle,
)
from airflow_provider_batches.api.errors import CredentialsError
from airflow_provider_batches.api.pager import Pager
from airflow_provider_batches.hooks.connection import read_settings
from airflow_provider_batches.hooks.form import field_behaviour, widgets
from airflow_provider_batches.waiting.outcome import Outcome
from airflow_provider_batches.waiting.poller import Poller
from airflow_provider_batches.waiting.thread import run_in_thread
from airflow_provider_batches.waiting.wait import Wait

if TYPE_CHECKING:
    from airflow_provider_batches.api import BatchRequest, BatchResult, DeletedBatch

#: Seconds: the 24 hours in which the API ends every batch, and one more.
DEFAULT_TIMEOUT = 25 * 60 * 60.0
DEFAULT_POLL_INTERVAL = 60.0


class BatchesHook(BaseHook):
    """Calls Anthropic's Message Batches API with an Airflow connection.

    The connection has type `anthropic_batches`, or the official provider's type `anthropic`. All errors are subclasses
    of `airflow_provider_batches.api.BatchesError`.

    :param conn_id: The connection. Default `anthropic_default`.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "anthropic_default"
    conn_type = "anthropic_batches"
    hook_name = "Anthropic Message Batches"

    def __init__(self, conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        #: The connection's name in error texts. None: its ID.
        self._name: str | None = None

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's additional fields, for Airflow 3.0 and 3.1."""
        return widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels and hidden fields, for Airflow 3.0 and 3.1."""
        return field_behaviour()

    @cached_property
    def settings(self) -> ClientSettings:
        """The checked settings of the connection. Masks its secrets in all logs."""
        return self.read_settings()

    def read_settings(self) -> ClientSettings:
        """Read the connection and return its settings. Masks its secrets in all logs."""
        connection: Any = self.get_connection(self.conn_id)
        variables = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_AWS_API_KEY", "ANTHROPIC_IDENTITY_TOKEN")
        for secret in (connection.password, connection.login, *map(os.environ.get, variables)):
            if secret:
                mask_secret(secret)
        settings = read_settings(connection, os.environ, self._name, self.get_connection, mask_secret)
        for secret in settings.secrets():
            mask_secret(secret)
        return settings

    def get_conn(self) -> BatchesClient:
        """Return the client, which is created once."""
        return self._client

    @cached_property
    def _client(self) -> BatchesClient:
        return BatchesClient(self.settings, renew=self.read_settings)

    async def aget_conn(self, throttle: Throttle | None = None) -> AsyncBatchesClient:
        """Return a new async client; close it with `async with` or `aclose()`.

        Runs in a thread, because reading the connection, masking secrets and reading certificates may block.

        :param throttle: Paces the calls of all clients that share it. Default: not shared.
        """
        loop = asyncio.get_running_loop()

        def renew() -> ClientSettings:
            # Through the event loop, which some Airflow versions need to look up a connection.
            return asyncio.run_coroutine_threadsafe(sync_to_async(self.read_settings)(), loop).result()

        return await sync_to_async(lambda: AsyncBatchesClient(self.settings, throttle, renew))()

    def close(self) -> None:
        """Close the client's connections; the next call opens new ones."""
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.close()

    def create_batch(self, requests: Iterable[Mapping[str, Any] | BatchRequest]) -> MessageBatch:
        """Create a batch, which costs money from then on. See BatchesClient.create.

        If the answer is lost, the batch may exist, and a second call would create another one. SubmitBatchesOperator
        finds it instead, and splits any number of requests into batches.

        :param requests: 1 to 100,000 of `{"custom_id": ..., "params": {...}}`.
        """
        return self.get_conn().create(requests)

    def get_batch(self, batch_id: str) -> MessageBatch:
        """Return the current state of a batch. See BatchesClient.find."""
        return self.get_conn().find(batch_id)

    def list_batches(
        self,
        limit: int | None = None,
        after_id: str | None = None,
        before_id: str | None = None,
        *,
        page_size: int = 1000,
    ) -> Iterator[MessageBatch]:
        """Iterate over the batches, newest first. See BatchesClient.list."""
        return self.get_conn().list(limit, after_id, before_id, page_size=page_size)

    def cancel_batch(self, batch_id: str) -> MessageBatch:
        """Cancel a batch; one that is canceling or has ended is returned unchanged. See BatchesClient.cancel."""
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
        """Block until a batch has ended, and return it.

        :param batch_id: The batch.
        :param poll_interval: Seconds (or timedelta) between polls in the long run; at first, polls are more frequent.
            Default: 60.
        :param timeout: Seconds (or timedelta) until the wait times out. Default: 25 hours.
        :raises InvalidArgumentError: An argument is wrong; nothing was sent.
        :raises BatchTimeoutError: The batch did not end in time.
        :raises NotFoundError: The batch was not found.
        """
        now = time.time()
        wait = Wait(
            read_batch_id(batch_id),
            poll_interval=read_seconds("poll_interval", poll_interval),
            start_time=now,
            end_time=now + read_seconds("timeout", timeout),
        )
        (outcome,) = self.wait([wait], self.log)
        raise_unless_ended(outcome)
        return MessageBatch.model_validate(outcome.snapshot)

    def wait(
        self,
        waits: Sequence[Wait],
        log: Any,
        gives_up: Callable[[Outcome], bool] = lambda outcome: outcome.status != "ended",
        leave_at: float = float("inf"),
        **options: Any,
    ) -> list[Outcome]:
        """Block until waits have ended, and return their outcomes. See `waiting.poller.Poller.wait`.

        :param log: The task's logger.
        :param options: Parameters of the poller.
        """
        settings = self.settings

        async def open_client() -> AsyncBatchesClient:
            return AsyncBatchesClient(settings, renew=self.read_settings)

        async def poll() -> list[Outcome]:
            return await Poller(open_client, **options).wait(waits, time.time(), log.info, gives_up, leave_at)

        return run_in_thread(poll())

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the API accepts the connection's key, and a message for the UI."""
        # Airflow's form tests the connection under a temporary ID.
        self._name = "this connection"
        try:
            page = self.get_conn().page(Pager(1), retries=0, doubt=False).batches()
        except CredentialsError as error:
            return False, f"{error} The API server on {socket.gethostname()} ran this test; workers may differ."
        except BatchesError as error:
            return False, str(error)
        except Exception as error:
            # Its text may contain secrets; its class is safe to show.
            return False, f"The connection could not be used: {type(error).__name__}"
        seen = f"the newest batch is {page[0].id}" if page else "there are no batches yet"
        return True, f"{self.settings.base_url} accepts the {'identity' if self.settings.identity else 'key'}; {seen}."


def raise_unless_ended(outcome: Outcome) -> None:
    """Raise the error that a wait ended with, unless the batch has ended."""
    if outcome.status == "timeout":
        raise BatchTimeoutError(outcome.message)
    if outcome.status == "missing":
        raise NotFoundError(outcome.message, status=404)
    if outcome.status != "ended":
        error = outcome.error or BatchesError(outcome.message)
        error.retryable = outcome.retryable
        raise error
