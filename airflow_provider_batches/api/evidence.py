"""Decides what an answer proves, for everything that calls the API."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_batches.api.endpoints import Call

#: Part of every `details.error_code` that reports a spend limit.
_SPEND_LIMIT = "spend_limit"
#: The statuses of a gateway whose API is down, and of an overloaded API.
_UNAVAILABLE = (502, 503, 504, 529)


class Proof(Enum):
    """What a failed call proves."""

    #: Nothing: a retry may succeed, and a wait continues.
    NOTHING = "nothing"
    #: Nothing, and this address has never answered correctly: it is probably wrong.
    WRONG_ADDRESS = "wrong address"
    #: The API returned 404. A single 404 does not prove that the batch no longer exists.
    NOT_FOUND = "not found"
    #: Nothing yet: the state of the batch may explain the refusal.
    DEPENDS_ON_STATE = "depends on state"
    #: The key was refused, perhaps temporarily.
    KEY_REFUSED = "key refused"
    #: A bill is unpaid, or a spend limit is reached.
    SPEND_LIMIT = "spend limit"
    #: The rate limit that all callers share is exceeded.
    RATE_LIMIT = "rate limit"
    #: The request is too large.
    TOO_LARGE = "too large"
    #: The request is wrong, so a retry cannot help.
    REFUSED = "refused"


@dataclass(frozen=True)
class Evidence:
    """What a failed call proves.

    :param proof: What it proves.
    :param outage: Whether it suggests an outage, in which all calls fail.
    :param in_doubt: Whether the request may have succeeded anyway.
    """

    proof: Proof
    outage: bool = False
    in_doubt: bool = False


def judge(
    call: Call[Any],
    status: int | None,
    *,
    own: bool = False,
    direct: bool = True,
    has_answered: bool = False,
    sent: bool = True,
    error_code: object = None,
) -> Evidence:
    """Return what an answer to a call proves.

    :param status: The HTTP status; None if there was no answer. A 2xx means that its body is not valid.
    :param own: Whether the answer is from the API: it has the error envelope and a request ID.
    :param direct: Whether the base URL is a host of the API, not a gateway.
    :param has_answered: Whether this base URL has answered correctly before.
    :param sent: Whether the request may have reached the API.
    :param error_code: The envelope's `details.error_code`.
    """
    proof, outage = _proof(call, status, own, has_answered, error_code)
    unknown = status is None or status < 300 or status == 408 or status >= 500
    # A gateway may have forwarded the request, regardless of its answer.
    refused = own and direct and status != 409
    return Evidence(proof, outage, sent and (unknown or (call.creates and not refused)))


def _proof(
    call: Call[Any], status: int | None, own: bool, has_answered: bool, error_code: object
) -> tuple[Proof, bool]:
    """Return what the answer proves, and whether it suggests an outage."""
    if status is None or status < 300:
        return Proof.NOTHING, True
    if status == 408 or status >= 500:
        return Proof.NOTHING, not own or status in _UNAVAILABLE
    if status == 413:
        return Proof.TOO_LARGE, False
    if own and isinstance(error_code, str) and _SPEND_LIMIT in error_code:
        return Proof.SPEND_LIMIT, False
    if status == 429:
        return Proof.RATE_LIMIT, False
    if not own:
        return (Proof.NOTHING if has_answered else Proof.WRONG_ADDRESS), has_answered
    if status == 402:
        return Proof.SPEND_LIMIT, False
    if status == 404 and call.batch_id:
        return Proof.NOT_FOUND, False
    if call.depends_on_state and status != 401:
        return Proof.DEPENDS_ON_STATE, False
    return {401: Proof.KEY_REFUSED, 403: Proof.KEY_REFUSED, 409: Proof.NOTHING}.get(status, Proof.REFUSED), False
