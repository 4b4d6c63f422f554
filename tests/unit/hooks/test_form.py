from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_batches.get_provider_info import get_provider_info
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.hooks.connection import EXTRA_FIELDS
from airflow_provider_batches.hooks.form import conn_fields


@pytest.fixture
def widgets() -> dict[str, Any]:
    """The form's own fields as Airflow 3.0 and 3.1 draw them."""
    wtforms = pytest.importorskip("wtforms", reason="WTForms is not installed; Airflow 3.2+ draws its form without it")
    form = type("Form", (wtforms.Form,), BatchesHook.get_connection_form_widgets())
    return dict(form()._fields)


def _connection_type() -> dict[str, Any]:
    (found,) = get_provider_info()["connection-types"]
    return dict(found)


def test_the_form_has_the_fields_that_are_read() -> None:
    assert list(conn_fields()) == list(EXTRA_FIELDS)


def test_both_forms_have_the_same_fields(widgets: dict[str, Any]) -> None:
    assert list(widgets) == list(conn_fields())


def test_both_forms_say_the_same(widgets: dict[str, Any]) -> None:
    for name, widget in widgets.items():
        field = conn_fields()[name]
        assert (str(widget.label.text), widget.description) == (field["label"], field["description"])


def test_both_forms_hide_what_may_hold_a_secret(widgets: dict[str, Any]) -> None:
    hidden = {name for name, field in conn_fields().items() if field["schema"].get("format") == "password"}
    assert hidden == {"headers", "proxy"}
    assert {name for name, widget in widgets.items() if type(widget).__name__ == "PasswordField"} == hidden


def test_no_field_has_to_be_filled_in(widgets: dict[str, Any]) -> None:
    assert all("null" in field["schema"]["type"] for field in conn_fields().values())
    assert all(widget.flags.optional for widget in widgets.values())


@pytest.mark.parametrize(
    ("name", "kind"), [("allow_http", "BooleanField"), ("max_retries", "IntegerField"), ("timeout", "StringField")]
)
def test_a_field_takes_its_kind_of_value(name: str, kind: str, widgets: dict[str, Any]) -> None:
    assert type(widgets[name]).__name__ == kind


def test_both_forms_treat_airflow_s_own_fields_the_same() -> None:
    old, new = BatchesHook.get_ui_field_behaviour(), _connection_type()["ui-field-behaviour"]
    assert old == {
        "hidden_fields": new["hidden-fields"],
        "relabeling": new["relabeling"],
        "placeholders": new["placeholders"],
    }
    assert old["hidden_fields"] == ["login", "schema"]
    assert old["relabeling"]["password"] == "API key"


def test_the_metadata_leads_to_the_hook() -> None:
    found = _connection_type()
    assert found["hook-class-name"] == f"{BatchesHook.__module__}.{BatchesHook.__qualname__}"
    assert (found["connection-type"], found["hook-name"]) == (BatchesHook.conn_type, BatchesHook.hook_name)
    assert found["conn-fields"] == json.loads(json.dumps(conn_fields()))


def test_the_official_provider_s_type_is_left_to_it() -> None:
    assert [kind["connection-type"] for kind in get_provider_info()["connection-types"]] == ["anthropic_batches"]
