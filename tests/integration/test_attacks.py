"""Hostile input and hostile answers never change which endpoint is called, nor on which host."""

from __future__ import annotations

import asyncio
import json
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_batches.api import (
    AsyncBatchesClient,
    BatchesClient,
    BatchesError,
    ClientSettings,
    InvalidArgumentError,
    check_batch_id,
)
from airflow_provider_batches.api.pager import Pager
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

KEY = "sk-ant-canary-0123456789abcdef"
REQUEST = {"custom_id": "a", "params": {"model": "m", "max_tokens": 1, "messages": [{"role": "user"}]}}
HEAD = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\r\n]*\r\n)*)\r\n")
PATH = re.compile(r"/v1/messages/batches(?:/([A-Za-z0-9._~%-]+)(?:/(cancel|results))?)?")
ENDPOINTS = {
    ("GET", False, None): "list",
    ("POST", False, None): "create",
    ("GET", True, None): "retrieve",
    ("DELETE", True, None): "delete",
    ("POST", True, "cancel"): "cancel",
    ("GET", True, "results"): "results",
}


@dataclass(frozen=True)
class Request:
    """A request as it came over the wire; its endpoint is `unknown` if the API has no such endpoint."""

    head: bytes
    endpoint: str = "unknown"
    #: The batch ID, or the cursor of a list.
    name: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def read(cls, head: bytes) -> Request:
        found = HEAD.fullmatch(head)
        if not found:
            return cls(head)
        method, target, rest = (part.decode("ascii") for part in found.groups())
        headers = tuple(tuple(line.split(": ", 1)) for line in rest.splitlines())
        path, _, query = target.partition("?")
        match = PATH.fullmatch(path)
        if not match or ".." in path or "#" in target:
            return cls(head)
        segment, action = match.groups()
        endpoint = ENDPOINTS.get((method, segment is not None, action), "unknown")
        fields = parse_qs(query, keep_blank_values=True)
        if (endpoint != "list" and fields) or fields.keys() - {"limit", "after_id", "before_id"}:
            return cls(head)
        cursor = (fields.get("after_id") or fields.get("before_id") or [None])[0]
        return cls(head, endpoint, unquote(segment) if segment else cursor, headers)


@dataclass
class Host:
    """Records what arrives, byte for byte, and answers as an API that knows every batch."""

    #: Calls about a batch before it has ended.
    lasts: int = 0
    #: Replaces the answers to an endpoint: of the request, a status, headers and a body.
    answers: dict[str, Callable[[Request], tuple[int, str, Any]]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    def __enter__(self) -> Host:
        host = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                host.connections += 1
                head = b""
                with suppress(OSError):
                    while line := self.rfile.readline():
                        head += line
                        if line == b"\r\n":
                            host._take(self, head)
                            head = b""

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, wire: Any, head: bytes) -> None:
        request = Request.read(head)
        self.requests.append(request)
        wire.rfile.read(int(dict(request.headers).get("Content-Length", 0)))
        status, headers, body = self.answers.get(request.endpoint, self.answer)(request)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        wire.wfile.write(f"HTTP/1.1 {status} X\r\n{headers}content-length: {len(data)}\r\n\r\n".encode() + data)

    def answer(self, request: Request) -> tuple[int, str, Any]:
        """Answer as the API would."""
        if request.endpoint == "list":
            return 200, "", {"data": [], "has_more": False}
        if request.endpoint == "results":
            return 200, "", b'{"custom_id": "a", "result": {"type": "canceled"}}\n'
        if request.endpoint == "delete":
            return 200, "", {"id": request.name, "type": "message_batch_deleted"}
        looks = [each for each in self.requests if each.name == request.name]
        return 200, "", batch(request.name or "msgbatch_new", ended=len(looks) > self.lasts)

    @property
    def called(self) -> set[tuple[str, str | None]]:
        """Each endpoint that was called, and for which batch, or with which cursor."""
        return {(request.endpoint, request.name) for request in self.requests}


def batch(batch_id: str, ended: bool = True, **fields: Any) -> dict[str, Any]:
    return {
        "id": batch_id,
        "processing_status": "ended" if ended else "in_progress",
        "request_counts": {"canceled": 1} if ended else {"processing": 1},
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-02T00:00:00Z",
        **fields,
    }


@pytest.fixture(scope="module")
def _host() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture
def host(_host: Host, connect: Callable[..., str]) -> Host:
    """The API, with the connection `anthropic_default` leading to it."""
    _host.lasts = 0
    _host.answers.clear()
    _host.requests.clear()
    connect(password=KEY, host=_host.url, extra={"max_retries": 1})
    return _host


@pytest.fixture
def elsewhere() -> Iterator[Host]:
    """Another host, which nobody may talk to."""
    with Host() as host:
        yield host
        assert (host.connections, host.requests) == (0, [])


#: What the clients do with a batch ID, and the endpoints that this may take.
CALLS: dict[str, tuple[Callable[[Any, str], Any], set[str]]] = {
    "retrieve": (lambda client, batch_id: client.retrieve(batch_id), {"retrieve"}),
    "find": (lambda client, batch_id: client.find(batch_id), {"retrieve"}),
    "cancel": (lambda client, batch_id: client.cancel(batch_id), {"cancel"}),
    "delete": (lambda client, batch_id: client.delete(batch_id), {"delete"}),
    "results": (lambda client, batch_id: client.results(batch_id), {"retrieve", "results"}),
    "page after": (lambda client, batch_id: client.page(Pager(after_id=batch_id)), {"list"}),
    "list before": (lambda client, batch_id: client.list(before_id=batch_id), {"list"}),
}


def call_both(url: str, *calls: Callable[[Any], Any]) -> list[BatchesError | None]:
    """Make calls with either client; return what each raised."""
    config = ClientSettings(api_key=KEY, base_url=url, max_retries=1, timeout=30)
    raised: list[BatchesError | None] = []

    with BatchesClient(config) as client:
        for call in calls:
            try:
                answer = call(client)
                _ = list(answer) if isinstance(answer, Iterator) else None
                raised.append(None)
            except BatchesError as error:
                raised.append(error)

    async def asynchronous() -> None:
        async with AsyncBatchesClient(config) as client:
            for call in calls:
                try:
                    answer = call(client)
                    _ = [item async for item in answer] if hasattr(answer, "__aiter__") else await answer
                    raised.append(None)
                except BatchesError as error:
                    raised.append(error)

    asyncio.run(asynchronous())
    return raised


def calls_on(batch_id: str) -> list[Callable[[Any], Any]]:
    return [partial(call, batch_id=batch_id) for call, _ in CALLS.values()]


#: Not a valid batch ID: what would lead somewhere else, or cannot stand in a URL.
REFUSED = [
    "",
    ".",
    "..",
    "../models",
    "..;/models",
    "..%2fmodels",
    "%2e%2e%2fmodels",
    "..%252fmodels",
    "a/../b",
    "a/cancel",
    "a,b",
    "a%2fcancel",
    "/v1/models",
    "//elsewhere.invalid/",
    "\\\\elsewhere.invalid",
    "https://elsewhere.invalid/a",
    "a?after_id=b",
    "a#b",
    "a%00b",
    "a\x00b",
    "a\r\nx-injected: 1",
    "a HTTP/1.1\r\nhost: elsewhere.invalid\r\n\r\nDELETE /v1/messages/batches/b",
    "a%0d%0ax-injected: 1",
    "a\nb",
    "a\tb",
    "a\u2028b",
    "a\u202eb",
    "a\uff0fb",
    "\uff0e\uff0e",
    "\ud800",
    "{{ conn.anthropic_default.password }}",
    "{% for a in b %}",
    "x" * 257,
    "x" * 1_000_000,
    " " * 1_000_000,
    "../" * 300_000,
]
PIECES = [*(each for each in REFUSED if len(each) < 100), "a", "/", "%", "\r\n", "..", "?", ":"]
#: Texts that look like a list of IDs, but are not a valid one.
NO_LISTS = [
    "[",
    "['a', '../b']",
    "['a\\r\\nb']",
    "['a', ['b']]",
    "[__import__('os').getpid()]",
    "[{[]: 1}]",
    "[" * 1_000_000,
    "[" + "-" * 1_000_000 + "1]",
    "[" + "1+" * 100_000 + "1]",
    "['" + "x" * 1_000_000 + "']",
]
#: What may be an ID, since the API may change their format: only the endpoints of this batch are called.
ODD = [
    "{{conn.anthropic_default.password}}",
    "${jndi:ldap:elsewhere.invalid}",
    "a;b",
    "a&limit=1&after_id=b",
    "a=b",
    "a+b",
    "@127.0.0.1",
    "127.0.0.1:80",
    "https:",
    "<script>",
    "'a'",
    '"a"',
    "`a`",
    "a|b",
    "*",
    "~root",
    "-rf",
    ".a.b.",
    "cancel",
    "None.",
    "x" * 200,
]


def shorten(value: object) -> str:
    return f"{ascii(value)[:24]}-{len(str(value))}"


class TestABatchID:
    @pytest.mark.parametrize("batch_id", REFUSED, ids=shorten)
    def test_that_is_not_valid_is_sent_nowhere(self, batch_id: str, host: Host) -> None:
        for error in call_both(host.url, *calls_on(batch_id)):
            assert isinstance(error, InvalidArgumentError)
            assert len(str(error)) < 400
        assert host.requests == []

    @pytest.mark.parametrize("batch_id", ODD, ids=shorten)
    def test_that_is_unusual_leads_to_its_own_endpoint(self, batch_id: str, host: Host) -> None:
        for call, endpoints in CALLS.values():
            host.requests.clear()
            assert call_both(host.url, partial(call, batch_id=batch_id)) == [None, None]
            assert host.called == {(endpoint, batch_id) for endpoint in endpoints}

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        name=st.sampled_from(sorted(CALLS)),
        batch_id=st.text(max_size=300)
        | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
        | st.lists(st.sampled_from(PIECES), max_size=4).map("".join),
    )
    def test_of_any_kind_leads_to_its_own_endpoint_or_nowhere(self, name: str, batch_id: str, host: Host) -> None:
        call, endpoints = CALLS[name]
        host.requests.clear()
        errors = call_both(host.url, partial(call, batch_id=batch_id))
        try:
            check_batch_id(batch_id)
        except InvalidArgumentError:
            assert all(isinstance(error, InvalidArgumentError) for error in errors)
            assert host.requests == []
        else:
            assert errors == [None, None]
            assert host.called == {(endpoint, batch_id) for endpoint in endpoints}


WAIT = {"poke_interval": 0.02, "timeout": 5}
#: Each way in which an operator is handed an ID, with the endpoints that this may take.
TASKS: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "cancel": (CancelBatchOperator, {}, {"cancel"}),
    "delete": (DeleteBatchOperator, {}, {"retrieve", "delete"}),
    "poke": (BatchEndedSensor, WAIT, {"retrieve"}),
    "defer": (BatchEndedSensor, {**WAIT, "deferrable": True}, {"retrieve"}),
    "save": (SaveBatchResultsOperator, {}, {"retrieve", "results"}),
    "tear down": (TeardownBatchesOperator, {"poll_interval": 0.02}, {"cancel", "retrieve", "results", "delete"}),
}
every_task = pytest.mark.parametrize("name", TASKS)


def arguments(name: str, batch_ids: Any, folder: Path) -> dict[str, Any]:
    """Return what the operator is made of."""
    values = dict(TASKS[name][1])
    values["batch_ids" if name == "tear down" else "batch_id"] = batch_ids
    if name in ("save", "tear down"):
        values["path" if name == "save" else "save_results_to"] = str(folder)
    return values


class TestATask:
    @every_task
    def test_refuses_an_id_that_is_not_valid(self, name: str, host: Host, run: Any, tmp_path: Path) -> None:
        several = NO_LISTS if name in ("poke", "defer", "tear down") else []
        for batch_id in [*REFUSED, *several]:
            done = run(TASKS[name][0], params={"x": batch_id}, **arguments(name, "{{ params.x }}", tmp_path / "in"))
            assert (done.state, done.deferrals) == ("failed", [])
            assert len(done.text) < 500
        assert host.requests == []
        assert list(tmp_path.iterdir()) == []

    @every_task
    def test_calls_only_the_endpoints_of_an_unusual_id(self, name: str, host: Host, run: Any, tmp_path: Path) -> None:
        host.lasts = 0 if name in ("delete", "save") else 1
        for batch_id in ODD:
            host.requests.clear()
            done = run(TASKS[name][0], params={"x": batch_id}, **arguments(name, "{{ params.x }}", tmp_path / "in"))
            assert done.state == "success"
            assert host.called <= {("list", None)} | {(endpoint, batch_id) for endpoint in TASKS[name][2]}
            assert host.requests
        assert [path.name for path in tmp_path.iterdir()] in ([], ["in"])
        assert [path for path in (tmp_path / "in").rglob("*") if path.is_dir()] in ([], [tmp_path / "in/_teardown"])

    @pytest.mark.parametrize("name", ["poke", "defer", "tear down"])
    def test_sends_nothing_if_one_id_of_a_list_is_not_valid(
        self, name: str, host: Host, run: Any, tmp_path: Path
    ) -> None:
        # What is written into the DAG file itself is a template of its author.
        for batch_id in (each for each in REFUSED if "{" not in each):
            done = run(TASKS[name][0], **arguments(name, ["msgbatch_1", batch_id], tmp_path / "in"))
            assert isinstance(done.error.__cause__ or done.error, InvalidArgumentError)
            assert done.deferrals == []
        assert host.requests == []

    @pytest.mark.parametrize(
        "fields",
        [
            *({"limit": value} for value in ("9" * 5000, "9" * 1_000_000, "1; 2", "\u0663")),
            *({"older_than": value} for value in ("P999999999D", "x" * 1_000_000, "P1D\r\n")),
            *({"created_before": value} for value in ("x" * 1_000_000, "2026-01-01\r\n", "{{ 1 }}")),
            *({"statuses": value} for value in NO_LISTS),
            *({"report_only": value} for value in ("x" * 1_000_000, "{{ true }}", "1")),
        ],
        ids=shorten,
    )
    def test_that_selects_by_invalid_input_selects_nothing(
        self, fields: dict[str, str], host: Host, run: Any, tmp_path: Path
    ) -> None:
        ((name, value),) = fields.items()
        done = run(
            TeardownBatchesOperator,
            params={"x": value},
            discard_results=True,
            **{"older_than": "P1D"} if name in ("limit", "statuses", "report_only") else {},
            **{name: "{{ params.x }}"},
        )
        assert done.state == "failed"
        assert len(done.text) < 400
        assert host.requests == []


#: What a Param may add to the folder that a DAG names.
TYPED = [
    "..",
    "../../outside",
    "a/../../outside",
    "{{/../../outside",
    "{{ x }}/../outside",
    "a\r\nb",
    "a\x00b",
    "a\u202eb",
    "../" * 300_000,
]


class TestAFolder:
    @pytest.mark.parametrize("typed", TYPED, ids=shorten)
    @pytest.mark.parametrize("name", ["save", "tear down"])
    def test_is_not_left_by_what_was_typed(self, name: str, typed: str, host: Host, run: Any, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        folder: Any = f"file://{tmp_path}/in/{{{{ params.x }}}}"
        done = run(TASKS[name][0], params={"x": typed}, **arguments(name, "msgbatch_1", folder))

        assert done.state == "failed"
        assert len(done.text) < 500
        assert host.requests == []
        assert list(tmp_path.rglob("*")) == [tmp_path / "in"]

    @pytest.mark.parametrize("name", ["save", "tear down"])
    def test_that_cannot_exist_costs_no_batch(self, name: str, host: Host, run: Any, tmp_path: Path) -> None:
        done = run(TASKS[name][0], **arguments(name, "msgbatch_1", tmp_path / ("x" * 1_000_000)))

        assert done.state != "success"
        assert "delete" not in {request.endpoint for request in host.requests}

    def test_is_not_left_by_a_file_name(self, host: Host, run: Any, tmp_path: Path) -> None:
        path = f"file://{tmp_path}/in/{{{{ params.x }}}}.jsonl"
        done = run(SaveBatchResultsOperator, params={"x": "../outside"}, batch_id="msgbatch_1", path=path)

        assert done.state == "failed"
        assert host.requests == []


class TestAnAnswer:
    """An answer of the API is not obeyed either."""

    def test_that_lists_invalid_ids_leads_nowhere(self, host: Host, run: Any, tmp_path: Path) -> None:
        names = [name for name in REFUSED if name != "\ud800"]  # no text in JSON either
        host.answers["list"] = lambda _: (200, "", {"data": [batch(name) for name in names], "has_more": False})

        done = run(TeardownBatchesOperator, older_than="P1D", save_results_to=str(tmp_path / "in"))

        assert done.state == "failed"
        assert host.called == {("list", None)}
        assert {path.name for path in tmp_path.rglob("*") if path.is_dir()} == {"in", "_teardown"}
        assert [path for path in (tmp_path / "in").iterdir() if path.is_file()] == []

    def test_that_lists_unusual_ids_fills_no_other_folder(self, host: Host, run: Any, tmp_path: Path) -> None:
        host.answers["list"] = lambda _: (200, "", {"data": [batch(name) for name in ODD], "has_more": False})

        done = run(TeardownBatchesOperator, older_than="P1D", save_results_to=str(tmp_path / "in"))

        endpoints = ("results", "delete")
        assert done.value["deleted"] == len(ODD)
        assert host.called == {("list", None)} | {(endpoint, name) for endpoint in endpoints for name in ODD}
        assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "in"}
        assert len(list((tmp_path / "in").glob("*.jsonl"))) == len(ODD)

    def test_that_names_a_cursor_leads_to_the_next_page_or_nowhere(self, host: Host, run: Any) -> None:
        def page(request: Request) -> tuple[int, str, Any]:
            more = request.name is None
            return 200, "", {"data": [batch("msgbatch_1")] if more else [], "has_more": more, "last_id": cursor}

        host.answers["list"] = page
        for cursor in (*REFUSED, *ODD):
            host.requests.clear()
            call_both(host.url, lambda client: client.list())
            run(TeardownBatchesOperator, older_than="P1D", report_only=True)
            run(BatchEndedSensor, batch_id=["msgbatch_2", "msgbatch_3", "msgbatch_4"], poke_interval=0.1, timeout=0.01)
            behind = {name for endpoint, name in host.called if endpoint == "list"}
            # A page without a cursor ends with its last batch.
            assert behind == ({None, cursor or "msgbatch_1"} if cursor in ODD or not cursor else {None})

    @pytest.mark.parametrize("other", ["msgbatch_2", "../../outside", "https://elsewhere.invalid/a", "a\r\nb"])
    @pytest.mark.parametrize("name", ["delete", "save", "tear down", "poke"])
    def test_about_another_batch_is_not_believed(
        self, name: str, other: str, host: Host, run: Any, tmp_path: Path
    ) -> None:
        host.answers["retrieve"] = host.answers["cancel"] = lambda _: (200, "", batch(other))
        values = {
            **arguments(name, "msgbatch_1", tmp_path / "in"),
            **({"timeout": 0.1} if name in ("poke", "tear down") else {}),
        }

        done = run(TASKS[name][0], **values)

        assert done.state in ("retry", "failed")
        assert host.called <= {("retrieve", "msgbatch_1"), ("cancel", "msgbatch_1")}
        assert [path for path in tmp_path.rglob("*.json*") if path.parent.name != "_teardown"] == []

    @pytest.mark.parametrize("name", ["retrieve", "find", "cancel", "delete", "results"])
    def test_about_another_batch_is_an_error_of_either_client(self, name: str, host: Host) -> None:
        for endpoint in ("retrieve", "cancel", "delete"):
            fields = {"type": "message_batch_deleted"} if endpoint == "delete" else {}
            host.answers[endpoint] = lambda _, fields=fields: (200, "", batch("msgbatch_2", **fields))

        for error in call_both(host.url, partial(CALLS[name][0], batch_id="msgbatch_1")):
            assert "the answer is about another batch, 'msgbatch_2'" in str(error)
        assert {name for _, name in host.called} == {"msgbatch_1"}


REDIRECTS = {
    "another host": "{elsewhere}/v1/messages/batches",
    "another scheme": "https:{bare}/v1/messages/batches",
    "no scheme": "{bare}/v1/messages/batches",
    "a user": "http://127.0.0.1@{authority}/v1/messages/batches",
    "the same host": "{here}/v1/messages/batches/msgbatch_2/cancel",
    "a path": "/v1/messages/batches/msgbatch_2/cancel",
    "a dot path": "../../models",
}


class TestAnotherHost:
    @pytest.mark.parametrize("target", REDIRECTS)
    def test_that_a_redirect_names_is_not_contacted(self, target: str, host: Host, elsewhere: Host) -> None:
        authority = elsewhere.url.removeprefix("http://")
        where = REDIRECTS[target].format(
            elsewhere=elsewhere.url, bare=f"//{authority}", authority=authority, here=host.url
        )
        headers = f"location: {where}\r\nrefresh: 0; url={where}\r\ncontent-location: {where}\r\n"
        for status in (300, 301, 302, 303, 305, 307, 308):
            host.requests.clear()
            host.answers.update(dict.fromkeys(ENDPOINTS.values(), lambda _, status=status: (status, headers, b"")))
            for error in call_both(host.url, *calls_on("msgbatch_1"), lambda client: client.create([REQUEST])):
                assert "Redirects are not followed" in str(error)
            assert {name for _, name in host.called} == {"msgbatch_1", None}
            assert [request.endpoint for request in host.requests].count("create") == 2

    @pytest.mark.parametrize("name", TASKS)
    def test_that_a_redirect_names_is_not_contacted_by_a_task(
        self, name: str, host: Host, elsewhere: Host, run: Any, tmp_path: Path
    ) -> None:
        headers = f"location: {elsewhere.url}/v1/messages/batches\r\n"
        host.answers.update(dict.fromkeys(ENDPOINTS.values(), lambda _: (307, headers, b"")))
        values = {
            **arguments(name, "msgbatch_1", tmp_path),
            **({"timeout": 0.1} if "timeout" in TASKS[name][1] else {}),
        }
        assert run(TASKS[name][0], **values).state in ("failed", "retry")
        assert {name for _, name in host.called} == {"msgbatch_1"}

    @pytest.mark.parametrize("name", TASKS)
    def test_that_results_url_names_is_not_contacted(
        self, name: str, host: Host, elsewhere: Host, run: Any, tmp_path: Path
    ) -> None:
        url = f"{elsewhere.url}/v1/messages/batches/msgbatch_1/results"

        def answer(request: Request) -> tuple[int, str, Any]:
            return 200, f'link: <{url}>\r\nalt-svc: h2="{elsewhere.url}"\r\n', batch("msgbatch_1", results_url=url)

        host.answers["retrieve"] = host.answers["cancel"] = answer
        assert call_both(host.url, lambda client: client.results("msgbatch_1")) == [None, None]
        assert run(TASKS[name][0], **arguments(name, "msgbatch_1", tmp_path)).state == "success"
        assert {name for _, name in host.called} <= {"msgbatch_1"}


#: Headers that a request may have; a value that would add another is refused.
HEADERS = {
    "host",
    "accept",
    "accept-encoding",
    "connection",
    "user-agent",
    "anthropic-version",
    "anthropic-beta",
    "anthropic-workspace-id",
    "x-mine",
    "x-api-key",
}
SMUGGLED = [
    "v\r\nx-injected: 1",
    "v\nx-injected: 1",
    "v\rx-injected: 1",
    "v\r\n\r\nDELETE /v1/messages/batches/msgbatch_2 HTTP/1.1\r\nhost: a",
    "v\x00",
    "v\u2028x-injected: 1",
    "v\u010ax-injected: 1",
    "\u560d\u560ax-injected: 1",
    "v\x0bx-injected: 1",
    "{{ conn.anthropic_default.password }}",
    "v; x=1, x-injected: 1",
]
FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "password": lambda value: {"password": value},
    "anthropic_version": lambda value: {"extra": {"anthropic_version": value}},
    "anthropic_beta": lambda value: {"extra": {"anthropic_beta": value}},
    "workspace_id": lambda value: {"extra": {"workspace_id": value}},
    "headers": lambda value: {"extra": {"headers": {"x-mine": value}}},
    "secret_headers": lambda value: {"extra": {"secret_headers": {"x-mine": value}}},
    "header name": lambda value: {"extra": {"headers": {value: "1"}}},
    "auth_scheme": lambda value: {"extra": {"auth_scheme": value}},
    "official headers": lambda value: {
        "conn_type": "anthropic",
        "extra": {"anthropic_client_kwargs": {"default_headers": {"x-mine": value}}},
    },
}


class TestAConnection:
    @pytest.mark.parametrize("name", FIELDS)
    def test_adds_no_header_and_no_request(self, name: str, host: Host, connect: Callable[..., str]) -> None:
        for value in SMUGGLED:
            host.requests.clear()
            connect(**{"password": KEY, "host": host.url, **FIELDS[name](value)})
            hook = BatchesHook()
            with suppress(InvalidArgumentError):
                hook.get_batch("msgbatch_1")
            hook.close()

            assert host.called <= {("retrieve", "msgbatch_1")}
            for request in host.requests:
                names = [name.lower() for name, _ in request.headers]
                assert len(set(names)) == len(names)
                assert set(names) <= HEADERS | {value if name == "header name" else ""}

    @pytest.mark.parametrize(
        "address",
        [
            "{here}@{there}",
            "{here}#@{there}",
            "{here}?@{there}",
            "{here}/@{there}",
            "{here}\\@{there}",
            "{here}%40{there}",
            "{here}%0d%0ahost:{there}",
            "{here}\r\nhost: {there}",
            "{here} {there}",
            "{here}\t.{there}",
            "{here},{there}",
            "{here};{there}",
            "{here}/..//{there}",
            "{here}/v1/messages/batches/msgbatch_2/cancel?",
            "{here}/v1/messages/batches/msgbatch_2/cancel#",
            "{here}/{{{{ conn.anthropic_default.password }}}}",
            "http://{here}http://{there}",
            "127.0.0.1\x00.{there}",
            "\uff11\uff12\uff17.0.0.1.{there}",
        ],
    )
    def test_s_host_is_the_one_that_was_checked(
        self, address: str, host: Host, elsewhere: Host, connect: Callable[..., str]
    ) -> None:
        here, there = (each.url.removeprefix("http://") for each in (host, elsewhere))
        text = address.format(here=here, there=there)
        for value in (text, f"http://{text}"):
            connect(password=KEY, host=value, extra={"max_retries": 0, "timeout": 2, "allow_http": True})
            hook = BatchesHook()
            with suppress(BatchesError):
                hook.get_batch("msgbatch_1")
            hook.close()
        # A path of its own before /v1 may be a gateway's.
        assert [
            request.head for request in host.requests if b"/v1/messages/batches/msgbatch_1 " not in request.head
        ] == []


class TestTheseTests:
    """The checks of this file can fail."""

    @pytest.mark.parametrize(
        "head",
        [
            "GET /v1/messages/batches/../models HTTP/1.1\r\n\r\n",
            "GET /v1/messages/batches/a/b HTTP/1.1\r\n\r\n",
            "GET /v1/messages/batches/a/cancel HTTP/1.1\r\n\r\n",
            "POST /v1/messages/batches/a HTTP/1.1\r\n\r\n",
            "DELETE /v1/messages/batches HTTP/1.1\r\n\r\n",
            "GET /v1/messages/batches/a?x=1 HTTP/1.1\r\n\r\n",
            "GET /v1/messages/batches?x=1 HTTP/1.1\r\n\r\n",
            "GET //elsewhere/v1/messages/batches HTTP/1.1\r\n\r\n",
            "GET /v1/messages/batches HTTP/1.1\r\na: 1\nb: 2\r\n\r\n",
        ],
    )
    def test_see_what_is_not_an_endpoint(self, head: str) -> None:
        assert Request.read(head.encode()).endpoint == "unknown"

    def test_see_another_host(self) -> None:
        with Host() as other:
            assert call_both(other.url, lambda client: client.retrieve("msgbatch_1")) == [None, None]
            assert other.connections == 2
            assert other.called == {("retrieve", "msgbatch_1")}
