from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_batches._compat import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralError,
)
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.emulator import Behavior, Emulator, Fault
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.sensors.batches import BatchEndedSensor
from airflow_provider_batches.triggers.batches import BatchEndedTrigger
from airflow_provider_batches.waiting import wait
from airflow_provider_batches.waiting.poller import Poller
from tests.integration.conftest import set_everywhere

try:  # 3.2+
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # 3.0, 3.1
    from airflow.exceptions import TaskDeferred

DAY = 24 * 60 * 60
#: Seconds between a batch's first poll and its end, and between polls: real ones, so as short as they can be.
SOON = 0.1
POLL = 0.03

MODES: dict[str, tuple[dict[str, Any], int]] = {
    "poke": ({"mode": "poke"}, 0),
    "reschedule": ({"mode": "reschedule"}, 0),
    "deferrable": ({"deferrable": True}, 0),
    "deferrable-restarted": ({"deferrable": True}, 1),
}
SEVERAL_MODES = {name: mode for name, mode in MODES.items() if name != "deferrable-restarted"}
NO_BATCHES = json.dumps({"data": [], "has_more": False})
ENVELOPE = json.dumps({"type": "error", "error": {"type": "not_found_error", "message": "No such route"}})

Prepare = Callable[[Emulator], str]


def _running(api: Emulator) -> str:
    return api.add_batch(10)


def _ended(api: Emulator) -> str:
    return api.add_batch(10, status="ended")


def _ends(outcomes: dict[str, int] | None = None) -> Prepare:
    return lambda api: api.add_batch(10, status="in_progress", batch_seconds=SOON, outcomes=outcomes)


def _canceled(api: Emulator) -> str:
    return api.add_batch(10, status="canceling", cancel_seconds=SOON, outcomes={"canceled": 10})


def _expires(api: Emulator) -> str:
    return api.add_batch(10, age_seconds=DAY - SOON, batch_seconds=2 * DAY, outcomes={"expired": 10})


def _unknown(api: Emulator) -> str:
    return "msgbatch_01Unknown"


def _faulty(batch: Prepare, endpoint: str = "retrieve", **fault: Any) -> Prepare:
    def prepare(api: Emulator) -> str:
        api.fault(Fault(endpoint, **fault))
        return batch(api)

    return prepare


def _without_request_ids(batch: Prepare) -> Prepare:
    def prepare(api: Emulator) -> str:
        api.behavior = Behavior(request_id=False)
        return batch(api)

    return prepare


@dataclass(frozen=True)
class Case:
    """One way in which a wait can end."""

    name: str
    prepare: Prepare
    state: str
    error: type[BaseException] | None = None
    says: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    #: `request_counts` of the XCom `batch`; None if there is no such XCom.
    counts: dict[str, int] | None = None


FAIL, SKIP, RETRY = AirflowFailException, AirflowSkipException, AirflowException
TIMES_OUT = AirflowSensorTimeout
PARTLY = {"succeeded": 7, "errored": 3}
FOREVER: dict[str, Any] = {"times": None}
LATER: dict[str, Any] = {"times": None, "after": 1}
TIMEOUT = {"timeout": SOON}
#: Long enough for a busy machine to poll twice.
TWO_POLLS = {"timeout": 10 * SOON}
IGNORE = {"ignore_if_missing": True}
NEVER_ENDS = ("had not ended", "in_progress", "10 requests", "Increase `timeout`, or cancel it")
KEY_REFUSED = ("401", "password of connection 'anthropic_default'", "request-id req_")
RUNNING = {"processing": 10}
SPEND_LIMIT: dict[str, Any] = {"status": 429, "error_code": "enforced_spend_limit_reached"}
PROXY_PAGE: dict[str, Any] = {"html": True, "status": 404}

CASES = [
    Case("has ended", _ended, "success", counts={"succeeded": 10}),
    Case("ends", _ends(), "success", counts={"succeeded": 10}),
    Case("partly errored", _ends(PARTLY), "success", counts=PARTLY),
    Case(
        "partly errored and fail_on_partial_error",
        _ends(PARTLY),
        "failed",
        FAIL,
        ("7 succeeded, 3 errored of 10 requests", "3 requests did not succeed", "fail_on_partial_error"),
        {"fail_on_partial_error": True},
        PARTLY,
    ),
    Case(
        "partly errored and fail_on_partial_error and soft_fail",
        _ends(PARTLY),
        "skipped",
        SKIP,
        ("soft_fail is set", "3 requests did not succeed"),
        {"fail_on_partial_error": True, "soft_fail": True},
        PARTLY,
    ),
    Case("canceled", _canceled, "success", counts={"canceled": 10}),
    Case(
        "canceled and fail_on_partial_error",
        _canceled,
        "success",
        options={"fail_on_partial_error": True},
        counts={"canceled": 10},
    ),
    Case("expired", _expires, "success", counts={"expired": 10}),
    Case(
        "expired and fail_on_partial_error",
        _expires,
        "failed",
        FAIL,
        ("10 expired", "fail_on_partial_error"),
        {"fail_on_partial_error": True},
        {"expired": 10},
    ),
    Case("missing", _unknown, "failed", FAIL, ("was not found", "workspace", "not been deleted", "ID")),
    Case("missing and ignored", _unknown, "success", options=IGNORE),
    Case("missing and soft_fail", _unknown, "skipped", SKIP, ("soft_fail", "was not found"), {"soft_fail": True}),
    Case("missing and never_fail", _unknown, "skipped", SKIP, ("never_fail", "was not found"), {"never_fail": True}),
    Case("404 three times at first", _faulty(_ends(), status=404, times=3), "success", counts={"succeeded": 10}),
    Case(
        "deleted during the wait",
        _faulty(_faulty(_running, status=404, **LATER), "list", body=NO_BATCHES, **FOREVER),
        "failed",
        FAIL,
        ("was not found", "not been deleted"),
        counts=RUNNING,
    ),
    Case(
        "404 during the wait but listed",
        _faulty(_running, status=404, **LATER),
        "failed",
        TIMES_OUT,
        ("had not ended",),
        {**TWO_POLLS, **IGNORE},
        RUNNING,
    ),
    Case(
        "404 at first but listed and ignored",
        _faulty(_running, status=404, **FOREVER),
        "failed",
        TIMES_OUT,
        ("had not ended",),
        {**TIMEOUT, **IGNORE},
    ),
    Case(
        "missing and ignored but no list",
        _faulty(_unknown, "list", status=500, **FOREVER),
        "failed",
        TIMES_OUT,
        ("had not ended",),
        {**TIMEOUT, **IGNORE},
    ),
    Case(
        "404 pages of a proxy from the start",
        _faulty(_running, **PROXY_PAGE, **FOREVER),
        "retry",
        RETRY,
        ("404", "a proxy or firewall answered", "host of connection 'anthropic_default'"),
    ),
    Case(
        "404 pages of a proxy from the start and ignored",
        _faulty(_running, **PROXY_PAGE, **FOREVER),
        "retry",
        RETRY,
        ("a proxy or firewall answered",),
        IGNORE,
    ),
    Case(
        "404 pages of a proxy during the wait",
        _faulty(_running, **PROXY_PAGE, **LATER),
        "failed",
        TIMES_OUT,
        ("had not ended", "a proxy or firewall answered"),
        TWO_POLLS,
        RUNNING,
    ),
    Case(
        "404 pages of a proxy during the wait and ignored",
        _faulty(_running, **PROXY_PAGE, **LATER),
        "failed",
        TIMES_OUT,
        ("had not ended", "a proxy or firewall answered"),
        {**TWO_POLLS, **IGNORE},
        RUNNING,
    ),
    Case(
        "404 without a request ID during the wait and ignored",
        _without_request_ids(_faulty(_running, status=404, body=ENVELOPE, **LATER)),
        "failed",
        TIMES_OUT,
        ("had not ended", "No such route"),
        {**TWO_POLLS, **IGNORE},
        RUNNING,
    ),
    Case(
        "404 pages of a proxy for a while", _faulty(_ends(), **PROXY_PAGE, times=4), "success", counts={"succeeded": 10}
    ),
    Case("timeout", _running, "failed", TIMES_OUT, NEVER_ENDS, TIMEOUT, RUNNING),
    Case(
        "timeout and soft_fail",
        _running,
        "skipped",
        SKIP,
        ("soft_fail", *NEVER_ENDS),
        {**TIMEOUT, "soft_fail": True},
        RUNNING,
    ),
    Case(
        "timeout and never_fail",
        _running,
        "skipped",
        SKIP,
        ("never_fail", *NEVER_ENDS),
        {**TIMEOUT, "never_fail": True},
        RUNNING,
    ),
    Case(
        "execution_timeout",
        _running,
        "retry",
        AirflowTaskTimeout,
        NEVER_ENDS,
        {"execution_timeout": timedelta(seconds=SOON)},
        RUNNING,
    ),
    Case(
        "execution_timeout and soft_fail",
        _running,
        "skipped",
        SKIP,
        NEVER_ENDS,
        {"execution_timeout": timedelta(seconds=SOON), "soft_fail": True},
        RUNNING,
    ),
    Case(
        "timeout before execution_timeout",
        _running,
        "failed",
        TIMES_OUT,
        NEVER_ENDS,
        {**TIMEOUT, "execution_timeout": timedelta(hours=1)},
        RUNNING,
    ),
    Case("401", _faulty(_running, status=401, **FOREVER), "retry", RETRY, KEY_REFUSED),
    Case("401 during the wait", _faulty(_running, status=401, **LATER), "retry", RETRY, KEY_REFUSED, counts=RUNNING),
    Case("401 three times", _faulty(_ends(), status=401, times=3), "success", counts={"succeeded": 10}),
    Case(
        "403 during the wait and soft_fail",
        _faulty(_running, status=403, **LATER),
        "retry",
        RETRY,
        ("403",),
        {"soft_fail": True},
        RUNNING,
    ),
    Case(
        "403 and never_fail", _faulty(_running, status=403, **FOREVER), "skipped", SKIP, ("403",), {"never_fail": True}
    ),
    Case("spend limit", _faulty(_running, **SPEND_LIMIT, **FOREVER), "failed", FAIL, ("429", "limit")),
    Case("spend limit that is raised", _faulty(_ends(), **SPEND_LIMIT), "success", counts={"succeeded": 10}),
    Case(
        "outage that says not to retry",
        _faulty(_ends(), status=503, headers={"x-should-retry": "false"}, times=3),
        "success",
        counts={"succeeded": 10},
    ),
    Case("outage from the start", _faulty(_ends(), status=529, times=4), "success", counts={"succeeded": 10}),
    Case(
        "outage without an end",
        _faulty(_running, status=500, **FOREVER),
        "failed",
        TIMES_OUT,
        ("had not ended", "no poll has succeeded", "500", "request-id req_"),
        TIMEOUT,
    ),
    Case(
        "rate limit without an end",
        _faulty(_running, status=429, **FOREVER),
        "failed",
        TIMES_OUT,
        ("had not ended", "requests a minute"),
        TIMEOUT,
    ),
    Case("not an ID", lambda _: "msgbatch_1/../2", "failed", FAIL, ("batch_id", "'/'")),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_every_mode_ends_the_same_way(case: Case, mode: str, api: Emulator, runner: Any) -> None:
    options, restarts = MODES[mode]
    batch_id = case.prepare(api)

    run = runner(restarts)(BatchEndedSensor, batch_id=batch_id, poke_interval=POLL, **options, **case.options)

    assert (run.state, type(run.error) if run.error else None) == (case.state, case.error), run.error
    assert all(text in run.text for text in case.says), run.text
    assert case.error is None or batch_id in run.text
    assert run.value == (batch_id if case.state == "success" else None)
    # The process that ends the wait has no snapshot if an earlier one has seen the batch.
    blind = mode != "poke" and case.error and "during" in case.name and not run.xcom
    if case.counts is None or blind:
        assert run.xcom == {}
    else:
        counts = {name: count for name, count in run.xcom["batch"]["request_counts"].items() if count}
        assert (run.xcom["batch"]["id"], counts) == (batch_id, case.counts)


@pytest.mark.parametrize("mode", MODES)
def test_a_key_that_is_rotated_while_it_is_doubted_ends_no_wait(
    mode: str, api: Emulator, runner: Any, connect: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, restarts = MODES[mode]
    connect(password="sk-ant-former", host=api.url)
    get_connection = BatchesHook.get_connection

    def rotate(_: Any, conn_id: str) -> Any:
        connection = get_connection(conn_id)
        connect(host=api.url)
        return connection

    monkeypatch.setattr(BatchesHook, "get_connection", classmethod(rotate))
    batch_id = api.add_batch(10, status="in_progress", batch_seconds=SOON)

    done = runner(restarts)(BatchEndedSensor, batch_id=batch_id, poke_interval=POLL, **options)

    assert (done.state, done.value) == ("success", batch_id), done.error
    assert [request.status for request in api.requests].count(401) == 1


class Clock:
    """Time that passes when somebody asks for it, and while the poller sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        self.slept: list[float] = []
        monkeypatch.setattr(time, "time", self)

        async def sleep_until(poller: Poller, due: float) -> None:
            for _ in range(10):  # a wait that is over is left first
                await asyncio.sleep(0)
            if poller.busy and self.now < due < float("inf"):
                self.slept.append(due - self.now)
                self.now = due

        monkeypatch.setattr(Poller, "_sleep_until", sleep_until)

    def __call__(self) -> float:
        self.now += 0.0001
        return self.now


@pytest.fixture
def real_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    set_everywhere(monkeypatch, "FIRST_POLL", 5.0)
    set_everywhere(monkeypatch, "WORKER_SECONDS", 4.0)


def _context(ti: Any) -> Any:
    return {"ti": ti}


def _sensor(batch_id: Any, **options: Any) -> BatchEndedSensor:
    return BatchEndedSensor(task_id="wait", batch_id=batch_id, **options)


def test_a_batch_that_has_ended_is_not_deferred(api: Emulator, run: Any) -> None:
    done = run(BatchEndedSensor, batch_id=api.add_batch(status="ended"), deferrable=True)
    assert (done.state, done.deferrals, api.count()) == ("success", [], 1)


@pytest.mark.usefixtures("real_pauses")
def test_the_worker_polls_twice_before_it_defers(
    api: Emulator, task_instance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    batch_id = api.add_batch()
    with pytest.raises(TaskDeferred) as deferred:
        _sensor(batch_id, deferrable=True).execute(_context(task_instance("wait")))
    assert [round(pause, 2) for pause in clock.slept] == [2.0]
    assert api.count("retrieve") == 2

    kwargs = deferred.value.trigger.serialize()[1]
    assert kwargs["start_time"] == pytest.approx(clock.now, abs=1)
    assert kwargs["end_time"] == pytest.approx(clock.now - 2 + 25 * 3600, abs=1)
    left = kwargs["end_time"] - clock.now
    assert deferred.value.timeout.total_seconds() == pytest.approx(left + 300, abs=1)


@pytest.mark.usefixtures("real_pauses")
def test_a_batch_that_ends_in_the_first_seconds_is_not_deferred(
    api: Emulator, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    batch_id = api.add_batch(status="in_progress", batch_seconds=1)
    done = run(BatchEndedSensor, batch_id=batch_id, deferrable=True)
    assert (done.state, done.deferrals, api.count()) == ("success", [], 2)


@pytest.mark.usefixtures("real_pauses")
def test_a_wait_that_times_out_before_the_triggerer_could_poll_stays_on_the_worker(
    api: Emulator, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    done = run(BatchEndedSensor, batch_id=api.add_batch(), deferrable=True, timeout=8)
    assert (done.state, done.deferrals) == ("failed", [])
    assert sum(clock.slept) == pytest.approx(8, abs=0.1)


@pytest.mark.usefixtures("real_pauses")
def test_pauses_double_up_to_poke_interval(api: Emulator, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    done = run(BatchEndedSensor, batch_id=api.add_batch(batch_seconds=600))
    assert done.state == "success"
    assert [round(pause) for pause in clock.slept[:6]] == [2, 2, 4, 8, 16, 32]
    assert {round(pause) for pause in clock.slept[6:]} == {60}


@pytest.mark.usefixtures("real_pauses")
@pytest.mark.parametrize(
    ("options", "longest"),
    [
        ({"exponential_backoff": True}, 4096),
        ({"exponential_backoff": True, "max_wait": timedelta(minutes=5)}, 300),
        ({"max_wait": timedelta(minutes=5)}, 60),
    ],
)
def test_with_exponential_backoff_they_continue_to_double(
    options: dict[str, Any], longest: float, api: Emulator, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    assert run(BatchEndedSensor, batch_id=api.add_batch(batch_seconds=8000), **options).state == "success"
    assert round(max(clock.slept)) == pytest.approx(longest, rel=0.01)


@pytest.mark.usefixtures("real_pauses")
@pytest.mark.parametrize("fault", [None, Fault(status=500, times=None)], ids=["running", "outage"])
def test_a_rescheduled_wait_settles_at_poke_interval(
    fault: Fault | None, api: Emulator, task_instance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    if fault:
        api.fault(fault)
    ti = task_instance("wait")
    pauses = []
    for waited in (0, 20, 3600):
        ti.first_start = datetime.fromtimestamp(clock.now - waited, timezone.utc) if waited else None
        with pytest.raises(AirflowRescheduleException) as later:
            _sensor(api.add_batch(), mode="reschedule").execute(_context(ti))
        pauses.append((later.value.reschedule_date - datetime.now(timezone.utc)).total_seconds())
        clock.now = datetime.now(timezone.utc).timestamp()
    assert pauses[0] == pytest.approx(5, abs=3)
    assert pauses[1] == pytest.approx(22, abs=6)
    assert pauses[2] == pytest.approx(60, abs=6)


@pytest.mark.usefixtures("real_pauses")
def test_an_outage_of_501_answers_does_not_fail_a_wait(
    api: Emulator, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    armed = api.fault(Fault(status=529, times=501))
    done = run(BatchEndedSensor, batch_id=api.add_batch(status="ended"))
    assert (done.state, armed.hits) == ("success", 501)
    assert sum(clock.slept) > 8 * 60 * 60


def test_a_short_execution_timeout_bounds_the_deferral(api: Emulator, run: Any) -> None:
    options: dict[str, Any] = {"execution_timeout": timedelta(seconds=SOON), "poke_interval": POLL}
    done = run(BatchEndedSensor, batch_id=api.add_batch(), deferrable=True, **options)
    ((_, kwargs),) = done.deferrals
    assert kwargs["end_time"] - kwargs["start_time"] == pytest.approx(SOON, abs=0.09)
    assert done.deferral_timeouts[0] == pytest.approx(300 + SOON, abs=0.5)


BACKSTOPS: list[tuple[dict[str, Any], type[BaseException]]] = [
    ({}, AirflowSensorTimeout),
    ({"soft_fail": True}, AirflowSkipException),
    ({"never_fail": True}, AirflowSkipException),
]


@pytest.mark.parametrize(("options", "error"), BACKSTOPS)
def test_a_deferral_that_airflow_itself_ends_is_a_timeout(
    options: dict[str, Any], error: type[BaseException], task_instance: Any
) -> None:
    sensor = _sensor("msgbatch_1", deferrable=True, **options)
    with pytest.raises(error):
        sensor.resume_execution("__fail__", {"error": "Trigger timeout"}, _context(task_instance("wait")))


@pytest.mark.parametrize("options", [{"soft_fail": True}, {"never_fail": True}])
def test_a_trigger_that_breaks_is_skipped_if_failures_are(options: dict[str, Any], task_instance: Any) -> None:
    sensor = _sensor("msgbatch_1", deferrable=True, **options)
    with pytest.raises(AirflowSkipException, match="is set"):
        sensor.resume_execution("__fail__", {"error": "Trigger failure"}, _context(task_instance("wait")))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "state"), [("never_fail", "skipped"), ("soft_fail", "retry")])
def test_only_never_fail_skips_any_error(mode: str, name: str, state: str, run: Any) -> None:
    done = run(BatchEndedSensor, batch_id="msgbatch_1", conn_id="nowhere", **{name: True}, **MODES[mode][0])
    assert done.state == state, done.error
    assert "nowhere" in done.text


@pytest.mark.parametrize(("options", "error"), [({"never_fail": True}, AirflowSkipException), ({}, KeyError)])
def test_never_fail_skips_a_deferral_that_ends_in_a_mistake(
    options: dict[str, Any], error: type[Exception], task_instance: Any
) -> None:
    sensor = _sensor("msgbatch_1", deferrable=True, **options)
    with pytest.raises(error):
        sensor.resume_execution("execute_complete", {"event": {}}, _context(task_instance("wait")))


def test_a_trigger_that_breaks_fails_the_try(task_instance: Any) -> None:
    with pytest.raises(TaskDeferralError):
        _sensor("msgbatch_1").resume_execution("__fail__", {"error": "x"}, _context(task_instance("wait")))


def test_templates_are_rendered(api: Emulator, run: Any, connect: Callable[..., str]) -> None:
    connect("other", host=api.url)
    batch_id = api.add_batch(status="ended")
    done = run(
        BatchEndedSensor,
        batch_id="{{ params.id }}",
        conn_id="{{ params.conn }}",
        params={"id": batch_id, "conn": "other"},
    )
    assert (done.state, done.value) == ("success", batch_id)


@pytest.mark.parametrize(
    ("outcomes", "level"), [({"succeeded": 2}, "info"), ({"errored": 1, "succeeded": 1}, "warning")]
)
def test_errored_requests_are_a_warning_in_the_log(
    outcomes: dict[str, int], level: str, api: Emulator, task_instance: Any, mocker: Any
) -> None:
    sensor = _sensor(api.add_batch(2, status="ended", outcomes=outcomes))
    log = mocker.patch.object(type(sensor), "log", new_callable=mocker.PropertyMock).return_value
    sensor.execute(_context(task_instance("wait")))
    said = {
        name: " ".join(str(call.args) for call in getattr(log, name).call_args_list) for name in ("info", "warning")
    }
    assert "has ended" in said[level]


def test_poke_returns_whether_the_batch_has_ended(api: Emulator, task_instance: Any) -> None:
    context = _context(task_instance("wait"))
    assert _sensor(api.add_batch(status="ended")).poke(context) is True
    assert _sensor(api.add_batch()).poke(context) is False


@pytest.mark.parametrize("mode", MODES)
def test_a_timeout_cancels_nothing(mode: str, api: Emulator, runner: Any, server_says: Any) -> None:
    server_says("running")
    options, restarts = MODES[mode]
    limit = timedelta(seconds=SOON)
    done = runner(restarts)(
        BatchEndedSensor,
        batch_id=api.add_batch(10),
        cancel_on_kill=True,
        execution_timeout=limit,
        poke_interval=POLL,
        **options,
    )
    assert (type(done.error), api.count("cancel")) == (AirflowTaskTimeout, 0), done.error


@contextmanager
def _alarm(handler: Callable[..., Any], seconds: float = 0.3) -> Iterator[None]:
    """Interrupt the main thread, as Airflow's `execution_timeout` and SIGTERM do."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("fault", [None, Fault(hang=True, times=None)], ids=["between polls", "in a call"])
def test_the_alarm_of_an_execution_timeout_ends_the_wait_within_seconds_and_cancels_nothing(
    several: bool, fault: Fault | None, api: Emulator, task_instance: Any, server_says: Any
) -> None:
    server_says("running")

    def alarm(*_: Any) -> None:
        raise AirflowTaskTimeout

    ids = [api.add_batch(10) for _ in range(2)]
    if fault:
        api.fault(fault)
    sensor = _sensor(ids if several else ids[0], cancel_on_kill=True)
    begun = time.monotonic()
    with _alarm(alarm), pytest.raises(AirflowTaskTimeout):
        sensor.execute(_context(task_instance("wait")))
    assert time.monotonic() - begun < 5
    sensor.on_kill()
    assert api.count("cancel") == 0


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_a_user_marks_a_task_in_the_middle_of_its_wait(
    several: bool, api: Emulator, task_instance: Any, server_says: Any
) -> None:
    server_says("failed")
    ids = [api.add_batch(10, status="in_progress") for _ in range(2 if several else 1)]
    sensor = _sensor(ids if several else ids[0], cancel_on_kill=True, poke_interval=POLL)
    # Airflow's handler of SIGTERM calls it in the main thread, which waits for the helper thread.
    with _alarm(lambda *_: sensor.on_kill()):
        sensor.execute(_context(task_instance("wait")))
    assert all((api.batch(batch_id) or {})["cancel_initiated_at"] for batch_id in ids)


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
async def test_a_wait_works_inside_a_running_event_loop(several: bool, api: Emulator, task_instance: Any) -> None:
    ids = [api.add_batch(10, status="in_progress", batch_seconds=SOON) for _ in range(2)]
    batch_id = ids if several else ids[0]
    assert _sensor(batch_id, poke_interval=POLL).execute(_context(task_instance("wait"))) == batch_id


def test_the_lines_of_the_helper_thread_are_in_the_task_s_log(
    api: Emulator, task_instance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, lines = ContextVar("task", default=""), []
    sensor = _sensor(_ends()(api), poke_interval=POLL)

    def write(line: str, *_: Any) -> None:
        lines.append((task.get(), threading.current_thread().name, line))

    log = SimpleNamespace(info=write, warning=write)
    monkeypatch.setattr(type(sensor), "log", log)
    task.set("wait")
    sensor.execute(_context(task_instance("wait")))
    assert {name for name, _, _ in lines} == {"wait"}
    assert [line for _, thread, line in lines if thread != "MainThread" and "is in_progress (10 requests" in line]
    assert [line for _, thread, line in lines if thread == "MainThread" and "has ended" in line]


@pytest.mark.parametrize("mode", ["reschedule", "deferrable"])
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize(
    "fault", [Fault(status=429, headers={"retry-after": "30"}, times=None), Fault(status=529, times=None)], ids=str
)
def test_a_task_that_gets_no_answer_does_not_stay_on_its_worker(
    fault: Fault, several: bool, mode: str, api: Emulator, task_instance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_batches.api.throttle.backoff", lambda *_: 30.0)
    ids = [api.add_batch(10) for _ in range(2)]
    api.fault(fault)
    with pytest.raises((TaskDeferred, AirflowRescheduleException)):
        _sensor(ids if several else ids[0], **MODES[mode][0]).execute(_context(task_instance("wait")))


@pytest.mark.parametrize("mode", SEVERAL_MODES)
def test_one_task_waits_for_several_batches(
    mode: str, api: Emulator, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_batches._base.WORKER_SECONDS", 0.05)
    ids = [api.add_batch(10, status="in_progress", batch_seconds=seconds) for seconds in (0.01, 0.1, 0.2)]
    done = run(BatchEndedSensor, batch_id=ids, poke_interval=POLL, **SEVERAL_MODES[mode][0])
    assert (done.state, done.value) == ("success", ids), done.error
    assert {name: done.xcom["batch"][name] for name in ("total", "ended", "missing")} == {
        "total": 3,
        "ended": 3,
        "missing": [],
    }
    assert done.xcom["batch"]["request_counts"]["succeeded"] == 30


@pytest.mark.parametrize("mode", SEVERAL_MODES)
@pytest.mark.parametrize(
    ("options", "state", "says"),
    [
        ({}, "failed", "msgbatch_01Unknown"),
        ({"ignore_if_missing": True}, "success", ""),
        ({"soft_fail": True}, "skipped", "msgbatch_01Unknown"),
    ],
)
def test_one_of_several_that_is_missing_counts_as_if_it_were_alone(
    mode: str, options: dict[str, Any], state: str, says: str, api: Emulator, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_batches._base.WORKER_SECONDS", 0.05)
    ids = [api.add_batch(10, status="in_progress", batch_seconds=0.1), "msgbatch_01Unknown"]
    done = run(BatchEndedSensor, batch_id=ids, poke_interval=POLL, **SEVERAL_MODES[mode][0], **options)
    assert done.state == state, done.error
    assert says in done.text


OF_SEVERAL = [
    Case("401", _faulty(_ended, "any", status=401, **FOREVER), "retry", RETRY, KEY_REFUSED),
    Case("401 three times", _faulty(_ended, "any", status=401, times=3), "success"),
    Case("spend limit", _faulty(_ended, "any", **SPEND_LIMIT, **FOREVER), "failed", FAIL, ("429", "limit")),
    Case("spend limit that is raised", _faulty(_ended, "any", **SPEND_LIMIT), "success"),
    Case(
        "404 pages of a proxy from the start",
        _faulty(_running, "any", **PROXY_PAGE, **FOREVER),
        "retry",
        RETRY,
        ("a proxy or firewall answered",),
        IGNORE,
    ),
    Case(
        "404 pages of a proxy after an answer",
        _faulty(_ended, "any", **PROXY_PAGE, **LATER),
        "failed",
        TIMES_OUT,
        ("had not ended", "a proxy or firewall answered"),
        {**TWO_POLLS, **IGNORE},
    ),
    Case(
        "missing and ignored but no list",
        _faulty(_unknown, "list", status=500, **FOREVER),
        "failed",
        TIMES_OUT,
        ("had not ended",),
        {**TIMEOUT, **IGNORE},
    ),
]


@pytest.mark.parametrize("mode", SEVERAL_MODES)
@pytest.mark.parametrize("case", OF_SEVERAL, ids=lambda case: case.name.replace(" ", "-"))
def test_a_wait_for_several_judges_answers_like_a_wait_for_one(case: Case, mode: str, api: Emulator, run: Any) -> None:
    ids = [case.prepare(api), api.add_batch(10, status="ended")]
    options = {"poke_interval": POLL, **SEVERAL_MODES[mode][0], **case.options}
    done = run(BatchEndedSensor, batch_id=ids, **options)
    assert (done.state, type(done.error) if done.error else None) == (case.state, case.error), done.error
    assert all(text in done.text for text in case.says), done.text
    assert done.value == (ids if case.state == "success" else None)


@pytest.mark.parametrize("mode", SEVERAL_MODES)
def test_a_doubt_is_settled_by_the_process_that_has_it(
    mode: str, api: Emulator, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(wait._DOUBTS, Proof.NOT_FOUND, (0.1, 0.1, 0.1))
    monkeypatch.setattr("airflow_provider_batches._base.WORKER_SECONDS", 0.15)
    ids = [api.add_batch(10), "msgbatch_01Unknown"]
    done = run(BatchEndedSensor, batch_id=ids, poke_interval=POLL, timeout=10, **SEVERAL_MODES[mode][0])
    assert (done.state, done.reschedules) == ("failed", 0), done.error
    assert "msgbatch_01Unknown" in done.text


def test_several_are_waited_for_if_each_answer_takes_longer_than_a_process_stays(api: Emulator, run: Any) -> None:
    ids = [api.add_batch(10, status="ended") for _ in range(2)]
    api.fault(Fault("list", times=None, delay=0.3))
    done = run(BatchEndedSensor, batch_id=ids, poke_interval=POLL, timeout=10, mode="reschedule")
    assert (done.state, done.value, done.reschedules) == ("success", ids, 0), done.error


@pytest.mark.parametrize("mode", SEVERAL_MODES)
def test_several_that_do_not_end_in_time_are_a_timeout(
    mode: str, api: Emulator, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_batches._base.WORKER_SECONDS", 0.05)
    ids = [api.add_batch(10), api.add_batch(10, status="ended")]
    done = run(BatchEndedSensor, batch_id=ids, poke_interval=POLL, timeout=0.3, **SEVERAL_MODES[mode][0])
    assert (done.state, type(done.error)) == ("failed", AirflowSensorTimeout), done.error
    assert "1 of 2 batches have ended" in done.text


@pytest.mark.parametrize("mode", SEVERAL_MODES)
@pytest.mark.parametrize(
    "fault", [{"status": 501}, {"body": "<p>"}, {"hang": True}], ids=["501", "unreadable", "hangs"]
)
def test_several_are_waited_for_if_only_the_list_is_broken(
    mode: str, fault: dict[str, Any], api: Emulator, run: Any, connect: Callable[..., str]
) -> None:
    connect(host=api.url, extra={"timeout": 0.1})
    ids = [api.add_batch(10, status="in_progress", batch_seconds=0.2) for _ in range(3)]
    api.fault(Fault("list", times=None, **fault))
    done = run(BatchEndedSensor, batch_id=ids, poke_interval=POLL, timeout=10, **SEVERAL_MODES[mode][0])
    assert (done.state, done.value) == ("success", ids), done.error


def test_a_list_that_a_template_shows_is_a_list(api: Emulator, run: Any) -> None:
    ids = [api.add_batch(status="ended") for _ in range(2)]
    done = run(BatchEndedSensor, batch_id="{{ params.ids }}", params={"ids": ids})
    assert (done.state, done.value) == ("success", ids)


def test_an_empty_list_is_nothing_to_wait_for(api: Emulator, run: Any) -> None:
    done = run(BatchEndedSensor, batch_id=[])
    assert (done.state, done.value, api.count()) == ("success", [], 0)


def test_a_wait_can_end_in_the_triggerer(api: Emulator, task_instance: Any) -> None:
    sensor = _sensor(api.add_batch(batch_seconds=SOON), deferrable=True, end_from_trigger=True, poke_interval=POLL)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(_context(task_instance("wait")))

    async def events() -> list[Any]:
        return [event async for event in deferred.value.trigger.run()]

    (event,) = asyncio.run(events())
    assert type(event).__name__ == "TaskSuccessEvent"
    assert deferred.value.method_name


@pytest.mark.parametrize(
    ("outcomes", "level"), [({"succeeded": 10}, "INFO"), ({"errored": 10}, "WARNING"), ({"expired": 10}, "WARNING")]
)
def test_errored_requests_are_a_warning_in_the_triggerer_s_log(
    outcomes: dict[str, int], level: str, api: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    batch_id = api.add_batch(10, status="ended", outcomes=outcomes)
    trigger = BatchEndedTrigger(batch_id, "anthropic_default", POLL, timeout=10, end_from_trigger=True)

    async def events() -> list[Any]:
        return [event async for event in trigger.run()]

    with caplog.at_level("INFO", logger=BatchEndedTrigger.__module__):
        asyncio.run(events())
    assert [record.levelname for record in caplog.records if "has ended" in record.getMessage()] == [level]


@pytest.mark.parametrize("prepare", [_unknown, _running, _faulty(_running, **SPEND_LIMIT, **FOREVER)])
def test_a_wait_that_fails_ends_on_a_worker_all_the_same(prepare: Callable[..., str], api: Emulator, run: Any) -> None:
    options: dict[str, Any] = {"deferrable": True, "end_from_trigger": True, "poke_interval": POLL, "timeout": SOON}
    assert run(BatchEndedSensor, batch_id=prepare(api), **options).state == "failed"
