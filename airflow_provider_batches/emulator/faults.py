from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field

ENDPOINTS = ("create", "retrieve", "list", "cancel", "delete", "results", "models", "model", "count_tokens")
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
    """Something that goes wrong with requests that match.

    Which requests:

    :param endpoint: ``create``, ``retrieve``, ``list``, ``cancel``, ``delete``, ``results`` or ``any``.
    :param batch_id: only requests about this batch.
    :param times: how often it strikes; None: without end.
    :param after: how many matching requests pass unharmed first.
    :param probability: chance of striking, drawn from a generator seeded with ``seed``.

    What happens, in this order:

    :param delay: real seconds to wait first.
    :param applied: the request does its work first, and only its answer is lost or replaced.
    :param hang: no answer, the connection stays open; with ``cut_after`` it falls silent there.
    :param drop: no answer, the connection is closed.
    :param drop_after: short for ``drop`` and ``applied``.
    :param status: status code of the answer, with the API's JSON envelope unless the body says otherwise.
    :param body: the answer's body, unchanged; empty for none (status 200 unless given).
    :param html: the body is a proxy's HTML page, without ``request-id`` (status 502 unless given).
    :param gateway: who mints the error, without ``request-id``: ``envelope``, a gateway that answers in the API's
        format; ``openai``, one that answers in OpenAI's; ``text``, a router in plain text (status 404 unless given).
    :param redirect: origin (``http://host:port``) to redirect the same path to (status 307 unless given).
    :param message: text in the envelope.
    :param error_type: type in the envelope; by default the one of the status.
    :param error_code: ``details.error_code`` in the envelope.
    :param headers: headers to add (``retry-after``, ``retry-after-ms``, ``x-should-retry``, ...).
    :param cut_after: the body ends after so many bytes.
    :param cut_cleanly: the cut is not visible to HTTP; otherwise the connection breaks off there.
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
        """The status code of the fault's own answer, None where it has no answer."""
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
        """Whether nothing at all is answered."""
        return self.drop or self.drop_after or (self.hang and self.cut_after is None)

    @property
    def spares_work(self) -> bool:
        """Whether the request is stopped before it does its work."""
        return (self.silent or self.answer_status is not None) and not (self.applied or self.drop_after)


class ArmedFault:
    """A fault in the queue; ``hits`` tells how often it has struck."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.hits = 0
        self._passed = 0
        self._random = random.Random(fault.seed)  # noqa: S311 - repeatable on purpose

    @property
    def spent(self) -> bool:
        """Whether it will never strike again."""
        return self.fault.times is not None and self.hits >= self.fault.times

    def strikes(self, endpoint: str, batch_id: str | None) -> bool:
        """Decide for one request, and keep count."""
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
    """The faults in the order they were set; the first that matches strikes, alone."""

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
        """Forget all faults."""
        with self._lock:
            self._armed = []

    def take(self, endpoint: str, batch_id: str | None) -> Fault | None:
        """Return the fault that strikes this request, if any."""
        with self._lock:
            return next((a.fault for a in self._armed if a.strikes(endpoint, batch_id)), None)

    def armed(self) -> list[ArmedFault]:
        """Return the faults that can still strike."""
        return [a for a in self._armed if not a.spent]
