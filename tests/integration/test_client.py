"""Both clients over real sockets against the emulator: each scenario is run for the sync and the async one."""

from __future__ import annotations

import asyncio
import datetime
import logging
import socket
import ssl
import threading
import traceback
from contextlib import suppress
from email.utils import format_datetime

import pytest

from airflow_provider_batches.api import (
    AccessDeniedError,
    APIConnectionError,
    APIStatusError,
    AsyncBatchesClient,
    BatchesClient,
    BatchesError,
    BatchNotEndedError,
    ClientSettings,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTooLargeError,
    ResultsTruncatedError,
    ResultsUnavailableError,
    ServerError,
    SpendLimitError,
    flows,
    retry,
)
from airflow_provider_batches.emulator import Behavior, Emulator, Fault

LONG_AGO = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
KEY = "sk-ant-canary-0123456789abcdef"
PARAMS = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
REQUESTS = [{"custom_id": f"request-{i}", "params": PARAMS} for i in range(3)]
RETRIEVE, LIST, CANCEL, DELETE, RESULTS = "retrieve", "page", "cancel", "delete", "results"
ON_A_BATCH = [RETRIEVE, CANCEL, DELETE, RESULTS]
NO_PAUSES = (0.0, 0.0, 0.0)


def variants(*fields):
    """Return the ways to behave in the open questions that concern a call: those given and those of every answer."""
    concern = {*fields, "default", "first_retrieve", "optional_fields", "extra_fields", "times", "request_id"}
    return [behavior for behavior in Behavior.variants() if str(behavior).split("=")[0] in concern]


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    """Take the pauses out; the value is the list of those between attempts that there would have been."""
    asked = []
    real = retry.pause

    def pause(*args):
        asked.append(real(*args))
        return 0.0

    monkeypatch.setattr(flows, "MISSING_PAUSES", NO_PAUSES)
    monkeypatch.setattr(retry, "pause", pause)
    return asked


@pytest.fixture(autouse=True)
def key_stays_out_of_the_logs(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text


@pytest.fixture
def api():
    with Emulator(api_key=KEY) as emulator:
        yield emulator


class Sync:
    """The methods of a client; iterators become lists."""

    def __init__(self, settings):
        self.client = BatchesClient(settings)
        #: What an iterator gave before it failed.
        self.came = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            try:
                answer = getattr(self.client, name)(*args, **kwargs)
                return self._collect(answer) if name in ("list", "results") else self._result(answer)
            except BatchesError as error:
                shown = [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
                assert KEY not in "".join(shown)
                raise

        return call

    def _result(self, answer):
        return answer

    def _collect(self, answer):
        self.came = []
        for item in answer:
            self.came.append(item)
        return self.came

    def first(self, name):
        """Take one item of an iterator and leave the rest."""
        items = getattr(self.client, name[0])(*name[1:])
        found = next(items)
        items.close()
        return found

    def close(self):
        self.client.close()


class Async(Sync):
    def __init__(self, settings):
        super().__init__(settings)
        self.loop = asyncio.new_event_loop()
        self.client = AsyncBatchesClient(settings)

    def _result(self, answer):
        return self.loop.run_until_complete(answer)

    def _collect(self, answer):
        async def collect():
            self.came = []
            async for item in answer:
                self.came.append(item)
            return self.came

        return self._result(collect())

    def first(self, name):
        async def first():
            items = getattr(self.client, name[0])(*name[1:])
            found = await items.__anext__()
            await items.aclose()
            return found

        return self._result(first())

    def close(self):
        self._result(self.client.aclose())
        self.loop.close()


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def connect(request, api):
    """Make clients of one kind, of the emulator unless told otherwise."""
    made = []

    def connect(**values):
        values = {"api_key": KEY, "base_url": api.url, "max_retries": 3, "timeout": 5, **values}
        made.append(request.param(ClientSettings.parse(**values)))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def client(connect):
    return connect()


@pytest.fixture
def listen():
    """Start servers that answer each request with the same bytes; each keeps what it was sent."""
    sockets = []

    def listen(answer=b"", tls=None):
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)
        got = []

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with suppress(OSError), connection:
                    connection.settimeout(5)
                    got.append(connection.recv(65536))
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}", got

    yield listen
    for listener in sockets:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def answer(status="200 OK", body=b"", *headers):
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def endpoints_of(api):
    return [request.endpoint for request in api.requests]


def call(client, name, batch_id):
    return client.page() if name == LIST else getattr(client, name)(batch_id)


class TestCreate:
    def test_makes_a_batch(self, client, api):
        batch = client.create(REQUESTS)
        assert api.batch(batch.id)["request_counts"]["processing"] == 3

    def test_returns_it_with_the_request_id(self, client, api):
        assert client.create(REQUESTS).request_id == api.requests[0].request_id

    def test_is_refused_with_the_apis_reason(self, client):
        with pytest.raises(APIStatusError, match="Could not create a batch: 400 invalid_request_error"):
            client.create([{"custom_id": "a", "params": {"model": 5}}])

    def test_sends_nothing_where_a_request_is_wrong(self, client, api):
        with pytest.raises(InvalidArgumentError):
            client.create([*REQUESTS, REQUESTS[0]])
        assert api.requests == []

    def test_that_is_too_large_says_so(self, client, api):
        api.fault(Fault("create", status=413, html=True))
        with pytest.raises(RequestTooLargeError, match="Split the batch"):
            client.create(REQUESTS)

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("create", drop=True),
            Fault("create", drop=True, applied=True),
            Fault("create", drop=True, applied=True, reset=True),
            Fault("create", applied=True, cut_after=10),
            Fault("create", applied=True, cut_after=10, cut_cleanly=True),
            Fault("create", applied=True, html=True),
            Fault("create", applied=True, status=529, headers={"x-should-retry": "true"}),
            Fault("create", status=429, headers={"retry-after-ms": "1"}),
            Fault("create", hang=True),
        ],
        ids=["drop", "lost", "reset", "cut", "cut cleanly", "HTML", "529", "429", "timeout"],
    )
    def test_is_never_made_again_once_it_may_have_reached_the_api(self, fault, connect, api):
        api.fault(fault)
        with pytest.raises(BatchesError):
            connect(timeout=0.3).create(REQUESTS)
        assert (api.count("create"), len(api.ids()) <= 1) == (1, True)

    def test_is_made_again_where_no_connection_came_about(self, connect, api, brisk):
        client = connect()
        api.stop()
        with pytest.raises(APIConnectionError):
            client.create(REQUESTS)
        assert len(brisk) == 4  # tenacity asks for the pause after the last attempt too

    def test_makes_one_batch_where_the_api_comes_back_in_time(self, connect, api, monkeypatch):
        client = connect()
        api.stop()
        monkeypatch.setattr(retry, "pause", lambda *_: api.start() or 0.0)
        client.create(REQUESTS)
        assert len(api.ids()) == 1


class TestRetrieve:
    def test_returns_the_batch(self, client, api):
        batch_id = api.add_batch(7)
        assert client.retrieve(batch_id).request_counts.processing == 7

    def test_returns_it_with_the_request_id(self, client, api):
        assert client.retrieve(api.add_batch()).request_id == api.requests[0].request_id

    @pytest.mark.parametrize("behavior", variants(), ids=str)
    def test_reads_it_however_the_api_writes_it(self, behavior, client, api):
        api.behavior = behavior
        batch_id = api.add_batch(100, status="ended", age_seconds=60, outcomes={"succeeded": 97, "errored": 3})
        batch = client.find(batch_id)
        found = (batch.ended, batch.request_counts.total, batch.created_at.tzinfo is not None, batch.archived_at)
        assert found == (True, 100, True, None)

    def test_of_an_unknown_batch_is_not_found_at_once(self, client, api):
        with pytest.raises(NotFoundError, match="the key belongs to the batch's workspace"):
            client.retrieve("msgbatch_unknown")
        assert api.count() == 1

    def test_sends_an_odd_id_as_it_is(self, client, api):
        odd = "a:b@c!$&'()*+;=~-_."
        with pytest.raises(NotFoundError):
            client.retrieve(odd)
        assert api.requests[0].batch_id == odd

    @pytest.mark.parametrize("name", ON_A_BATCH)
    def test_sends_nothing_where_the_id_can_be_none(self, name, client, api):
        with pytest.raises(InvalidArgumentError):
            getattr(client, name)("../models")
        assert api.requests == []


class TestFind:
    def test_does_not_believe_a_404_in_mid_life(self, client, api):
        batch_id = api.add_batch()
        api.fault(Fault("retrieve", status=404))
        assert client.find(batch_id).id == batch_id

    def test_believes_four(self, client, api):
        with pytest.raises(NotFoundError, match="asked 4 times"):
            client.find("msgbatch_unknown")
        assert api.count() == 4


class TestList:
    @pytest.fixture
    def ids(self, api):
        """Seven batches, newest first."""
        return [api.add_batch(1, age_seconds=60 * i) for i in range(7)]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
    def test_gives_all_batches_over_all_pages_newest_first(self, limit, client, ids):
        assert [batch.id for batch in client.list(limit=limit)] == ids

    @pytest.mark.parametrize("limit", [2, 1000])
    def test_goes_on_behind_a_batch(self, limit, client, ids):
        assert [batch.id for batch in client.list(limit=limit, after_id=ids[2])] == ids[3:]

    @pytest.mark.parametrize("limit", [1, 2, 3, 1000])
    def test_goes_back_before_a_batch_to_the_newest(self, limit, client, ids):
        assert sorted(batch.id for batch in client.list(limit=limit, before_id=ids[5])) == sorted(ids[:5])

    def test_of_no_batches_is_empty(self, client):
        assert client.list() == []

    def test_asks_for_as_few_pages_as_there_are(self, client, api, ids):
        client.list(limit=3)
        assert [request.query.get("after_id") for request in api.requests] == [None, ids[2], ids[5]]

    def test_asks_for_no_page_that_nobody_wants(self, client, api, ids):
        client.first(("list", 2))
        assert api.count() == 1

    def test_goes_on_where_a_page_failed_for_a_moment(self, client, api, ids):
        api.fault(Fault("list", after=1, times=2, html=True))
        assert [batch.id for batch in client.list(limit=3)] == ids

    def test_gives_one_page_with_its_cursors(self, client, ids):
        page = client.page(2)
        assert (page.first_id, page.last_id, page.has_more) == (ids[0], ids[1], True)

    def test_gives_an_empty_page_whether_or_not_it_has_cursors(self, client, api):
        api.behavior = Behavior(optional_fields="absent")
        assert client.page().last_id is None

    def test_sends_nothing_where_an_argument_is_wrong(self, client, api):
        with pytest.raises(InvalidArgumentError):
            client.list(limit=0)
        assert api.requests == []


class TestCancel:
    @pytest.mark.parametrize(
        "behavior", variants("cancel_ended", "cancel_canceling", "cancel_answer", "cancel_interrupts"), ids=str
    )
    @pytest.mark.parametrize("status", ["in_progress", "canceling", "ended"])
    def test_is_success_however_the_api_behaves(self, status, behavior, client, api):
        api.behavior = behavior
        batch_id = api.add_batch(100, status=status, age_seconds=60)
        client.cancel(batch_id)
        assert api.batch(batch_id)["processing_status"] in ("canceling", "ended")

    @pytest.mark.parametrize("answer", ["canceling", "current"])
    def test_returns_the_batch_as_the_api_shows_it(self, answer, client, api):
        api.behavior = Behavior(cancel_answer=answer)
        expected = "canceling" if answer == "canceling" else "ended"
        assert client.cancel(api.add_batch()).processing_status == expected

    @pytest.mark.parametrize("refusal", [200, 400, 409])
    def test_whose_answer_was_lost_is_made_again_and_is_success(self, refusal, client, api):
        api.behavior = Behavior(cancel_ended=refusal)
        api.fault(Fault("cancel", drop=True, applied=True))
        client.cancel(api.add_batch())
        assert api.count("cancel") == 2

    def test_of_an_unknown_batch_is_not_found(self, client):
        with pytest.raises(NotFoundError, match="does not know batch msgbatch_unknown"):
            client.cancel("msgbatch_unknown")

    def test_that_meets_a_passing_404_is_made_again(self, client, api):
        batch_id = api.add_batch()
        api.fault(Fault("any", status=404, times=2))
        client.cancel(batch_id)
        assert api.batch(batch_id)["processing_status"] == "ended"


class TestDelete:
    def ended(self, api):
        return api.add_batch(100, status="ended", age_seconds=60)

    @pytest.mark.parametrize("behavior", variants("delete_answer", "delete_again"), ids=str)
    def test_deletes_an_ended_batch_however_the_api_behaves(self, behavior, client, api):
        api.behavior = behavior
        batch_id = self.ended(api)
        found = client.delete(batch_id)
        assert (found.id, found.type, api.batch(batch_id)) == (batch_id, "message_batch_deleted", None)

    def test_returns_the_request_id(self, client, api):
        assert client.delete(self.ended(api)).request_id == api.requests[0].request_id

    @pytest.mark.parametrize("behavior", variants("delete_unended"), ids=str)
    @pytest.mark.parametrize("status", ["in_progress", "canceling"])
    def test_of_a_running_batch_says_so_and_leaves_it_however_the_api_behaves(self, status, behavior, client, api):
        api.behavior = behavior
        batch_id = api.add_batch(status=status)
        with pytest.raises(BatchNotEndedError, match=status):
            client.delete(batch_id)
        assert api.batch(batch_id)["processing_status"] == status

    @pytest.mark.parametrize("again", [404, 200, 204])
    @pytest.mark.parametrize(
        "fault",
        [
            Fault("delete", drop=True, applied=True),
            Fault("delete", drop=True, applied=True, reset=True),
            Fault("delete", applied=True, html=True),
            Fault("delete", applied=True, cut_after=10),
            Fault("delete", applied=True, cut_after=10, cut_cleanly=True),
            Fault("delete", applied=True, status=504),
        ],
        ids=["drop", "reset", "HTML", "cut", "cut cleanly", "504"],
    )
    def test_whose_answer_was_lost_is_success(self, fault, again, client, api):
        api.behavior = Behavior(delete_again=again)
        api.fault(fault)
        batch_id = self.ended(api)
        assert (client.delete(batch_id).id, api.batch(batch_id), api.count("delete")) == (batch_id, None, 2)

    def test_that_timed_out_is_success(self, connect, api):
        api.fault(Fault("delete", hang=True, applied=True))
        batch_id = self.ended(api)
        assert connect(timeout=0.3).delete(batch_id).id == batch_id

    def test_of_an_unknown_batch_is_not_found(self, client):
        with pytest.raises(NotFoundError, match="does not know batch msgbatch_unknown"):
            client.delete("msgbatch_unknown")

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("delete", status=429, headers={"retry-after-ms": "1"}),
            Fault("delete", status=409),
            Fault("delete", status=404),
        ],
        ids=["429", "409", "404"],
    )
    def test_that_was_refused_before_it_found_no_batch_is_not_found(self, fault, client, api):
        api.fault(fault)
        with pytest.raises(NotFoundError):
            client.delete("msgbatch_unknown")

    @pytest.mark.parametrize("status", [404, 409])
    def test_that_is_refused_for_a_moment_is_made_again(self, status, client, api):
        api.fault(Fault("delete", status=status))
        batch_id = self.ended(api)
        client.delete(batch_id)
        assert api.batch(batch_id) is None

    def test_of_another_workspaces_batch_says_what_to_check(self, client, api):
        with pytest.raises(NotFoundError, match="key belongs to the batch's workspace"):
            client.delete(api.add_batch(status="ended", age_seconds=60, foreign=True))

    def test_of_another_workspaces_batch_may_be_forbidden(self, client, api):
        api.behavior = Behavior(other_workspace=403)
        with pytest.raises(AccessDeniedError):
            client.delete(api.add_batch(status="ended", age_seconds=60, foreign=True))


class TestResults:
    def ended(self, api, requests=100, **options):
        return api.add_batch(requests, status="ended", age_seconds=60, **options)

    @pytest.mark.parametrize("behavior", variants("results_host", "results_last_newline"), ids=str)
    def test_come_all_however_the_api_behaves(self, behavior, client, api):
        api.behavior = behavior
        outcomes = {"succeeded": 60, "errored": 20, "canceled": 15, "expired": 5}
        types = [result.result.type for result in client.results(self.ended(api, outcomes=outcomes))]
        assert {kind: types.count(kind) for kind in outcomes} == outcomes

    def test_are_each_requests_own(self, client, api):
        batch_id = self.ended(api, ["a", "b", "c"])
        assert sorted(result.custom_id for result in client.results(batch_id)) == ["a", "b", "c"]

    def test_keep_odd_line_separators(self, client, api):
        (result,) = client.results(self.ended(api, 1))
        assert result.result.message["content"][0]["text"].startswith("An answer of the emulator.\u2028It has\u0085odd")

    def test_may_be_many(self, client, api):
        assert len(client.results(self.ended(api, 5000, result_bytes=5_000_000))) == 5000

    def test_may_be_left_alone_after_the_first(self, client, api):
        batch_id = self.ended(api, 5000, result_bytes=5_000_000)
        client.first(("results", batch_id))
        assert client.retrieve(batch_id).id == batch_id

    @pytest.mark.parametrize("cleanly", [True, False])
    @pytest.mark.parametrize("cut_after", [0, 1, 20_000])
    def test_that_are_cut_short_are_an_error_after_those_that_came(self, cleanly, cut_after, client, api):
        api.fault(Fault("results", cut_after=cut_after, cut_cleanly=cleanly))
        with pytest.raises(ResultsTruncatedError, match=f"{len(client.came)} of 100 came|of 100 came"):
            client.results(self.ended(api))
        assert (len(client.came) > 0) is (cut_after == 20_000)

    def test_that_are_cut_after_a_whole_line_are_an_error_too(self, client, api):
        api.fault(Fault("results", body=b'{"custom_id": "a", "result": {"type": "canceled"}}\n'))
        with pytest.raises(ResultsTruncatedError, match="1 of 100 came"):
            client.results(self.ended(api))

    def test_that_fall_silent_are_an_error(self, connect, api):
        api.fault(Fault("results", hang=True, cut_after=20_000))
        with pytest.raises(ResultsTruncatedError, match="ReadTimeout"):
            connect(timeout=0.3).results(self.ended(api))

    def test_that_are_a_proxys_page_are_an_error(self, client, api):
        api.fault(Fault("results", html=True, status=200))
        with pytest.raises(ResultsTruncatedError, match="0 of 100 came"):
            client.results(self.ended(api))

    def test_are_opened_again_where_the_answer_was_lost(self, client, api):
        api.fault(Fault("results", drop=True))
        assert len(client.results(self.ended(api))) == 100

    def test_are_opened_again_where_a_proxy_failed(self, client, api):
        api.fault(Fault("results", html=True))
        assert len(client.results(self.ended(api))) == 100

    def test_are_opened_again_where_a_refusal_was_cut_short(self, client, api):
        api.fault(Fault("results", status=503, cut_after=5))
        assert len(client.results(self.ended(api))) == 100

    @pytest.mark.parametrize("status", ["in_progress", "canceling"])
    def test_of_a_running_batch_are_not_there_yet(self, status, client, api):
        with pytest.raises(BatchNotEndedError, match="has results only once it has ended"):
            client.results(api.add_batch(status=status))

    @pytest.mark.parametrize("behavior", variants("results_archived"), ids=str)
    def test_of_an_archived_batch_are_gone_however_the_api_behaves(self, behavior, client, api):
        api.behavior = behavior
        with pytest.raises(ResultsUnavailableError, match="29 days"):
            client.results(api.add_batch(status="ended", age_seconds=30 * 86_400))

    def test_never_lead_to_a_host_that_an_answer_names(self, client, api, listen):
        url, got = listen()
        api.behavior = Behavior(results_host=url)
        assert (len(client.results(self.ended(api))), got) == (100, [])


class TestHeaders:
    def test_hold_the_key_as_x_api_key(self, client, api):
        client.page()
        assert api.requests[0].auth == "x-api-key"

    def test_hold_the_key_as_a_bearer(self, connect, api):
        connect(auth_scheme="bearer").page()
        assert api.requests[0].auth == "bearer"

    @pytest.mark.parametrize("name", [*ON_A_BATCH, LIST, "create"])
    def test_are_sent_with_every_call(self, name, connect, api):
        client = connect(
            anthropic_version="2026-10-21",
            anthropic_beta="a,b",
            workspace_id="wrkspc_1",
            headers={"X-Mine": "1"},
            user_agent="agent/1",
        )
        batch_id = api.add_batch(1, status="ended", age_seconds=60)
        client.create(REQUESTS) if name == "create" else call(client, name, batch_id)
        names = ("anthropic-version", "anthropic-beta", "anthropic-workspace-id", "x-mine", "user-agent", "accept")
        sent = {tuple(request.headers.get(name) for name in names) for request in api.requests}
        assert sent == {("2026-10-21", "a,b", "wrkspc_1", "1", "agent/1", "application/json")}

    def test_are_no_more_than_these_by_default(self, client, api):
        client.page()
        transport = {"host", "accept", "accept-encoding", "connection", "user-agent"}
        assert set(api.requests[0].headers) == transport | {"anthropic-version"}

    def test_name_json_where_there_is_a_body(self, client, api):
        client.create(REQUESTS)
        assert api.requests[0].headers["content-type"] == "application/json"

    def test_go_below_the_base_urls_path(self, connect, api, listen):
        url, got = listen(answer(body=b'{"data": []}'))
        connect(base_url=f"{url}/gateway/anthropic/").page()
        assert got[0].startswith(b"GET /gateway/anthropic/v1/messages/batches?limit=1000 HTTP/1.1\r\n")


class TestTheKey:
    def test_that_is_wrong_is_said_at_once_with_what_to_check(self, connect, api):
        with pytest.raises(AccessDeniedError, match=r"401 authentication_error.*Check the API key"):
            connect(api_key="sk-ant-wrong").page()
        assert api.count() == 1

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_does_not_follow_a_redirect(self, status, client, api):
        with Emulator(api_key=KEY) as other:
            api.fault(Fault("list", status=status, redirect=other.url))
            with pytest.raises(APIStatusError, match="Redirects are not followed"):
                client.page()
            assert other.count() == 0

    def test_does_not_go_to_the_environments_proxy_on_the_way_to_this_machine(self, connect, api, listen, monkeypatch):
        url, got = listen(answer(body=b'{"data": []}'))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, url)
        connect().page()
        assert got == []

    @pytest.mark.parametrize("padding", [0, 150, 175, 185])
    @pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "502 Bad Gateway"])
    def test_is_not_shown_where_a_proxy_echoes_it(self, status, padding, connect, listen):
        echo = b"<p>" + b"x" * padding + b"x-api-key: " + KEY.encode()
        url, got = listen(answer(status, echo))
        with pytest.raises(BatchesError) as caught:
            connect(base_url=url, max_retries=0).page()
        assert (KEY.encode() in got[0], KEY[:4] in str(caught.value)) == (True, False)

    def test_is_not_shown_where_an_error_message_echoes_it(self, client, api):
        api.fault(Fault("list", status=400, message=f"bad key {KEY}"))
        with pytest.raises(APIStatusError) as caught:
            client.page()
        assert caught.value.message == "bad key ***"

    def test_is_not_shown_in_the_log_of_what_is_done_about_a_refusal(self, client, api, caplog):
        api.fault(Fault("cancel", status=400, message=f"bad key {KEY}"))
        client.cancel(api.add_batch(status="canceling"))
        assert "bad key ***" in caplog.text


class TestTrouble:
    @pytest.mark.parametrize(
        "fault",
        [
            Fault(drop=True, times=2),
            Fault(drop=True, reset=True, times=2),
            Fault(html=True, times=2),
            Fault(status=500, times=2),
            Fault(status=503, body="", times=2),
            Fault(status=529, times=2),
            Fault(status=408, times=2),
            Fault(status=429, times=2),
            Fault(status=400, headers={"x-should-retry": "true"}, times=2),
            Fault(body=b"<html>welcome</html>", times=2),
            Fault(cut_after=10, times=2),
            Fault(cut_after=10, cut_cleanly=True, times=2),
            Fault(body=b"\xff\x00", headers={"content-encoding": "gzip"}, times=2),
        ],
        ids=lambda fault: f"{fault.answer_status}-{fault.drop}-{fault.cut_after}-{fault.html}-{fault.cut_cleanly}",
    )
    @pytest.mark.parametrize("name", [RETRIEVE, LIST])
    def test_that_passes_is_outlived(self, name, fault, client, api):
        batch_id = api.add_batch()
        api.fault(fault)
        call(client, name, batch_id)
        assert api.count() == 3

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            (Fault(drop=True, times=None), APIConnectionError),
            (Fault(html=True, times=None), ServerError),
            (Fault(status=529, times=None), ServerError),
            (Fault(status=429, times=None), RateLimitError),
            (Fault(body="welcome", times=None), InvalidResponseError),
        ],
        ids=["drop", "HTML", "529", "429", "garbled"],
    )
    @pytest.mark.parametrize("name", [RETRIEVE, LIST])
    def test_that_lasts_is_raised_after_all_attempts(self, name, fault, kind, client, api):
        batch_id = api.add_batch()
        api.fault(fault)
        with pytest.raises(kind):
            call(client, name, batch_id)
        assert api.count() == 4

    @pytest.mark.parametrize("name", [RETRIEVE, LIST])
    def test_is_raised_after_as_many_attempts_as_the_call_asks_for(self, name, client, api):
        api.fault(Fault(status=503, times=None))
        with pytest.raises(ServerError):
            client.page(retries=1) if name == LIST else client.retrieve("b", retries=1)
        assert api.count() == 2

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(status=400),
            Fault(status=402),
            Fault(status=403),
            Fault(status=413, html=True),
            Fault(status=503, headers={"x-should-retry": "false"}),
            Fault(status=429, error_code="enforced_spend_limit_reached"),
        ],
        ids=lambda fault: str(fault.status),
    )
    @pytest.mark.parametrize("name", [RETRIEVE, LIST])
    def test_that_does_not_pass_is_raised_at_once(self, name, fault, client, api):
        api.fault(fault)
        with pytest.raises(APIStatusError):
            call(client, name, "b")
        assert api.count() == 1

    def test_with_a_spend_limit_says_that_somebody_has_to_raise_it(self, client, api):
        api.fault(Fault(status=429, error_code="enforced_spend_limit_reached"))
        with pytest.raises(SpendLimitError, match="until somebody raises the limit"):
            client.page()

    def test_is_told_with_status_type_message_and_request_id(self, client, api):
        api.fault(Fault(status=400, message="Wrong.", error_type="odd_error"))
        with pytest.raises(APIStatusError) as caught:
            client.page()
        error = caught.value
        found = (error.status, error.error_type, error.message, error.request_id)
        assert found == (400, "odd_error", "Wrong.", api.requests[0].request_id)

    def test_of_a_proxy_is_told_in_its_own_words(self, client, api):
        api.fault(Fault(html=True, times=None))
        with pytest.raises(ServerError, match=r"502 Bad Gateway: 502 from a proxy 502 from a proxy \(request-id None"):
            client.page()

    def test_with_a_timeout_names_the_url(self, connect, api):
        api.fault(Fault(hang=True, times=None))
        with pytest.raises(APIConnectionError, match=f"no answer from {api.url} .ReadTimeout"):
            connect(timeout=0.1, max_retries=1).page()

    def test_with_a_timeout_may_have_reached_the_api(self, connect, api):
        api.fault(Fault(hang=True))
        with pytest.raises(APIConnectionError) as caught:
            connect(timeout=0.1, max_retries=0).page()
        assert caught.value.sent

    def test_with_the_connection_cannot_have_reached_the_api(self, connect, api):
        api.stop()
        with pytest.raises(APIConnectionError, match="ConnectError") as caught:
            connect(max_retries=0).page()
        assert not caught.value.sent

    def test_with_a_name_that_nobody_knows_names_the_url(self, connect):
        with pytest.raises(APIConnectionError, match=r"no answer from https://batches\.invalid"):
            connect(base_url="https://batches.invalid", max_retries=0).page()

    def test_with_a_proxy_that_wants_a_password_cannot_have_reached_the_api(self, connect, listen):
        url, got = listen(answer("407 Proxy Authentication Required"))
        with pytest.raises(APIConnectionError, match="407 Proxy Authentication Required") as caught:
            connect(base_url="https://batches.invalid", proxy=url, max_retries=0).page()
        assert (caught.value.sent, KEY.encode() in got[0]) == (False, False)

    def test_with_a_proxy_does_not_show_the_proxys_password(self, connect, listen):
        url, _ = listen(answer("407 no-such-password-confidential"))
        proxy = url.replace("http://", "http://user:confidential@")
        with pytest.raises(APIConnectionError) as caught:
            connect(base_url="https://batches.invalid", proxy=proxy, max_retries=0).page()
        assert "confidential" not in str(caught.value)

    def test_with_something_that_does_not_speak_http_is_a_connection_error(self, connect, listen):
        url, _ = listen(b"220 ready for mail\r\n")
        with pytest.raises(APIConnectionError, match="RemoteProtocolError"):
            connect(base_url=url, max_retries=0).page()


class TestRateLimits:
    @pytest.mark.parametrize(
        ("headers", "low", "high"),
        [
            ({"retry-after": "7"}, 7, 8.75),
            ({"retry-after-ms": "1500"}, 1.5, 1.875),
            ({"retry-after": format_datetime(LONG_AGO, usegmt=True)}, 0.375, 0.5),
            ({"retry-after": "86400"}, 60, 60),
            ({}, 0.375, 0.5),
            ({"retry-after": "soon"}, 0.375, 0.5),
        ],
        ids=["seconds", "milliseconds", "past date", "a day", "none", "nonsense"],
    )
    def test_are_waited_out_as_the_answer_asks(self, headers, low, high, client, api, brisk):
        api.fault(Fault(status=429, headers=headers))
        client.page()
        assert low <= brisk[0] <= high

    @pytest.mark.parametrize("form", ["seconds", "date", "ms"])
    def test_of_the_api_are_waited_out_in_each_form(self, form, connect, brisk, monkeypatch):
        with Emulator(api_key=KEY, requests_per_minute=1, behavior=Behavior(retry_after=form)) as api:
            client = connect(base_url=api.url)
            client.page()
            recorded = retry.pause
            monkeypatch.setattr(retry, "pause", lambda *args: recorded(*args) or api.clock.advance(61) or 0.0)
            client.page()
        assert 57 <= brisk[0] <= 60


class TestTLS:
    @pytest.fixture
    def certificate(self, certificates):
        return certificates[0]

    @pytest.fixture
    def api(self, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        with Emulator(api_key=KEY, tls=context) as emulator:
            yield emulator

    def test_with_a_certificate_that_nobody_vouches_for_sends_nothing(self, connect, api):
        with pytest.raises(APIConnectionError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            connect(max_retries=0).page()
        assert (caught.value.sent, api.count()) == (False, 0)

    def test_trusts_a_given_authority(self, connect, certificate):
        assert connect(verify=str(certificate / "cert.pem")).page().data == []

    def test_checks_nothing_where_that_is_wished(self, connect):
        assert connect(verify=False).page().data == []

    def test_to_a_server_that_speaks_plain_http_is_a_connection_error(self, connect, listen):
        url, _ = listen(answer())
        with pytest.raises(APIConnectionError, match="SSL"):
            connect(base_url=url.replace("http:", "https:"), max_retries=0).page()


class TestAClientAsAContext:
    def test_closes_its_connections_at_the_end(self, api):
        with BatchesClient(ClientSettings(api_key=KEY, base_url=api.url)) as client:
            client.page()
        assert client._http.is_closed

    async def test_closes_its_connections_at_the_end_of_async_with(self, api):
        async with AsyncBatchesClient(ClientSettings(api_key=KEY, base_url=api.url)) as client:
            await client.page()
        assert client._http.is_closed

    def test_reuses_its_connection(self, client, listen):
        client.page()
        client.page()
        pool = client.client._http._transport._pool
        assert len(pool.connections) == 1

    async def test_serves_many_calls_at_once(self, api):
        ids = [api.add_batch() for _ in range(20)]
        async with AsyncBatchesClient(ClientSettings(api_key=KEY, base_url=api.url)) as client:
            found = await asyncio.gather(*map(client.retrieve, ids))
        assert [batch.id for batch in found] == ids

    async def test_pauses_without_holding_up_others(self, api, monkeypatch):
        monkeypatch.setattr(flows, "MISSING_PAUSES", (0.05, 0.05, 0.05))
        async with AsyncBatchesClient(ClientSettings(api_key=KEY, base_url=api.url)) as client:
            found = await asyncio.gather(
                client.find("msgbatch_unknown"), client.retrieve(api.add_batch()), return_exceptions=True
            )
        assert endpoints_of(api)[:2] == ["retrieve", "retrieve"]
        assert isinstance(found[0], NotFoundError)


def test_a_batch_can_be_led_from_creation_to_deletion(client, api):
    batch_id = client.create(REQUESTS).id
    client.cancel(batch_id)
    found = [client.find(batch_id).ended, len(client.results(batch_id)), client.delete(batch_id).id, client.list()]
    assert found == [True, 3, batch_id, []]
