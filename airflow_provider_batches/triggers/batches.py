"""What waits in the triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_batches.api import BatchesError, InvalidArgumentError, Outcome, Wait
from airflow_provider_batches.hooks.batches import BatchesHook

if TYPE_CHECKING:
    from airflow_provider_batches.api import MessageBatch

#: Seconds after its deferral before which a wait neither looks nor fires: an event that comes before the scheduler
#: has seen the deferring process end would fail the task.
FIRST_LOOK = 5.0


class BatchEndedTrigger(BaseTrigger):
    """Waits in the triggerer until a batch has ended, and fires one event that says how the wait ended.

    The event is `Outcome.event()`: `status` (`ended`, `missing`, `refused`, `timeout`), `batch_id`, `message`, and
    `batch`, the last snapshot or None.

    :param batch_id: The batch.
    :param conn_id: The connection.
    :param poll_interval: Seconds between looks once the wait has settled; it looks more often at first.
    :param start_time: When the task was deferred, in seconds since the epoch.
    :param end_time: When the wait is given up, in seconds since the epoch. Wall-clock time, since the trigger may go
        on in another process after a restart.
    :param cancel_on_kill: Whether to cancel the batch when a person ends the deferred task (Airflow 3.3+).
    """

    def __init__(
        self,
        batch_id: str,
        conn_id: str,
        poll_interval: float,
        start_time: float,
        end_time: float,
        cancel_on_kill: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch_id = batch_id
        self.conn_id = conn_id
        self.poll_interval = poll_interval
        self.start_time = start_time
        self.end_time = end_time
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the trigger is made again from; JSON types only, and no secrets."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "batch_id": self.batch_id,
                "conn_id": self.conn_id,
                "poll_interval": self.poll_interval,
                "start_time": self.start_time,
                "end_time": self.end_time,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the batch until the wait has an outcome, and fire it."""
        wait = Wait(
            self.batch_id,
            poll_interval=self.poll_interval,
            start_time=self.start_time,
            end_time=self.end_time,
            first_pause=FIRST_LOOK,
        )
        pause = max(0.0, self.start_time + FIRST_LOOK - time.time())
        await asyncio.sleep(pause)
        try:
            client = await BatchesHook(self.conn_id).aget_conn()
        except InvalidArgumentError as error:
            yield TriggerEvent(Outcome("refused", self.batch_id, str(error)).event())
            return
        async with client:
            while True:
                answer: MessageBatch | BatchesError
                try:
                    answer = await client.retrieve(self.batch_id, retries=0)
                except BatchesError as error:
                    answer = error
                verdict = wait.heard(answer, time.time())
                if verdict.news:
                    self.log.info("%s", verdict.news)
                if verdict.outcome:
                    yield TriggerEvent(verdict.outcome.event())
                    return
                await asyncio.sleep(verdict.pause)

    async def on_kill(self) -> None:
        """Cancel the batch if asked to, since a person ended the task (Airflow 3.3+)."""
        if not self.cancel_on_kill:
            return
        async with await BatchesHook(self.conn_id).aget_conn() as client:
            batch = await client.cancel(self.batch_id)
        self.log.info(
            "The task was ended by a user: batch %s is %s (request-id %s)",
            self.batch_id,
            batch.processing_status,
            batch.request_id,
        )
