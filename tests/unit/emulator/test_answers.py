"""Answers and outcomes that a test gives, and those that a request's own parameters ask for."""

from __future__ import annotations

import json

import pytest

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.emulator.schemas import sample
from tests.unit.emulator.conftest import BATCHES, a_request, connect

SCHEMA = {
    "type": "object",
    "properties": {
        "category": {"enum": ["billing", "bug"]},
        "score": {"type": "number", "minimum": 2},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 2},
        "other": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "sure": {"type": ["boolean", "null"]},
        "kind": {"const": "ticket"},
    },
    "$defs": {"tag": {"type": "string"}},
}
TREE = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
LIST = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["next"],
}
SAMPLE = {
    "category": "billing",
    "score": 2,
    "tags": ["text", "text"],
    "other": None,
    "sure": True,
    "kind": "ticket",
}


def lines_of(http, batch_id):
    lines = http.get(f"{BATCHES}/{batch_id}/results").content.splitlines()
    return {line["custom_id"]: line["result"] for line in map(json.loads, lines)}


def results_of(api, http, *requests):
    created = http.post(BATCHES, json={"requests": list(requests)}).json()
    api.clock.advance(1000)
    counts = http.get(f"{BATCHES}/{created['id']}").json()["request_counts"]
    found = lines_of(http, created["id"])
    for outcome in ("succeeded", "errored", "canceled", "expired"):
        assert counts[outcome] == sum(each["type"] == outcome for each in found.values())
    return found


def text_of(result):
    return result["message"]["content"][0]["text"]


def test_answers_by_custom_id(api, http):
    api.answers = {"a": "Paris", "b": {"error": {"type": "overloaded_error", "message": "Busy"}}, "z": "not asked"}
    found = results_of(api, http, a_request("a"), a_request("b"), a_request("c"))
    assert text_of(found["a"]) == "Paris"
    assert found["b"]["error"]["error"] == {"type": "overloaded_error", "message": "Busy"}
    assert text_of(found["c"]).startswith("An answer of the emulator.")


def test_answers_by_a_function_of_the_request(api, http):
    answers = {
        "text": "Hello!",
        "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}],
        "message": {"content": "cut", "stop_reason": "max_tokens", "usage": {"output_tokens": 8}},
        "error": {"error": "Something broke"},
        "none": None,
    }
    api.answers = lambda request: answers[request["params"]["system"]]
    found = results_of(api, http, *(a_request(name, system=name) for name in answers))
    assert text_of(found["text"]) == "Hello!"
    assert [block["text"] for block in found["content"]["message"]["content"]] == ["One", "Two"]
    message = found["message"]["message"]
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("max_tokens", 8)
    assert message["usage"]["input_tokens"] == 10
    assert found["error"]["error"]["error"] == {"type": "api_error", "message": "Something broke"}
    assert text_of(found["none"]).startswith("An answer")


def test_answers_and_outcomes_of_an_added_batch(api, http):
    batch_id = api.add_batch(
        ["a", "b", "c"], status="ended", answers={"a": "Paris"}, outcomes={"b": "expired", "c": "errored"}
    )
    found = lines_of(http, batch_id)
    assert text_of(found["a"]) == "Paris"
    assert (found["b"]["type"], found["c"]["type"]) == ("expired", "errored")
    numbered = api.add_batch(3, status="ended", answers={"req-000001": "Rome"})
    assert text_of(lines_of(http, numbered)["req-000001"]) == "Rome"


def test_the_emulators_answers_and_outcomes_hold_for_batches_that_are_only_counted(api, http):
    api.answers, api.outcomes = (lambda request: request["custom_id"].upper()), {"req-000001": "expired"}
    found = lines_of(http, api.add_batch(2, status="ended"))
    assert text_of(found["req-000000"]) == "REQ-000000"
    assert found["req-000001"]["type"] == "expired"


def test_outcomes_by_custom_id(api, http):
    api.outcomes = {"a": "errored", "b": "canceled", "c": "expired"}
    found = results_of(api, http, *map(a_request, "abcd"))
    assert [found[name]["type"] for name in "abcd"] == ["errored", "canceled", "expired", "succeeded"]


def test_a_request_that_was_canceled_is_not_answered(api, http):
    api.answers = {"a": "Paris", "b": "Rome"}
    created = http.post(BATCHES, json={"requests": [a_request("a"), a_request("b")]}).json()
    api.clock.advance(600)
    http.post(f"{BATCHES}/{created['id']}/cancel")
    found = lines_of(http, created["id"])
    assert (text_of(found["a"]), found["b"]["type"]) == ("Paris", "canceled")


def test_structured_output_is_json_that_fits_the_schema(api, http):
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}
    found = results_of(api, http, a_request("a", output_config=config), a_request("b", output_format=config["format"]))
    assert json.loads(text_of(found["a"])) == json.loads(text_of(found["b"])) == SAMPLE


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "classify"}, {"type": "any"}])
def test_a_tool_that_a_request_asks_for_is_called(api, http, choice):
    tools = [{"name": "classify", "input_schema": SCHEMA}]
    message = results_of(api, http, a_request(tools=tools, tool_choice=choice))["a"]["message"]
    (block,) = message["content"]
    assert (message["stop_reason"], block["type"], block["name"]) == ("tool_use", "tool_use", "classify")
    assert block["input"] == SAMPLE


def test_calls_of_tools_have_ids_of_their_own(api, http):
    api.answers = lambda request: [{"type": "tool_use", "name": name, "input": {}} for name in "xy"]
    found = results_of(api, http, a_request("a"), a_request("b"))
    ids = [block["id"] for each in found.values() for block in each["message"]["content"]]
    assert len({each for each in ids if each.startswith("toolu_01")}) == 4


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "minLength": 6}, "texttt"),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "number", "maximum": 1}, 1),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "minItems": 2}, [1, True]),
        ({"type": "array"}, []),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"const": 7}}}, 7),
        ({"properties": {"a": {"const": 1}}, "allOf": [{"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
        ({"type": ["string", "null"]}, "text"),
        (True, None),
    ],
)
def test_samples_of_schemas(schema, value):
    assert sample(schema) == value


@pytest.mark.parametrize("schema", [TREE, LIST])
def test_a_schema_that_refers_to_itself_comes_to_an_end(api, http, schema):
    config = {"format": {"type": "json_schema", "schema": schema}}
    assert json.loads(text_of(results_of(api, http, a_request(output_config=config))["a"]))


@pytest.mark.parametrize(
    "params",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": {"$ref": "#/$defs/missing"}}}},
        {"output_config": {"format": {"type": "json_schema", "schema": {"$ref": "#"}}}},
        {"output_config": {"format": {"type": "json_schema"}}},
        {"tools": [{"name": "x", "input_schema": {}}], "tool_choice": {"type": "tool", "name": "y"}},
        {"tools": "x", "tool_choice": {"type": "tool", "name": "y"}},
        {"tool_choice": {"type": "any"}},
    ],
)
def test_a_schema_or_tool_that_cannot_be_used_ends_as_errored(api, http, params):
    error = results_of(api, http, a_request(**params))["a"]["error"]["error"]
    assert error["type"] == "invalid_request_error"


def test_a_whole_message_is_an_answer(api, http):
    whole = results_of(api, http, a_request("a"))["a"]["message"]
    api.answers = {"b": {**whole, "model": "another", "stop_reason": "refusal"}}
    assert results_of(api, http, a_request("b"))["b"]["message"] == api.answers["b"]


def test_a_function_that_fails_is_reported_to_whoever_creates_a_batch(api, http):
    api.answers = lambda request: request["params"]["metadata"]
    answer = http.post(BATCHES, json={"requests": [a_request()]})
    assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
    assert "KeyError: 'metadata'" in answer.json()["error"]["message"]
    assert api.ids() == []


@pytest.mark.parametrize("answers", [{"a": 5}, lambda request: 5, {"a": ["text"]}, {"a": {"content": 5}}])
def test_what_is_no_answer_is_refused(api, answers):
    with pytest.raises(ValueError, match="An answer must be a text"):
        api.add_batch(["a"], answers=answers)


def test_an_answer_may_have_a_lone_surrogate_but_no_nan(api, http):
    batch_id = api.add_batch(["a"], status="ended", answers={"a": "\ud99c"})
    assert text_of(lines_of(http, batch_id)["a"]) == "\ud99c"
    with pytest.raises(ValueError, match="JSON compliant"):
        api.add_batch(["a"], answers={"a": [{"type": "tool_use", "input": {"x": float("nan")}}]})


def test_a_field_that_no_message_has_is_refused(api):
    with pytest.raises(ValueError, match="unknown fields: text"):
        api.add_batch(["a"], answers={"a": {"text": "Paris"}})


def test_what_is_no_outcome_is_refused(api):
    with pytest.raises(ValueError, match="outcomes: 'lost' is not one of"):
        api.add_batch(["a"], outcomes={"a": "lost"})


def test_answers_come_over_http_and_survive_a_restart(emulate, tmp_path):
    state = tmp_path / "state.jsonl"
    api = emulate(batch_seconds=0, state=state)
    with connect(api) as http:
        assert http.post("/_emulator/answers", json={"a": "Paris"}).json() == {"answers": 1}
        assert http.post("/_emulator/outcomes", json={"b": "expired"}).json() == {"outcomes": 1}
        assert http.post("/_emulator/answers", json=["a"]).status_code == 400
        created = http.post(BATCHES, json={"requests": [a_request("a"), a_request("b")]}).json()
        before = lines_of(http, created["id"])
    assert (text_of(before["a"]), before["b"]["type"]) == ("Paris", "expired")
    api.close()
    with Emulator(state=state) as again, connect(again) as http:
        assert lines_of(http, created["id"]) == before


def test_a_batch_can_have_a_literal_id(api, http):
    assert api.add_batch(1, id="message_batch_id") == "message_batch_id"
    assert http.get(f"{BATCHES}/message_batch_id").json()["id"] == "message_batch_id"
    with pytest.raises(ValueError, match="batch message_batch_id already exists"):
        api.add_batch(1, id="message_batch_id")
    assert http.post("/_emulator/batches", json={"id": "other", "requests": 2}).json() == {"ids": ["other"]}
