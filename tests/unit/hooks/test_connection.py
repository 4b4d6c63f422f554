from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.hooks.connection import EXTRA_FIELDS, USER_AGENT, read_settings
from tests.unit.hooks.fakes import Connection


def _read(environment: dict[str, str] | None = None, **fields: Any) -> Any:
    fields.setdefault("password", "sk-ant-1")
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


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({"host": "gw.example.com", "schema": "anthropic"}, "https://gw.example.com/anthropic"),
        ({"host": "gw.example.com/a", "schema": "b"}, "https://gw.example.com/a/b"),
        ({"host": "gw.example.com", "port": 8443, "schema": "a/b"}, "https://gw.example.com:8443/a/b"),
        ({"host": "gw.example.com", "schema": "https"}, "https://gw.example.com"),
        ({"host": "::1", "port": 8182}, "https://[::1]:8182"),
        ({"host": "fd00::1"}, "https://[fd00::1]"),
        ({"host": "https://fd00::1/a", "port": 5}, "https://[fd00::1]:5/a"),
        ({"host": "[::1]:8182", "port": 8182}, "https://[::1]:8182"),
        ({"host": "http://[::1]"}, "http://[::1]"),
    ],
)
def test_a_host_of_a_uri_is_used_with_its_path_and_its_ipv6_address(fields: dict[str, Any], base_url: str) -> None:
    assert _read(**fields).base_url == base_url


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"schema": "anthropic"}, "schema is set, but host is not"),
        ({"port": 8182}, "port is set, but host is not"),
        ({"login": "sk-ant-canary"}, "login is set, but is not used. Put the key into the password"),
        ({"host": "[::1]:1", "port": 2}, "host contains a port that differs from port"),
        ({"conn_type": ""}, "type is ''.*In a URI, write anthropic-batches://"),
        ({"extra": {"api_key": "sk-ant-canary"}}, "unknown keys: 'api_key'. Put 'api_key' into the password"),
        ({"extra": {"base_url": "sk-ant-canary"}}, "Put 'base_url' into the host"),
        ({"extra": {"time_out": 5}}, "Is 'time_out' meant to be 'timeout'"),
    ],
)
def test_what_would_be_dropped_silently_is_refused_with_a_remedy(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^Connection 'here': .*{says}") as caught:
        _read(**fields)
    assert "canary" not in str(caught.value)


def test_a_type_with_a_dash_is_the_same() -> None:
    assert _read(conn_type="anthropic-batches").api_key


class TestTheEnvironment:
    GATEWAY: ClassVar = {"ANTHROPIC_API_KEY": "sk-gw", "ANTHROPIC_BASE_URL": "https://gw.example.com"}

    def test_s_key_is_sent_to_its_own_url(self) -> None:
        read = _read(self.GATEWAY, password=None)
        assert (read.base_url, read.api_key.get_secret_value()) == ("https://gw.example.com", "sk-gw")
        assert _read(self.GATEWAY, password=None, host="https://gw.example.com/").base_url == "https://gw.example.com"

    @pytest.mark.parametrize("environment", [GATEWAY, {"ANTHROPIC_API_KEY": "sk-1"}])
    def test_s_key_is_not_sent_to_another_host(self, environment: dict[str, str]) -> None:
        with pytest.raises(InvalidArgumentError, match="host is set, but no API key"):
            _read(environment, password=None, host="other.example.com")

    def test_s_url_is_not_used_with_the_connection_s_key(self) -> None:
        assert _read(self.GATEWAY).base_url == "https://api.anthropic.com"

    def test_s_token_is_sent_as_one(self) -> None:
        assert _read({"ANTHROPIC_AUTH_TOKEN": "t-1"}, password=None).auth_scheme == "bearer"
