"""The fault matrix: what a user sees of each call, and of each way to wait, when something goes wrong.

The tests hold every cell against the product, and `docs/reliability.md` is made from the same table
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
#: The ways to wait, for one batch or for several. All use the same poller.
WAITS = {
    "poke": "the sensor in poke mode",
    "several, deferrable": "the sensor for several batches in the triggerer",
    "hook": "`hook.wait_for_batch`",
    "reschedule": "the sensor in reschedule mode",
    "deferrable": "the sensor in the triggerer",
    "cancel": "the cancel operator on its worker",
    "cancel, deferrable": "the cancel operator in the triggerer",
    "several": "the sensor for several batches on its worker",
}
#: The ways that meet every fault; the remaining ways meet those of SMOKE.
FULL_WAITS = ("poke", "several, deferrable")

#: How long a fault lasts.
ONCE, LASTING, TEN_MINUTES = "once", "lasting", "10 minutes"
#: The attempts of a call with the default `max_retries`, and the seconds of all pauses between them.
ATTEMPTS = 6
PAUSES = (0.75 * 15.5, 15.5)
#: Retrievals before a 404 is believed, and the seconds between the first and the last.
RETRIEVALS = 4
DOUBTING = (7.0, 7.0)
#: Attempts with a refused key, and the seconds between the first and the last.
KEY_ATTEMPTS, KEY_SECONDS = 4, (10.0, 10.0)
WORKING_KEY_ATTEMPTS, WORKING_KEY_SECONDS = 6, (60.0, 60.0)
#: Polls of an address that has never answered, and the seconds between the first and the last.
WRONG_ADDRESS_POLLS, WRONG_ADDRESS_SECONDS = 6, (62.0, 62.0)
ANOTHER_POLL = (10.0, 10.0)
AT_ONCE = (0.0, 0.0)


@dataclass(frozen=True)
class Seen:
    """How a call or a wait ends, and what that took.

    :param requests: How often the call was made, or how often the fault struck a wait; None if that depends on the
        time.
    :param retrievals: How often the batch was retrieved besides.
    :param lists: How often the list was read besides.
    """

    ends: str
    requests: int | None
    retrievals: int = 0
    lists: int = 0


@dataclass(frozen=True)
class Term:
    """What a cell says: a word for the page, and what it stands for."""

    word: str
    once: Seen
    lasting: Seen
    #: Seconds after which a lasting fault is given up; None if the row says so.
    seconds: tuple[float, float] | None = AT_ONCE


SUCCESS, ERROR, TIMEOUT = "success", "error", "timeout"

# Of calls.
FAILS = Term("fails", Seen(ERROR, 1), Seen(ERROR, 1))
IN_DOUBT = Term("in doubt", Seen(ERROR, 1), Seen(ERROR, 1))
RETRIES = Term("retries", Seen(SUCCESS, 2), Seen(ERROR, ATTEMPTS), None)
FINDS_IT_GONE = Term("retries, gone", Seen(SUCCESS, 2, RETRIEVALS), Seen(ERROR, ATTEMPTS), None)
REREADS_KEY = Term("rereads the key", Seen(SUCCESS, 2), Seen(ERROR, KEY_ATTEMPTS), KEY_SECONDS)
CHECKS = Term("checks", Seen(ERROR, 1, 1), Seen(ERROR, 1, 1))
CHECKS_AND_RETRIES = Term("checks, retries", Seen(SUCCESS, 2, 1), Seen(ERROR, RETRIEVALS, RETRIEVALS), DOUBTING)
RETRIES_AND_CHECKS = Term("retries, checks", Seen(SUCCESS, 2), Seen(ERROR, ATTEMPTS, 1), None)
RETRIEVES_AGAIN = Term("doubts", Seen(SUCCESS, 2), Seen(ERROR, RETRIEVALS), DOUBTING)
DOUBTS = Term("doubts", Seen(SUCCESS, 2, 1), Seen(ERROR, 1, RETRIEVALS), DOUBTING)
DOUBTS_AND_LISTS = replace(DOUBTS, lasting=Seen(ERROR, 1, RETRIEVALS, 1))
# Of waits.
CONTINUES = Term("continues", Seen(SUCCESS, 1), Seen(TIMEOUT, None))
ENDS = Term("ends", Seen(ERROR, 1), Seen(ERROR, 1))
POLLS_AGAIN = Term("polls again", Seen(SUCCESS, 1), Seen(ERROR, 2), ANOTHER_POLL)
WAIT_REREADS_KEY = Term("rereads the key", Seen(SUCCESS, 1), Seen(ERROR, WORKING_KEY_ATTEMPTS), WORKING_KEY_SECONDS)
CONFIRMS = Term("confirms", Seen(SUCCESS, 1), Seen(ERROR, RETRIEVALS + 1), DOUBTING)
SEVERAL_CONFIRM = Term("confirms", Seen(SUCCESS, 1), Seen(ERROR, None), DOUBTING)
RETRIEVES = Term("retrieves", Seen(SUCCESS, 1), Seen(ERROR, None), None)
GIVES_UP = Term("gives up", Seen(SUCCESS, 1), Seen(ERROR, WRONG_ADDRESS_POLLS), WRONG_ADDRESS_SECONDS)
SEVERAL_GIVE_UP = replace(GIVES_UP, lasting=Seen(ERROR, None))


#: The page's legends; `{attempts}` and the like are the numbers above.
CALLS_LEGEND = {
    "fails": "The error is raised immediately.",
    "in doubt": (
        "The error is raised immediately. The batch may have been created anyway. Check the list of batches before you "
        "retry."
    ),
    "retries": (
        "The call is retried after 0.5, 1, 2, 4 and 8 s, each up to a quarter shorter at random, or after as long as "
        "`retry-after` asks, 60 s at most. A fault that strikes once goes unnoticed. The error of one that lasts is "
        "raised after {attempts} attempts (`max_retries` + 1), and says so."
    ),
    "retries, gone": (
        "As *retries*. The second attempt then finds no batch, and neither do {retrievals} retrievals over 7 s: the "
        "first attempt has deleted it. This is success."
    ),
    "rereads the key": (
        "The call is retried after 1, 3 and 6 s, each time with the connection read again, because the key may have "
        "been rotated. After {key_attempts} attempts over 10 s the error is raised."
    ),
    "checks": (
        "The batch is retrieved, because its state may explain the refusal: a batch that is canceling or has ended "
        "need not be canceled, and one that is still running raises `BatchNotEndedError`. If the state explains "
        "nothing, as here, the refusal is raised."
    ),
    "checks, retries": (
        "As *checks*, but the call is retried after 1, 2 and 4 s. The error of a fault that lasts is raised after "
        "{retrievals} attempts."
    ),
    "retries, checks": "As *retries*. The last refusal is raised only if the state of the batch does not explain it.",
    "doubts": (
        "One 404 proves nothing: the batch is retrieved again after 1, 2 and 4 s. `NotFoundError` is raised after "
        "{retrievals} retrievals. If the batch has been seen before, as by the retrieval that precedes its results, "
        "the list must not have it either."
    ),
}
WAITS_LEGEND = {
    "continues": (
        "The wait continues until its `timeout`. It polls again after 2, 4, 8 s ... (in the triggerer after 10, 10, "
        "10, 16 s ...) up to the poll interval, or after as long as `retry-after` asks: 10 minutes at most, and 60 s "
        "if a 429 holds back all waits of a connection. When the fault is over, the state of the batch is seen within "
        "one such pause. If the fault lasts until `timeout`, the error of the timeout names it. If the list fails "
        "three times in a row, a wait for several batches retrieves each of them as well. If the list has a batch "
        "whose retrieval is answered with 404, the wait continues, too."
    ),
    "ends": "The wait ends immediately, because waiting longer cannot help.",
    "polls again": "The wait polls once more after 10 s, then it ends.",
    "rereads the key": (
        "The poll is retried after 1, 3, 6, 20 and 30 s, each time with the connection read again. After "
        "{working_key_attempts} attempts over 60 s the wait ends, and Airflow retries the task. If the key has never "
        "worked in this wait, it ends after {key_attempts} attempts over 10 s."
    ),
    "confirms": (
        "The batch is retrieved again after 1, 2 and 4 s. Then the list is read, down to when the batch was created. "
        "The batch is gone only if the list does not have it. A batch that the wait has never seen counts as unknown "
        "without the list, unless `ignore_if_missing` is set."
    ),
    "retrieves": (
        "The batches cannot be listed, so each is retrieved for 10 minutes. If that works, the fault goes unnoticed. "
        "If it meets the same fault, the wait ends."
    ),
    "gives up": (
        "Most likely the address is wrong. The wait polls again after 2, 4, 8, 16 and 32 s. After "
        "{wrong_address_polls} polls over 62 s it ends, and Airflow retries the task."
    ),
}


@dataclass(frozen=True)
class Kind:
    """What a class of errors is raised for, and what its texts tell the reader to do.

    :param says: What each text has.
    :param also: What the texts of some faults have.
    """

    when: str
    says: str = ""
    also: tuple[str, ...] = ()


_CONNECTION = "of connection 'anthropic_default'"
_SPLIT = "Split the batch"
_SMALL = f"This request is small, so a proxy may limit its size. Check extra.proxy {_CONNECTION}"
_NO_BATCHES = f"Check host {_CONNECTION}: it does not serve the Message Batches API"
_FIREWALL = f"a proxy or firewall answered. Check host {_CONNECTION}"
_REDIRECT = f"Redirects are not followed, so that no other host receives the key. Correct host {_CONNECTION}"
_CERTIFICATE = f"Set extra.verify {_CONNECTION} to the CA file that the host's certificate is signed with"
_UNREADABLE = "with an unreadable body"
_AN_ERROR = "status 200 with an error, api_error: "
_NOT_THIS_CALL = "the batch exists, but the API answers 404 to this call"

ERRORS: dict[type[BatchesError], Kind] = {
    APIStatusError: Kind(
        "any other refusal, and a 404 to one call about a batch that can be retrieved",
        also=(_NO_BATCHES, _NOT_THIS_CALL),
    ),
    AccessDeniedError: Kind("401, 403", f"Check password {_CONNECTION}, and that it may use batches"),
    SpendLimitError: Kind("402, or a 429 for a spend limit", "Raise the spend limit or pay the bill"),
    NotFoundError: Kind("404", "Check that the key belongs to the batch's workspace"),
    RequestTooLargeError: Kind("413", also=(_SPLIT, _SMALL)),
    RateLimitError: Kind("429", "All batch calls of the organization share one rate limit of requests a minute"),
    ServerError: Kind("408, 409 and 5xx"),
    APIConnectionError: Kind("no answer, or half of one", "no answer from", also=(_CERTIFICATE,)),
    InvalidResponseError: Kind(
        "an answer that is not from the API, or cannot be read",
        also=(_UNREADABLE, _FIREWALL, _REDIRECT),
    ),
    ResultsTruncatedError: Kind("results that are incomplete, or cannot be read", "Read them again"),
    BatchTimeoutError: Kind("a wait whose `timeout` is over", "Increase `timeout`, or cancel it"),
}


#: What a refusal says that depends on the call.
OTHER_ADVICE: dict[tuple[type[BatchesError], str], str] = {
    (RequestTooLargeError, call): _SPLIT if call == "create" else _SMALL for call in CALLS
}


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    :param name: What the page calls it.
    :param options: Those of the emulator's `Fault`; None if the fault lies before the API.
    :param says: What the error's text has of it.
    :param seconds: How long a request takes that meets it.
    """

    name: str
    options: Mapping[str, Any] | None
    says: str
    seconds: float = 0.0

    @property
    def is_foreign(self) -> bool:
        """Whether somebody else than the API answers."""
        return self.options is not None and "body" in self.options


@dataclass(frozen=True)
class Row:
    """Faults with the same consequences: a request meets the first, the next request the second, and so on.

    :param calls: What each call does about them. One that is left out does not meet them.
    :param waits: What each way to wait does about them.
    :param error: The class of the error.
    :param everywhere: Whether all requests meet them, not only those of the call that the column names.
    :param title: What the page calls the row. Default: the names of the faults.
    :param answered: Whether the API has answered at this address before. None: it has for a wait, not for a call.
    :param seconds: After how long *retries* gives up a lasting fault.
    :param slack: Seconds by which that may come out shorter: a date has whole seconds, and real ones.
    :param asked: Seconds for which the API asks not to be called.
    :param retryable: Whether Airflow retries the task, if not what the class of the error says.
    :param errors: Calls whose error is another one: its class and its text.
    """

    faults: tuple[Fault, ...]
    error: type[BatchesError]
    calls: Mapping[str, Term]
    waits: Mapping[str, Term]
    everywhere: bool = False
    title: str = ""
    answered: bool | None = None
    seconds: tuple[float, float] = PAUSES
    slack: float = 0.0
    asked: float = 0.0
    retryable: bool | None = None
    lasts: tuple[str, ...] = (ONCE, LASTING)
    errors: Mapping[str, tuple[type[BatchesError], str]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def name(self) -> str:
        """What the page calls the row."""
        return self.title or ", ".join(fault.name for fault in self.faults)

    @property
    def plain_name(self) -> str:
        """The name without the marks of the page."""
        return self.name.replace("`", "")

    @property
    def is_applied(self) -> bool:
        """Whether the call does its work, although its answer is lost."""
        return any("applied" in (fault.options or {}) or "cut_after" in (fault.options or {}) for fault in self.faults)

    def error_of(self, call: str) -> type[BatchesError]:
        """Return the class of a call's error."""
        return self.errors.get(call, (self.error, ""))[0]


def _calls(term: Term, **others: Term) -> dict[str, Term]:
    return {call: others.get(call, term) for call in CALLS}


def _on_batch(term: Term) -> dict[str, Term]:
    """Return the calls whose refusal the batch's state may explain."""
    return dict.fromkeys(("cancel", "delete", "results"), term)


def _waits(one: Term, several: Term | None = None) -> dict[str, Term]:
    return {way: several or one if way.startswith("several") else one for way in WAITS}


_TRUNCATED = {"results": (ResultsTruncatedError, "received 0 of 3")}


def _outage(error: type[BatchesError], *faults: Fault, **options: Any) -> Row:
    """Return the row of faults that prove nothing, and may be over a moment later."""
    calls = options.pop("calls", _calls(RETRIES, create=IN_DOUBT))
    return Row(faults, error, calls, _waits(CONTINUES), **options)


def _unread(error: type[BatchesError], *faults: Fault, delete: Term = RETRIES, **options: Any) -> Row:
    """Return the row of answers that cannot be used; of results, those that have come are used."""
    options.setdefault("errors", _TRUNCATED)
    return _outage(error, *faults, calls=_calls(RETRIES, create=IN_DOUBT, delete=delete, results=FAILS), **options)


def _refused(error: type[BatchesError], *faults: Fault, **options: Any) -> Row:
    """Return the row of the API's own refusals that are final for the call."""
    changes = options.pop("calls", {})
    waits = options.pop("waits", _waits(ENDS, RETRIEVES))
    return Row(faults, error, _calls(FAILS, **changes), waits, **options)


def _status(status: int, says: str, name: str = "", **options: Any) -> Fault:
    return Fault(name or str(status), {"status": status, **options}, f"{status} {says}")


def _with(header: str, value: str, status: int = 429, says: str = "rate_limit_error") -> Fault:
    return _status(status, says, f"{status} with `{header}: {value}`", headers={header: value})


def _foreign(name: str, status: int, says: str, **options: Any) -> Fault:
    """Return an answer of somebody else, without a request ID."""
    return Fault(name, {"status": status, **options}, says)


def _in_all(pauses: int, seconds: float) -> tuple[float, float]:
    return pauses * seconds, pauses * 1.25 * seconds


#: All calls about the batch are answered with 404, and the list does not have it.
GONE = "404 to all calls, and the list does not have the batch"
#: Seconds that `retry-after` asks for; the tests replace the date by one so many seconds from now.
RETRY_AFTER = 30
A_DATE = "a date"
_WRONG_TYPES = (
    '{"id": 5, "processing_status": [], "request_counts": "many", "created_at": {}, "expires_at": {}, "data": 7}'
)
_ENVELOPE = '{"type": "error", "error": {"type": "%s", "message": "No access from here."}}'
_OPENAI = '{"error": {"message": "No such batch", "type": "invalid_request_error", "param": null, "code": "not_found"}}'
_HTML = "<html><head><title>Blocked</title></head><body><h1>403 Forbidden</h1></body></html>\n"
#: Foreign answers that prove nothing. All but the redirect leave the firewall's advice.
FOREIGN = (
    _foreign("`404 page not found` as text", 404, _FIREWALL, body="404 page not found\n"),
    _foreign("a firewall's 403 as HTML", 403, _FIREWALL, body=_HTML),
    _foreign("a 401 in the API's format without a request ID", 401, _FIREWALL, body=_ENVELOPE % "authentication_error"),
    _foreign("a 401 as text", 401, _FIREWALL, body="Unauthorized\n"),
    _foreign("a gateway's 404 in OpenAI's format", 404, _FIREWALL, body=_OPENAI),
    _foreign("a redirect", 302, _REDIRECT, body="", headers={"location": "https://login.example.com/"}),
)

ROWS = [
    _refused(
        APIStatusError,
        _status(400, "invalid_request_error"),
        calls=_on_batch(CHECKS),
    ),
    Row(
        (_status(401, "authentication_error"),),
        AccessDeniedError,
        _calls(REREADS_KEY),
        _waits(WAIT_REREADS_KEY),
    ),
    Row(
        (_status(403, "permission_error"),),
        AccessDeniedError,
        _calls(REREADS_KEY, **_on_batch(CHECKS_AND_RETRIES)),
        _waits(WAIT_REREADS_KEY, RETRIEVES),
    ),
    _refused(
        SpendLimitError,
        _status(402, "billing_error"),
        _status(429, "rate_limit_error", "429 for a spend limit", error_code="enforced_spend_limit_reached"),
        waits=_waits(POLLS_AGAIN),
    ),
    Row(
        (_status(404, "", "404 to this call alone"),),
        APIStatusError,
        {"create": FAILS, "retrieve": RETRIEVES_AGAIN, "list": FAILS, **_on_batch(CHECKS_AND_RETRIES)},
        _waits(CONTINUES, RETRIEVES),
        errors={
            "create": (APIStatusError, "404 not_found_error"),
            "retrieve": (NotFoundError, "was not found"),
            "list": (APIStatusError, _NO_BATCHES),
            **dict.fromkeys(("cancel", "delete", "results"), (APIStatusError, _NOT_THIS_CALL)),
            "poke": (InvalidResponseError, "answers 404 when it is retrieved"),
            "several, deferrable": (APIStatusError, _NO_BATCHES),
        },
    ),
    Row(
        (Fault(GONE, {"status": 404}, "was not found"),),
        NotFoundError,
        {"cancel": DOUBTS, "delete": DOUBTS, "results": DOUBTS_AND_LISTS},
        _waits(CONFIRMS, SEVERAL_CONFIRM),
        everywhere=True,
    ),
    _outage(
        ServerError,
        _status(409, "conflict_error"),
        calls=_calls(RETRIES, create=IN_DOUBT, **_on_batch(CHECKS_AND_RETRIES)),
    ),
    _refused(RequestTooLargeError, _status(413, "request_too_large")),
    _refused(
        RequestTooLargeError,
        _foreign("413 as HTML", 413, "413 Request Entity Too Large", html=True),
        calls={"create": IN_DOUBT},
    ),
    _outage(
        RateLimitError,
        _with("retry-after", str(RETRY_AFTER)),
        _with("retry-after-ms", f"{RETRY_AFTER}000"),
        _with("retry-after", A_DATE),
        calls=_calls(RETRIES),
        seconds=_in_all(ATTEMPTS - 1, RETRY_AFTER),
        asked=RETRY_AFTER,
        slack=10,
    ),
    _outage(
        RateLimitError,
        _with("retry-after", "86400"),
        calls=_calls(RETRIES),
        seconds=(300.0, 300.0),
        asked=60,
    ),
    _outage(
        RateLimitError,
        _status(429, "rate_limit_error", "429 without `retry-after`"),
        _with("retry-after", "0"),
        _with("retry-after", "soon"),
        calls=_calls(RETRIES),
    ),
    _outage(
        RateLimitError,
        _foreign("429 as HTML", 429, "429 Too Many Requests", html=True),
    ),
    _outage(
        ServerError,
        _status(503, "api_error"),
        _status(500, "api_error"),
        _status(504, "timeout_error"),
        _status(529, "overloaded_error"),
        _status(408, "invalid_request_error"),
        _foreign("502 as HTML", 502, "502 Bad Gateway", html=True),
    ),
    _outage(
        ServerError,
        _with("x-should-retry", "false", 503, "api_error"),
        calls=_calls(FAILS, create=IN_DOUBT),
        retryable=False,
    ),
    _refused(
        APIStatusError,
        _with("x-should-retry", "true", 400, "invalid_request_error"),
        calls=_calls(RETRIES, **_on_batch(RETRIES_AND_CHECKS)),
        retryable=True,
    ),
    _outage(
        APIConnectionError,
        Fault("connection refused", None, "ConnectError"),
        Fault("TLS error", None, _CERTIFICATE),
        Fault("DNS failure", None, "Name or service not known"),
        calls=_calls(RETRIES),
    ),
    _outage(
        APIConnectionError,
        Fault("connection reset", {"drop": True, "reset": True}, "ReadError"),
        Fault("a read that hangs", {"hang": True}, "ReadTimeout", seconds=60.0),
    ),
    _unread(
        APIConnectionError,
        Fault("an incomplete answer", {"cut_after": 9}, "RemoteProtocolError"),
        delete=FINDS_IT_GONE,
    ),
    _unread(
        InvalidResponseError,
        Fault("an incomplete answer that looks whole", {"cut_after": 9, "cut_cleanly": True}, _UNREADABLE),
        delete=FINDS_IT_GONE,
        answered=True,
        errors={**_TRUNCATED, "delete": (InvalidResponseError, "The answer is not from the API")},
    ),
    _unread(
        InvalidResponseError,
        _foreign("200 with HTML", 200, _UNREADABLE, html=True),
        _foreign("with broken JSON", 200, _UNREADABLE, body='{"id": "msgbatch_1",\n'),
        _foreign("with an error", 200, _AN_ERROR, body=_ENVELOPE % "api_error"),
        _foreign("with wrong types", 200, _UNREADABLE, body=_WRONG_TYPES),
        errors={"results": (ResultsTruncatedError, "result 1 is not a valid result")},
    ),
    _outage(
        APIConnectionError,
        Fault("an answer lost after the change was made", {"drop": True, "applied": True}, "RemoteProtocolError"),
        calls=_calls(RETRIES, create=IN_DOUBT, delete=FINDS_IT_GONE),
    ),
    _outage(InvalidResponseError, *FOREIGN, title="a foreign answer, after a right one", answered=True),
    Row(
        FOREIGN,
        InvalidResponseError,
        # Of results, the retrieval before them has been answered.
        _calls(FAILS, create=IN_DOUBT, results=RETRIES),
        _waits(GIVES_UP, SEVERAL_GIVE_UP),
        title="a foreign answer, before any right one",
        answered=False,
    ),
    _outage(
        ServerError,
        Fault("10 minutes of 503", {"status": 503}, "503 api_error"),
        calls={},
        everywhere=True,
        lasts=(TEN_MINUTES,),
    ),
    _outage(
        APIConnectionError,
        Fault("10 minutes without a connection", None, "ConnectError"),
        calls={},
        lasts=(TEN_MINUTES,),
    ),
]

#: The rows that the async client and the other ways to wait meet.
SMOKE = [
    row
    for row in ROWS
    if row.faults[0].name in ("401", GONE, "503", f"429 with `retry-after: {RETRY_AFTER}`")
    or (row.faults == FOREIGN and row.answered)
]
#: The rows that do so for a moment, too.
OUTAGE = [row for row in SMOKE if row.faults[0].name == "503"]
