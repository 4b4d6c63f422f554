from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field

ENDPOINTS = ("create", "retrieve", "list", "cancel", "delete", "results", "models", "model", "count_tokens", "exchange")
GATEWAYS = ("envelope", "openai", "text")

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_type(status: int) -> str:
    """Return the API's error type for a status code."""
    return ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


@dataclass(frozen=True)
class Fault:
    """A failure to inject into matching requests.

    Which requests:

    :param endpoint: ``create``, ``retrieve``, ``list``, ``cancel``, ``delete``, ``results``, ``models``, ``model``,
        ``count_tokens``, ``exchange`` or ``any``.
    :param batch_id: Only requests for this batch.
    :param times: The number of requests that fail; None: all.
    :param after: The number of matching requests that are served normally first.
    :param probability: The probability that a request fails, drawn from a generator seeded with ``seed``.

    What happens, in this order:

    :param delay: Real seconds to wait first.
    :param applied: The request takes effect; only its answer is lost or replaced.
    :param hang: There is no answer and the connection stays open; with ``cut_after``, the answer stops there.
    :param drop: There is no answer and the connection is closed.
    :param drop_after: Short for ``drop`` and ``applied``.
    :param status: Status code of the answer; its body is the API's error envelope unless another field sets it.
    :param body: The answer's body, unchanged; an empty text for no body (status 200 unless given).
    :param html: The body is a proxy's HTML page, without ``request-id`` (status 502 unless given).
    :param gateway: The sender of an error without ``request-id``: ``envelope``, a gateway that uses the API's
        format; ``openai``, one that uses OpenAI's; ``text``, a router that sends plain text (status 404 unless given).
    :param redirect: Origin (``http://host:port``) to redirect the same path to (status 307 unless given).
    :param message: Message of the envelope.
    :param error_type: Type of the envelope; by default that of the status.
    :param error_code: ``details.error_code`` of the envelope.
    :param headers: Headers to add (``retry-after``, ``retry-after-ms``, ``x-should-retry``, ...).
    :param cut_after: The body ends after this number of bytes.
    :param cut_cleanly: HTTP does not reveal the cut; otherwise the connection is closed there.
    :param reset: ``drop`` and ``cut_after`` end the connection with RST instead of FIN.
    """

    endpoint: str = "any"
    batch_id: str | None = None
    times: int | None = 1
    after: int = 0
    probability: float = 1.0
    seed: int = 0
    delay: float = 0.0
    applied: bool = False
    hang: bool = False
    drop: bool = False
    drop_after: bool = False
    status: int | None = None
    body: str | bytes | None = None
    html: bool = False
    gateway: str | None = None
    redirect: str | None = None
    message: str = "Fault on demand."
    error_type: str | None = None
    error_code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    cut_cleanly: bool = False
    reset: bool = False

    def __post_init__(self) -> None:
        if self.endpoint not in (*ENDPOINTS, "any"):
            raise ValueError(f"endpoint must be one of {(*ENDPOINTS, 'any')}, not {self.endpoint!r}.")
        if self.gateway not in (None, *GATEWAYS):
            raise ValueError(f"gateway must be one of {GATEWAYS}, not {self.gateway!r}.")

    @property
    def answer_status(self) -> int | None:
        """The status code of the fault's answer; None if it has none."""
        if self.status is not None:
            return self.status
        if self.redirect is not None:
            return 307
        if self.html:
            return 502
        if self.gateway is not None:
            return 404
        return None if self.body is None else 200

    @property
    def silent(self) -> bool:
        """Whether there is no answer at all."""
        return self.drop or self.drop_after or (self.hang and self.cut_after is None)

    @property
    def prevents_request(self) -> bool:
        """Whether the request has no effect."""
        return (self.silent or self.answer_status is not None) and not (self.applied or self.drop_after)


class ArmedFault:
    """A fault in the queue; ``hits`` is the number of requests that it made fail."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.hits = 0
        self._passed = 0
        self._random = random.Random(fault.seed)  # noqa: S311 - must be reproducible

    @property
    def spent(self) -> bool:
        """Whether no more requests will fail."""
        return self.fault.times is not None and self.hits >= self.fault.times

    def strikes(self, endpoint: str, batch_id: str | None) -> bool:
        """Return whether this request fails, and count it."""
        fault = self.fault
        if self.spent or fault.endpoint not in (endpoint, "any") or fault.batch_id not in (batch_id, None):
            return False
        if self._passed < fault.after:
            self._passed += 1
            return False
        if fault.probability < 1 and self._random.random() >= fault.probability:
            return False
        self.hits += 1
        return True


class FaultQueue:
    """The faults in the order in which they were set; only the first that matches a request applies."""

    def __init__(self) -> None:
        self._armed: list[ArmedFault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> ArmedFault:
        """Append a fault."""
        armed = ArmedFault(fault)
        with self._lock:
            self._armed = [a for a in self._armed if not a.spent] + [armed]
        return armed

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._armed = []

    def take(self, endpoint: str, batch_id: str | None) -> Fault | None:
        """Return the fault that applies to this request, if any."""
        with self._lock:
            return next((a.fault for a in self._armed if a.strikes(endpoint, batch_id)), None)

    def armed(self) -> list[ArmedFault]:
        """Return the faults that can still apply."""
        return [a for a in self._armed if not a.spent]
