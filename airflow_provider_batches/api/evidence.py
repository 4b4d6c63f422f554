"""What an answer proves, decided in one place for the clients, the waits, the teardown and whatever creates batches."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_batches.api.endpoints import Call

#: Part of each `details.error_code` of a refusal that lasts until somebody raises the limit.
_SPEND_LIMIT = "spend_limit"
#: What gateways answer for an API that is down, and an API that is overloaded.
_UNAVAILABLE = (502, 503, 504, 529)


class Proof(Enum):
    """What a failed call proves."""

    #: Nothing: a retry may succeed, and a wait continues.
    NOTHING = "nothing"
    #: Nothing, and no right answer has ever come from this address: most likely the address is wrong.
    WRONG_ADDRESS = "wrong address"
    #: The API does not find the batch. One such answer is no proof that the batch is gone.
    NOT_FOUND = "not found"
    #: The batch's state decides whether the refusal means anything.
    DEPENDS_ON_STATE = "depends on state"
    #: The key was refused, perhaps only for a moment.
    KEY_REFUSED = "key refused"
    #: Somebody has to pay, or to raise a spend limit.
    SPEND_LIMIT = "spend limit"
    #: Too many requests a minute, for all callers.
    RATE_LIMIT = "rate limit"
    #: The request is too large.
    TOO_LARGE = "too large"
    #: The request is wrong, and stays wrong.
    REFUSED = "refused"


@dataclass(frozen=True)
class Evidence:
    """What follows from an answer that is not a right one, or from no answer.

    :param proof: What it proves.
    :param outage: Whether it suggests that nobody is answered at the moment, regardless of the call.
    :param in_doubt: Whether the request may have done its work all the same.
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

    :param status: The HTTP status; None if no answer came. A 2xx is one whose body is not what it has to be.
    :param own: Whether the answer is the API's own: it has the error envelope and a request ID.
    :param direct: Whether the base URL is the API's own host, not a gateway.
    :param has_answered: Whether a right answer has come from this base URL before.
    :param sent: Whether the request may have reached the API.
    :param error_code: The envelope's `details.error_code`.
    """
    proof, outage = _proof(call, status, own, has_answered, error_code)
    unknown = status is None or status < 300 or status == 408 or status >= 500
    # Whatever a gateway answers, it may have forwarded the request.
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
