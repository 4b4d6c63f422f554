from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any


def _unknown(default: Any, *others: Any) -> Any:
    """Declare one open question: the answer taken by default, then the other plausible ones."""
    return field(default=default, metadata={"others": others})


@dataclass(frozen=True)
class Behavior:
    """How the emulator behaves where no source settles how the API does.

    Each parameter names its source in brackets: the API's reference, the official SDKs, or what users reported. "None"
    means that no source says anything. The default is the likeliest. Status codes may be any; `variants` goes through
    the plausible ones.

    :param cancel_ended: status for canceling a batch that has ended; 200: unchanged batch (none).
    :param cancel_canceling: status for canceling a batch that is canceling already; 200: unchanged batch (none).
    :param cancel_answer: ``canceling``: the answer to a cancel says so even if the batch ends at once
        (reference); ``current``: it shows the batch as the next retrieve would.
    :param cancel_interrupts: whether a cancel stops unfinished requests; if not, they all finish (reference: requests
        that cannot be interrupted may finish).
    :param delete_unended: status for deleting a batch that has not ended (reference: refused; the status: none).
    :param delete_answer: status of a delete that worked (reference: 200; 204: no body).
    :param delete_again: status for deleting a deleted batch (none).
    :param retrieve_deleted: status for every other call on a deleted batch (none).
    :param first_retrieve: 404: the first retrieve of each batch finds nothing (reported by users).
    :param other_workspace: status for a batch of another workspace, see ``add_batch(foreign=True)`` (none).
    :param foreign_workspace: status for an ``anthropic-workspace-id`` that is not the key's; 200: accepted
        (reported by users: refused; the status: none).
    :param invalid_params: status for creating a batch of which some ``params`` are not valid; 200: those requests end
        as ``errored`` (reference).
    :param both_cursors: status for a page with ``after_id`` and ``before_id``; 200: ``after_id`` counts (none; the
        SDKs' own tests send both).
    :param unknown_beta: status for an ``anthropic-beta`` flag that the SDKs do not list; 200: accepted (reported by
        users: 400).
    :param list_lag: for how many seconds a new batch is not in the list yet (reported by users).
    :param retrieve_lag: for how many seconds a new batch is not found yet (reported by users).
    :param counts_lag: for how many seconds all counts of a new batch are 0 (reported by users).
    :param results_unended: status for the results of a batch that has not ended (none).
    :param results_archived: status for the results of an archived batch (none).
    :param results_host: origin that ``results_url`` names; empty: the one that was asked (reference: any URL).
    :param results_last_newline: whether the last line of the results ends in a line feed (none).
    :param list_deleted_cursor: status for paging on from a batch that is deleted meanwhile; 200: works (none).
    :param optional_fields: whether optional fields without a value are ``null`` (reference) or ``absent`` (SDKs).
    :param extra_fields: whether objects have fields that no reference documents (reference: clients accept them).
    :param times: RFC 3339 with ``Z``, with an ``offset``, or in whole ``seconds`` (reference: RFC 3339).
    :param retry_after: form of the header on 429: ``seconds`` (reference), ``date``, ``ms`` (SDKs) or ``none``.
    :param request_id: whether answers carry a ``request-id`` header (reference: they do; gateways drop it).
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
        """Yield the default, then each plausible single deviation from it; ``str()`` names each."""
        yield cls()
        for f in fields(cls):
            for value in f.metadata["others"]:
                yield cls(**{f.name: value})


_WORDS = ("cancel_answer", "optional_fields", "times", "retry_after")


def _plausible(f: Field[Any]) -> tuple[Any, ...]:
    return (f.default, *f.metadata["others"])
