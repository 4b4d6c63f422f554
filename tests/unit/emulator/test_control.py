from __future__ import annotations

import json

import pytest

from .conftest import BATCHES, connect


@pytest.fixture
def control(api):
    """Call a control endpoint without any key."""
    with connect(api) as http:
        del http.headers["x-api-key"]

        def call(method, name, data=None, status=200, **params):
            content = None if data is None else json.dumps(data)
            answer = http.request(method, f"/_emulator/{name}", content=content, params=params)
            assert answer.status_code == status
            return answer.json()

        yield call


def test_health_tells_time_and_number_of_batches(api, control):
    api.add_batch()
    assert control("GET", "health") == {"status": "ok", "now": api.clock.now(), "batches": 1}
    assert api.requests == []


def test_many_batches_are_added_at_once(api, control):
    data = {"count": 3, "requests": 5, "status": "ended", "outcomes": {"succeeded": 4, "errored": 1}}
    ids = control("POST", "batches", data)["ids"]
    assert len(ids) == 3
    assert control("GET", "batches") == {"ids": ids[::-1]}
    assert api.batch(ids[0])["request_counts"]["errored"] == 1


def test_the_clock_is_moved_and_stopped(api, control):
    start = api.clock.now()
    assert control("POST", "clock", {"advance": 3600}) == {"now": start + 3600}
    assert control("POST", "clock", {"freeze": False})["now"] > start + 3600
    assert control("POST", "clock", {"freeze": True})["now"] == api.clock.now()


def test_behavior_is_changed_field_by_field(api, control):
    control("POST", "behavior", {"cancel_ended": 409})
    assert control("POST", "behavior", {"delete_again": 200})["cancel_ended"] == 409
    assert (api.behavior.cancel_ended, api.behavior.delete_again) == (409, 200)
    assert control("GET", "behavior")["delete_again"] == 200
    assert control("DELETE", "behavior")["delete_again"] == 404


def test_faults_are_set_shown_and_cleared(api, http, control):
    control("POST", "faults", [{"status": 500}, {"endpoint": "list", "status": 503, "times": None}])
    assert [http.get(BATCHES).status_code for _ in range(3)] == [500, 503, 503]
    [shown] = control("GET", "faults")["faults"]
    assert shown["hits"] == 2
    control("POST", "faults", {"status": 529})
    control("DELETE", "faults")
    assert http.get(BATCHES).status_code == 200


def test_the_log_is_read_filtered_and_cleared(api, http, control):
    for path in (BATCHES, f"{BATCHES}/x", BATCHES):
        http.get(path)
    log = control("GET", "requests")
    assert log["counts"] == {"list": 2, "retrieve": 1}
    assert [r["status"] for r in log["requests"]] == [200, 404, 200]
    assert api.api_key not in json.dumps(log)
    assert len(control("GET", "requests", endpoint="list", limit="1")["requests"]) == 1
    control("DELETE", "requests")
    assert control("GET", "requests") == {"counts": {}, "requests": []}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("clock", {"back": 5}),
        ("clock", {"advance": -5}),
        ("clock", []),
        ("behavior", {"unheard_of": 1}),
        ("behavior", {"cancel_ended": "no"}),
        ("faults", {"endpoint": "nowhere"}),
        ("batches", {"count": 0}),
        ("batches", {"color": "red"}),
    ],
)
def test_what_it_does_not_understand_is_400_with_a_reason(control, name, data):
    assert control("POST", name, data, status=400)["error"]


def test_an_unknown_control_is_404(control):
    assert "nonsense" in control("GET", "nonsense", status=404)["error"]
