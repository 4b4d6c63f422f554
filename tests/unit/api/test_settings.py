from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_batches.api.errors import InvalidArgumentError
from airflow_provider_batches.api.settings import ClientSettings

KEY = "sk-ant-canary"


def settings(**values):
    return ClientSettings.parse(**{"api_key": KEY, **values})


def test_the_defaults_are_those_of_the_api():
    made = settings()
    found = (made.base_url, made.auth_scheme, made.anthropic_version, made.timeout, made.max_retries, made.verify)
    assert found == ("https://api.anthropic.com", "x-api-key", "2023-06-01", 60.0, 5, True)


class TestTheKey:
    @pytest.mark.parametrize("key", ["", " ", "a b", "a\nb", "ä", "a\x00", "\x7f"])
    def test_that_cannot_be_a_header_is_refused(self, key):
        with pytest.raises(InvalidArgumentError, match="api_key: must be an API key"):
            settings(api_key=key)

    def test_may_be_surrounded_by_blanks(self):
        assert settings(api_key=f" {KEY}\n").api_key.get_secret_value() == KEY

    def test_and_an_identity_exclude_each_other(self):
        with pytest.raises(InvalidArgumentError, match=r"api_key: identity is also set\. Remove one of them"):
            ClientSettings.parse(api_key="k", identity=object())

    def test_is_required(self):
        with pytest.raises(InvalidArgumentError, match="api_key: is required"):
            ClientSettings.parse()

    @pytest.mark.parametrize("text", [repr, str, lambda made: made.model_dump_json(), lambda made: f"{made!r:>5}"])
    def test_is_not_shown(self, text):
        assert KEY not in text(settings())

    @given(
        field=st.sampled_from(["api_key", "headers", "secret_headers", "proxy", "base_url"]),
        noise=st.text(),
        wrap=st.sampled_from([str, lambda text: {"x-secret": text}, lambda text: [text]]),
    )
    def test_is_not_shown_if_a_secret_field_is_wrong(self, field, noise, wrap):
        text = ""
        try:
            settings(**{"api_key": "k", field: wrap(f"http://user:{KEY}@proxy{noise}")})
        except InvalidArgumentError as error:
            text = str(error)
        assert KEY not in text

    def test_is_taken_out_of_any_text(self):
        assert settings().redact(f"x-api-key: {KEY}, {KEY}") == "x-api-key: ***, ***"

    @pytest.mark.parametrize(
        "values",
        [
            {"headers": {"X-Gateway-Token": "confidential"}},
            {"headers": {"Authorization": "confidential"}},
            {"headers": {"Authorization": "Bearer confidential"}},
            {"secret_headers": {"x-gateway": "confidential"}},
            {"secret_headers": {"x-gateway": "Basic confidential"}},
            {"proxy": "http://user:confidential@proxy:1"},
        ],
        ids=["token", "authorization", "bearer", "secret", "secret basic", "proxy"],
    )
    def test_is_taken_out_together_with_other_credentials(self, values):
        assert settings(**values).redact(f"{KEY} confidential") == "*** ***"

    @pytest.mark.parametrize("text", ["p%40ss", "p@ss"])
    def test_is_taken_out_together_with_the_proxys_password_however_it_is_written(self, text):
        assert settings(proxy="http://user:p%40ss@proxy:1").redact(f"407 {text}") == "407 ***"

    def test_is_taken_out_whole_if_another_secret_is_a_part_of_it(self):
        values = {"secret_headers": {"x-gateway": f"{KEY}-and-more"}}
        assert settings(**values).redact(f"{KEY}-and-more {KEY}") == "*** ***"

    def test_leaves_ordinary_headers_readable(self):
        assert settings(headers={"X-Team": "data"}).redact("the data") == "the data"

    def test_leaves_the_words_readable_that_a_short_header_is_part_of(self):
        values = {"headers": {"x-auth-mode": "on"}, "secret_headers": {"x-mode": "Basic 1"}}
        assert settings(**values).redact("the connection of msgbatch_1") == "the connection of msgbatch_1"

    @pytest.mark.parametrize("field", ["headers", "secret_headers", "proxy"])
    def test_has_company_in_the_fields_that_are_not_shown(self, field):
        headers = {"x-gateway": "confidential"}
        values = {"headers": headers, "secret_headers": headers, "proxy": "http://user:confidential@proxy:1"}
        assert "confidential" not in repr(settings(**{field: values[field]}))


class TestTheBaseURL:
    @pytest.mark.parametrize(
        ("given_url", "expected"),
        [
            ("https://gateway.example", "https://gateway.example"),
            ("gateway.example", "https://gateway.example"),
            ("gateway.example:8443", "https://gateway.example:8443"),
            (" https://gateway.example/anthropic/ ", "https://gateway.example/anthropic"),
            ("http://127.0.0.1:8182", "http://127.0.0.1:8182"),
            ("http://localhost", "http://localhost"),
            ("http://api.localhost", "http://api.localhost"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("HTTP://127.1.2.3", "HTTP://127.1.2.3"),
        ],
    )
    def test_may_be_written_in_many_ways(self, given_url, expected):
        assert settings(base_url=given_url).base_url == expected

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("", "must be a URL"),
            ("https://", "must be a URL"),
            ("https:", "must be a URL"),
            ("https://gateway..example", "must be a URL"),
            ("https://a..b", "must be a URL"),
            ("https://xn--a.example", "must be a URL"),
            (f"https://{'x' * 64}.example", "must be a URL"),
            ("https://gate^way.example", "must be a URL"),
            ("https:/", "must be a URL"),
            ("gateway.example:0", "must be a URL"),
            ("ftp://gateway.example", "must be a URL"),
            ("https://gateway.example:port", "must be a URL"),
            ("https://gateway.example:99999", "must be a URL"),
            ("https://[::1", "must be a URL"),
            ("https://gate way", "must be a URL"),
            ("https://gate\nway", "must be a URL"),
            ("https://gateway\\@evil.example", "must be a URL"),
            ("https://gätewäy.example", "must be a URL"),
            ("https://user@gateway.example", "must not contain a user"),
            ("https://:word@gateway.example", "must not contain a user"),
            ("https://gateway.example?x=1", "must not have a query"),
            ("https://gateway.example?", "must not have a query"),
            ("https://gateway.example#x", "must not have a query"),
            ("https://api.anthropic.com/v1", "must end before /v1"),
            ("https://api.anthropic.com/v1/messages/batches", "must end before /v1"),
        ],
    )
    def test_that_cannot_work_is_refused_with_the_reason(self, url, why):
        with pytest.raises(InvalidArgumentError, match=f"base_url: {why}"):
            settings(base_url=url)

    @pytest.mark.parametrize(
        "url",
        [
            "http://gateway.example",
            "HTTP://gateway.example",
            "http://127.0.0.1.evil.example",
            "http://localhost.evil.example",
            "http://10.0.0.1",
            "http://[2001:db8::1]",
        ],
    )
    def test_that_would_send_the_key_in_the_clear_is_refused(self, url):
        with pytest.raises(InvalidArgumentError, match="would send the credentials unencrypted"):
            settings(base_url=url)

    def test_may_be_plain_http_if_that_is_allowed(self):
        assert settings(base_url="http://gateway.example", allow_http=True).base_url == "http://gateway.example"

    @pytest.mark.parametrize(
        ("url", "expected"), [("http://127.0.0.1:1", True), ("https://localhost", True), ("https://a.example", False)]
    )
    def test_says_whether_it_is_this_machine(self, url, expected):
        assert settings(base_url=url).is_loopback is expected

    @given(
        text=st.text(st.sampled_from("http:/[]@\\%.01localhost7vilexample#?;& \t\n")).map(lambda rest: "http://" + rest)
        | st.text()
    )
    @example(text="http://127.0.0.1%2f.evil.example")
    @example(text="http://127.0.0.1%00")
    @example(text="http://[::1%25eth0]")
    def test_that_is_taken_leads_httpx_to_the_host_that_was_checked(self, text):
        try:
            url = settings(base_url=text).base_url
        except InvalidArgumentError:
            return
        assert httpx.URL(url).host == urlsplit(url).hostname

    @given(address=st.ip_addresses(v=4).filter(lambda address: not address.is_loopback))
    def test_of_plain_http_is_refused_for_every_address_but_loopback(self, address: ipaddress.IPv4Address):
        with pytest.raises(InvalidArgumentError):
            settings(base_url=f"http://{address}")


class TestWhetherTheBaseURLIsTheAPIsOwn:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("https://api.anthropic.com", True),
            ("https://API.anthropic.com:443/", True),
            ("http://127.0.0.1:8182", True),
            ("http://localhost", True),
            ("https://gateway.example", False),
            ("https://api.anthropic.com.evil.example", False),
            ("https://gateway.example/api.anthropic.com", False),
        ],
    )
    def test_depends_on_its_host(self, url, expected):
        assert settings(base_url=url).is_direct is expected


class TestLabels:
    def test_name_a_setting_in_errors(self):
        with pytest.raises(InvalidArgumentError, match=r"^extra\.timeout of connection 'x': got"):
            settings(timeout=-1, labels={"timeout": "extra.timeout of connection 'x'"})

    def test_are_the_names_of_the_settings_by_default(self):
        made = settings(labels={"base_url": "the host"})
        assert (made.label("base_url"), made.label("verify")) == ("the host", "verify")


class TestHeaders:
    def test_are_those_of_the_reference(self):
        assert settings(user_agent="agent/1").request_headers() == {
            "accept": "application/json",
            "anthropic-version": "2023-06-01",
            "user-agent": "agent/1",
        }

    @pytest.mark.parametrize("scheme", ["x-api-key", "bearer"])
    def test_do_not_have_the_key(self, scheme):
        assert KEY not in str(settings(auth_scheme=scheme).request_headers())

    def test_name_the_workspace(self):
        assert settings(workspace_id="wrkspc_1").request_headers()["anthropic-workspace-id"] == "wrkspc_1"

    @pytest.mark.parametrize("flags", ["a, b,", ["a", "b"], ("a", " b ", "")])
    def test_name_the_beta_flags(self, flags):
        assert settings(anthropic_beta=flags).request_headers()["anthropic-beta"] == "a,b"

    @pytest.mark.parametrize("flags", ["", " , ", [], None])
    def test_name_no_beta_flags_if_there_are_none(self, flags):
        given_flags = {} if flags is None else {"anthropic_beta": flags}
        assert "anthropic-beta" not in settings(**given_flags).request_headers()

    @pytest.mark.parametrize("flags", [[1], 5, {"a": 1}, ["a\nb"], "ä"])
    def test_of_wrong_beta_flags_are_refused(self, flags):
        with pytest.raises(InvalidArgumentError, match="anthropic_beta: got"):
            settings(anthropic_beta=flags)

    def test_of_the_user_win(self):
        headers = settings(headers={"Anthropic-Version": "2026-10-21", "X-Mine": "1"}).request_headers()
        assert (headers["anthropic-version"], headers["x-mine"]) == ("2026-10-21", "1")

    @pytest.mark.parametrize("name", ["x-api-key", "X-API-Key", "Host", "Content-Length", "Transfer-Encoding"])
    def test_of_the_user_cannot_replace_the_key_or_the_transport(self, name):
        with pytest.raises(InvalidArgumentError, match="is set by the client"):
            settings(headers={name: "1"})

    @pytest.mark.parametrize(
        "headers", [{"a b": "1"}, {"a\n": "1"}, {"": "1"}, {"a": "1\r\nx: 2"}, {"a": ""}, {"a": "ä"}, {"a": " 1"}]
    )
    def test_that_could_smuggle_others_are_refused(self, headers):
        with pytest.raises(InvalidArgumentError, match="is not a valid header name"):
            settings(headers=headers)

    def test_may_add_an_authorization_for_a_gateway(self):
        headers = settings(headers={"Authorization": "Basic x"}).request_headers()
        assert headers["authorization"] == "Basic x"

    def test_may_not_add_a_second_authorization(self):
        with pytest.raises(InvalidArgumentError, match="'Authorization' is set by the client"):
            settings(headers={"AUTHORIZATION": "Basic x"}, auth_scheme="bearer")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("auth_scheme", "basic"),
        ("anthropic_version", ""),
        ("workspace_id", "a\nb"),
        ("user_agent", "a\nb"),
        ("timeout", 0),
        ("timeout", float("inf")),
        ("timeout", float("nan")),
        ("timeout", 86_401),
        ("timeout", "soon"),
        ("max_retries", -1),
        ("max_retries", 21),
        ("max_retries", 1.5),
        ("verify", "/no/such/file"),
        ("verify", 7),
        ("allow_http", "perhaps"),
    ],
)
def test_a_wrong_value_is_refused_with_field_and_value(field, value):
    with pytest.raises(InvalidArgumentError) as caught:
        settings(**{field: value})
    assert str(caught.value).startswith(f"{field}: got {str(value)!r}; ")


@pytest.mark.parametrize("field", ["api_key", "base_url", "headers", "secret_headers", "proxy"])
def test_a_wrong_value_of_a_field_that_may_hold_a_secret_is_not_shown(field):
    with pytest.raises(InvalidArgumentError) as caught:
        settings(**{field: 12345})
    assert "12345" not in str(caught.value)


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(InvalidArgumentError, match=r"timeout: .*; max_retries: "):
        settings(timeout=-1, max_retries=-1)


def test_an_unknown_setting_is_refused_without_its_value():
    with pytest.raises(InvalidArgumentError, match=r"^apikey: is not a valid setting. Supported: .*user_agent"):
        settings(apikey=KEY)


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        settings().base_url = "https://evil.example"


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), (False, False), ("true", True), (" False ", False), (__file__, __file__)]
)
def test_verify_is_a_choice_or_a_file(value, expected):
    assert settings(verify=value).verify == expected


@pytest.mark.parametrize(
    "proxy", ["http://proxy:3128", "https://user:word@proxy", "socks5://proxy:1080", "http://[::1]:3128"]
)
def test_a_proxy_is_a_url(proxy):
    assert settings(proxy=proxy).proxy == proxy


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "proxy:3128",
        "ftp://proxy",
        "http://",
        "http://proxy:x",
        "http://[::1",
        "http://a b",
        "http://a\n",
        "http://a..b",
    ],
)
def test_anything_else_is_not_a_proxy(proxy):
    with pytest.raises(InvalidArgumentError, match="proxy: must be a URL"):
        settings(proxy=proxy)
