"""Runs a coroutine in a separate thread, so that no event loop runs in a task's main thread."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds that a canceled coroutine has to end.
GRACE = 3.0


def run_in_thread(coroutine: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
    """Return what a coroutine returns, or raise what it raises.

    Airflow's `execution_timeout` raises an exception in a signal handler. It interrupts this wait, and not the event
    loop, which might swallow it. The coroutine is then canceled, and has three seconds to end. This function works
    inside a running event loop, and keeps the context, by which Airflow routes log lines.

    :param seconds: Seconds after which the coroutine is canceled. Default: never.
    :raises TimeoutError: The coroutine did not end in time.
    """
    result: Future[T] = Future()
    # A bare lock, because a signal could leave the locks inside a Future or an Event locked.
    ended = threading.Lock()
    ended.acquire()
    tasks: list[asyncio.Task[T]] = []
    is_abandoned = False

    async def watched() -> T:
        tasks.append(asyncio.ensure_future(coroutine))
        if is_abandoned:
            tasks[0].cancel()
        return await tasks[0]

    def run() -> None:
        try:
            result.set_result(asyncio.run(watched()))
        except BaseException as error:
            result.set_exception(error)
        ended.release()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True)
    try:
        thread.start()
        if not ended.acquire(timeout=-1 if seconds is None else seconds):
            raise TimeoutError(f"timed out after {seconds:g} s")
        return result.result()
    finally:
        if not result.done():
            is_abandoned = True
            for task in tasks:
                with suppress(RuntimeError):  # the loop has just been closed
                    task.get_loop().call_soon_threadsafe(task.cancel)
            if thread.is_alive():
                ended.acquire(timeout=GRACE)
