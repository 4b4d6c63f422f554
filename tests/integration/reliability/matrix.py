"""The fault matrix: what a user sees of each call, and of each way to wait, when something goes wrong.

The tests hold every cell against the product, and `docs/reliability.md` is made of the same table
(`make reliability`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from airflow_provider_batches.api import (
    AccessDeniedError,
    APIConnectionError,
    APIStatusError,
    BatchesError,
    BatchTimeoutError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTooLargeError,
    ResultsTruncatedError,
    ServerError,
    SpendLimitError,
)

#: The calls, and the methods of the hook that make them.
CALLS = {
    "create": "create_batch",
    "retrieve": "get_batch",
    "list": "list_batches",
    "cancel": "cancel_batch",
    "delete": "delete_batch",
    "results": "stream_batch_results",
}
#: The ways to wait. The last two wait for several batches, and look at them through the list.
WAITS = {
    "hook": "`hook.wait_for_batch`",
    "poke": "the sensor in poke mode",
    "reschedule": "the sensor in reschedule mode",
    "deferrable": "the sensor in the triggerer",
    "cancel": "the cancel operator on its worker",
    "cancel, deferrable": "the cancel operator in the triggerer",
    "several": "the sensor for several batches on its worker",
    "several, deferrable": "the sensor for several batches in the triggerer",
}
ONE = tuple(way for way in WAITS if not way.startswith("several"))

#: How long a fault lasts.
ONCE, LASTING, TEN_MINUTES = "once", "lasting", "10 minutes"
#: The attempts of a call with the default `max_retries`, and the seconds of all pauses between them.
ATTEMPTS = 6
PAUSES = (0.75 * 15.5, 15.5)
#: Seconds over which a batch is looked for before a 404 is believed.
LOOKS = 4
LOOKING = (7.0, 7.0)
AT_ONCE = (0.0, 0.0)


@dataclass(frozen=True)
class Seen:
    """How a call or a wait ends, and what that took.

    :param requests: How often the call was made, or the fault met during a wait; None where that depends on the time.
    :param looks: How often the batch was looked at besides.
    """

    ends: str
    requests: int | None
    looks: int = 0


@dataclass(frozen=True)
class Term:
    """What a cell says: a word for the page, and what it stands for."""

    word: str
    once: Seen
    lasting: Seen
    #: Seconds after which a lasting fault is given up; None where the row says so.
    seconds: tuple[float, float] | None = AT_ONCE


SUCCESS, ERROR, TIMEOUT = "success", "error", "timeout"

# Of calls.
FAILS = Term("fails", Seen(ERROR, 1), Seen(ERROR, 1))
IN_DOUBT = Term("in doubt", Seen(ERROR, 1), Seen(ERROR, 1))
AGAIN = Term("again", Seen(SUCCESS, 2), Seen(ERROR, ATTEMPTS), None)
LOOKS_FIRST = Term("looks", Seen(ERROR, 1, 1), Seen(ERROR, 1, 1))
LOOKS_AND_AGAIN = Term("looks, again", Seen(SUCCESS, 2, 1), Seen(ERROR, LOOKS, LOOKS), LOOKING)
DOUBTS_OWN = Term("doubts", Seen(SUCCESS, 2), Seen(ERROR, LOOKS), LOOKING)
DOUBTS = Term("doubts", Seen(SUCCESS, 2, 1), Seen(ERROR, 1, LOOKS), LOOKING)
FINDS_IT_GONE = Term("again, gone", Seen(SUCCESS, 2, LOOKS), Seen(ERROR, ATTEMPTS), None)
# Of waits.
WAITS_ON = Term("waits on", Seen(SUCCESS, 1), Seen(TIMEOUT, None))
ENDS = Term("ends", Seen(ERROR, 1), Seen(ERROR, 1))
WAIT_DOUBTS = Term("doubts", Seen(SUCCESS, 1), Seen(ERROR, LOOKS), LOOKING)
SEVERAL_DOUBT = Term("doubts", Seen(SUCCESS, 1), Seen(ERROR, None), LOOKING)
RETRIEVES = Term("retrieves", Seen(SUCCESS, 1), Seen(ERROR, None))

#: The page's legend; `{attempts}` and the like are the numbers above.
LEGEND = {
    "fails": "The error is raised at once.",
    "in doubt": (
        "The error is raised at once. The batch may have been created all the same: the error says to look into the "
        "list of batches before trying again."
    ),
    "again": (
        "The call is made again, after pauses of 0.5, 1, 2, 4 and 8 s, up to a quarter shorter by chance, or as "
        "`retry-after` asks. A fault that strikes once is not noticed; the error of one that lasts is raised after "
        "{attempts} requests (`max_retries` + 1), and says so."
    ),
    "again, gone": (
        "As *again*. The second request then finds no batch, and the {looks} looks of *doubts* do not either: what is "
        "gone has been deleted by the first one. Success."
    ),
    "looks": (
        "The batch is looked at, since the refusal may be about its state: what is canceling or has ended need not be "
        "canceled, and what still runs is said to run (`BatchNotEndedError`). Where the state explains nothing, as "
        "here, the API's refusal is raised."
    ),
    "looks, again": (
        "As *looks*, but the call is made again after 1, 2 and 4 s: the error of a fault that lasts is raised after "
        "{looks} requests."
    ),
    "doubts": (
        "A 404 is believed only once the batch was looked for {looks} times over 7 s. One that passes is not noticed."
    ),
    "waits on": (
        "The wait goes on: it looks again after 2, 4, 8 s ... (in the triggerer 10, 10, 10, 16 s ...) up to the poll "
        "interval, or as `retry-after` asks: 10 minutes at most, and 60 s where a 429 holds all waits of a connection "
        "back. What has become of the batch meanwhile is seen one such pause after the end of the trouble at the "
        "latest. Trouble that lasts until `timeout` is told in the error of the timeout. Where only the list is in "
        "trouble, several batches are retrieved one by one after its third failure."
    ),
    "ends": "The wait ends at once: to ask again is of no use.",
    "retrieves": (
        "The batches can no longer be listed, so each is retrieved for 10 minutes. Where that is answered, nothing is "
        "noticed; where it meets the same fault, the wait ends."
    ),
}


@dataclass(frozen=True)
class Kind:
    """What the errors of a class say to do, and whether an operator that raises it is worth Airflow's retries."""

    when: str
    says: str
    retried: bool


ERRORS: dict[type[BatchesError], Kind] = {
    APIStatusError: Kind("any other refusal, and a 404 to one call where a look finds the batch", "", False),
    AccessDeniedError: Kind("401, 403", "Check the API key in the connection's password", False),
    SpendLimitError: Kind("402, or a 429 for a spend limit", "It goes on until somebody raises the limit", False),
    NotFoundError: Kind("404", "Check first that the key belongs to the batch's workspace", False),
    RequestTooLargeError: Kind("413", "Split the batch", False),
    RateLimitError: Kind("429", "All batch calls of the organization share one limit of requests a minute", True),
    ServerError: Kind("408, 409 and 5xx", "", True),
    APIConnectionError: Kind("no answer, or half of one", "no answer from", True),
    InvalidResponseError: Kind("an answer that cannot be read", "with an unreadable body", True),
    ResultsTruncatedError: Kind("results that are cut short, or cannot be read", "Read them again", True),
    BatchTimeoutError: Kind("a wait whose `timeout` is over", "wait longer (timeout), or cancel it", True),
}
#: What a refusal says instead where its usual advice does not fit the call.
OTHER_ADVICE = {
    (NotFoundError, "create"): "Check the connection's host",
    (NotFoundError, "list"): "Check the connection's host",
    **{(RequestTooLargeError, call): "check the proxy on the way to the API" for call in CALLS if call != "create"},
}


@dataclass(frozen=True)
class Row:
    """One fault.

    :param trouble: What the emulator does (options of its `Fault`), or what is wrong on the way to it.
    :param error: The class of the error.
    :param says: What the error's text holds of the fault.
    :param calls: What each call does about it.
    :param waits: What each way to wait does about it.
    :param everywhere: Whether all calls meet it, not only the one that the column names.
    :param seconds: After how long a lasting fault is given up by *again*.
    :param each: Seconds that each request takes.
    :param slack: Seconds by which that may come out shorter: a date has whole seconds only, and they are real ones.
    :param seldom: Seconds that a wait leaves the API alone because it asks for that.
    """

    name: str
    trouble: Mapping[str, Any] | str
    error: type[BatchesError]
    says: str
    calls: Mapping[str, Term]
    waits: Mapping[str, Term]
    everywhere: bool = False
    seconds: tuple[float, float] = PAUSES
    each: float = 0.0
    slack: float = 0.0
    seldom: float = 0.0
    lasts: tuple[str, ...] = (ONCE, LASTING)
    #: Where another error is raised than that of the row: its class and its text.
    errors: Mapping[str, tuple[type[BatchesError], str]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def plain_name(self) -> str:
        """The name without the marks of the page."""
        return self.name.replace("`", "")

    @property
    def applied(self) -> bool:
        """Whether the call has done its work, though nobody is told."""
        return not isinstance(self.trouble, str) and ("applied" in self.trouble or "cut_after" in self.trouble)

    def error_of(self, call: str) -> tuple[type[BatchesError], str]:
        """Return the class of a call's error, and what its text holds."""
        return self.errors.get(call, (self.error, self.says))


def _calls(term: Term, **others: Term) -> dict[str, Term]:
    return {call: others.get(call, term) for call in CALLS}


def _waits(one: Term, several: Term | None = None) -> dict[str, Term]:
    return {way: one if way in ONE else several or one for way in WAITS}


def _passing(
    name: str, trouble: Mapping[str, Any] | str, error: type[BatchesError], says: str, /, **options: Any
) -> Row:
    """Return the row of a fault that may be over a moment later."""
    doubt = error is not RateLimitError
    calls = options.pop("calls", _calls(AGAIN, create=IN_DOUBT if doubt else FAILS))
    return Row(name, trouble, error, says, calls, _waits(WAITS_ON), **options)


def _final(status: int, error: type[BatchesError], says: str, calls: Term, several: Term, **fault: Any) -> Row:
    """Return the row of a refusal that stays until somebody changes something."""
    changes = {"cancel": calls, "delete": calls, "results": calls}
    name = f"{status}{fault.pop('name', '')}"
    return Row(name, {"status": status, **fault}, error, says, _calls(FAILS, **changes), _waits(ENDS, several))


def _unsent(name: str, says: str) -> Row:
    """Return the row of a connection that does not come about: even a create may be made again."""
    return _passing(name, name, APIConnectionError, says, calls=_calls(AGAIN))


def _unread(name: str, says: str, cut: str, delete: Term = AGAIN, **fault: Any) -> Row:
    """Return the row of an answer that cannot be used; of results, what came before is used."""
    kind = APIConnectionError if says == "RemoteProtocolError" else InvalidResponseError
    calls = _calls(AGAIN, create=IN_DOUBT, delete=delete, results=FAILS)
    return _passing(name, fault, kind, says, calls=calls, errors={"results": (ResultsTruncatedError, cut)})


def _asked(header: str, value: str, **options: Any) -> Row:
    """Return the row of a 429 with a header that says when to come again."""
    name = f"429 with `{header}: {value}`"
    trouble = {"status": 429, "headers": {header: value}}
    return _passing(name, trouble, RateLimitError, "429 rate_limit_error", **options)


def _five_times(seconds: float) -> tuple[float, float]:
    return 5 * seconds, 5 * 1.25 * seconds


#: A date that the tests replace by one so many seconds from now.
DATE_SECONDS = 30
WRONG_TYPES = (
    '{"id": 5, "processing_status": [], "request_counts": "many", "created_at": {}, "expires_at": {}, "data": 7}'
)

ROWS = [
    _final(400, APIStatusError, "400 invalid_request_error", LOOKS_FIRST, RETRIEVES),
    _final(401, AccessDeniedError, "401 authentication_error", FAILS, ENDS),
    _final(402, SpendLimitError, "402 billing_error", FAILS, ENDS),
    _final(403, AccessDeniedError, "403 permission_error", LOOKS_FIRST, RETRIEVES),
    Row(
        "404",
        {"status": 404},
        NotFoundError,
        "",
        {"create": FAILS, "retrieve": DOUBTS_OWN, "list": FAILS, "cancel": DOUBTS, "delete": DOUBTS, "results": DOUBTS},
        _waits(WAIT_DOUBTS, SEVERAL_DOUBT),
        everywhere=True,
    ),
    _passing("408", {"status": 408}, ServerError, "408"),
    _passing(
        "409",
        {"status": 409},
        ServerError,
        "409 conflict_error",
        calls=_calls(LOOKS_AND_AGAIN, create=FAILS, retrieve=AGAIN, list=AGAIN),
    ),
    _final(413, RequestTooLargeError, "413", FAILS, RETRIEVES, html=True, name=" as HTML"),
    _asked("retry-after", "7", seconds=_five_times(7), seldom=7),
    _asked("retry-after-ms", "1500", seconds=_five_times(1.5)),
    _asked("retry-after", "a date", seconds=_five_times(DATE_SECONDS), seldom=DATE_SECONDS, slack=50),
    _asked("retry-after", "86400", seconds=(300.0, 300.0), seldom=600),
    _asked("retry-after", "0"),
    _asked("retry-after", "soon"),
    _passing("429 without `retry-after`", {"status": 429}, RateLimitError, "429 rate_limit_error"),
    _final(
        429,
        SpendLimitError,
        "429 rate_limit_error",
        FAILS,
        ENDS,
        error_code="enforced_spend_limit_reached",
        name=" for a spend limit",
    ),
    _passing("500", {"status": 500}, ServerError, "500 api_error"),
    _passing("502 as HTML", {"html": True}, ServerError, "502 Bad Gateway"),
    _passing("503", {"status": 503}, ServerError, "503 api_error"),
    _passing("504", {"status": 504}, ServerError, "504 timeout_error"),
    _passing("529", {"status": 529}, ServerError, "529 overloaded_error"),
    _unsent("connection refused", "ConnectError"),
    _unsent("TLS error", "Name the CA file"),
    _unsent("DNS failure", "Name or service not known"),
    _passing("connection reset", {"drop": True, "reset": True}, APIConnectionError, "ReadError"),
    _passing(
        "a read that hangs",
        {"hang": True},
        APIConnectionError,
        "ReadTimeout",
        each=60.0,
    ),
    _unread("an answer cut short", "RemoteProtocolError", "0 of 3 came", FINDS_IT_GONE, cut_after=9),
    _unread(
        "an answer cut short that looks whole",
        "body: Invalid JSON",
        "0 of 3 came",
        replace(FINDS_IT_GONE, lasting=FINDS_IT_GONE.once),
        cut_after=9,
        cut_cleanly=True,
    ),
    _unread("wrong JSON", "body: Invalid JSON", "result 1 is no whole result", body='{"id": "msgbatch_1",\n'),
    _unread("wrong types", "Input should be a valid", "result 1 is no whole result", body=WRONG_TYPES),
    _passing(
        "an answer lost after the change was made",
        {"drop": True, "applied": True},
        APIConnectionError,
        "RemoteProtocolError",
        calls=_calls(AGAIN, create=IN_DOUBT, delete=FINDS_IT_GONE),
    ),
    _passing(
        "10 minutes of 503",
        {"status": 503},
        ServerError,
        "503 api_error",
        everywhere=True,
        lasts=(TEN_MINUTES,),
    ),
    _passing(
        "10 minutes without a connection",
        "connection refused",
        APIConnectionError,
        "ConnectError",
        calls=_calls(AGAIN),
        lasts=(TEN_MINUTES,),
    ),
]
