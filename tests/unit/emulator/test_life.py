from __future__ import annotations

import json
from collections import Counter
from datetime import datetime

import pytest

from airflow_provider_batches.emulator import Behavior, Emulator
from airflow_provider_batches.emulator.clock import Clock

DAY = 24 * 3600


def batch(api: Emulator, batch_id: str) -> dict:
    found = api.batch(batch_id)
    assert found is not None
    return found


def result_types(api: Emulator, batch_id: str) -> Counter[str]:
    lines = b"".join(api._store.get(batch_id).results()).splitlines()
    return Counter(json.loads(line)["result"]["type"] for line in lines)


def seconds_between(earlier: str, later: str) -> float:
    times = [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (earlier, later)]
    return (times[1] - times[0]).total_seconds()


def test_a_new_batch_shows_nothing_but_processing_requests(api):
    found = batch(api, api.add_batch(10))
    assert found["processing_status"] == "in_progress"
    assert found["request_counts"] == {"processing": 10, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    assert [found[f] for f in ("ended_at", "cancel_initiated_at", "archived_at", "results_url")] == [None] * 4
    assert seconds_between(found["created_at"], found["expires_at"]) == DAY


def test_counts_stay_zero_until_the_whole_batch_ends(api):
    batch_id = api.add_batch(10, outcomes={"succeeded": 7, "errored": 3})
    api.clock.advance(999)
    assert batch(api, batch_id)["request_counts"]["processing"] == 10
    api.clock.advance(1)
    ended = batch(api, batch_id)
    assert ended["processing_status"] == "ended"
    assert ended["request_counts"] == {"processing": 0, "succeeded": 7, "errored": 3, "canceled": 0, "expired": 0}
    assert seconds_between(ended["created_at"], ended["ended_at"]) == 1000
    assert ended["results_url"] == f"{api.url}/v1/messages/batches/{batch_id}/results"


def test_requests_that_finish_before_a_cancel_keep_their_results(api, http):
    batch_id = api.add_batch(100, outcomes={"succeeded": 90, "errored": 10}, cancel_seconds=60)
    api.clock.advance(400)
    assert http.post(f"/v1/messages/batches/{batch_id}/cancel").json()["processing_status"] == "canceling"
    api.clock.advance(59)
    assert batch(api, batch_id)["processing_status"] == "canceling"
    assert batch(api, batch_id)["request_counts"]["processing"] == 100
    api.clock.advance(1)
    ended = batch(api, batch_id)
    assert ended["processing_status"] == "ended"
    assert seconds_between(ended["cancel_initiated_at"], ended["ended_at"]) == 60
    assert ended["request_counts"] == {"processing": 0, "succeeded": 36, "errored": 4, "canceled": 60, "expired": 0}
    assert result_types(api, batch_id) == {"succeeded": 36, "errored": 4, "canceled": 60}


def test_what_has_not_finished_after_a_day_expires(api):
    batch_id = api.add_batch(100, batch_seconds=4 * DAY)
    api.clock.advance(DAY)
    ended = batch(api, batch_id)
    assert ended["ended_at"] == ended["expires_at"]
    assert ended["request_counts"] == {"processing": 0, "succeeded": 25, "errored": 0, "canceled": 0, "expired": 75}
    assert result_types(api, batch_id) == {"succeeded": 25, "expired": 75}


def test_a_cancel_that_takes_too_long_ends_with_the_expiry(api, http):
    batch_id = api.add_batch(100, batch_seconds=4 * DAY, cancel_seconds=2 * DAY)
    http.post(f"/v1/messages/batches/{batch_id}/cancel")
    api.clock.advance(DAY)
    assert batch(api, batch_id)["ended_at"] == batch(api, batch_id)["expires_at"]


def test_results_are_archived_after_29_days(api, http):
    batch_id = api.add_batch(2)
    api.clock.advance(29 * DAY - 1)
    assert http.get(f"/v1/messages/batches/{batch_id}/results").status_code == 200
    assert batch(api, batch_id)["archived_at"] is None
    api.clock.advance(1)
    archived = batch(api, batch_id)
    assert archived["results_url"] is None
    assert seconds_between(archived["created_at"], archived["archived_at"]) == 29 * DAY
    assert http.get(f"/v1/messages/batches/{batch_id}/results").status_code == 404


def test_a_cancel_that_interrupts_nothing_lets_all_requests_finish(api, http):
    api.behavior = Behavior(cancel_interrupts=False)
    batch_id = api.add_batch(100)
    http.post(f"/v1/messages/batches/{batch_id}/cancel")
    assert batch(api, batch_id)["request_counts"]["succeeded"] == 100
    assert batch(api, batch_id)["cancel_initiated_at"] is not None


def test_error_fraction_applies_to_all_batches(emulate):
    api = emulate(error_fraction=0.1)
    assert batch(api, api.add_batch(50, status="ended"))["request_counts"]["errored"] == 5


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"status": "in_progress", "age_seconds": 5000}, "in_progress"),
        ({"age_seconds": 5000}, "ended"),
        ({"status": "ended"}, "ended"),
        ({"status": "ended", "age_seconds": 30 * DAY}, "ended"),
        ({"status": "canceling"}, "canceling"),
        ({"status": "canceling", "cancel_seconds": 5}, "canceling"),
    ],
)
def test_batches_can_be_added_in_any_state(api, options, status):
    assert batch(api, api.add_batch(**options))["processing_status"] == status


def test_a_batch_added_in_progress_ends_after_its_time_from_now(api):
    batch_id = api.add_batch(status="in_progress", age_seconds=500)
    api.clock.advance(999)
    assert batch(api, batch_id)["processing_status"] == "in_progress"
    api.clock.advance(1)
    assert batch(api, batch_id)["processing_status"] == "ended"


def test_a_wholly_canceled_batch_can_be_added(api):
    found = batch(api, api.add_batch(4, status="ended", outcomes={"canceled": 4}))
    assert found["request_counts"]["canceled"] == 4
    assert found["cancel_initiated_at"] == found["ended_at"]


def test_every_outcome_can_be_given(api):
    outcomes = {"succeeded": 1, "errored": 2, "canceled": 3, "expired": 4}
    batch_id = api.add_batch(10, status="ended", outcomes=outcomes)
    assert batch(api, batch_id)["request_counts"] == {"processing": 0, **outcomes}
    assert result_types(api, batch_id) == outcomes


@pytest.mark.parametrize(
    "options",
    [
        {"status": "in_progress", "age_seconds": 2 * DAY},
        {"status": "paused"},
        {"requests": 3, "outcomes": {"succeeded": 2}},
        {"requests": 3, "outcomes": {"finished": 3}},
    ],
)
def test_contradictions_are_refused_when_a_batch_is_added(api, options):
    with pytest.raises(ValueError, match=r"cannot be|outcomes"):
        api.add_batch(**options)


@pytest.mark.parametrize("total", [0, 1, 2, 3, 10, 97, 1000])
def test_results_name_each_request_once_in_an_order_that_is_not_theirs(api, total):
    stored = api._store.get(api.add_batch(total, status="ended"))
    first, second = (b"".join(stored.results()) for _ in range(2))
    ids = [json.loads(line)["custom_id"] for line in first.split(b"\n")[:-1]]
    assert first == second
    assert sorted(ids) == [f"req-{i:06d}" for i in range(total)]
    assert ids != sorted(ids) or total < 4


def test_results_have_about_the_size_asked_for_and_come_in_pieces(api):
    stored = api._store.get(api.add_batch(100, status="ended", result_bytes=5_000_000))
    pieces = [len(piece) for piece in stored.results()]
    assert sum(pieces) == pytest.approx(5_000_000, rel=0.001)
    assert max(pieces) < 400_000


def test_results_hold_line_separators_that_are_no_line_ends(api):
    text = b"".join(api._store.get(api.add_batch(3, status="ended")).results())
    assert len(text.decode().splitlines()) > len(text.split(b"\n")) == 4


def test_custom_ids_can_be_given_as_texts_or_as_requests(api):
    stored = api._store.get(api.add_batch(["one", {"custom_id": "two", "params": {}}], status="ended"))
    lines = b"".join(stored.results()).split(b"\n")[:-1]
    assert {json.loads(line)["custom_id"] for line in lines} == {"one", "two"}


def test_the_clock_runs_stops_and_only_moves_forward():
    clock = Clock()
    clock.advance(100)
    clock.freeze()
    frozen = clock.now()
    clock.advance(5)
    assert clock.now() == frozen + 5
    clock.unfreeze()
    assert frozen + 5 <= clock.now() < frozen + 6
    with pytest.raises(ValueError, match="must not be negative"):
        clock.advance(-1)
