from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any


def _unknown(default: Any, *others: Any) -> Any:
    """Declare an open question: the default answer, then the other plausible ones."""
    return field(default=default, metadata={"others": others})


@dataclass(frozen=True)
class Behavior:
    """How the emulator behaves in cases that the API's documentation leaves open.

    Each parameter names its source in brackets: the API's reference, the official SDKs, or reports of users. "None"
    means that there is no source. The default is the likeliest answer. Any status code is accepted; `variants` yields
    the plausible ones.

    :param cancel_ended: Status of a cancel of a batch that has ended; 200: the unchanged batch (none).
    :param cancel_canceling: Status of a cancel of a batch that is already canceling; 200: the unchanged batch (none).
    :param cancel_answer: ``canceling``: the answer to a cancel has this status even if the batch ends immediately
        (reference); ``current``: the answer is the same as that of the next retrieve.
    :param cancel_interrupts: Whether a cancel stops unfinished requests; if not, they all finish (reference: requests
        that cannot be interrupted may finish).
    :param delete_unended: Status of a delete of a batch that has not ended (reference: refused; the status: none).
    :param delete_answer: Status of a successful delete (reference: 200; 204: no body).
    :param delete_again: Status of a delete of a deleted batch (none).
    :param retrieve_deleted: Status of every other call on a deleted batch (none).
    :param first_retrieve: Status of the first retrieve of each batch; 404: it is not found (reported by users).
    :param other_workspace: Status for a batch of another workspace, see ``add_batch(foreign=True)`` (none).
    :param foreign_workspace: Status for an ``anthropic-workspace-id`` that is not the key's; 200: accepted
        (reported by users: refused; the status: none).
    :param invalid_params: Status of a create if some requests have invalid ``params``; 200: those requests end
        as ``errored`` (reference).
    :param both_cursors: Status of a list call with ``after_id`` and ``before_id``; 200: ``after_id`` takes precedence
        (none; the SDKs' own tests send both).
    :param unknown_beta: Status for an ``anthropic-beta`` flag that the SDKs do not list; 200: accepted (reported by
        users: 400).
    :param list_lag: Seconds until a new batch is in the list (reported by users).
    :param retrieve_lag: Seconds until a new batch is found (reported by users).
    :param counts_lag: Seconds for which all counts of a new batch are 0 (reported by users).
    :param results_unended: Status for the results of a batch that has not ended (none).
    :param results_archived: Status for the results of an archived batch (none).
    :param results_host: Origin of ``results_url``; empty: the one that the client addressed (reference: any URL).
    :param results_last_newline: Whether the last line of the results ends with a line feed (none).
    :param list_deleted_cursor: Status of a list call whose cursor is a deleted batch; 200: works (none).
    :param optional_fields: Whether optional fields without a value are ``null`` (reference) or ``absent`` (SDKs).
    :param extra_fields: Whether objects have undocumented fields (reference: clients accept them).
    :param times: RFC 3339 with ``Z``, with an ``offset``, or in whole ``seconds`` (reference: RFC 3339).
    :param retry_after: Form of the header of a 429: ``seconds`` (reference), ``date``, ``ms`` (SDKs) or ``none``.
    :param request_id: Whether answers have a ``request-id`` header (reference: they do; gateways drop it).
    """

    cancel_ended: int = _unknown(200, 400, 409)
    cancel_canceling: int = _unknown(200, 400, 409)
    cancel_answer: str = _unknown("canceling", "current")
    cancel_interrupts: bool = _unknown(True, False)
    delete_unended: int = _unknown(400, 409, 422)
    delete_answer: int = _unknown(200, 204)
    delete_again: int = _unknown(404, 200, 204)
    retrieve_deleted: int = _unknown(404)
    first_retrieve: int = _unknown(200, 404)
    other_workspace: int = _unknown(404, 403)
    foreign_workspace: int = _unknown(403, 404, 200)
    invalid_params: int = _unknown(200, 400)
    both_cursors: int = _unknown(400, 200)
    unknown_beta: int = _unknown(400, 200)
    list_lag: float = _unknown(0.0)
    retrieve_lag: float = _unknown(0.0)
    counts_lag: float = _unknown(0.0, 1.0)
    results_unended: int = _unknown(400, 404, 409)
    results_archived: int = _unknown(404, 400, 410)
    results_host: str = _unknown("", "https://results.invalid")
    results_last_newline: bool = _unknown(True, False)
    list_deleted_cursor: int = _unknown(200, 400, 404)
    optional_fields: str = _unknown("null", "absent")
    extra_fields: bool = _unknown(False, True)
    times: str = _unknown("Z", "offset", "seconds")
    retry_after: str = _unknown("seconds", "date", "ms", "none")
    request_id: bool = _unknown(True, False)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if type(value) is not type(f.default) and not (type(value) is int and type(f.default) is float):
                raise ValueError(f"{f.name} must be like {f.default!r}, not {value!r}.")
            if f.name in _WORDS and value not in _plausible(f):
                raise ValueError(f"{f.name} must be one of {_plausible(f)}, not {value!r}.")

    def __str__(self) -> str:
        changed = [f"{f.name}={v}" for f in fields(self) if (v := getattr(self, f.name)) != f.default]
        return ",".join(changed) or "default"

    @classmethod
    def variants(cls) -> Iterator[Behavior]:
        """Yield the default, then each variant with one other plausible answer; ``str()`` names each."""
        yield cls()
        for f in fields(cls):
            for value in f.metadata["others"]:
                yield cls(**{f.name: value})


_WORDS = ("cancel_answer", "optional_fields", "times", "retry_after")


def _plausible(f: Field[Any]) -> tuple[Any, ...]:
    return (f.default, *f.metadata["others"])
