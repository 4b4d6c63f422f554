"""What the API documents, and what gave an emulator away."""

from __future__ import annotations

import json
import re
import socket
from email.utils import parsedate_to_datetime
from typing import get_args

import pytest

from airflow_provider_batches.emulator import Behavior, Fault
from tests.unit.emulator.conftest import BATCHES, a_request, connect

CURRENT = {"anthropic-version": "2026-10-21"}


def results_of(api, http, requests, **headers):
    created = http.post(BATCHES, json={"requests": requests}, headers=headers).json()
    api.clock.advance(1000)
    lines = http.get(f"{BATCHES}/{created['id']}/results").content.splitlines()
    return {line["custom_id"]: line["result"] for line in map(json.loads, lines)}


def test_json_is_compact_so_that_the_guides_own_sed_line_works(api, http):
    batch_id = api.add_batch(3, status="in_progress")
    found = re.sub(
        r'.*"id":"([^"]+)".*"processing_status":"([^"]+)".*', r"\1 \2", http.get(f"{BATCHES}/{batch_id}").text
    )
    assert found == f"{batch_id} in_progress"
    for path in (BATCHES, f"{BATCHES}/unknown", "/v1/models"):
        assert ": " not in http.get(path).text


def test_a_result_has_all_fields_that_the_official_types_declare(api, http):
    from anthropic.types import Message, Usage

    message = results_of(api, http, [a_request()])["a"]["message"]
    assert set(message) == set(Message.model_fields)
    assert set(message["usage"]) == set(Usage.model_fields)
    counted = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    assert all(type(message["usage"][name]) is int for name in counted)


def test_message_ids_are_unique_over_all_batches(api, http):
    ids = [
        each["message"]["id"]
        for _ in range(2)
        for each in results_of(api, http, [a_request("a"), a_request("b")]).values()
    ]
    assert len(set(ids)) == 4
    assert all(re.fullmatch(r"msg_01[0-9a-zA-Z]{20}", each) for each in ids)


def test_message_ids_depend_on_the_batchs_id_only(emulate):
    def ids(name):
        with connect(api := emulate()) as http:
            lines = http.get(f"{BATCHES}/{api.add_batch(3, id=name, status='ended')}/results").content.splitlines()
        return {json.loads(line)["result"]["message"]["id"] for line in lines}

    assert ids("batch_2026-11-26") == ids("batch_2026-11-26")
    assert not ids("batch_2026-11-26") & ids("hctab_2026-11-26")


INVALID = [
    ({"model": ""}, "model"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"stream": True}, "stream"),
    ({"speed": "fast"}, "speed"),
]


@pytest.mark.parametrize(("params", "names"), INVALID)
def test_params_that_are_not_valid_end_as_errored_and_the_others_succeed(api, http, params, names):
    results = results_of(api, http, [a_request("a", **params), a_request("b")])
    assert results["b"]["type"] == "succeeded"
    error = results["a"]["error"]
    assert (results["a"]["type"], error["error"]["type"]) == ("errored", "invalid_request_error")
    assert names in error["error"]["message"]
    assert error["request_id"].startswith("req_")


@pytest.mark.parametrize(("params", "names"), INVALID)
def test_they_are_refused_at_once_if_behavior_says_so(api, http, params, names):
    api.behavior = Behavior(invalid_params=400)
    answer = http.post(BATCHES, json={"requests": [a_request("a", **params)]})
    assert answer.status_code == 400
    assert f"requests.0.params.{names}" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_parameters_are_gone_in_the_current_version(api, http, name):
    request = a_request(**{name: 1})
    assert results_of(api, http, [request])["a"]["type"] == "succeeded"
    assert results_of(api, http, [request], **CURRENT)["a"]["type"] == "errored"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("anthropic-beta", "message-batches-2024-09-24, output-300k-2026-03-24")], 200),
        ([("anthropic-beta", "nonsense")], 400),
        ([("anthropic-beta", "nonsense-2026-01-01,pdfs-2024-09-25")], 400),
        ([("anthropic-version", "2023-06-01")], 400),
        ([("anthropic-workspace-id", "default")], 200),
        ([("anthropic-workspace-id", "wrkspc_01AbC")], 403),
        ([("anthropic-workspace-id", "")], 403),
    ],
    ids=["known flags", "no flag", "unknown flag", "version twice", "own workspace", "foreign workspace", "empty"],
)
def test_headers_are_checked(http, headers, status):
    assert http.get(BATCHES, headers=[*http.headers.items(), *headers]).status_code == status


def test_the_workspace_can_be_set(emulate):
    with connect(emulate(workspace_id="wrkspc_own")) as http:
        for workspace, status in {"wrkspc_own": 200, "wrkspc_other": 403, "default": 403}.items():
            assert http.get(BATCHES, headers={"anthropic-workspace-id": workspace}).status_code == status


def test_an_unknown_flag_and_a_foreign_workspace_pass_if_behavior_says_so(api, http):
    api.behavior = Behavior(unknown_beta=200, foreign_workspace=200)
    headers = {"anthropic-beta": "nonsense", "anthropic-workspace-id": "wrkspc_other"}
    assert http.get(BATCHES, headers=headers).status_code == 200


def test_the_flags_and_models_of_the_official_types_are_known(http):
    from anthropic.types import Model
    from anthropic.types.anthropic_beta_param import AnthropicBetaParam

    names, flags = ({*get_args(next(filter(get_args, get_args(kind))))} for kind in (Model, AnthropicBetaParam))
    assert names <= {each["id"] for each in http.get("/v1/models", params={"limit": 1000}).json()["data"]}
    assert http.get(BATCHES, headers={"anthropic-beta": ",".join(flags)}).status_code == 200


def test_blanks_around_a_header_do_not_count(api):
    with socket.create_connection((api.host, api.port)) as raw:
        head = f"GET {BATCHES} HTTP/1.1\r\nHost: x\r\nx-api-key:  {api.api_key} \t \r\n"
        raw.sendall(f"{head}anthropic-version: 2023-06-01 \r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 200")


def test_answers_have_a_date(http):
    for path in (BATCHES, f"{BATCHES}/unknown"):
        assert parsedate_to_datetime(http.get(path).headers["date"])


def test_models_can_be_listed_page_by_page_and_looked_up(http):
    from anthropic.types import ModelInfo

    names, after = [], None
    while True:
        page = http.get("/v1/models", params={"limit": 3, **({"after_id": after} if after else {})}).json()
        names += [each["id"] for each in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert len(names) == len(set(names)) > 3
    assert ModelInfo.model_validate(http.get(f"/v1/models/{names[0]}").json()).capabilities.batch.supported
    before = http.get("/v1/models", params={"before_id": names[5], "limit": 2}).json()
    assert ([each["id"] for each in before["data"]], before["has_more"]) == (names[3:5], True)
    for path in ("/v1/models/unknown", "/v1/models?after_id=unknown"):
        assert http.get(path).status_code == 404


def test_tokens_can_be_counted(http):
    short, long = ({"model": "m", "messages": [{"role": "user", "content": "x" * n}]} for n in (4, 4000))
    counts = [http.post("/v1/messages/count_tokens", json=each).json()["input_tokens"] for each in (short, long)]
    assert 0 < counts[0] < 100 < 900 < counts[1]
    assert http.post("/v1/messages/count_tokens", json={"model": "m"}).status_code == 400


def test_both_cursors_at_once_are_a_knob(api, http):
    ids = [api.add_batch(1, age_seconds=10 - i) for i in range(3)]
    both = {"after_id": ids[2], "before_id": ids[0]}
    assert http.get(BATCHES, params=both).status_code == 400
    api.behavior = Behavior(both_cursors=200)
    assert [each["id"] for each in http.get(BATCHES, params=both).json()["data"]] == [ids[1], ids[0]]


def test_an_incomplete_body_times_out(emulate):
    api = emulate(body_seconds=0.3)
    with socket.create_connection((api.host, api.port), timeout=5) as raw:
        raw.sendall(f"POST {BATCHES} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        received = b""
        while piece := raw.recv(1000):
            received += piece
    assert received.startswith(b"HTTP/1.1 408")
    assert api.ids() == []


def test_a_new_batch_is_listed_found_and_counted_late(api, http):
    api.behavior = Behavior(list_lag=5.0, retrieve_lag=3.0, counts_lag=10.0)
    old = api.add_batch(1, age_seconds=100)
    new = http.post(BATCHES, json={"requests": [a_request()]}).json()["id"]
    seen = []
    for _ in range(4):
        page = http.get(BATCHES).json()
        found = http.get(f"{BATCHES}/{new}")
        counts = found.json().get("request_counts", {})
        seen.append(([each["id"] for each in page["data"]], found.status_code, counts.get("processing")))
        api.clock.advance(4)
    assert seen == [([old], 404, None), ([old], 200, 0), ([new, old], 200, 0), ([new, old], 200, 1)]


def test_seconds_may_be_whole_numbers(api, http):
    assert http.post("/_emulator/behavior", json={"list_lag": 5}).json()["list_lag"] == 5
    api.add_batch(1)
    assert http.get(BATCHES).json()["data"] == []


def test_a_router_answers_in_plain_text(api, http):
    api.fault(Fault(gateway="text", times=None))
    for answer in (http.get(BATCHES), http.post(f"{BATCHES}/x/cancel")):
        assert (answer.status_code, answer.text) == (404, "404 page not found\n")
        assert answer.headers["content-type"].startswith("text/plain")
        assert "request-id" not in answer.headers


@pytest.mark.parametrize("status", [200, 403])
def test_a_page_of_a_firewall_or_portal_answers_for_the_api(api, http, status):
    api.fault(Fault(html=True, status=status))
    answer = http.get(f"{BATCHES}/x/results")
    assert (answer.status_code, answer.headers["content-type"], answer.text[:6]) == (status, "text/html", "<html>")
    assert "request-id" not in answer.headers


@pytest.mark.parametrize(
    ("gateway", "keys"), [("envelope", {"type", "error"}), ("openai", {"error"})], ids=["envelope", "openai"]
)
def test_an_error_that_a_gateway_mints_has_no_request_id(api, http, gateway, keys):
    api.fault(Fault("retrieve", gateway=gateway, status=401))
    answer = http.get(f"{BATCHES}/x")
    assert (answer.status_code, set(answer.json())) == (401, keys)
    assert "request-id" not in answer.headers
    with pytest.raises(ValueError, match="gateway must be"):
        Fault(gateway="other")
