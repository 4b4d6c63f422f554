from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.triggers import batches
from airflow_provider_batches.triggers.batches import BatchEndedTrigger

POLL = 0.02


def _trigger(batch_id: Any, **changed: Any) -> BatchEndedTrigger:
    now = time.time()
    values: dict[str, Any] = {
        "batch_id": batch_id,
        "conn_id": "anthropic_default",
        "poll_interval": POLL,
        "start_time": now - 10,
        "end_time": now + 3600,
    }
    return BatchEndedTrigger(**{**values, **changed})


def _again(trigger: BatchEndedTrigger) -> BatchEndedTrigger:
    path, kwargs = trigger.serialize()
    assert path == "airflow_provider_batches.triggers.batches.BatchEndedTrigger"
    return BatchEndedTrigger(**json.loads(json.dumps(kwargs)))


async def _asked(api: Emulator) -> None:
    """Return once the API has been asked something."""
    while not api.count():  # noqa: ASYNC110 - the server runs in another thread
        await asyncio.sleep(0.005)


async def _events(trigger: BatchEndedTrigger) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(event.payload)) async for event in trigger.run()]


def test_what_is_stored_is_plain_json_that_makes_the_same_trigger() -> None:
    trigger = _trigger("msgbatch_1", cancel_on_kill=True)
    stored = trigger.serialize()
    assert json.loads(json.dumps(stored[1])) == stored[1]
    assert _again(trigger).serialize() == stored
    assert {type(value) for value in stored[1].values()} <= {str, int, float, bool, list, type(None)}
    assert {"batch_id", "conn_id", "poll_interval", "start_time", "end_time", "cancel_on_kill"} <= set(stored[1])


@pytest.mark.parametrize(
    ("outcomes", "counts"),
    [
        ({"succeeded": 10}, "10 succeeded"),
        ({"canceled": 10}, "10 canceled"),
        ({"expired": 4, "errored": 6}, "6 errored"),
    ],
)
async def test_one_event_says_how_the_batch_ended(outcomes: dict[str, int], counts: str, api: Emulator) -> None:
    batch_id = api.add_batch(10, status="in_progress", batch_seconds=0.1, outcomes=outcomes)

    (event,) = await _events(_again(_trigger(batch_id)))

    assert (event["status"], event["batch_id"], event["batch"]["id"]) == ("ended", batch_id, batch_id)
    assert counts in event["message"]
    assert {name: count for name, count in event["batch"]["request_counts"].items() if count} == outcomes


async def test_a_batch_that_is_gone_is_one_event(api: Emulator) -> None:
    (event,) = await _events(_trigger("msgbatch_1"))
    assert (event["status"], event["batch_id"], event["batch"]) == ("missing", "msgbatch_1", None)
    assert api.count("retrieve") == 4


async def test_a_ca_file_without_certificates_is_refused_with_the_field_to_check(
    connect: Callable[..., str],
) -> None:
    conn_id = connect("no_ca", host="https://127.0.0.1:1", extra={"verify": __file__})
    (event,) = await _events(_trigger("msgbatch_1", conn_id=conn_id))
    assert event["status"] == "refused"
    assert "verify" in event["message"]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(("worked", "attempts"), [(False, 4), (True, 6)])
async def test_a_refused_key_is_one_event_after_it_was_tried_again(
    worked: bool, attempts: int, status: int, api: Emulator
) -> None:
    batch_id = api.add_batch()
    armed = api.fault(Fault("retrieve", status=status, times=None, after=int(worked)))
    (event,) = await _events(_trigger(batch_id))
    assert (event["status"], event["retryable"], armed.hits) == ("refused", True, attempts)
    assert str(status) in event["message"]
    assert "password of connection 'anthropic_default'" in event["message"]


async def test_a_key_that_is_replaced_meanwhile_does_not_end_the_wait(
    api: Emulator, connect: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_batches.api.flows.KEY_PAUSES", (0.1,) * 20)
    connect(host=api.url, password="sk-ant-old")
    events = asyncio.ensure_future(_events(_trigger(api.add_batch(status="ended"))))
    await _asked(api)
    connect(host=api.url, password=api.api_key)
    assert [event["status"] for event in await events] == ["ended"]
    assert api.requests[0].status == 401


@pytest.mark.parametrize("seen", [False, True])
async def test_a_proxys_answer_is_an_error_only_if_nothing_has_ever_answered(seen: bool, api: Emulator) -> None:
    batch_id = api.add_batch(status="ended")
    armed = api.fault(Fault(status=404, body="<html>Nothing here</html>", times=10))
    (event,) = await _events(_trigger(batch_id, seen_since=time.time() if seen else None))
    assert (event["status"], armed.hits) == (("ended", 10) if seen else ("refused", 6))


@pytest.mark.parametrize("listed", [True, False])
async def test_a_batch_that_was_seen_is_gone_only_if_the_list_does_not_have_it(listed: bool, api: Emulator) -> None:
    batch_id = api.add_batch(status="ended") if listed else "msgbatch_01Gone"
    api.fault(Fault("retrieve", status=404, times=8))
    (event,) = await _events(_trigger(batch_id, seen_since=time.time() - 3600))
    assert event["status"] == ("ended" if listed else "missing")
    assert api.count("list") > 0


async def test_wrong_settings_are_one_event(connect: Callable[..., str]) -> None:
    connect("wrong", extra={"timeout": 0})
    (event,) = await _events(_trigger("msgbatch_1", conn_id="wrong"))
    assert event["status"] == "refused"
    assert event["message"].startswith("extra.timeout of connection 'wrong': ")


@pytest.mark.parametrize("name", ["poll_interval", "timeout"])
@pytest.mark.parametrize("value", [0, -1, "60", True, float("inf")])
async def test_what_is_not_a_duration_is_one_event(name: str, value: Any, api: Emulator) -> None:
    (event,) = await _events(_trigger(api.add_batch(), end_time=None, **{"timeout": 1, name: value}))
    assert (event["status"], api.count()) == ("refused", 0)
    assert event["message"].startswith(f"{name}: got {value!r}; it must be")


async def test_the_end_of_the_time_is_one_event_with_what_was_seen(api: Emulator) -> None:
    batch_id = api.add_batch(10)
    (event,) = await _events(_trigger(batch_id, end_time=time.time() + 0.1))
    assert (event["status"], event["batch"]["processing_status"]) == ("timeout", "in_progress")
    assert "had not ended" in event["message"]


async def test_a_time_that_ended_while_no_triggerer_ran_still_gets_a_last_poll(api: Emulator) -> None:
    past = time.time() - 60
    ended = api.add_batch(status="ended")
    assert [event["status"] for event in await _events(_trigger(ended, end_time=past))] == ["ended"]
    assert [event["status"] for event in await _events(_trigger(api.add_batch(), end_time=past))] == ["timeout"]


async def test_a_trigger_that_is_stopped_changes_nothing_and_continues_elsewhere(api: Emulator) -> None:
    batch_id = api.add_batch(10, status="in_progress", batch_seconds=0.2)
    trigger = _trigger(batch_id, cancel_on_kill=True)
    running = asyncio.ensure_future(_events(trigger))
    await _asked(api)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await trigger.cleanup()
    assert api.count("cancel") == 0

    assert [event["status"] for event in await _events(_again(trigger))] == ["ended"]


async def test_two_copies_of_a_trigger_do_not_disturb_each_other(api: Emulator) -> None:
    batch_id = api.add_batch(10, status="in_progress", batch_seconds=0.1)
    trigger = _trigger(batch_id)
    both = await asyncio.gather(_events(_again(trigger)), _events(_again(trigger)))
    assert [[event["status"] for event in events] for events in both] == [["ended"], ["ended"]]


@pytest.mark.parametrize("restarted", [False, True])
async def test_neither_a_poll_nor_an_event_comes_in_the_first_seconds(
    restarted: bool, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FIRST_POLL", 5.0)
    start = time.time() - 4.8
    trigger = _trigger(api.add_batch(status="ended"), start_time=start)
    if restarted:
        first = asyncio.ensure_future(_events(trigger))
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    assert len(await _events(_again(trigger))) == 1

    assert time.time() >= start + 5
    assert min(request.time for request in api.requests) >= start + 5 - 0.01


async def test_an_error_of_the_settings_comes_no_sooner(
    connect: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FIRST_POLL", 5.0)
    connect("wrong", extra={"timeout": 0})
    start = time.time() - 4.8
    assert len(await _events(_trigger("msgbatch_1", conn_id="wrong", start_time=start))) == 1
    assert time.time() >= start + 5


@pytest.mark.parametrize("ends_both", ["a refused key", "a page of the list"])
async def test_nor_does_the_event_of_a_wait_that_an_answer_to_another_one_ends(
    ends_both: str, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FIRST_POLL", 5.0)
    refused = ends_both == "a refused key"
    others = [_trigger(api.add_batch(status="in_progress", batch_seconds=0.15)) for _ in range(4)]
    waiting = [asyncio.ensure_future(_events(other)) for other in others]
    await _asked(api)
    start = time.time() - 4.5
    batch_id = api.add_batch(status="in_progress" if refused else "ended")
    fresh = asyncio.ensure_future(_events(_trigger(batch_id, start_time=start)))
    await asyncio.sleep(0.02)
    if refused:
        api.fault(Fault(status=401, times=None))

    (event,) = await fresh

    assert time.time() >= start + 5
    assert event["status"] == ("refused" if refused else "ended")
    assert {events[0]["status"] for events in await asyncio.gather(*waiting)} == {event["status"]}


async def test_a_worker_whose_clock_is_ahead_does_not_put_the_wait_off(api: Emulator) -> None:
    trigger = _trigger(api.add_batch(status="ended"), start_time=time.time() + 600)
    assert len(await asyncio.wait_for(_events(trigger), 5)) == 1


async def test_the_start_of_a_task_in_the_triggerer_needs_no_such_seconds(
    api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FIRST_POLL", 5.0)
    trigger = _trigger(api.add_batch(status="ended"), start_time=None, end_time=None, timeout=60)
    assert len(await asyncio.wait_for(_events(trigger), 2)) == 1


async def test_several_batches_are_one_event(api: Emulator) -> None:
    ids = [api.add_batch(10, status="in_progress", batch_seconds=seconds) for seconds in (0.02, 0.1)]
    (event,) = await _events(_again(_trigger(ids)))
    assert (event["status"], event["batch_id"], event["batch"]["ended"]) == ("ended", ids, 2)


async def test_polls_keep_to_the_poll_interval(api: Emulator) -> None:
    batch_id = api.add_batch(10, status="in_progress", batch_seconds=0.5)
    await _events(_trigger(batch_id, poll_interval=0.1))
    assert 4 <= api.count("retrieve") <= 7
