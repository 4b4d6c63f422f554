from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_batches import _compat
from airflow_provider_batches._compat import AirflowException
from airflow_provider_batches.sensors.batches import BatchEndedSensor
from airflow_provider_batches.triggers.batches import BatchEndedTrigger
from airflow_provider_batches.waiting.outcome import Outcome


def _sensor(**options: Any) -> BatchEndedSensor:
    return BatchEndedSensor(task_id="wait", **{"batch_id": "msgbatch_1", **options})


def test_batch_and_connection_are_templates() -> None:
    assert list(BatchEndedSensor.template_fields) == ["batch_id", "conn_id"]
    assert _sensor().conn_id == "anthropic_default"


def test_the_defaults_outlast_every_batch() -> None:
    sensor = _sensor()
    assert (sensor.timeout, sensor.poke_interval, sensor.mode) == (25 * 3600, 60, "poke")
    assert [sensor.soft_fail, sensor.fail_on_partial_error, sensor.ignore_if_missing, sensor.cancel_on_kill] == [
        False
    ] * 4


def test_all_of_the_base_sensor_s_options_are_there() -> None:
    sensor = _sensor(
        mode="reschedule",
        poke_interval=timedelta(minutes=2),
        timeout=timedelta(hours=2),
        soft_fail=True,
        exponential_backoff=True,
        max_wait=timedelta(minutes=10),
        execution_timeout=timedelta(hours=1),
    )
    assert (sensor.poke_interval, sensor.timeout, sensor.reschedule) == (120, 7200, True)


@pytest.mark.parametrize("name", ["poll_interval", "poke_interval", "timeout"])
@pytest.mark.parametrize("value", [0, -1, "60", float("inf")])
def test_another_duration_is_refused_when_the_dag_is_read(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got"):
        _sensor(**{name: value})


@pytest.mark.parametrize("name", ["poll_interval", "poke_interval"])
def test_the_interval_has_this_provider_s_name_and_airflow_s(name: str) -> None:
    assert _sensor(**{name: timedelta(minutes=2)}).poke_interval == 120
    assert _sensor().poke_interval == 60
    with pytest.raises(ValueError, match="poll_interval, poke_interval: both are given"):
        _sensor(poll_interval=60, poke_interval=60)


def test_a_mode_that_a_deferrable_wait_ignores_is_an_error_when_the_dag_is_parsed() -> None:
    with pytest.raises(ValueError, match="mode: it has no effect without deferrable=False"):
        _sensor(mode="reschedule", deferrable=True)
    assert _sensor(mode="reschedule", deferrable=True, default_args={"mode": "reschedule"}).deferrable


@pytest.mark.parametrize("name", ["start_from_trigger", "end_from_trigger"])
def test_a_way_of_the_triggerer_without_deferrable_is_an_error_when_the_dag_is_parsed(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: it has no effect without deferrable=True"):
        _sensor(**{name: True}, deferrable=False)
    _sensor(default_args={name: True}, deferrable=False)


def test_a_flag_that_is_a_text_is_read_as_what_it_says() -> None:
    sensor = _sensor(deferrable="True", start_from_trigger="False", end_from_trigger="False")
    assert (sensor.deferrable, sensor.start_from_trigger, sensor.end_from_trigger) == (True, False, False)
    assert not _sensor(deferrable="False").deferrable


@pytest.mark.parametrize("options", [{"mode": "sometimes"}, {"soft_fail": True, "never_fail": True}])
def test_what_the_base_sensor_refuses_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, AirflowException)):
        _sensor(**options)


def test_a_wait_starts_in_the_triggerer_if_requested_and_airflow_can() -> None:
    sensor = _sensor(deferrable=True, start_from_trigger=True, timeout=100, execution_timeout=timedelta(seconds=50))
    assert sensor.start_from_trigger == _compat.STARTS_FROM_TRIGGER
    if _compat.STARTS_FROM_TRIGGER:
        args = sensor.start_trigger_args
        assert args
        assert args.trigger_kwargs
        assert args.trigger_kwargs["timeout"] == 50
        assert args.timeout
        assert args.timeout > timedelta(seconds=50)
        assert args.next_method == "execute_complete"
        assert BatchEndedTrigger(**args.trigger_kwargs).timeout == 50


@pytest.mark.parametrize("options", [{}, {"deferrable": True}, {"default_args": {"start_from_trigger": True}}])
def test_no_other_wait_does(options: dict[str, Any]) -> None:
    assert not _sensor(**options).start_from_trigger


@pytest.mark.parametrize("batch_id", ["{{ ti.xcom_pull('create') }}", ["msgbatch_1", "{{ ti.xcom_pull('create') }}"]])
def test_a_wait_for_another_task_s_output_cannot_start_there(batch_id: Any) -> None:
    with pytest.raises(ValueError, match=r"^batch_id: start_from_trigger is set, but .* takes an XCom"):
        _sensor(batch_id=batch_id, deferrable=True, start_from_trigger=True)


def test_tasks_of_one_dag_do_not_share_their_start_arguments() -> None:
    first = _sensor(deferrable=True, start_from_trigger=True)
    other = BatchEndedSensor(task_id="other", batch_id="msgbatch_2", deferrable=True, start_from_trigger=True)
    assert BatchEndedSensor.start_trigger_args is None
    if _compat.STARTS_FROM_TRIGGER:
        assert first.start_trigger_args != other.start_trigger_args


def test_nothing_is_looked_up_while_the_dag_is_read(mocker: Any) -> None:
    lookup = mocker.patch("airflow_provider_batches.hooks.batches.BatchesHook.get_connection")
    _sensor(deferrable=True)
    lookup.assert_not_called()


def test_a_wait_that_was_rescheduled_has_seen_its_batch_and_a_new_one_has_not(mocker: Any) -> None:
    wait = mocker.patch.object(BatchEndedSensor, "_wait", return_value=[Outcome("ended", "msgbatch_1", "")])
    ti, seen = mocker.Mock(), []
    for first in (None, datetime(2026, 1, 1, tzinfo=timezone.utc)):
        ti.get_first_reschedule_date.return_value = first
        _sensor(mode="reschedule").execute({"ti": ti})
        (made,) = wait.call_args.args[0]
        seen.append(made.seen_since)
    # Since when is not known, so the whole list counts.
    assert seen == [None, 0.0]
    assert (made.start_time, made.end_time) == (first.timestamp(), first.timestamp() + 25 * 3600)  # type: ignore[union-attr]
