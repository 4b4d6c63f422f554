from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.results import columns as module
from airflow_provider_batches.results.columns import COLUMNS, columns_of, compile_schema, is_worth_another_try

SCHEMA = {"type": "object", "required": ["label"], "properties": {"label": {"enum": ["bug", "billing"]}}}


def succeeded(text: str | None = "Yes.", **message: Any) -> dict[str, Any]:
    content = [] if text is None else [{"type": "text", "text": text}]
    return {"type": "succeeded", "message": {"content": content, "stop_reason": "end_turn", **message}}


def errored(type_: str, message: str) -> dict[str, Any]:
    return {"type": "errored", "error": {"type": "error", "error": {"type": type_, "message": message}}}


def test_an_answer_has_all_columns() -> None:
    usage = {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 4,
        "service_tier": "batch",
    }

    assert columns_of(succeeded(usage=usage), None) == {
        **dict.fromkeys(COLUMNS),
        "status": "succeeded",
        "text": "Yes.",
        "stop_reason": "end_turn",
        **usage,
    }


def test_an_error_has_its_type_and_message() -> None:
    found = columns_of(errored("overloaded_error", "Later."), None)

    assert (found["status"], found["error_type"], found["error_message"]) == ("errored", "overloaded_error", "Later.")


@pytest.mark.parametrize("status", ["canceled", "expired", "new"])
def test_another_end_is_its_status(status: str) -> None:
    assert columns_of({"type": status}, None) == {**dict.fromkeys(COLUMNS), "status": status}


@pytest.mark.parametrize(
    ("message", "parsed"),
    [
        (succeeded('{"label": "bug"}'), {"label": "bug"}),
        (succeeded(" [1]"), [1]),
        (succeeded("{not JSON"), None),
        (succeeded("5"), None),
        (succeeded(content=[{"type": "tool_use", "input": {"label": "bug"}}]), {"label": "bug"}),
        (succeeded(content="odd"), None),
        (succeeded(content=[None, {"type": "text", "text": None}]), None),
    ],
)
def test_json_in_an_answer_is_parsed(message: dict[str, Any], parsed: Any) -> None:
    assert columns_of(message, None)["parsed"] == parsed


@pytest.mark.parametrize("reason", ["refusal", "max_tokens", "model_context_window_exceeded"])
def test_an_answer_that_ended_early_is_unusable(reason: str) -> None:
    assert columns_of(succeeded(stop_reason=reason), None)["status"] == "unusable"


@pytest.mark.parametrize(
    ("text", "status"), [({"label": "bug"}, "succeeded"), ({"label": "x"}, "unusable"), ({}, "unusable")]
)
def test_an_answer_that_does_not_fit_the_schema_is_unusable(text: Any, status: str) -> None:
    assert columns_of(succeeded(json.dumps(text)), compile_schema(SCHEMA))["status"] == status


def test_an_answer_without_json_does_not_fit_a_schema() -> None:
    assert columns_of(succeeded("bug"), compile_schema(SCHEMA))["status"] == "unusable"


def test_a_schema_that_is_wrong_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="schema: it is not a valid JSON schema"):
        compile_schema({"type": "nonsense"})


def test_a_schema_without_its_package_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)

    with pytest.raises(InvalidArgumentError, match=r"airflow-provider-batches\[schema\]"):
        compile_schema(SCHEMA)


@pytest.mark.parametrize(
    ("result", "worth"),
    [
        (errored("api_error", ""), True),
        (errored("overloaded_error", ""), True),
        (errored("invalid_request_error", "max_tokens: Field required"), False),
        (errored("invalid_request_error", "Your credit balance is too low to access the API."), True),
        ({"type": "expired"}, True),
        ({"type": "canceled"}, True),
        (succeeded(stop_reason="refusal"), False),
    ],
)
def test_what_may_pass_is_worth_another_try(result: dict[str, Any], worth: bool) -> None:
    assert is_worth_another_try(columns_of(result, None)) == worth
