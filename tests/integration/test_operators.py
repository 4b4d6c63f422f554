from __future__ import annotations

import json
import signal
import textwrap
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowException, AirflowFailException, AirflowTaskTimeout
from airflow_provider_batches.emulator import Behavior, Emulator, Fault
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator, ListBatchesOperator

DAY = 24 * 60 * 60
SOON = 0.1
POLL = 0.03
every_behavior = pytest.mark.parametrize("behavior", list(Behavior.variants()), ids=str)
#: Those that concern a batch that is not found.
behaviors_of_absence = pytest.mark.parametrize(
    "behavior",
    [Behavior(), Behavior(other_workspace=403), Behavior(delete_again=200), Behavior(delete_again=204)],
    ids=str,
)


@pytest.fixture
def api_that(batches_emulator: Emulator) -> Callable[[Behavior], Emulator]:
    def behave(behavior: Behavior) -> Emulator:
        batches_emulator.behavior = behavior
        return batches_emulator

    return behave


@every_behavior
def test_cancel_succeeds_in_any_phase_of_a_batch(
    behavior: Behavior, api_that: Callable[[Behavior], Emulator], run: Any
) -> None:
    api = api_that(behavior)
    ids = [api.add_batch(10, status=status) for status in ("in_progress", "canceling", "ended")]

    for batch_id in ids + ids:
        done = run(CancelBatchOperator, batch_id=batch_id)
        assert (done.state, done.value) == ("success", batch_id), done.error
        assert done.xcom["batch"]["id"] == batch_id
        assert done.xcom["batch"]["processing_status"] in ("canceling", "ended")


@every_behavior
def test_delete_of_an_ended_batch_removes_it(
    behavior: Behavior, api_that: Callable[[Behavior], Emulator], run: Any
) -> None:
    api = api_that(behavior)
    batch_id = api.add_batch(10, status="ended")

    done = run(DeleteBatchOperator, batch_id=batch_id)

    assert (done.state, done.value) == ("success", batch_id), done.error
    assert done.xcom["batch"]["processing_status"] == "ended"
    assert set(done.xcom["deletion"]) == {"batch_id", "deleted_at", "request_id"}
    assert done.xcom["deletion"]["batch_id"] == batch_id
    assert datetime.fromisoformat(done.xcom["deletion"]["deleted_at"]).tzinfo
    assert bool(done.xcom["deletion"]["request_id"]) == behavior.request_id
    assert api.batch(batch_id) is None


@every_behavior
def test_delete_of_a_running_batch_fails_and_leaves_it(
    behavior: Behavior, api_that: Callable[[Behavior], Emulator], run: Any
) -> None:
    api = api_that(behavior)
    for status in ("in_progress", "canceling"):
        batch_id = api.add_batch(10, status=status)

        done = run(DeleteBatchOperator, batch_id=batch_id)

        assert done.state == "retry"
        assert type(done.error) is AirflowException
        assert f"Batch {batch_id} is {status}" in done.text
        assert "Cancel it" in done.text
        assert done.xcom["batch"]["processing_status"] == status
        assert "deletion" not in done.xcom
        assert api.batch(batch_id)


@behaviors_of_absence
@pytest.mark.parametrize("operator", [CancelBatchOperator, DeleteBatchOperator])
@pytest.mark.parametrize("foreign", [True, False], ids=["foreign", "deleted"])
def test_an_unknown_batch_fails_without_retries(
    foreign: bool, operator: Any, behavior: Behavior, api_that: Callable[[Behavior], Emulator], run: Any
) -> None:
    api = api_that(behavior)
    batch_id = api.add_batch(10, status="ended", foreign=foreign)
    if not foreign:
        assert run(DeleteBatchOperator, batch_id=batch_id).state == "success"

    done = run(operator, batch_id=batch_id)

    # A 403 may be about the key, so Airflow retries.
    forbidden = foreign and behavior.other_workspace == 403
    assert type(done.error) is (AirflowException if forbidden else AirflowFailException)
    assert done.value is None
    assert batch_id in done.text
    if not forbidden:
        assert "workspace" in done.text
        ignored = run(operator, batch_id=batch_id, ignore_if_missing=True)
        assert (ignored.state, ignored.value) == ("success", batch_id)
        assert "deletion" not in ignored.xcom


@pytest.mark.parametrize("operator", [CancelBatchOperator, DeleteBatchOperator])
@pytest.mark.parametrize(
    ("faults", "batch"),
    [
        ([Fault("list", status=500, times=None)], "unknown"),
        ([Fault("list", html=True, status=404, times=None)], "unknown"),
        ([Fault("any", html=True, status=404, times=None)], "unknown"),
        ([Fault(endpoint, status=404, times=None) for endpoint in ("retrieve", "cancel", "delete")], "listed"),
        (
            [Fault(endpoint, html=True, status=404, times=None) for endpoint in ("retrieve", "cancel", "delete")],
            "listed",
        ),
    ],
    ids=["no list", "a proxy before the list", "a proxy before all", "listed", "listed behind a proxy"],
)
@pytest.mark.parametrize("options", [{}, {"retries": 2}], ids=["first try", "retry"])
def test_a_404_is_no_success_unless_the_list_confirms_it(
    operator: Any, faults: list[Fault], batch: str, options: dict[str, Any], api: Emulator, run: Any, task_instance: Any
) -> None:
    batch_id = api.add_batch(status="ended") if batch == "listed" else "msgbatch_01Unknown"
    for fault in faults:
        api.fault(fault)
    ti = task_instance("task", 2, 2) if options else task_instance("task")

    done = run(operator, batch_id=batch_id, ignore_if_missing=True, ti=ti, **options)

    assert (done.state, done.value, type(done.error)) == ("retry", None, AirflowException), done.error


@pytest.mark.parametrize("operator", [CancelBatchOperator, DeleteBatchOperator])
def test_a_batch_that_the_list_does_not_have_is_missing(operator: Any, api: Emulator, run: Any) -> None:
    done = run(operator, batch_id="msgbatch_01Unknown", ignore_if_missing=True)
    assert (done.state, done.value, api.count("list")) == ("success", "msgbatch_01Unknown", 1)


@pytest.mark.parametrize("operator", [CancelBatchOperator, DeleteBatchOperator])
@pytest.mark.parametrize("batch_id", ["", " ", "None", "../x", "a?b", "a#b", "a%2fb", "a\nb"])
def test_what_is_not_an_id_sends_nothing(operator: Any, batch_id: str, api: Emulator, run: Any) -> None:
    done = run(operator, batch_id="{{ params.id }}", params={"id": batch_id})
    assert (done.state, api.count()) == ("failed", 0)
    assert "batch_id" in done.text


@pytest.mark.parametrize("operator", [CancelBatchOperator, DeleteBatchOperator])
@pytest.mark.parametrize(
    ("fault", "state", "says"),
    [
        (Fault(status=401, times=None), "retry", "password of connection 'anthropic_default'"),
        (Fault(status=403, times=None), "retry", "403"),
        (Fault(status=402, times=None), "failed", "limit"),
        (Fault(status=429, error_code="enforced_spend_limit_reached", times=None), "failed", "limit"),
        (Fault(status=500, times=None), "retry", "500"),
        (Fault(status=500, headers={"x-should-retry": "false"}, times=None), "failed", "500"),
        (Fault(html=True, status=404, times=None), "retry", "a proxy or firewall answered"),
        (Fault(html=True, status=400, times=None), "retry", "a proxy or firewall answered"),
        (Fault(status=429, times=None), "retry", "requests a minute"),
        (Fault(html=True, times=None), "retry", "502"),
        (Fault(drop=True, times=None), "retry", "no answer"),
        (Fault(body="{", times=None), "retry", "unreadable body"),
    ],
    ids=["401", "403", "402", "spend", "500", "500 final", "proxy 404", "proxy 400", "429", "html", "drop", "broken"],
)
def test_airflow_retries_an_error_only_if_that_may_help(
    operator: Any, fault: Fault, state: str, says: str, api: Emulator, run: Any
) -> None:
    batch_id = api.add_batch(status="ended")
    api.fault(fault)
    done = run(operator, batch_id=batch_id)
    assert done.state == state, done.error
    assert says in done.text


@pytest.mark.parametrize("operator", [CancelBatchOperator, DeleteBatchOperator])
@pytest.mark.parametrize(
    "faults",
    [
        [Fault(status=529), Fault(drop=True), Fault(html=True), Fault(status=404), Fault(body="")],
        [Fault(status=401, times=3)],
        [Fault(status=403, times=3)],
    ],
    ids=["outage", "401", "403"],
)
def test_momentary_failures_are_retried_within_the_task(
    operator: Any, faults: list[Fault], api: Emulator, run: Any
) -> None:
    batch_id = api.add_batch(status="ended")
    for fault in faults:
        api.fault(fault)
    assert run(operator, batch_id=batch_id).state == "success"


def test_an_error_quotes_the_api_s_request_id(api: Emulator, run: Any) -> None:
    api.fault(Fault(status=500, times=None))
    done = run(CancelBatchOperator, batch_id=api.add_batch())
    assert f"request-id {api.requests[-1].request_id}" in done.text


@pytest.mark.parametrize(
    ("operator", "says"), [(CancelBatchOperator, "had ended already"), (DeleteBatchOperator, "Deleted batch")]
)
def test_a_destructive_call_is_logged_with_its_request_id(
    operator: Any, says: str, api: Emulator, task_instance: Any, mocker: Any
) -> None:
    task = operator(task_id="task", batch_id=api.add_batch(status="ended"))
    log = mocker.patch.object(operator, "log", new_callable=mocker.PropertyMock).return_value
    task.execute({"ti": task_instance("task")})
    lines = [call.args[0] % call.args[1:] for call in log.info.call_args_list]
    assert [line for line in lines if says in line and api.requests[-1].request_id in line]


class Crash(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("key", ["batch", "deletion"])
def test_a_delete_that_crashes_is_completed_by_the_next_try(
    key: str, api: Emulator, run: Any, task_instance: Any, mocker: Any
) -> None:
    batch_id = api.add_batch(status="ended")
    first = task_instance("task", try_number=1, max_tries=2)
    push = first.xcom_push

    def push_or_crash(**xcom: Any) -> None:
        if xcom["key"] == key:
            raise Crash
        push(**xcom)

    first.xcom_push = push_or_crash
    assert isinstance(run(DeleteBatchOperator, batch_id=batch_id, retries=2, ti=first).error, Crash)
    assert (api.batch(batch_id) is None) == (key == "deletion")

    second = task_instance("task", try_number=2, max_tries=2)
    done = run(DeleteBatchOperator, batch_id=batch_id, retries=2, ti=second)

    assert (done.state, done.value) == ("success", batch_id)
    assert api.batch(batch_id) is None


@pytest.mark.parametrize("operator", [CancelBatchOperator, DeleteBatchOperator])
@pytest.mark.parametrize("endpoint", ["retrieve", "cancel", "delete"])
@pytest.mark.parametrize("applied", [True, False], ids=["done", "not done"])
def test_a_try_whose_every_answer_is_lost_is_completed_by_the_next(
    operator: Any, endpoint: str, applied: bool, api: Emulator, run: Any, task_instance: Any
) -> None:
    batch_id = api.add_batch(status="in_progress" if operator is CancelBatchOperator else "ended")
    armed = api.fault(Fault(endpoint, drop=True, applied=applied, times=None))
    first = run(operator, batch_id=batch_id, retries=2, ti=task_instance("task", 1, 2))
    assert first.state == ("retry" if armed.hits else "success"), first.error
    api.clear_faults()

    done = run(operator, batch_id=batch_id, retries=2, ti=task_instance("task", 2, 2))

    assert (done.state, done.value) == ("success", batch_id), done.error
    if operator is DeleteBatchOperator:
        assert api.batch(batch_id) is None


def test_a_delete_whose_answer_is_lost_once_is_success(api: Emulator, run: Any) -> None:
    batch_id = api.add_batch(status="ended")
    api.fault(Fault("delete", drop=True, applied=True))
    done = run(DeleteBatchOperator, batch_id=batch_id)
    assert (done.state, done.xcom["deletion"]["batch_id"]) == ("success", batch_id)


@pytest.mark.parametrize(
    ("try_number", "max_tries", "state"),
    [
        (1, 2, "failed"),
        (2, 2, "success"),
        (3, 2, "success"),
        # Cleared after its third try: Airflow sets max_tries to 3 + 2.
        (4, 5, "failed"),
        (5, 5, "success"),
    ],
)
def test_only_a_retry_takes_a_missing_batch_as_deleted_by_itself(
    try_number: int, max_tries: int, state: str, api: Emulator, run: Any, task_instance: Any
) -> None:
    ti = task_instance("task", try_number, max_tries)
    assert run(DeleteBatchOperator, batch_id="msgbatch_1", retries=2, ti=ti).state == state


@pytest.mark.parametrize(("operator", "status"), [(CancelBatchOperator, "in_progress"), (DeleteBatchOperator, "ended")])
def test_a_404_to_one_call_only_is_no_success(
    operator: Any, status: str, api: Emulator, run: Any, task_instance: Any
) -> None:
    batch_id = api.add_batch(status=status)
    api.fault(Fault("cancel", status=404, times=None))
    api.fault(Fault("delete", status=404, times=None))

    done = run(operator, batch_id=batch_id, ignore_if_missing=True, retries=2, ti=task_instance("task", 2, 2))

    assert (done.state, done.value) == ("failed", None)
    assert "the batch exists, but the API answers 404" in done.text


WAYS: dict[str, dict[str, Any]] = {"worker": {"deferrable": False}, "triggerer": {"deferrable": True}}
RUNNING = {"cancel_seconds": DAY}
ENDS = {"cancel_seconds": SOON}
TIMEOUT = {"timeout": SOON}
IGNORE = {"ignore_if_missing": True}
FOREVER: dict[str, Any] = {"times": None}
LATER: dict[str, Any] = {"times": None, "after": 1}
PROXY_PAGE: dict[str, Any] = {"html": True, "status": 404}
NO_BATCHES = json.dumps({"data": [], "has_more": False})
GONE = [Fault("retrieve", status=404, **LATER), Fault("list", body=NO_BATCHES, **FOREVER)]

#: The batch, what goes wrong during the wait, the operator's options, how the task ends, and what it says.
WAITS: dict[str, tuple[dict[str, Any], list[Fault], dict[str, Any], str, str]] = {
    "ends": (ENDS, [], {}, "success", ""),
    "has ended": ({"status": "ended"}, [], {}, "success", ""),
    "outage": (ENDS, [Fault("retrieve", status=529, times=3)], {}, "success", ""),
    "503 that says not to retry": (
        ENDS,
        [Fault("retrieve", status=503, times=3, headers={"x-should-retry": "false"})],
        {},
        "success",
        "",
    ),
    "timeout": (RUNNING, [], TIMEOUT, "retry", "had not ended"),
    "timeout as timedelta": (RUNNING, [], {"timeout": timedelta(seconds=SOON)}, "retry", "had not ended"),
    "execution_timeout": (RUNNING, [], {"execution_timeout": timedelta(seconds=SOON)}, "retry", "had not ended"),
    "401": (RUNNING, [Fault("retrieve", status=401, **LATER)], {}, "retry", "password of connection"),
    "401 three times": (ENDS, [Fault("retrieve", status=401, times=3)], {}, "success", ""),
    "spend limit": (RUNNING, [Fault("retrieve", status=402, **FOREVER)], {}, "failed", "limit"),
    "spend limit that is raised": (ENDS, [Fault("retrieve", status=402)], {}, "success", ""),
    "proxy's 404 pages": (RUNNING, [Fault("retrieve", **PROXY_PAGE, **FOREVER)], TIMEOUT, "retry", "had not ended"),
    "proxy's 404 pages ignored": (
        RUNNING,
        [Fault("retrieve", **PROXY_PAGE, **FOREVER)],
        {**TIMEOUT, **IGNORE},
        "retry",
        "had not ended",
    ),
    "gone": (RUNNING, GONE, {}, "failed", "not been deleted"),
    "gone and ignored": (RUNNING, GONE, IGNORE, "success", ""),
    "404 but listed": (RUNNING, [GONE[0]], {**TIMEOUT, **IGNORE}, "retry", "had not ended"),
    "404 but no list": (
        RUNNING,
        [GONE[0], Fault("list", status=500, **FOREVER)],
        {**TIMEOUT, **IGNORE},
        "retry",
        "had not ended",
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", WAITS)
def test_a_wait_for_a_canceled_batch_ends_the_same_way_everywhere(way: str, case: str, api: Emulator, run: Any) -> None:
    batch, faults, options, state, says = WAITS[case]
    batch_id = api.add_batch(10, **{"status": "in_progress", **batch})
    for fault in faults:
        api.fault(fault)

    done = run(
        CancelBatchOperator, batch_id=batch_id, wait_for_completion=True, poll_interval=POLL, **WAYS[way], **options
    )

    assert done.state == state, done.error
    assert type(done.error) in (type(None), AirflowFailException if state == "failed" else AirflowException)
    assert says in done.text
    assert done.value == (batch_id if state == "success" else None)
    assert done.xcom["batch"]["id"] == batch_id
    if state == "success" and not options:
        assert done.xcom["batch"]["processing_status"] == "ended"
    # The process that continues the wait does not cancel again.
    assert api.count("cancel") == 1


def test_the_alarm_of_an_execution_timeout_ends_a_wait_within_seconds(api: Emulator, task_instance: Any) -> None:
    def alarm(*_: Any) -> None:
        raise AirflowTaskTimeout

    batch_id = api.add_batch(10, status="in_progress", cancel_seconds=DAY)
    api.fault(Fault("retrieve", hang=True, times=None))
    task = CancelBatchOperator(task_id="task", batch_id=batch_id, wait_for_completion=True)
    begun, before = time.monotonic(), signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(AirflowTaskTimeout):
            task.execute({"ti": task_instance("task")})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun < 5


async def test_a_wait_works_inside_a_running_event_loop(api: Emulator, task_instance: Any) -> None:
    batch_id = api.add_batch(10, status="in_progress", cancel_seconds=SOON)
    task = CancelBatchOperator(task_id="task", batch_id=batch_id, wait_for_completion=True, poll_interval=POLL)
    assert task.execute({"ti": task_instance("task")}) == batch_id
    assert (api.batch(batch_id) or {})["processing_status"] == "ended"


async def test_batches_are_listed_inside_a_running_event_loop(api: Emulator) -> None:
    ids = [api.add_batch(1, age_seconds=age) for age in (3 * DAY, 2 * DAY)]
    api.add_batch(1)
    assert ListBatchesOperator(task_id="task", older_than="P1D").execute({}) == ids


def test_a_cancel_that_does_not_wait_ignores_that_all_tasks_are_deferrable(api: Emulator, run: Any) -> None:
    defaults = {"deferrable": True}
    done = run(CancelBatchOperator, batch_id=api.add_batch(cancel_seconds=DAY), default_args=defaults)
    assert (done.state, done.deferrals) == ("success", [])
    assert done.xcom["batch"]["processing_status"] == "canceling"


@pytest.mark.parametrize("operator", [CancelBatchOperator, DeleteBatchOperator])
def test_connection_and_batch_are_templates(
    operator: Any, api: Emulator, run: Any, connect: Callable[..., str]
) -> None:
    connect("other", host=api.url)
    batch_id = api.add_batch(status="ended")
    params = {"id": batch_id, "conn": "other"}
    done = run(operator, batch_id="{{ params.id }}", conn_id="{{ params.conn }}", params=params)
    assert (done.state, done.value) == ("success", batch_id)


CHAIN = """
from airflow.sdk import DAG

from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

with DAG("chain", schedule=None) as dag:
    {tasks}
"""
TASKS = """
cancel = CancelBatchOperator(task_id="cancel", batch_id={ids}[0])
DeleteBatchOperator(
    task_id="delete",
    batch_id=BatchEndedSensor(task_id="wait", batch_id=cancel.output, deferrable=True, poke_interval=0.05).output,
)

cancel_each = CancelBatchOperator.partial(task_id="cancel_each").expand(batch_id={ids}[1:])
wait_each = BatchEndedSensor.partial(task_id="wait_each", poke_interval=0.05).expand(batch_id=cancel_each.output)
DeleteBatchOperator.partial(task_id="delete_each").expand(batch_id=wait_each.output)
"""


@pytest.mark.feature("dag_test")
@pytest.mark.usefixtures("airflow_db")
def test_the_three_chain_by_their_output_alone_and_mapped(
    api: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[no-redef]
    ids = [api.add_batch(10, status="in_progress", cancel_seconds=SOON) for _ in range(4)]
    source = CHAIN.format(tasks=textwrap.indent(TASKS.format(ids=ids), "    ").strip())
    (tmp_path / "chain.py").write_text(source)
    # The folder that `dag.test()` loads the DAG from once more.
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    bag = DagBag(str(tmp_path))
    assert not bag.import_errors

    run = bag.dags["chain"].test()

    states = {(ti.task_id, ti.map_index): str(ti.state) for ti in run.get_task_instances()}
    assert set(states.values()) == {"success"}, states
    assert len(states) == 3 * 4
    assert [api.batch(batch_id) for batch_id in ids] == [None] * 4
