"""Cancels the batches of a task that Airflow ends early, but only if a user marked the task."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from airflow_provider_batches import _metrics
from airflow_provider_batches._compat import task_states
from airflow_provider_batches.api import AsyncBatchesClient, BatchesError

#: The states of a task that a user has marked. Other reasons leave it in other states: a clear, a `dagrun_timeout`, a
#: stopped pod, an outage of the API server.
MARKED_BY_USER = ("failed", "success")
#: Cancels in flight at once.
CANCELS = 16


async def cancel_for_user(
    ti: Any,
    batch_ids: Sequence[str],
    conn_id: str,
    connect: Callable[[], Awaitable[AsyncBatchesClient]],
    log: Any,
    seconds: float,
) -> None:
    """Cancel a task's batches concurrently if a user has marked the task, and log the outcome of each.

    :param ti: The task instance, or None. Its state is read from Airflow's API server.
    :param batch_ids: The batches.
    :param conn_id: The connection, for the metric.
    :param connect: Returns the client, which is closed at the end.
    :param log: The task's logger.
    :param seconds: Seconds after which to give up.
    """
    end = time.monotonic() + seconds
    state = await asyncio.to_thread(_state, ti, seconds / 2)
    listed = ", ".join(batch_ids)
    if state not in MARKED_BY_USER:
        log.warning("The task is being ended, but not by a user (its state is %s). Not canceled: %s", state, listed)
        return
    places = asyncio.Semaphore(CANCELS)
    left = dict.fromkeys(batch_ids, f"no answer within {seconds:g} s")

    async def cancel(client: AsyncBatchesClient, batch_id: str) -> None:
        try:
            async with places:
                batch = await client.cancel(batch_id)
        except BatchesError as error:
            left[batch_id] = str(error)
        else:
            del left[batch_id]
            status = batch.processing_status
            _metrics.count("canceled", not batch.ended, conn_id=conn_id)
            log.info("A user marked the task: batch %s is %s (request-id %s)", batch_id, status, batch.request_id)

    async def cancel_all() -> None:
        async with await connect() as client:
            await asyncio.gather(*(cancel(client, batch_id) for batch_id in batch_ids))

    try:
        await asyncio.wait_for(cancel_all(), end - time.monotonic())
    except asyncio.TimeoutError:
        pass  # `left` has the reason
    except BatchesError as error:
        left.update(dict.fromkeys(left, str(error)))
    finally:
        for batch_id, reason in left.items():
            log.warning("A user marked the task, but batch %s is not canceled: %s", batch_id, reason)


def _state(ti: Any, seconds: float) -> str:
    """Return the state of a task instance from Airflow's API server, or why it is unknown."""
    answer = ["unknown: the API server does not answer"]

    def ask() -> None:
        try:
            states = task_states(ti)
            answer[0] = str(states[0]) if len(states) == 1 else f"unknown: {len(states)} task instances found"
        except Exception as error:
            answer[0] = f"unknown: {type(error).__name__}"

    # Not in this thread: a signal may have interrupted it while it held the lock of Airflow's socket.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(ask,), daemon=True)
    thread.start()
    thread.join(seconds)
    return answer[0]
