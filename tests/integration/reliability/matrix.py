"""The fault matrix: how each call, and each way to wait, behaves under each fault.

The tests check every cell, and `make reliability` generates `docs/reliability.md` from the same table.
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
#: The ways that are tested with every fault; the remaining ways are tested with those of SMOKE.
FULL_WAITS = ("poke", "several, deferrable")

#: How long a fault lasts.
ONCE, LASTING, TEN_MINUTES = "once", "lasting", "10 minutes"
#: The attempts of a call with the default `max_retries`, and the seconds of all pauses between them.
ATTEMPTS = 6
PAUSES = (0.75 * 15.5, 15.5)
#: Retrievals until a 404 is confirmed, and the seconds between the first and the last.
RETRIEVALS = 4
CONFIRMING = (7.0, 7.0)
#: Attempts with a refused key, and the seconds between the first and the last.
KEY_ATTEMPTS, KEY_SECONDS = 4, (10.0, 10.0)
WORKING_KEY_ATTEMPTS, WORKING_KEY_SECONDS = 6, (60.0, 60.0)
#: Polls of an address that has never sent a valid answer, and the seconds between the first and the last.
WRONG_ADDRESS_POLLS, WRONG_ADDRESS_SECONDS = 6, (62.0, 62.0)
ANOTHER_POLL = (10.0, 10.0)
AT_ONCE = (0.0, 0.0)


@dataclass(frozen=True)
class Seen:
    """How a call or a wait ends, and the number of its requests.

    :param requests: The attempts of the call, or the requests of a wait that had the fault; None if that depends on
        the time.
    :param retrievals: Additional retrievals of the batch.
    :param lists: Additional requests for the list.
    """

    ends: str
    requests: int | None
    retrievals: int = 0
    lists: int = 0


@dataclass(frozen=True)
class Term:
    """A cell: the word on the page, and the behavior that it means."""

    word: str
    once: Seen
    lasting: Seen
    #: Seconds after which retries of a lasting fault end; None: the row has them.
    seconds: tuple[float, float] | None = AT_ONCE


SUCCESS, ERROR, TIMEOUT = "success", "error", "timeout"

# Of calls.
FAILS = Term("fails", Seen(ERROR, 1), Seen(ERROR, 1))
IN_DOUBT = Term("in doubt", Seen(ERROR, 1), Seen(ERROR, 1))
RETRIES = Term("retries", Seen(SUCCESS, 2), Seen(ERROR, ATTEMPTS), None)
FINDS_IT_GONE = Term("retries, gone", Seen(SUCCESS, 2, RETRIEVALS), Seen(ERROR, ATTEMPTS), None)
REREADS_KEY = Term("rereads the key", Seen(SUCCESS, 2), Seen(ERROR, KEY_ATTEMPTS), KEY_SECONDS)
CHECKS = Term("checks", Seen(ERROR, 1, 1), Seen(ERROR, 1, 1))
CHECKS_AND_RETRIES = Term("checks, retries", Seen(SUCCESS, 2, 1), Seen(ERROR, RETRIEVALS, RETRIEVALS), CONFIRMING)
RETRIES_AND_CHECKS = Term("retries, checks", Seen(SUCCESS, 2), Seen(ERROR, ATTEMPTS, 1), None)
RETRIEVES_AGAIN = Term("confirms", Seen(SUCCESS, 2), Seen(ERROR, RETRIEVALS), CONFIRMING)
RETRIEVES_BATCH = Term("confirms", Seen(SUCCESS, 2, 1), Seen(ERROR, 1, RETRIEVALS), CONFIRMING)
RETRIEVES_AND_LISTS = replace(RETRIEVES_BATCH, lasting=Seen(ERROR, 1, RETRIEVALS, 1))
# Of waits.
CONTINUES = Term("continues", Seen(SUCCESS, 1), Seen(TIMEOUT, None))
ENDS = Term("ends", Seen(ERROR, 1), Seen(ERROR, 1))
POLLS_AGAIN = Term("polls again", Seen(SUCCESS, 1), Seen(ERROR, 2), ANOTHER_POLL)
WAIT_REREADS_KEY = Term("rereads the key", Seen(SUCCESS, 1), Seen(ERROR, WORKING_KEY_ATTEMPTS), WORKING_KEY_SECONDS)
CONFIRMS = Term("confirms", Seen(SUCCESS, 1), Seen(ERROR, RETRIEVALS + 1), CONFIRMING)
SEVERAL_CONFIRM = Term("confirms", Seen(SUCCESS, 1), Seen(ERROR, None), CONFIRMING)
RETRIEVES = Term("retrieves", Seen(SUCCESS, 1), Seen(ERROR, None), None)
GIVES_UP = Term("gives up", Seen(SUCCESS, 1), Seen(ERROR, WRONG_ADDRESS_POLLS), WRONG_ADDRESS_SECONDS)
SEVERAL_GIVE_UP = replace(GIVES_UP, lasting=Seen(ERROR, None))


#: The page's legends; `{attempts}` and the like are replaced by the numbers above.
CALLS_LEGEND = {
    "fails": "The error is raised immediately.",
    "in doubt": (
        "The error is raised immediately. The batch may have been created anyway. Check the list of batches before you "
        "retry."
    ),
    "retries": (
        "The call is retried after 0.5, 1, 2, 4 and 8 s, each up to 25 % shorter at random, or after `retry-after`, up "
        "to 60 s. If the fault occurs once, the call succeeds. If it lasts, the error is raised after {attempts} "
        "attempts (`max_retries` + 1), and names their number."
    ),
    "retries, gone": (
        "As *retries*. The second attempt gets a 404, and so do {retrievals} retrievals over 7 s, because the first "
        "attempt has deleted the batch. The call succeeds."
    ),
    "rereads the key": (
        "The call is retried after 1, 3 and 6 s. Before each attempt the connection is read again, because the key may "
        "have been rotated. After {key_attempts} attempts over 10 s the error is raised."
    ),
    "checks": (
        "The batch is retrieved, because its state may explain the refusal: a batch that is canceling or has ended "
        "need not be canceled, and one that is still running raises `BatchNotEndedError`. If the state explains "
        "nothing, as here, the refusal is raised."
    ),
    "checks, retries": (
        "As *checks*, but the call is retried after 1, 2 and 4 s. If the fault lasts, the error is raised after "
        "{retrievals} attempts."
    ),
    "retries, checks": "As *retries*. The last refusal is raised only if the state of the batch does not explain it.",
    "confirms": (
        "One 404 is not proof, so the batch is retrieved again after 1, 2 and 4 s. `NotFoundError` is raised after "
        "{retrievals} retrievals. If the batch has been found before, for example by the retrieval before its results, "
        "the error is raised only if the list does not have it either."
    ),
}
WAITS_LEGEND = {
    "continues": (
        "The wait continues until its `timeout`. It polls again after 2, 4, 8 s ... (in the triggerer after 10, 10, "
        "10, 16 s ...) up to the poll interval, or after `retry-after`: up to 10 minutes, or up to 60 s if a 429 "
        "delays all waits of a connection. After the fault ends, the next poll succeeds. If it lasts until `timeout`, "
        "the timeout's error names it. If the list fails three times in a row, a wait for several batches also "
        "retrieves each of them. If a retrieval is answered with 404 but the list has the batch, the wait continues."
    ),
    "ends": "The wait ends immediately, because waiting longer cannot help.",
    "polls again": "The wait polls once more after 10 s, then it ends.",
    "rereads the key": (
        "The poll is retried after 1, 3, 6, 20 and 30 s. Before each attempt the connection is read again. After "
        "{working_key_attempts} attempts over 60 s the wait ends, and Airflow retries the task. If the key has never "
        "worked in this wait, the wait ends after {key_attempts} attempts over 10 s."
    ),
    "confirms": (
        "The batch is retrieved again after 1, 2 and 4 s. Then the list is read back to the time when the batch was "
        "created. The batch counts as gone only if the list does not have it. If the wait has never found the batch, "
        "the list is read only if `ignore_if_missing` is set."
    ),
    "retrieves": (
        "The batches cannot be listed, so each of them is retrieved for 10 minutes. If that works, the wait continues. "
        "If it fails in the same way, the wait ends."
    ),
    "gives up": (
        "The address is most likely wrong. The wait polls again after 2, 4, 8, 16 and 32 s. After "
        "{wrong_address_polls} polls over 62 s it ends, and Airflow retries the task."
    ),
}


@dataclass(frozen=True)
class Kind:
    """When a class of errors is raised, and what its texts advise.

    :param says: A part of every text.
    :param also: Parts of the texts for some faults.
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
        "any other refusal, and a 404 to one call on a batch that can be retrieved",
        also=(_NO_BATCHES, _NOT_THIS_CALL),
    ),
    AccessDeniedError: Kind("401, 403", f"Check password {_CONNECTION}, and that it may use batches"),
    SpendLimitError: Kind("402, or a 429 for a spend limit", "Raise the spend limit or pay the bill"),
    NotFoundError: Kind("404", "Check that the key belongs to the batch's workspace"),
    RequestTooLargeError: Kind("413", also=(_SPLIT, _SMALL)),
    RateLimitError: Kind("429", "All batch calls of the organization share one rate limit of requests a minute"),
    ServerError: Kind("408, 409 and 5xx"),
    APIConnectionError: Kind("no answer, or an incomplete one", "no answer from", also=(_CERTIFICATE,)),
    InvalidResponseError: Kind(
        "an answer that is not from the API, or cannot be read",
        also=(_UNREADABLE, _FIREWALL, _REDIRECT),
    ),
    ResultsTruncatedError: Kind("results that are incomplete, or cannot be read", "Read them again"),
    BatchTimeoutError: Kind("a wait that times out", "Increase `timeout`, or cancel it"),
}


#: The advice of refusals for which it depends on the call.
OTHER_ADVICE: dict[tuple[type[BatchesError], str], str] = {
    (RequestTooLargeError, call): _SPLIT if call == "create" else _SMALL for call in CALLS
}


@dataclass(frozen=True)
class Fault:
    """A fault.

    :param name: Its name on the page.
    :param options: Options of the emulator's `Fault`; None if the fault is in front of the API.
    :param says: The part of the error's text that is about it.
    :param seconds: Seconds that a request with this fault takes.
    """

    name: str
    options: Mapping[str, Any] | None
    says: str
    seconds: float = 0.0

    @property
    def is_foreign(self) -> bool:
        """Whether the answer is not from the API."""
        return self.options is not None and "body" in self.options


@dataclass(frozen=True)
class Row:
    """Faults with the same consequences: the first request has the first, the next request the second, and so on.

    :param calls: The behavior of each call; calls that are left out are not tested.
    :param waits: The behavior of each way to wait.
    :param error: The class of the error.
    :param everywhere: Whether all requests have the faults, not only the call of the column.
    :param title: The row's name on the page. Default: the names of the faults.
    :param answered: Whether this address has sent a valid answer before. None: for a wait, not for a call.
    :param seconds: The time after which *retries* gives up if the fault lasts.
    :param slack: Seconds by which that may be shorter, because a date has whole seconds and is in real time.
    :param asked: Seconds that the API sends as `retry-after`.
    :param retryable: Whether Airflow retries the task; None: according to the class of the error.
    :param errors: Calls with a different error: its class and its text.
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
        """The row's name on the page."""
        return self.title or ", ".join(fault.name for fault in self.faults)

    @property
    def plain_name(self) -> str:
        """The name without Markdown."""
        return self.name.replace("`", "")

    @property
    def is_applied(self) -> bool:
        """Whether the call takes effect although its answer is lost."""
        return any("applied" in (fault.options or {}) or "cut_after" in (fault.options or {}) for fault in self.faults)

    def error_of(self, call: str) -> type[BatchesError]:
        """Return the class of a call's error."""
        return self.errors.get(call, (self.error, ""))[0]


def _calls(term: Term, **others: Term) -> dict[str, Term]:
    return {call: others.get(call, term) for call in CALLS}


def _on_batch(term: Term) -> dict[str, Term]:
    """Return this term for the calls whose refusal the batch's state may explain."""
    return dict.fromkeys(("cancel", "delete", "results"), term)


def _waits(one: Term, several: Term | None = None) -> dict[str, Term]:
    return {way: several or one if way.startswith("several") else one for way in WAITS}


_TRUNCATED = {"results": (ResultsTruncatedError, "received 0 of 3")}


def _outage(error: type[BatchesError], *faults: Fault, **options: Any) -> Row:
    """Return the row of faults that prove nothing and may be temporary."""
    calls = options.pop("calls", _calls(RETRIES, create=IN_DOUBT))
    return Row(faults, error, calls, _waits(CONTINUES), **options)


def _unread(error: type[BatchesError], *faults: Fault, delete: Term = RETRIES, **options: Any) -> Row:
    """Return the row of unusable answers; results that have arrived before the fault are used."""
    options.setdefault("errors", _TRUNCATED)
    return _outage(error, *faults, calls=_calls(RETRIES, create=IN_DOUBT, delete=delete, results=FAILS), **options)


def _refused(error: type[BatchesError], *faults: Fault, **options: Any) -> Row:
    """Return the row of the API's own refusals that are final for a call."""
    changes = options.pop("calls", {})
    waits = options.pop("waits", _waits(ENDS, RETRIEVES))
    return Row(faults, error, _calls(FAILS, **changes), waits, **options)


def _status(status: int, says: str, name: str = "", **options: Any) -> Fault:
    return Fault(name or str(status), {"status": status, **options}, f"{status} {says}")


def _with(header: str, value: str, status: int = 429, says: str = "rate_limit_error") -> Fault:
    return _status(status, says, f"{status} with `{header}: {value}`", headers={header: value})


def _foreign(name: str, status: int, says: str, **options: Any) -> Fault:
    """Return an answer that is not from the API and has no request ID."""
    return Fault(name, {"status": status, **options}, says)


def _in_all(pauses: int, seconds: float) -> tuple[float, float]:
    return pauses * seconds, pauses * 1.25 * seconds


#: All calls about the batch are answered with 404, and the list does not have it.
GONE = "404 to all calls, and the list does not have the batch"
#: Seconds of `retry-after`; the tests replace A_DATE by a date so many seconds from now.
RETRY_AFTER = 30
A_DATE = "a date"
_WRONG_TYPES = (
    '{"id": 5, "processing_status": [], "request_counts": "many", "created_at": {}, "expires_at": {}, "data": 7}'
)
_ENVELOPE = '{"type": "error", "error": {"type": "%s", "message": "No access from here."}}'
_OPENAI = '{"error": {"message": "No such batch", "type": "invalid_request_error", "param": null, "code": "not_found"}}'
_HTML = "<html><head><title>Blocked</title></head><body><h1>403 Forbidden</h1></body></html>\n"
#: Foreign answers that prove nothing. All but the redirect lead to the firewall's advice.
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
        {"cancel": RETRIEVES_BATCH, "delete": RETRIEVES_BATCH, "results": RETRIEVES_AND_LISTS},
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
        Fault("read timeout", {"hang": True}, "ReadTimeout", seconds=60.0),
    ),
    _unread(
        APIConnectionError,
        Fault("an incomplete answer", {"cut_after": 9}, "RemoteProtocolError"),
        delete=FINDS_IT_GONE,
    ),
    _unread(
        InvalidResponseError,
        Fault("an incomplete answer that looks complete", {"cut_after": 9, "cut_cleanly": True}, _UNREADABLE),
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
    _outage(InvalidResponseError, *FOREIGN, title="a foreign answer, after a valid one", answered=True),
    Row(
        FOREIGN,
        InvalidResponseError,
        # Before results are read, the retrieval has had a valid answer.
        _calls(FAILS, create=IN_DOUBT, results=RETRIES),
        _waits(GIVES_UP, SEVERAL_GIVE_UP),
        title="a foreign answer, before any valid one",
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

#: The rows for the async client and the other ways to wait.
SMOKE = [
    row
    for row in ROWS
    if row.faults[0].name in ("401", GONE, "503", f"429 with `retry-after: {RETRY_AFTER}`")
    or (row.faults == FOREIGN and row.answered)
]
#: The rows of SMOKE that are also tested with a fault that occurs once.
OUTAGE = [row for row in SMOKE if row.faults[0].name == "503"]
