from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.hooks.connection import EXTRA_FIELDS, USER_AGENT, read_settings


@dataclass
class Connection:
    conn_id: str = "here"
    conn_type: str = "anthropic_batches"
    host: str | None = None
    port: int | None = None
    password: str | None = "sk-ant-1"
    extra: str | None = None


def _read(environment: dict[str, str] | None = None, **fields: Any) -> Any:
    extra = fields.pop("extra", None)
    text = extra if isinstance(extra, str) or extra is None else json.dumps(extra)
    return read_settings(Connection(extra=text, **fields), environment or {})


def test_nothing_but_a_key_is_needed() -> None:
    settings = _read()
    assert settings.api_key.get_secret_value() == "sk-ant-1"
    assert settings.base_url == "https://api.anthropic.com"
    assert settings.user_agent == USER_AGENT


@pytest.mark.parametrize("name", EXTRA_FIELDS)
@pytest.mark.parametrize("empty", [None, "", {}, []], ids=repr)
def test_an_empty_field_counts_as_absent(name: str, empty: Any) -> None:
    assert _read(extra={name: empty}) == _read()


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_an_empty_extra_counts_as_absent(text: str | None) -> None:
    assert _read(extra=text) == _read()


def test_false_and_zero_are_values() -> None:
    settings = _read(extra={"verify": False, "allow_http": False, "max_retries": 0})
    assert (settings.verify, settings.allow_http, settings.max_retries) == (False, False, 0)


@pytest.mark.parametrize("as_text", [True, False])
def test_secret_headers_are_added_to_headers(as_text: bool) -> None:
    secret: Any = {"x-gateway-token": "t", "x-team": "b"}
    extra = {"headers": {"x-team": "a", "x-other": "c"}, "secret_headers": json.dumps(secret) if as_text else secret}
    sent = _read(extra=extra).request_headers()
    assert (sent["x-team"], sent["x-other"], sent["x-gateway-token"]) == ("b", "c", "t")


def test_the_values_of_secret_headers_are_hidden_whatever_their_names() -> None:
    settings = _read(extra={"secret_headers": {"x-team": "search"}})
    assert settings.redact("nothing for search") == "nothing for ***"
    assert "search" not in repr(settings)


@pytest.mark.parametrize("name", ["headers", "secret_headers"])
@pytest.mark.parametrize("wrong", ["x-gateway-token: t0ken", '["t0ken"]', ["t0ken"], 5, True])
def test_headers_that_are_not_an_object_stay_out_of_the_error(name: str, wrong: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"extra\.{name} must be a JSON object") as caught:
        _read(extra={name: wrong})
    assert "t0ken" not in str(caught.value)


def test_the_connections_key_wins_over_the_environments() -> None:
    assert _read({"ANTHROPIC_API_KEY": "sk-env"}).api_key.get_secret_value() == "sk-ant-1"
    assert _read({"ANTHROPIC_API_KEY": "sk-env"}, password="").api_key.get_secret_value() == "sk-env"


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        _read(password="a b", host="ftp://x", extra={"timeout": 0, "auth_scheme": "none"})
    fields = ("password", "host", "extra.timeout", "extra.auth_scheme")
    assert all(f"{field} of connection 'here': " in str(caught.value) for field in fields)
    assert "api_key" not in str(caught.value)
    assert "base_url" not in str(caught.value)


def test_a_wrong_key_from_the_environment_is_not_blamed_on_the_connection() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^ANTHROPIC_API_KEY in the environment: "):
        _read({"ANTHROPIC_API_KEY": "a b"}, password=None)


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({}, ("password of connection 'here'", "host of connection 'here'", "extra.verify of connection 'here'")),
        (
            {"conn_type": "anthropic", "extra": {"anthropic_client_kwargs": {"api_key": "sk-ant-2"}}},
            ("extra.anthropic_client_kwargs.api_key of connection 'here'", "host of connection 'here'"),
        ),
    ],
)
def test_error_texts_name_the_field_of_the_connection(fields: dict[str, Any], labels: tuple[str, ...]) -> None:
    settings = _read(**fields)
    assert tuple(map(settings.label, ("api_key", "base_url", "verify")))[: len(labels)] == labels


@pytest.mark.parametrize("text", ["{", '{"headers": "secret"', "secret"])
def test_an_extra_that_is_not_valid_json_stays_out_of_the_error(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="extra is not valid JSON") as caught:
        _read(extra=text)
    assert caught.value.__context__ is None
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("platform", [None, "", "anthropic", "Anthropic"])
def test_the_official_connections_platform_may_be_anthropic(platform: str | None) -> None:
    assert _read(conn_type="anthropic", extra={"platform": platform}) == _read()


def test_what_the_official_connection_holds_for_others_is_passed_over() -> None:
    extra = {"model": "m", "aws_region": "r", "anthropic_client_kwargs": {"default_query": {}, "timeout": None}}
    assert _read(conn_type="anthropic", extra=extra) == _read()


@pytest.mark.parametrize("conn_type", ["http", "postgres", "generic", "", None])
def test_the_password_of_a_connection_of_another_type_is_not_sent_anywhere(conn_type: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="must be 'anthropic_batches' or 'anthropic'"):
        _read(conn_type=conn_type)
