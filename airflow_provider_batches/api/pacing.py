"""A client whose calls share one pace: a ceiling of requests a minute, and one pause where the API asks for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from airflow_provider_batches.api.client import AsyncBatchesClient, _Exchange
from airflow_provider_batches.api.errors import RateLimitError
from airflow_provider_batches.api.retry import pause
from airflow_provider_batches.api.settings import ClientSettings

log = logging.getLogger(__name__)

#: Seconds between calls after the first refusal; each further one doubles them, each answer takes a part off again.
FIRST_GAP = 0.05
LAST_GAP = 2.0
EASE = 0.9
#: Seconds without an answer after which a call that is told to come back later gives up.
PATIENCE = 3600.0


class Pace:
    """Says when the next call may start.

    :param requests_per_minute: The most calls a minute. None: as many as the API takes.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._least = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._gap = self._least
        self._clock = clock
        self._sleep = sleep
        self._next = 0.0
        self._held_until = 0.0
        self._holds = 0
        self._answered = clock()

    async def turn(self) -> None:
        """Return when a call may start."""
        while (at := max(self._next, self._held_until)) > (now := self._clock()):
            await self._sleep(at - now)
        self._next = now + self._gap

    def answered(self) -> None:
        """Take note that the API has answered a call."""
        self._answered, self._holds = self._clock(), 0
        self._gap = max(self._least, self._gap * EASE if self._gap > FIRST_GAP / 10 else 0.0)

    def refused(self, error: RateLimitError) -> bool:
        """Hold all calls as the API asked; return whether it is worth coming back at all."""
        now = self._clock()
        if now >= self._held_until:
            self._holds += 1
            self._held_until = now + pause(self._holds, error)
            self._gap = min(LAST_GAP, max(2 * self._gap, FIRST_GAP))
            log.info("The limit of requests is reached: all calls are held for %.1f s", self._held_until - now)
        return error.passing and now - self._answered < PATIENCE


class PacedClient(AsyncBatchesClient):
    """An AsyncBatchesClient that keeps a pace. A call refused for too many requests waits, however often.

    :param settings: How to reach the API.
    :param requests_per_minute: The most calls a minute. None: as many as the API takes.
    """

    def __init__(self, settings: ClientSettings, requests_per_minute: float | None = None) -> None:
        super().__init__(settings)
        self.pace = Pace(requests_per_minute)

    async def __aenter__(self) -> PacedClient:
        return self

    async def _attempt(self, exchange: _Exchange) -> Any:
        while True:
            await self.pace.turn()
            try:
                answer = await super()._attempt(exchange)
            except RateLimitError as error:
                if not self.pace.refused(error):
                    raise
            else:
                self.pace.answered()
                return answer
