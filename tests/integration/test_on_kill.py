"""What `cancel_on_kill` does when Airflow ends a task: on its worker, and in the triggerer."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_batches import _on_kill
from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.sensors import batches as sensors
from airflow_provider_batches.sensors.batches import BatchEndedSensor
from airflow_provider_batches.triggers import batches as triggers
from airflow_provider_batches.triggers.batches import BatchEndedTrigger
from tests.integration.conftest import TaskInstance

Kill = Callable[..., None]


def _on_worker(batch_id: Any, *, cancel_on_kill: bool = True, ti: Any = None) -> None:
    sensor = BatchEndedSensor(task_id="wait", batch_id=batch_id, cancel_on_kill=cancel_on_kill)
    sensor._ti = ti or TaskInstance("wait")
    sensor.on_kill()


def _in_triggerer(batch_id: Any, *, cancel_on_kill: bool = True, ti: Any = None) -> None:
    trigger = BatchEndedTrigger(batch_id, "anthropic_default", 60, cancel_on_kill=cancel_on_kill)
    trigger.task_instance = ti or TaskInstance("wait")
    asyncio.run(trigger.on_kill())


@pytest.fixture(params=[_on_worker, _in_triggerer], ids=["on a worker", "in the triggerer"])
def kill(request: pytest.FixtureRequest) -> Kill:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def log_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that hands its lines on to pytest's, as Airflow's own does not."""
    monkeypatch.setattr(BatchEndedSensor, "log", logging.getLogger("task"))


def _canceled(api: Emulator, batch_id: str) -> bool:
    return bool((api.batch(batch_id) or {})["cancel_initiated_at"])


def _warnings(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_user_marks_the_task(state: str, kill: Kill, api: Emulator, server_says: Any) -> None:
    server_says(state)
    batch_id = api.add_batch()
    kill(batch_id)
    assert _canceled(api, batch_id)


def test_a_user_marks_a_mapped_task(kill: Kill, api: Emulator, server_says: Any) -> None:
    server_says("failed")
    ti = TaskInstance("wait")
    ti.map_index = 3
    batch_id = api.add_batch()
    kill(batch_id, ti=ti)
    assert _canceled(api, batch_id)


@pytest.mark.parametrize("state", ["failed", "running"])
def test_a_task_that_does_not_own_its_batch_asks_nobody(
    state: str, kill: Kill, api: Emulator, server_says: Any
) -> None:
    server_says(error=AssertionError("asked"))
    kill(api.add_batch(), cancel_on_kill=False)
    assert api.count() == 0


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("running", "its worker is being stopped, or its execution_timeout is over"),
        ("restarting", "a user cleared it while it was running"),
        (None, "a user cleared it while it was deferred"),
        ("scheduled", "and its next try is due"),
        ("queued", "and its next try is due"),
        ("deferred", "its trigger has moved to another triggerer"),
        ("up_for_retry", "its worker has not reported"),
        ("skipped", "a dagrun_timeout"),
        ("removed", "its DAG has no such task any more"),
    ],
)
def test_airflow_ends_the_task_but_no_user_has_marked_it(
    state: str | None, why: str, kill: Kill, api: Emulator, server_says: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server_says(state)
    ids = [api.add_batch(), api.add_batch()]
    kill(ids)
    assert api.count() == 0
    assert f"not by a user (its state is {state}). Not canceled: {ids[0]}, {ids[1]}" in _warnings(caplog)


def test_the_api_server_cannot_say(
    kill: Kill, api: Emulator, server_says: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server_says(error=RuntimeError("API_SERVER_ERROR"))
    kill(api.add_batch())
    assert api.count() == 0
    assert "(its state is unknown: RuntimeError)" in _warnings(caplog)


def test_the_api_server_is_away(
    kill: Kill, api: Emulator, server_says: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _shorten(monkeypatch, 0.4)
    server_says("failed", seconds=5)
    begun = time.monotonic()
    kill(api.add_batch())
    assert time.monotonic() - begun < 3
    assert api.count() == 0
    assert "(its state is unknown: the API server does not answer)" in _warnings(caplog)


def test_no_task_instance_is_at_hand(kill: Kill, api: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    kill(api.add_batch(), ti=SimpleNamespace(task_id="wait"))
    assert api.count() == 0
    assert "(its state is unknown: AttributeError)" in _warnings(caplog)


def test_the_signal_comes_while_the_task_speaks_with_its_supervisor(
    api: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Airflow's socket has a lock; the handler of a signal runs on the thread that holds it, and would wait for itself.
    lock = threading.Lock()

    def states(ti: Any) -> list[str | None]:
        with lock:
            return ["failed"]

    monkeypatch.setattr(_on_kill, "task_states", states)
    _shorten(monkeypatch, 0.4)
    with lock:
        _on_worker(api.add_batch())
    assert "the API server does not answer" in _warnings(caplog)


def test_many_are_canceled_side_by_side_though_one_no_longer_exists(
    kill: Kill, api: Emulator, server_says: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server_says("failed")
    ids = [api.add_batch() for _ in range(20)]
    api.fault(Fault("cancel", times=None, delay=0.4))
    begun = time.monotonic()
    kill(["msgbatch_01Unknown", *ids])
    assert all(_canceled(api, batch_id) for batch_id in ids)
    # One after the other they would take 8 s.
    assert time.monotonic() - begun < 4
    assert "batch msgbatch_01Unknown is not canceled: " in _warnings(caplog)


@pytest.mark.parametrize(
    "fault", [Fault(hang=True, times=None), Fault("cancel", status=429, times=None)], ids=["hangs", "rate limit"]
)
def test_each_batch_that_could_not_be_canceled_in_time_is_named(
    fault: Fault,
    kill: Kill,
    api: Emulator,
    server_says: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server_says("failed")
    _shorten(monkeypatch, 0.5)
    api.fault(fault)
    ids = [api.add_batch() for _ in range(40)]
    begun = time.monotonic()
    kill(ids)
    assert time.monotonic() - begun < 4
    for batch_id in ids:
        assert f"batch {batch_id} is not canceled: " in _warnings(caplog)


async def test_airflow_interrupts_the_triggers_on_kill_again_and_again(api: Emulator, server_says: Any) -> None:
    server_says("failed", seconds=0.1)
    api.fault(Fault("cancel", delay=0.3))
    batch_id = api.add_batch()
    trigger = BatchEndedTrigger(batch_id, "anthropic_default", 60, cancel_on_kill=True)
    trigger.task_instance = TaskInstance("wait")  # type: ignore[assignment]
    # As the triggerer does it.
    running = asyncio.ensure_future(asyncio.wait_for(trigger.on_kill(), 30))
    while not running.done():
        await asyncio.sleep(0.05)
        running.cancel("__airflow_user_action__")
    # Before Python 3.12, the second interruption already ends Airflow's wait, but not the cancel.
    await asyncio.gather(*triggers._kills)
    assert _canceled(api, batch_id)


def test_the_connection_cannot_be_looked_up(
    kill: Kill, api: Emulator, server_says: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_says("failed")
    monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", '{"conn_type": "anthropic-batches", "host": "not a host"}')
    kill("msgbatch_1")
    assert "batch msgbatch_1 is not canceled: " in _warnings(caplog)
    assert api.count() == 0


def test_the_limits_lie_below_airflows_own() -> None:
    # On a worker: seconds between SIGTERM and SIGKILL. In the triggerer: `[triggerer] on_kill_timeout`.
    assert sensors.KILL_SECONDS < 5
    assert triggers.KILL_SECONDS < 30


def _shorten(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for module in (sensors, triggers):
        monkeypatch.setattr(module, "KILL_SECONDS", seconds)
