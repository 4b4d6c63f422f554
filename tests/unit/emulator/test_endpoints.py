from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime

import httpx
import pytest

from airflow_provider_batches.emulator import Behavior

from .conftest import BATCHES, a_request, connect

VERSION = {"anthropic-version": "2023-06-01"}


def error(answer: httpx.Response) -> tuple[int, str]:
    envelope = answer.json()
    assert envelope["type"] == "error"
    assert envelope["request_id"] == answer.headers["request-id"]
    return answer.status_code, envelope["error"]["type"]


@pytest.mark.parametrize("name", ["x-api-key", "Authorization"])
def test_both_ways_to_send_the_key_are_accepted(api, name):
    key = api.api_key if name == "x-api-key" else f"Bearer {api.api_key}"
    answer = httpx.get(api.url + BATCHES, headers={name: key, **VERSION}, verify=False)
    assert answer.status_code == 200
    assert api.requests[0].auth == ("x-api-key" if name == "x-api-key" else "bearer")


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"Authorization": "Basic c2VjcmV0"}])
def test_a_wrong_or_missing_key_is_401(api, headers):
    answer = httpx.get(api.url + BATCHES, headers={**headers, **VERSION}, verify=False)
    assert error(answer) == (401, "authentication_error")


def test_any_key_will_do_if_none_is_set(emulate):
    api = emulate(api_key=None)
    with connect(api, headers={"x-api-key": "whatever"}) as http:
        assert http.get(BATCHES).status_code == 200
    assert httpx.get(api.url + BATCHES, headers=VERSION, verify=False).status_code == 401


@pytest.mark.parametrize("version", [None, "2020-01-01"])
def test_a_missing_or_unknown_version_is_400(api, version):
    headers = {"x-api-key": api.api_key, **({"anthropic-version": version} if version else {})}
    assert error(httpx.get(api.url + BATCHES, headers=headers, verify=False)) == (400, "invalid_request_error")


@pytest.mark.parametrize("path", ["/", "/v1/files", BATCHES + "/x/unknown", BATCHES + "/x/results/y"])
def test_an_unknown_path_is_404_as_json(api, path):
    assert error(httpx.get(api.url + path, verify=False)) == (404, "not_found_error")
    assert api.requests[0].endpoint == "unknown"


@pytest.mark.parametrize(("method", "path"), [("PUT", BATCHES), ("GET", BATCHES + "/x/cancel"), ("HEAD", BATCHES)])
def test_a_wrong_method_is_405_and_says_which_are_right(http, method, path):
    answer = http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"]


def test_an_escaped_slash_belongs_to_the_id(api, http):
    assert http.get(BATCHES + "/a%2Fcancel").status_code == 404
    assert (api.requests[0].endpoint, api.requests[0].batch_id) == ("retrieve", "a/cancel")


def test_create_answers_with_the_batch_that_retrieve_shows(api, http):
    created = http.post(BATCHES, json={"requests": [a_request("a"), a_request("b")]}).json()
    assert created["request_counts"]["processing"] == 2
    assert http.get(f"{BATCHES}/{created['id']}").json() == created
    assert api.ids() == [created["id"]]
    assert api.requests[0].batch_id == created["id"]


def test_results_of_a_created_batch_carry_its_ids_and_model(api, http):
    created = http.post(BATCHES, json={"requests": [a_request("a", model="claude-x"), a_request("b")]}).json()
    api.clock.advance(1000)
    answer = http.get(f"{BATCHES}/{created['id']}/results")
    results = [json.loads(line) for line in answer.content.split(b"\n")[:-1]]
    assert {r["custom_id"]: r["result"]["message"]["model"] for r in results} == {"a": "claude-x", "b": "m"}
    assert answer.headers["content-type"] == "application/x-jsonl"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("{", "JSON"),
        ([], "object"),
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": {}}, "requests"),
        ({"requests": [a_request()], "metadata": {}}, "metadata"),
        ({"requests": [3]}, "requests.0"),
        ({"requests": [{"custom_id": "a"}]}, "requests.0"),
        ({"requests": [a_request(""), a_request()]}, "requests.0.custom_id"),
        ({"requests": [a_request("a" * 65)]}, "requests.0.custom_id"),
        ({"requests": [a_request("a\n")]}, "requests.0.custom_id"),
        ({"requests": [{"custom_id": 5, "params": {}}]}, "requests.0.custom_id"),
        ({"requests": [a_request(), a_request()]}, "requests.1.custom_id"),
        ({"requests": [{"custom_id": "a", "params": []}]}, "requests.0.params"),
        ('{"requests": [{"custom_id": "a", "params": {"temperature": NaN}}]}', "JSON"),
    ],
)
def test_a_malformed_create_is_400_and_says_where(api, http, body, where):
    answer = http.post(BATCHES, content=body if isinstance(body, str) else json.dumps(body))
    assert error(answer) == (400, "invalid_request_error")
    assert where in answer.json()["error"]["message"]
    assert api.ids() == []


def test_too_many_requests_are_400_and_too_many_bytes_413(emulate):
    api = emulate(max_requests=2, max_bytes=1000)
    with connect(api) as http:
        assert error(http.post(BATCHES, json={"requests": [a_request(str(i)) for i in range(3)]}))[0] == 400
        large = http.post(BATCHES, json={"requests": [a_request(system="x" * 500_000)]})
        assert error(large) == (413, "request_too_large")


def test_paging_goes_through_all_batches_newest_first(api, http):
    made = [api.add_batch(1, age_seconds=100 - i) for i in range(45)]
    seen, after = [], None
    for size, more in ((20, True), (20, True), (5, False)):
        page = http.get(BATCHES, params={"after_id": after} if after else {}).json()
        assert (len(page["data"]), page["has_more"]) == (size, more)
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        seen += [item["id"] for item in page["data"]]
        after = page["last_id"]
    assert seen == made[::-1] == api.ids()


def test_paging_goes_back_the_same_way(api, http):
    newest_first = [api.add_batch(1) for _ in range(10)][::-1]
    page = http.get(BATCHES, params={"before_id": newest_first[7], "limit": 4}).json()
    assert [item["id"] for item in page["data"]] == newest_first[3:7]
    assert page["has_more"] is True
    page = http.get(BATCHES, params={"before_id": page["first_id"], "limit": 4}).json()
    assert [item["id"] for item in page["data"]] == newest_first[:3]
    assert page["has_more"] is False


def test_an_old_batch_that_is_added_late_stands_at_its_place(api):
    new, old, middle = api.add_batch(age_seconds=1), api.add_batch(age_seconds=9), api.add_batch(age_seconds=5)
    assert api.ids() == [new, middle, old]


def test_an_empty_list_has_no_ids(http):
    assert http.get(BATCHES).json() == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize("params", [{"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"limit": ""}])
def test_a_limit_out_of_range_is_400(http, params):
    assert error(http.get(BATCHES, params=params)) == (400, "invalid_request_error")


def test_paging_on_from_nowhere_or_both_ways_is_refused(api, http):
    assert http.get(BATCHES, params={"after_id": "msgbatch_none"}).status_code == 404
    assert http.get(BATCHES, params={"after_id": api.add_batch(foreign=True)}).status_code == 404
    assert http.get(BATCHES, params={"after_id": "a", "before_id": "b"}).status_code == 400


@pytest.mark.parametrize("direction", ["after_id", "before_id"])
def test_paging_goes_on_from_a_batch_that_was_deleted_meanwhile(api, http, direction):
    newest_first = [api.add_batch(1, status="ended") for _ in range(5)][::-1]
    http.delete(f"{BATCHES}/{newest_first[2]}")
    page = http.get(BATCHES, params={direction: newest_first[2]}).json()
    assert [b["id"] for b in page["data"]] == (newest_first[3:] if direction == "after_id" else newest_first[:2])


def test_delete_makes_a_batch_disappear(api, http):
    batch_id = api.add_batch(["a"], status="ended")
    answer = http.delete(f"{BATCHES}/{batch_id}")
    assert answer.json() == {"id": batch_id, "type": "message_batch_deleted"}
    assert http.get(f"{BATCHES}/{batch_id}").status_code == 404
    assert http.get(BATCHES).json()["data"] == []
    assert api.batch(batch_id) is None is api.batch("msgbatch_never")


def test_a_batch_of_another_workspace_is_not_there(api, http):
    batch_id = api.add_batch(foreign=True)
    assert error(http.get(f"{BATCHES}/{batch_id}")) == (404, "not_found_error")
    assert http.get(BATCHES).json()["data"] == []


@pytest.mark.parametrize("call", [("GET", ""), ("POST", "/cancel"), ("DELETE", ""), ("GET", "/results")])
def test_an_unknown_batch_is_404_whatever_is_asked_of_it(http, call):
    method, suffix = call
    assert error(http.request(method, f"{BATCHES}/msgbatch_none{suffix}")) == (404, "not_found_error")


def test_the_rate_limit_is_shared_by_all_endpoints_and_fills_up_again(emulate):
    api = emulate(requests_per_minute=2)
    api.clock.freeze()
    with connect(api) as http:
        first = http.get(BATCHES)
        assert first.headers["anthropic-ratelimit-requests-limit"] == "2"
        assert first.headers["anthropic-ratelimit-requests-remaining"] == "1"
        assert first.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        http.get(f"{BATCHES}/{api.add_batch()}")
        refused = http.get(BATCHES)
        assert error(refused) == (429, "rate_limit_error")
        assert refused.headers["retry-after"] == "30"
        api.clock.advance(30)
        assert http.get(BATCHES).status_code == 200


@pytest.mark.parametrize("form", ["seconds", "date", "ms", "none"])
def test_retry_after_comes_in_each_form(emulate, form):
    api = emulate(requests_per_minute=1, behavior=Behavior(retry_after=form))
    api.clock.freeze()
    with connect(api) as http:
        http.get(BATCHES)
        headers = http.get(BATCHES).headers
    assert headers.get("retry-after-ms") == ("60000" if form == "ms" else None)
    if form == "date":
        assert 58 <= parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time() <= 60
    else:
        assert headers.get("retry-after") == ("60" if form == "seconds" else None)


def test_the_log_tells_what_was_asked_but_no_secret(api, http):
    http.get(BATCHES, params={"limit": 5}, headers={"authorization": "Bearer other-secret", "x-team": "blue"})
    [entry] = api.requests
    assert (entry.method, entry.path, entry.query, entry.status) == ("GET", BATCHES, {"limit": "5"}, 200)
    assert entry.headers["x-team"] == "blue"
    assert entry.auth == "both"
    assert api.api_key not in repr(entry)
    assert "other-secret" not in repr(entry)


def test_the_log_is_bounded_but_the_counts_are_not(emulate):
    api = emulate(log_size=3)
    with connect(api) as http:
        for _ in range(5):
            http.get(BATCHES)
        http.get(BATCHES + "/x")
    assert len(api.requests) == 3
    assert (api.count("list"), api.count("retrieve"), api.count("create"), api.count()) == (5, 1, 0, 6)
    api.clear_requests()
    assert (api.requests, api.count()) == ([], 0)
