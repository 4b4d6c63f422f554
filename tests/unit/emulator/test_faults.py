from __future__ import annotations

import threading
import time

import httpx
import pytest

from airflow_provider_batches.emulator import Fault

from .conftest import BATCHES, a_request, connect


def statuses(http: httpx.Client, count: int, path: str = BATCHES) -> list[int]:
    return [http.get(path).status_code for _ in range(count)]


def read_until_error(http: httpx.Client, path: str) -> tuple[int, httpx.HTTPError | None]:
    got = 0
    try:
        with http.stream("GET", path) as answer:
            for piece in answer.iter_raw():
                got += len(piece)
    except httpx.HTTPError as e:
        return got, e
    return got, None


def test_a_status_comes_once_with_the_envelope_of_the_api(api, http):
    armed = api.fault(Fault(status=529, message="Overloaded"))
    answer = http.get(BATCHES)
    assert answer.status_code == 529
    assert answer.json()["error"] == {"type": "overloaded_error", "message": "Overloaded"}
    assert answer.headers["request-id"] == api.requests[0].request_id
    assert api.requests[0].faulted
    assert (http.get(BATCHES).status_code, armed.hits, armed.spent) == (200, 1, True)


@pytest.mark.parametrize(
    ("status", "type_"),
    [(400, "invalid_request_error"), (408, "invalid_request_error"), (503, "api_error"), (504, "timeout_error")],
)
def test_the_error_type_follows_the_status(api, http, status, type_):
    api.fault(Fault(status=status))
    assert http.get(BATCHES).json()["error"]["type"] == type_


def test_type_code_and_headers_can_be_given(api, http):
    headers = {"retry-after": "7", "x-should-retry": "false"}
    api.fault(Fault(status=429, error_type="t", error_code="enforced_spend_limit_reached", headers=headers))
    answer = http.get(BATCHES)
    assert answer.json()["error"]["type"] == "t"
    assert answer.json()["error"]["details"] == {"error_code": "enforced_spend_limit_reached"}
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["x-should-retry"] == "false"


def test_headers_alone_are_added_to_the_ordinary_answer(api, http):
    api.fault(Fault(headers={"x-should-retry": "true"}))
    answer = http.get(BATCHES)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (200, "true")


def test_a_proxy_answers_in_html_without_a_request_id(api, http):
    api.fault(Fault(html=True))
    api.fault(Fault(html=True, status=413))
    for status in (502, 413):
        answer = http.get(BATCHES)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html")
        assert "request-id" not in answer.headers
        assert answer.text.startswith("<html>")


@pytest.mark.parametrize(
    ("fault", "status", "content"),
    [
        (Fault(body=""), 200, b""),
        (Fault(body="{not json"), 200, b"{not json"),
        (Fault(body=b"\xff", status=500), 500, b"\xff"),
        (Fault(status=204), 204, b""),
    ],
)
def test_any_body_can_be_answered(api, http, fault, status, content):
    api.fault(fault)
    answer = http.get(BATCHES)
    assert (answer.status_code, answer.content) == (status, content)


def test_a_redirect_names_the_same_path_on_another_host(api, http):
    for status in (None, 302):
        api.fault(Fault(redirect="http://127.0.0.1:9", status=status))
        answer = http.get(BATCHES, params={"limit": 3})
        assert answer.status_code == (status or 307)
        assert answer.headers["location"] == f"http://127.0.0.1:9{BATCHES}?limit=3"
    api.fault(Fault(redirect="http://127.0.0.1:9"))
    assert http.get(BATCHES).headers["location"] == f"http://127.0.0.1:9{BATCHES}"


def test_faults_match_endpoint_and_batch(api, http):
    one, other = api.add_batch(), api.add_batch()
    api.fault(Fault("retrieve", batch_id=one, status=500, times=None))
    assert statuses(http, 2, f"{BATCHES}/{one}") == [500, 500]
    assert statuses(http, 1, f"{BATCHES}/{other}") == [200]
    assert statuses(http, 1) == [200]
    assert http.post(f"{BATCHES}/{one}/cancel").status_code == 200
    api.clear_faults()
    assert statuses(http, 1, f"{BATCHES}/{one}") == [200]


def test_faults_wait_for_their_turn_and_strike_as_often_as_told(api, http):
    api.fault(Fault("list", status=500, after=1, times=2))
    api.fault(Fault("list", status=503, after=2))
    assert statuses(http, 6) == [200, 500, 500, 200, 503, 200]


def test_faults_by_chance_are_the_same_each_time(api, http):
    runs = []
    for _ in range(2):
        api.clear_faults()
        api.fault(Fault(status=500, probability=0.5, seed=3, times=None))
        runs.append(statuses(http, 20))
    assert runs[0] == runs[1]
    assert {200, 500} == set(runs[0])


def test_an_unknown_endpoint_is_refused():
    with pytest.raises(ValueError, match="endpoint must be one of"):
        Fault("fetch")


def test_latency_delays_the_answer(api, http):
    api.fault(Fault(delay=0.2))
    start = time.monotonic()
    assert http.get(BATCHES).status_code == 200
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize(("reset", "error"), [(False, httpx.RemoteProtocolError), (True, httpx.ReadError)])
def test_a_connection_can_drop_before_the_change(api, http, reset, error):
    api.fault(Fault("create", drop=True, reset=reset))
    with pytest.raises(error):
        http.post(BATCHES, json={"requests": [a_request()]})
    assert api.ids() == []
    assert api.requests[0].status is None


@pytest.mark.parametrize("fault", [Fault(drop_after=True), Fault(drop=True, applied=True)])
def test_an_answer_can_be_lost_after_the_change(api, http, fault):
    api.fault(fault)
    with pytest.raises(httpx.RemoteProtocolError):
        http.post(BATCHES, json={"requests": [a_request()]})
    assert len(api.ids()) == 1


def test_an_answer_can_be_replaced_after_the_change(api, http):
    batch_id = api.add_batch(status="ended")
    api.fault(Fault("delete", status=504, applied=True))
    assert http.delete(f"{BATCHES}/{batch_id}").status_code == 504
    assert api.ids() == []


def test_a_status_without_applied_leaves_everything_as_it_was(api, http):
    batch_id = api.add_batch(status="ended")
    api.fault(Fault("delete", status=504))
    assert http.delete(f"{BATCHES}/{batch_id}").status_code == 504
    assert api.ids() == [batch_id]


def test_a_hanging_request_is_never_answered(api):
    api.fault(Fault(hang=True))
    with connect(api, timeout=0.2) as http, pytest.raises(httpx.ReadTimeout):
        http.get(BATCHES)


@pytest.mark.parametrize("path", [BATCHES, f"{BATCHES}/{{}}/results"])
@pytest.mark.parametrize("reset", [False, True])
def test_an_answer_can_break_off(api, http, path, reset):
    path = path.format(api.add_batch(status="ended"))
    api.fault(Fault(cut_after=30, reset=reset))
    got, error = read_until_error(http, path)
    assert got <= 30
    assert isinstance(error, httpx.ReadError if reset else httpx.RemoteProtocolError)


@pytest.mark.parametrize("path", [BATCHES, f"{BATCHES}/{{}}/results"])
def test_an_answer_can_be_cut_so_that_http_does_not_show_it(api, http, path):
    path = path.format(api.add_batch(status="ended"))
    whole = http.get(path).content
    api.fault(Fault(cut_after=30, cut_cleanly=True))
    assert http.get(path).content == whole[:30]
    assert http.get(path).content == whole


def test_a_cut_beyond_the_end_changes_nothing(api, http):
    path = f"{BATCHES}/{api.add_batch(5, status='ended')}/results"
    whole = http.get(path).content
    api.fault(Fault(cut_after=len(whole)))
    assert http.get(path).content == whole


def test_results_can_break_off_in_a_later_piece(api, http):
    path = f"{BATCHES}/{api.add_batch(1000, status='ended', result_bytes=3_000_000)}/results"
    api.fault(Fault("results", cut_after=2_000_000))
    got, error = read_until_error(http, path)
    assert (got, type(error)) == (2_000_000, httpx.RemoteProtocolError)


def test_results_can_fall_silent_half_way(api):
    path = f"{BATCHES}/{api.add_batch(5, status='ended')}/results"
    api.fault(Fault(cut_after=30, hang=True))
    with connect(api, timeout=0.2) as http:
        got, error = read_until_error(http, path)
    assert (got, type(error)) == (30, httpx.ReadTimeout)


def test_a_client_that_leaves_ends_the_stream(api):
    path = f"{BATCHES}/{api.add_batch(1000, status='ended', result_bytes=100_000_000)}/results"
    with connect(api) as http, http.stream("GET", path) as answer:
        next(answer.iter_raw())
    with connect(api) as http:
        assert http.get(BATCHES).status_code == 200


@pytest.mark.parametrize("fault", [Fault(hang=True), Fault(delay=60)])
def test_stopping_does_not_wait_for_requests_under_way(api, fault, caplog):
    api.fault(fault)
    errors: list[Exception] = []

    def ask() -> None:
        with connect(api) as http:
            try:
                http.get(BATCHES)
            except httpx.HTTPError as e:
                errors.append(e)

    asking = threading.Thread(target=ask)
    asking.start()
    while not api.requests:
        time.sleep(0.01)
    start = time.monotonic()
    api.stop()
    asking.join()
    assert time.monotonic() - start < 1
    assert len(errors) == 1
    assert not [r for r in caplog.records if r.name.startswith("uvicorn")]
