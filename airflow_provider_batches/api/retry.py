"""Whether a failed call is made again, and when. Pure: tenacity runs the schedule, the clients do the I/O.

The pace is the reference client's: 0.5 s doubling to 8 s, up to a quarter taken off at random.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tenacity import RetryCallState, retry_if_exception, stop_after_attempt

from airflow_provider_batches.api.endpoints import Call
from airflow_provider_batches.api.errors import (
    AccessDeniedError,
    APIConnectionError,
    APIStatusError,
    BatchesError,
    ServerError,
    SpendLimitError,
)

FIRST_PAUSE = 0.5
LAST_PAUSE = 8.0
#: No answer can make a call wait longer than this, in seconds.
MAX_PAUSE = 60.0
JITTER = 0.25
#: Refusals that say nothing about the batch: who asks, who pays, how often.
_NOT_ABOUT_THE_BATCH = frozenset({401, 402, 408, 413, 429})
#: What gateways answer for an API that is away, and an API that is overloaded.
_AWAY = frozenset({502, 503, 504, 529})


def is_about_the_batch(error: BaseException) -> bool:
    """Whether a refusal may be explained by the state of the batch: any 4xx that the contract does not tie down."""
    return isinstance(error, APIStatusError) and 400 <= error.status < 500 and error.status not in _NOT_ABOUT_THE_BATCH


def is_about_the_key(error: BaseException) -> bool:
    """Whether a refusal is about who asks or who pays, so that no other call would be answered either."""
    return isinstance(error, SpendLimitError) or (isinstance(error, AccessDeniedError) and error.status == 401)


def is_outage(error: BaseException) -> bool:
    """Whether a failure says that nobody is answered at the moment, whatever is asked."""
    return isinstance(error, APIConnectionError) or (isinstance(error, ServerError) and error.status in _AWAY)


def may_repeat(call: Call[Any], error: BaseException) -> bool:
    """Whether a call that failed may be made again as it is."""
    if not isinstance(error, BatchesError):
        return False
    if not call.repeatable:
        return isinstance(error, APIConnectionError) and not error.sent
    if call.settles and is_about_the_batch(error):
        return False
    return error.passing


def pause(attempt: int, error: BaseException | None, chance: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after attempt number `attempt` (from 1) failed with `error`."""
    asked = getattr(error, "retry_after", None)
    # Where it asks for none (a part of a second rounded down, say), all attempts would come at once.
    if asked:
        return min(MAX_PAUSE, float(asked) * (1 + JITTER * chance()))
    backoff = min(LAST_PAUSE, FIRST_PAUSE * 2 ** min(attempt - 1, 10))
    return float(backoff) * (1 - JITTER * chance())


def schedule(call: Call[Any], attempts: int) -> dict[str, Any]:
    """Return what tenacity needs to run a call at most `attempts` times."""

    def failed(state: RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome else None

    def wait(state: RetryCallState) -> float:
        return pause(state.attempt_number, failed(state))

    def give_up(state: RetryCallState) -> None:
        error = failed(state)
        if isinstance(error, BatchesError) and state.attempt_number > 1:
            error.given_up(state.attempt_number)
        if error:
            raise error

    return {
        "retry": retry_if_exception(lambda error: may_repeat(call, error)),
        "wait": wait,
        "stop": stop_after_attempt(attempts),
        "retry_error_callback": give_up,
    }
