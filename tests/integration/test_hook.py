from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from airflow_provider_batches import __version__
from airflow_provider_batches._compat import AIRFLOW_VERSION
from airflow_provider_batches.api import (
    BatchNotEndedError,
    BatchTimeoutError,
    InvalidArgumentError,
)
from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.hooks.batches import BatchesHook

PARAMS = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
REQUESTS = [{"custom_id": f"r{n}", "params": PARAMS} for n in range(3)]
Connect = Callable[..., str]


def _port(api: Emulator) -> int:
    port = urlsplit(api.url).port
    assert port
    return port


def test_every_call_reaches_the_api(api: Emulator) -> None:
    hook = BatchesHook()

    batch = hook.create_batch(REQUESTS)
    other = hook.create_batch(REQUESTS)

    assert hook.get_batch(batch.id).processing_status == "in_progress"
    assert [found.id for found in hook.list_batches()] == [other.id, batch.id]
    assert [found.id for found in hook.list_batches(limit=1, after_id=other.id)] == [batch.id]
    assert [found.id for found in hook.list_batches(before_id=batch.id)] == [other.id]
    with pytest.raises(BatchNotEndedError, match="Cancel it"):
        hook.delete_batch(batch.id)
    assert hook.cancel_batch(batch.id).cancel_initiated_at
    assert hook.wait_for_batch(batch.id).ended
    assert {line.custom_id: line.result.type for line in hook.stream_batch_results(batch.id)} == {
        "r0": "canceled",
        "r1": "canceled",
        "r2": "canceled",
    }
    assert hook.delete_batch(batch.id).id == batch.id
    assert api.batch(batch.id) is None


def test_the_client_is_the_same_until_it_is_closed(api: Emulator) -> None:
    hook = BatchesHook()
    first = hook.get_conn()
    assert hook.get_conn() is first
    hook.close()
    hook.close()
    assert hook.get_conn() is not first
    assert hook.test_connection()[0]


def test_requests_say_who_sends_them(api: Emulator) -> None:
    BatchesHook().test_connection()
    agent = api.requests[0].headers["user-agent"]
    assert agent.startswith(f"airflow-provider-batches/{__version__} apache-airflow/{AIRFLOW_VERSION} python/3.")
    assert api.requests[0].headers["anthropic-version"] == "2023-06-01"


async def test_the_async_client_is_set_up_off_the_loop(api: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    lookup = BatchesHook.get_connection.__func__  # type: ignore[attr-defined]

    def get_connection(cls: type[BatchesHook], conn_id: str) -> Any:
        threads.append(threading.get_ident())
        return lookup(cls, conn_id)

    monkeypatch.setattr(BatchesHook, "get_connection", classmethod(get_connection))
    batch_id = api.add_batch()

    async with await BatchesHook().aget_conn() as client:
        assert (await client.retrieve(batch_id)).id == batch_id
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("fields", ["url", "url and port", "url and port twice", "scheme and port apart", "path"])
def test_the_host_may_be_written_in_many_ways(fields: str, api: Emulator, connect: Connect) -> None:
    port = _port(api)
    connect(
        **{
            "url": {"host": api.url},
            "url and port": {"host": "http://127.0.0.1", "port": port},
            "url and port twice": {"host": api.url, "port": port},
            "scheme and port apart": {"host": "http://localhost/", "port": port},
            "path": {"host": f"{api.url}/"},
        }[fields]
    )
    assert BatchesHook().test_connection() == (
        True,
        f"{BatchesHook().settings.base_url} accepts the key; there are no batches yet.",
    )


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "https://api.anthropic.com"),
        ({"host": ""}, "https://api.anthropic.com"),
        ({"host": "  gateway.example "}, "https://gateway.example"),
        ({"host": "gateway.example:8443"}, "https://gateway.example:8443"),
        ({"host": "gateway.example", "port": 8443}, "https://gateway.example:8443"),
        ({"host": "https://gateway.example/anthropic", "port": 8443}, "https://gateway.example:8443/anthropic"),
        ({"host": "https://[::1]", "port": 8443}, "https://[::1]:8443"),
        ({"host": "http://127.0.0.1:8182"}, "http://127.0.0.1:8182"),
        ({"host": "http://gateway.example", "extra": {"allow_http": True}}, "http://gateway.example"),
    ],
)
def test_without_a_scheme_the_host_is_spoken_to_encrypted(fields: dict[str, Any], url: str, connect: Connect) -> None:
    connect(**fields)
    assert BatchesHook().settings.base_url == url


def test_a_connection_written_as_a_uri_serves_too(api: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    host, key = quote("http://127.0.0.1", safe=""), quote(str(api.api_key))
    extra = (
        "timeout=5&max_retries=1&verify=false&allow_http=true&anthropic_beta=pdfs-2024-09-25,skills-2025-10-02&headers="
        + quote('{"x-team": "s"}')
    )
    monkeypatch.setenv("AIRFLOW_CONN_BY_URI", f"anthropic-batches://:{key}@{host}:{_port(api)}/?{extra}")
    hook = BatchesHook("by_uri")

    assert hook.test_connection()[0]
    assert (hook.settings.timeout, hook.settings.max_retries, hook.settings.verify) == (5.0, 1, False)
    assert api.requests[0].headers["anthropic-beta"] == "pdfs-2024-09-25,skills-2025-10-02"
    assert api.requests[0].headers["x-team"] == "s"


def test_what_the_form_saves_reaches_the_wire(api: Emulator, connect: Connect) -> None:
    connect(
        host=api.url,
        extra={
            "auth_scheme": "bearer",
            "anthropic_version": "2026-10-21",
            "anthropic_beta": "pdfs-2024-09-25, skills-2025-10-02",
            "workspace_id": "default",
            "headers": '{"X-Team": "search"}',
            "timeout": 5,
            "max_retries": 0,
            "proxy": None,
            "verify": "",
            "allow_http": False,
        },
    )
    assert BatchesHook().test_connection()[0]
    request = api.requests[0]
    assert request.auth == "bearer"
    sent = {name: request.headers.get(name) for name in ("anthropic-version", "anthropic-beta", "x-team")}
    assert sent == {
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "pdfs-2024-09-25,skills-2025-10-02",
        "x-team": "search",
    }
    assert request.headers["anthropic-workspace-id"] == "default"


def test_the_forms_long_names_are_understood(connect: Connect) -> None:
    connect(extra={"extra__anthropic_batches__timeout": 7})
    assert BatchesHook().settings.timeout == 7


def test_a_connection_of_the_official_provider_serves_too(api: Emulator, connect: Connect) -> None:
    connect(
        "official",
        conn_type="anthropic",
        host=api.url,
        extra={
            "platform": "Anthropic",
            "model": "claude-opus-4-8",
            "anthropic_client_kwargs": {
                "timeout": 7,
                "max_retries": 1,
                "default_headers": {"x-team": "search"},
                "default_query": {"a": "b"},
            },
        },
    )
    hook = BatchesHook("official")

    assert hook.test_connection()[0]
    assert (hook.settings.timeout, hook.settings.max_retries) == (7.0, 1)
    assert api.requests[0].headers["x-team"] == "search"


def test_the_official_clients_own_arguments_win_there(api: Emulator, connect: Connect) -> None:
    connect(
        "official",
        conn_type="anthropic",
        password="sk-ant-other",
        host="https://elsewhere.invalid",
        extra={"anthropic_client_kwargs": {"api_key": api.api_key, "base_url": api.url}},
    )
    assert BatchesHook("official").test_connection()[0]


def test_a_missing_key_is_taken_from_the_environment(
    api: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(host=None, password=None)
    monkeypatch.setenv("ANTHROPIC_API_KEY", str(api.api_key))
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
    assert BatchesHook().test_connection()[0]


@pytest.mark.parametrize("conn_type", ["anthropic_batches", "anthropic"])
def test_without_any_key_the_error_says_where_to_put_it(conn_type: str, connect: Connect) -> None:
    connect("keyless", conn_type=conn_type, password="")
    with pytest.raises(InvalidArgumentError) as caught:
        BatchesHook("keyless").get_conn()
    assert str(caught.value).startswith("Connection 'keyless': no API key is set.")
    assert "password" in str(caught.value)
    assert "ANTHROPIC_API_KEY" in str(caught.value)


OFFICIAL: dict[str, Any] = {"conn_type": "anthropic"}
WRONG: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("auth_scheme", {"extra": {"auth_scheme": "basic"}}, ("auth_scheme", "'basic'", "'x-api-key' or 'bearer'")),
    ("version", {"extra": {"anthropic_version": "2023\n06"}}, ("anthropic_version", "printable ASCII")),
    ("beta", {"extra": {"anthropic_beta": "a\x07"}}, ("anthropic_beta", "printable ASCII")),
    ("beta number", {"extra": {"anthropic_beta": 3}}, ("anthropic_beta", "3")),
    ("workspace", {"extra": {"workspace_id": "ä"}}, ("workspace_id", "printable ASCII")),
    ("headers text", {"extra": {"headers": "x-team: search"}}, ("headers", "JSON object of strings")),
    ("headers list", {"extra": {"headers": ["x-team"]}}, ("headers", "JSON object of strings")),
    ("headers key", {"extra": {"headers": {"x-api-key": "k"}}}, ("headers", "'x-api-key'", "a separate setting")),
    ("headers name", {"extra": {"headers": {"x team": "k"}}}, ("headers", "'x team'", "printable ASCII")),
    (
        "headers auth",
        {"extra": {"auth_scheme": "bearer", "headers": {"Authorization": "k"}}},
        ("headers", "'Authorization'", "bearer"),
    ),
    ("timeout", {"extra": {"timeout": 0}}, ("timeout", "got '0'", "greater than 0")),
    ("timeout text", {"extra": {"timeout": "soon"}}, ("timeout", "got 'soon'", "number")),
    ("timeout inf", {"extra": {"timeout": "inf"}}, ("timeout", "got 'inf'")),
    ("max_retries", {"extra": {"max_retries": -1}}, ("max_retries", "got '-1'", "greater than or equal to 0")),
    ("max_retries part", {"extra": {"max_retries": 1.5}}, ("max_retries", "got '1.5'", "integer")),
    ("max_retries many", {"extra": {"max_retries": 21}}, ("max_retries", "got '21'", "less than or equal to 20")),
    ("proxy", {"extra": {"proxy": "proxy:3128"}}, ("proxy", "http://proxy.example:3128")),
    ("verify", {"extra": {"verify": "/no/such/file.pem"}}, ("verify", "'/no/such/file.pem'", "CA file that exists")),
    ("allow_http", {"extra": {"allow_http": "perhaps"}}, ("allow_http", "got 'perhaps'", "boolean")),
    ("unknown", {"extra": {"time_out": 5}}, ("extra", "'time_out'", "timeout", "max_retries", "verify")),
    ("host", {"host": "http://gateway.example"}, ("host", "unencrypted", "https://", "allow_http")),
    ("host scheme", {"host": "ftp://gateway.example"}, ("host", "https://api.anthropic.com")),
    ("host user", {"host": "https://me:secret@gateway.example"}, ("host", "must not contain a user or a password")),
    ("host v1", {"host": "https://api.anthropic.com/v1"}, ("host", "must end before /v1")),
    ("host query", {"host": "https://api.anthropic.com?a=b"}, ("host", "query")),
    ("two ports", {"host": "https://api.anthropic.com:1", "port": 2}, ("host contains a port", "2")),
    ("key", {"password": "sk ant"}, ("password", "printable ASCII")),
    (
        "bedrock",
        {**OFFICIAL, "extra": {"platform": "bedrock"}},
        ("extra.platform", "'bedrock'", "aws, google"),
    ),
    ("vertex", {**OFFICIAL, "extra": {"platform": "vertex"}}, ("extra.platform", "'vertex'", "aws, google")),
    ("workload", {**OFFICIAL, "extra": {"workload_identity": {"a": 1}}}, ("extra.workload_identity", "'a'", "scope")),
    (
        "arguments",
        {**OFFICIAL, "extra": {"anthropic_client_kwargs": ["timeout"]}},
        ("extra.anthropic_client_kwargs", "JSON object"),
    ),
    (
        "arguments' headers",
        {**OFFICIAL, "extra": {"anthropic_client_kwargs": {"default_headers": {"x": 1}}}},
        ("extra.anthropic_client_kwargs.default_headers", "string"),
    ),
    (
        "arguments' timeout",
        {**OFFICIAL, "extra": {"anthropic_client_kwargs": {"timeout": -1}}},
        ("extra.anthropic_client_kwargs.timeout", "greater than 0"),
    ),
]


@pytest.mark.feature("any_extra")
@pytest.mark.parametrize(
    ("extra", "says"), [("timeout=5", "extra is not valid JSON"), ("[1]", "extra must be a JSON object, not list")]
)
def test_an_extra_that_is_not_an_object_is_an_error(extra: str, says: str, connect: Connect) -> None:
    connect("wrong", extra=extra)
    with pytest.raises(InvalidArgumentError, match=f"^Connection 'wrong': {says}"):
        BatchesHook("wrong").get_conn()


@pytest.mark.parametrize(("fields", "says"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_value_names_connection_field_and_what_is_allowed(
    fields: dict[str, Any], says: tuple[str, ...], connect: Connect
) -> None:
    connect("wrong", **fields)
    hook = BatchesHook("wrong")

    with pytest.raises(InvalidArgumentError) as caught:
        hook.get_conn()
    text = str(caught.value)
    assert "connection 'wrong'" in text.replace("Connection", "connection")
    assert [part for part in says if part not in text] == [], text
    works, tested = BatchesHook("wrong").test_connection()
    # In the form, the connection has an ID that Airflow makes up.
    assert (works, tested) == (
        False,
        text.replace("Connection 'wrong'", "This connection").replace("connection 'wrong'", "this connection"),
    )


async def test_a_wrong_value_is_the_same_error_for_the_async_client(connect: Connect) -> None:
    connect("wrong", extra={"timeout": 0})
    with pytest.raises(InvalidArgumentError, match=r"^extra\.timeout of connection 'wrong': "):
        await BatchesHook("wrong").aget_conn()


def test_the_connection_test_makes_one_cheap_call(api: Emulator) -> None:
    for _ in range(3):
        newest = api.add_batch()

    works, text = BatchesHook().test_connection()

    assert works
    assert newest in text
    assert [(request.endpoint, request.query) for request in api.requests] == [("list", {"limit": "1"})]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(status=401), ("401", "Check password of this connection")),
        (Fault(status=403), ("403", "Check password of this connection")),
        (Fault(status=500), ("500",)),
        (Fault(html=True), ("502",)),
        (Fault(drop=True), ("no answer from http://127.0.0.1",)),
        (Fault(body="{"), ("unreadable body",)),
        (Fault(redirect="https://elsewhere.invalid"), ("307", "Redirects are not followed")),
    ],
    ids=str,
)
def test_the_connection_test_says_what_is_wrong_at_once(fault: Fault, says: tuple[str, ...], api: Emulator) -> None:
    api.fault(fault)
    works, text = BatchesHook().test_connection()
    assert not works
    assert [part for part in says if part not in text] == []
    assert api.count() == 1


def test_a_dead_api_is_named(api: Emulator) -> None:
    api.stop()
    works, text = BatchesHook().test_connection()
    assert not works
    assert f"no answer from {api.url}" in text


def test_an_error_of_another_kind_is_not_shown_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("sk-ant-secret")

    monkeypatch.setattr(BatchesHook, "get_connection", fail)
    assert BatchesHook().test_connection() == (False, "The connection could not be used: RuntimeError")


def test_a_wait_ends_with_the_batch(api: Emulator) -> None:
    batch_id = api.add_batch(10, status="in_progress", batch_seconds=0.1)
    assert BatchesHook().wait_for_batch(batch_id, poll_interval=0.02).request_counts.succeeded == 10


def test_a_wait_that_is_too_long_says_what_was_seen(api: Emulator) -> None:
    batch_id = api.add_batch(10)
    with pytest.raises(BatchTimeoutError, match=f"{batch_id} had not ended .* in_progress .*10 requests"):
        BatchesHook().wait_for_batch(batch_id, poll_interval=0.02, timeout=0.1)


def test_a_wait_for_what_is_not_an_id_sends_nothing(api: Emulator) -> None:
    with pytest.raises(InvalidArgumentError, match="batch_id"):
        BatchesHook().wait_for_batch("a/b")
    assert api.count() == 0


@pytest.mark.parametrize("field", ["poll_interval", "timeout"])
@pytest.mark.parametrize("wrong", [0, -1, "60", None])
def test_a_wait_for_what_is_not_a_duration_sends_nothing(field: str, wrong: Any, api: Emulator) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{field}: got {wrong!r}; it must be a timedelta or a number"):
        BatchesHook().wait_for_batch("msgbatch_1", **{field: wrong})
    assert api.count() == 0


def test_an_outage_of_501_answers_does_not_end_a_wait(api: Emulator) -> None:
    armed = api.fault(Fault(status=500, times=501))
    batch_id = api.add_batch(status="ended")

    assert BatchesHook().wait_for_batch(batch_id, poll_interval=0.001).ended
    assert armed.hits == 501


def test_a_key_that_is_replaced_meanwhile_does_not_end_a_wait(
    api: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_batches.waiting.wait.KEY_PAUSES", (0.2,) * 10)
    connect(host=api.url, password="sk-ant-old")
    threading.Timer(0.5, lambda: connect(host=api.url, password=api.api_key)).start()
    assert BatchesHook().wait_for_batch(api.add_batch(status="ended"), timeout=30).ended
    assert api.requests[0].status == 401


async def test_a_wait_works_inside_a_running_event_loop(api: Emulator) -> None:
    assert BatchesHook().wait_for_batch(api.add_batch(status="ended")).ended


@pytest.mark.parametrize("busy", ["waiting for an answer", "between polls"])
def test_a_timeout_of_the_task_ends_a_wait_within_seconds(busy: str, api: Emulator) -> None:
    class Timeout(BaseException):
        """As Airflow's AirflowTaskTimeout."""

    def expire(*_: Any) -> None:
        raise Timeout

    if busy == "waiting for an answer":
        api.fault(Fault(hang=True))
    threads = threading.enumerate()
    former = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    begun = time.monotonic()
    try:
        with pytest.raises(Timeout):
            BatchesHook().wait_for_batch(api.add_batch())
    finally:
        signal.signal(signal.SIGALRM, former)
    assert time.monotonic() - begun < 5
    assert set(threading.enumerate()) <= set(threads)


def test_a_hooks_text_is_free_of_its_key(api: Emulator) -> None:
    hook = BatchesHook()
    assert str(api.api_key) not in f"{hook!r} {hook.settings!r} {hook.settings} {hook.get_conn()!r} {vars(hook)}"
    assert json.loads(api.connection_json)["password"] == api.api_key
