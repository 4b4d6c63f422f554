"""A client for many calls: they share a ceiling of requests, a pause where the API asks for it, and an outage's end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tenacity import RetryCallState

from airflow_provider_batches.api.client import AsyncBatchesClient, _Exchange
from airflow_provider_batches.api.endpoints import Call
from airflow_provider_batches.api.errors import BatchesError, RateLimitError
from airflow_provider_batches.api.retry import is_outage, pause
from airflow_provider_batches.api.settings import ClientSettings

log = logging.getLogger(__name__)

#: Seconds between calls after the first refusal; each further one doubles them, each answer takes a part off again.
FIRST_GAP = 0.05
LAST_GAP = 2.0
EASE = 0.9
#: Seconds without an answer after which a call that is told to come back later gives up.
PATIENCE = 3600.0
#: Seconds of an outage that calls wait out, and between their attempts once the usual ones were in vain.
OUTAGE = 900.0
OUTAGE_PAUSE = 30.0


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
        #: How many calls the API has answered.
        self.answers = 0
        self._away_since: float | None = None
        self._is_waited_for = False

    async def turn(self) -> None:
        """Return when a call may start."""
        while (at := max(self._next, self._held_until)) > (now := self._clock()):
            await self._sleep(at - now)
        self._next = now + self._gap

    def answered(self) -> None:
        """Take note that the API has answered a call."""
        self._answered, self._holds = self._clock(), 0
        self.answers += 1
        self._away_since = None
        if self._is_waited_for:
            self._is_waited_for = False
            log.info("The API answers again")
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

    def failed(self, error: BatchesError) -> None:
        """Take note that a call was not answered, or that it was refused."""
        if not is_outage(error):
            self.answered()
        elif self._away_since is None:
            self._away_since = self._clock()

    def waits_for_the_end(self, error: BatchesError) -> bool:
        """Return whether this failure is part of an outage that is worth waiting out.

        It is where the API has answered before: an address that is wrong is not waited for.
        """
        if not is_outage(error) or self.gave_up(error):
            return False
        if not self._is_waited_for:
            self._is_waited_for = True
            log.warning("%s All calls wait until the API answers again, %.0f s at most.", error, OUTAGE)
        return True

    def gave_up(self, error: BatchesError) -> bool:
        """Return whether the API is out of reach for all calls, and has never answered or not for a long time."""
        if not is_outage(error) or self._away_since is None:
            return False
        return not self.answers or self._clock() - self._away_since >= OUTAGE


class _Patience:
    """Says when a call has failed often enough: attempts between which the API answered nobody do not count."""

    def __init__(self, pace: Pace, attempts: int) -> None:
        self._pace = pace
        self._attempts = attempts
        self._counted = 0
        self._answers = -1
        self.waits = False

    def __call__(self, state: RetryCallState) -> bool:
        if self._answers != self._pace.answers:
            self._answers, self._counted, self.waits = self._pace.answers, self._counted + 1, False
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number < self._attempts or not isinstance(error, BatchesError):
            return False
        if self._counted < self._attempts:
            self.waits = self._pace.waits_for_the_end(error)
        return not self.waits


class PacedClient(AsyncBatchesClient):
    """An AsyncBatchesClient that keeps a pace.

    A call refused for too many requests waits, however often. Where no call at all is answered any more, they wait for
    the end of the outage, 15 minutes at most.

    :param settings: How to reach the API.
    :param requests_per_minute: The most calls a minute. None: as many as the API takes.
    """

    def __init__(self, settings: ClientSettings, requests_per_minute: float | None = None) -> None:
        super().__init__(settings)
        self.pace = Pace(requests_per_minute)

    async def __aenter__(self) -> PacedClient:
        return self

    def _schedule(self, call: Call[Any], attempts: int) -> dict[str, Any]:
        usual = super()._schedule(call, attempts)
        patience = _Patience(self.pace, attempts)
        return {
            **usual,
            "stop": patience,
            "wait": lambda state: max(OUTAGE_PAUSE if patience.waits else 0.0, usual["wait"](state)),
        }

    async def _attempt(self, exchange: _Exchange) -> Any:
        while True:
            await self.pace.turn()
            try:
                answer = await super()._attempt(exchange)
            except RateLimitError as error:
                if not self.pace.refused(error):
                    raise
            except BatchesError as error:
                self.pace.failed(error)
                raise
            else:
                self.pace.answered()
                return answer
