"""One wait in a poller."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from typing import Any

from airflow_provider_batches.api import BatchesError, MessageBatch
from airflow_provider_batches.waiting.outcome import Outcome
from airflow_provider_batches.waiting.wait import Wait


class PendingWait:
    """One wait in a poller: when to poll, and its outcome."""

    __slots__ = ("_context", "_log", "due", "early", "on_change", "outcome", "unconfirmed", "wait")

    def __init__(self, wait: Wait, due: float, log: Callable[[str], Any] | None) -> None:
        self.wait = wait
        self.due = due
        #: The earliest time to poll it together with others.
        self.early = due
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        #: The outcome if the batch is not in the list either.
        self.unconfirmed: Outcome | None = None
        self.on_change: Callable[[PendingWait], None] | None = None
        self._log = log
        # Airflow routes log lines by context, and the poller's is not that of the task.
        self._context = contextvars.copy_context() if log else None

    def deliver(self, answer: MessageBatch | BatchesError) -> None:
        """Process an answer: end the wait, or schedule the next poll."""
        if self.outcome.done():
            return
        verdict, now = self.wait.on_answer(answer, time.time()), time.time()
        if verdict.log_message and self._log and self._context:
            self._context.run(self._log, verdict.log_message)
        self.unconfirmed = verdict.outcome if verdict.unconfirmed else None
        if verdict.outcome and not verdict.unconfirmed:
            self.end(verdict.outcome)
        else:
            self._set_due(now + verdict.pause, now + verdict.pause / 2)

    def postpone(self, until: float, error: BatchesError) -> None:
        """Delay the next poll because of an error, but not beyond the end of the wait."""
        if self.wait.end_time <= time.time():
            self.deliver(error)
        else:
            self._set_due(min(until, self.wait.end_time), self.early)

    def end(self, outcome: Outcome | BaseException) -> None:
        """End the wait with an outcome, or with an unexpected error."""
        if self.outcome.done():
            return
        if isinstance(outcome, Outcome):
            self.outcome.set_result(outcome)
        else:
            self.outcome.set_exception(outcome)
        self._set_due(float("inf"), float("inf"))

    def _set_due(self, due: float, early: float) -> None:
        self.due, self.early = due, early
        if self.on_change:
            self.on_change(self)
