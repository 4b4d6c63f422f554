from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from airflow_provider_batches.triggers import batches
from airflow_provider_batches.triggers.batches import BatchEndedTrigger

#: A value other than its default for each parameter.
VALUES: dict[str, Any] = {
    "batch_id": "msgbatch_1",
    "conn_id": "here",
    "poll_interval": 30.0,
    "start_time": 1.0,
    "end_time": 2.0,
    "timeout": 3.0,
    "seen_since": 4.0,
    "ignore_if_missing": True,
    "fail_on_partial_error": True,
    "cancel_on_kill": True,
    "end_from_trigger": True,
}


def test_every_parameter_is_stored() -> None:
    assert set(inspect.signature(BatchEndedTrigger).parameters) == set(VALUES)
    path, kwargs = BatchEndedTrigger(**VALUES).serialize()
    assert path == f"{BatchEndedTrigger.__module__}.{BatchEndedTrigger.__qualname__}"
    assert kwargs == VALUES


@pytest.mark.parametrize("batch_id", ["msgbatch_1", ["msgbatch_1", "msgbatch_2"]])
def test_what_is_stored_makes_the_same_trigger_again(batch_id: Any) -> None:
    stored = BatchEndedTrigger(**{**VALUES, "batch_id": batch_id}).serialize()
    assert BatchEndedTrigger(**json.loads(json.dumps(stored[1]))).serialize() == stored


def test_a_trigger_can_be_made_without_the_parameters_that_came_later() -> None:
    old = {name: VALUES[name] for name in ("batch_id", "conn_id", "poll_interval", "start_time", "end_time")}
    assert BatchEndedTrigger(**old).serialize()[1]["cancel_on_kill"] is False


def test_the_first_seconds_after_a_deferral_are_left_to_the_scheduler() -> None:
    assert batches.FIRST_POLL == 10.0


@pytest.mark.parametrize("start_time", [None, 1_000_000.4])
def test_triggers_that_come_within_a_second_poll_together(start_time: float | None, mocker: Any) -> None:
    polls = []
    for now in (1_000_000.5, 1_000_000.7, 1_000_000.9):
        mocker.patch("airflow_provider_batches.triggers.batches.time.time", return_value=now)
        polls.append(BatchEndedTrigger(**{**VALUES, "start_time": start_time})._first_poll())
    assert polls == [1_000_001.0 if start_time is None else 1_000_011.0] * 3


async def test_a_persons_end_of_the_task_sends_nothing_unless_asked(mocker: Any) -> None:
    hook = mocker.patch("airflow_provider_batches.triggers.batches.BatchesHook")
    await BatchEndedTrigger(**{**VALUES, "cancel_on_kill": False}).on_kill()
    hook.assert_not_called()


async def test_the_end_of_the_trigger_itself_cancels_nothing(mocker: Any) -> None:
    hook = mocker.patch("airflow_provider_batches.triggers.batches.BatchesHook")
    await BatchEndedTrigger(**VALUES).cleanup()
    hook.assert_not_called()
