from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import pytest

from airflow_provider_batches.api import ClientSettings
from airflow_provider_batches.get_provider_info import get_provider_info
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.hooks.connection import EXTRA_FIELDS
from airflow_provider_batches.hooks.form import conn_fields
from airflow_provider_batches.hooks.platforms import FIELDS_OF

try:
    from airflow._shared.secrets_masker import should_hide_value_for_key
except ImportError:  # an older Airflow
    from airflow.sdk.execution_time.secrets_masker import should_hide_value_for_key


def _connection_type() -> dict[str, Any]:
    (found,) = get_provider_info()["connection-types"]
    return dict(found)


class Field:
    """A stand-in for a WTForms field, as Airflow 3.1 itself has one for each of these kinds."""

    def __init__(self, label: str, validators: list[Any], description: str) -> None:
        self.label = label
        self.description = description
        self.validators = validators


class StringField(Field):
    pass


class IntegerField(Field):
    pass


class PasswordField(Field):
    pass


class BooleanField(Field):
    pass


class Optional:
    pass


def any_of(allowed: list[str]) -> list[str]:
    return allowed


@pytest.fixture
def widgets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The form's own fields as Airflow 3.1 asks for them, with WTForms or without."""
    for name in ("wtforms", "wtforms.validators"):
        module = ModuleType(name)
        vars(module).update(globals())
        monkeypatch.setitem(sys.modules, name, module)
    return BatchesHook.get_connection_form_widgets()


def test_wtforms_itself_takes_the_fields() -> None:
    wtforms = pytest.importorskip("wtforms", reason="WTForms is not installed, which Airflow 3.0 alone would need")

    class Posted(dict[str, str]):
        def getlist(self, name: str) -> list[str]:
            return [self[name]]

    make = type("Form", (wtforms.Form,), BatchesHook.get_connection_form_widgets())
    form = make(Posted(auth_scheme="basic"))
    assert list(form._fields) == list(conn_fields())
    assert not form.validate()
    assert list(form.errors) == ["auth_scheme"]


def test_the_form_has_the_fields_that_are_read_but_headers_that_airflow_would_show() -> None:
    assert list(conn_fields()) == [name for name in EXTRA_FIELDS if name not in ("headers", "workload_identity")]


def test_what_a_connection_can_hold_is_all_that_the_client_can_be_told() -> None:
    elsewhere = {"api_key", "base_url", "identity", "user_agent", "on_token", "labels"}
    platforms = {"platform", "workload_identity", *(name for names in FIELDS_OF.values() for name in names)}
    assert set(EXTRA_FIELDS) - platforms == set(ClientSettings.model_fields) - elsewhere
    assert platforms <= set(EXTRA_FIELDS)


@pytest.mark.parametrize("name", ["secret_headers", pytest.param("proxy", marks=pytest.mark.feature("proxy"))])
def test_airflow_masks_what_the_form_hides(name: str) -> None:
    assert conn_fields()[name]["schema"]["format"] == "password"
    assert should_hide_value_for_key(name)


def test_airflow_shows_what_the_form_does_not_hide() -> None:
    hidden = {"secret_headers", "proxy", "service_account_id"}
    assert {name for name in conn_fields() if should_hide_value_for_key(name)} <= hidden


def test_both_forms_have_the_same_fields(widgets: dict[str, Any]) -> None:
    assert list(widgets) == list(conn_fields())


def test_both_forms_say_the_same(widgets: dict[str, Any]) -> None:
    for name, widget in widgets.items():
        field = conn_fields()[name]
        assert (widget.label, widget.description) == (field["label"], field["description"])


def test_both_forms_hide_what_may_hold_a_secret(widgets: dict[str, Any]) -> None:
    hidden = {name for name, field in conn_fields().items() if field["schema"].get("format") == "password"}
    assert hidden == {"secret_headers", "proxy", "service_account_id"}
    assert {name for name, widget in widgets.items() if type(widget).__name__ == "PasswordField"} == hidden


def test_no_field_has_to_be_filled_in(widgets: dict[str, Any]) -> None:
    assert all("null" in field["schema"]["type"] for field in conn_fields().values())
    assert all(type(widget.validators[0]) is Optional for widget in widgets.values())


@pytest.mark.parametrize(
    ("name", "kind"), [("allow_http", "BooleanField"), ("max_retries", "IntegerField"), ("timeout", "StringField")]
)
def test_a_field_takes_its_kind_of_value(name: str, kind: str, widgets: dict[str, Any]) -> None:
    assert type(widgets[name]).__name__ == kind


def test_both_forms_offer_the_same_choices(widgets: dict[str, Any]) -> None:
    choices = {name: field["schema"]["enum"] for name, field in conn_fields().items() if "enum" in field["schema"]}
    assert {name: w.validators[1] for name, w in widgets.items() if len(w.validators) > 1} == choices
    assert choices == {"platform": ["anthropic", "aws", "google"], "auth_scheme": ["x-api-key", "bearer"]}


def test_both_forms_treat_airflows_own_fields_the_same() -> None:
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


def test_the_official_providers_type_is_left_to_it() -> None:
    assert [kind["connection-type"] for kind in get_provider_info()["connection-types"]] == ["anthropic_batches"]
