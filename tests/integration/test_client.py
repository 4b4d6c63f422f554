"""Both clients over real sockets against the emulator: each scenario is run for the sync and the async one."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import math
import re
import socket
import ssl
import threading
import time
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
    Throttle,
    flows,
    throttle,
)
from airflow_provider_batches.api import retry as retry_module
from airflow_provider_batches.api.pager import Pager
from airflow_provider_batches.emulator import Behavior, Emulator, Fault

LONG_AGO = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
KEY = "sk-ant-canary-0123456789abcdef"
PARAMS = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
BETAS = ("message-batches-2024-09-24", "output-300k-2026-03-24")
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
    real = retry_module.backoff

    def backoff(*args):
        asked.append(real(*args))
        return 0.0

    for name in ("NOT_FOUND_PAUSES", "KEY_PAUSES", "WORKING_KEY_PAUSES"):
        monkeypatch.setattr(flows, name, NO_PAUSES)
    monkeypatch.setattr(retry_module, "backoff", backoff)
    monkeypatch.setattr(throttle, "backoff", lambda *_: 0.0)
    monkeypatch.setattr(throttle, "LAST_GAP", 0.0)
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

    def __init__(self, settings, throttle=None, renew=None):
        self.client = BatchesClient(settings, throttle, renew)
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

    def first(self, name, **options):
        """Take one item of an iterator and leave the rest."""
        items = getattr(self.client, name[0])(*name[1:], **options)
        found = next(items)
        items.close()
        return found

    def each(self, name, work, **options):
        """Do something with each item of an iterator before the next one comes."""
        found = []
        for item in getattr(self.client, name)(**options):
            work(item)
            found.append(item)
        return found

    def close(self):
        self.client.close()


class Async(Sync):
    def __init__(self, settings, throttle=None, renew=None):
        super().__init__(settings)
        self.loop = asyncio.new_event_loop()
        self.client = AsyncBatchesClient(settings, throttle, renew)

    def _result(self, answer):
        return self.loop.run_until_complete(answer)

    def _collect(self, answer):
        async def collect():
            self.came = []
            async for item in answer:
                self.came.append(item)
            return self.came

        return self._result(collect())

    def first(self, name, **options):
        async def first():
            items = getattr(self.client, name[0])(*name[1:], **options)
            found = await items.__anext__()
            await items.aclose()
            return found

        return self._result(first())

    def each(self, name, work, **options):
        async def each():
            found = []
            async for item in getattr(self.client, name)(**options):
                await work(item)
                found.append(item)
            return found

        return self._result(each())

    def close(self):
        self._result(self.client.aclose())
        self.loop.close()


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def connect(request, api):
    """Make clients of one kind, of the emulator unless told otherwise."""
    made = []

    def connect(*, throttle=None, renew=None, **values):
        values = {"api_key": KEY, "base_url": api.url, "max_retries": 3, "timeout": 5, **values}
        made.append(request.param(ClientSettings.parse(**values), throttle, renew))
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

    def test_is_refused_with_the_apis_reason(self, client, api):
        api.behavior = Behavior(invalid_params=400)
        with pytest.raises(APIStatusError, match="Could not create a batch: 400 invalid_request_error"):
            client.create([{"custom_id": "a", "params": {"model": 5}}])

    def test_sends_nothing_if_a_request_is_wrong(self, client, api):
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
            Fault("create", status=409),
            Fault("create", status=404, html=True),
            Fault("create", status=429, html=True),
            Fault("create", hang=True),
        ],
        ids=["drop", "lost", "reset", "cut", "cut cleanly", "HTML", "529", "409", "404 HTML", "429 HTML", "timeout"],
    )
    def test_is_never_sent_twice_once_it_may_have_reached_the_api(self, fault, connect, api):
        api.fault(fault)
        with pytest.raises(BatchesError, match="Check the list of batches before you retry"):
            connect(timeout=0.3).create(REQUESTS)
        assert (api.count("create"), len(api.ids()) <= 1) == (1, True)

    @pytest.mark.parametrize("status", [401, 403, 429])
    def test_is_sent_again_if_the_api_did_not_accept_it(self, status, client, api):
        api.fault(Fault("create", status=status))
        client.create(REQUESTS)
        assert (api.count("create"), len(api.ids())) == (2, 1)

    def test_is_sent_again_if_there_was_no_connection(self, connect, api, brisk):
        client = connect()
        api.stop()
        with pytest.raises(APIConnectionError, match=r"Gave up after 4 attempts\.$"):
            client.create(REQUESTS)
        assert len(brisk) == 3

    def test_makes_one_batch_if_the_api_comes_back_in_time(self, connect, api, monkeypatch):
        client = connect()
        api.stop()
        monkeypatch.setattr(retry_module, "backoff", lambda *_: api.start() or 0.0)
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

    def test_sends_an_odd_id_unchanged(self, client, api):
        odd = "a:b@c!$&'()*+;=~-_."
        with pytest.raises(NotFoundError):
            client.retrieve(odd)
        assert api.requests[0].batch_id == odd

    @pytest.mark.parametrize("name", ON_A_BATCH)
    def test_sends_nothing_if_the_id_cannot_be_one(self, name, client, api):
        with pytest.raises(InvalidArgumentError):
            getattr(client, name)("../models")
        assert api.requests == []


class TestFind:
    def test_does_not_believe_a_404_in_mid_life(self, client, api):
        batch_id = api.add_batch()
        api.fault(Fault("retrieve", status=404))
        assert client.find(batch_id).id == batch_id

    def test_believes_four(self, client, api):
        with pytest.raises(NotFoundError, match="4 attempts"):
            client.find("msgbatch_unknown")
        assert api.count() == 4

    @pytest.mark.parametrize("options", [{"seen": LONG_AGO}, {"confirm": True}], ids=["seen", "to be confirmed"])
    def test_believes_the_list_rather_than_four_404s(self, options, client, api):
        batch_id = api.add_batch()
        api.fault(Fault("retrieve", status=404, times=4))
        with pytest.raises(InvalidResponseError, match="The API lists batch"):
            client.find(batch_id, **options)
        assert endpoints_of(api) == ["retrieve"] * 4 + ["list"]

    @pytest.mark.parametrize("options", [{"seen": LONG_AGO}, {"confirm": True}], ids=["seen", "to be confirmed"])
    def test_believes_four_404s_that_the_list_confirms(self, options, client, api):
        with pytest.raises(NotFoundError):
            client.find("msgbatch_unknown", **options)
        assert endpoints_of(api) == ["retrieve"] * 4 + ["list"]


class TestList:
    @pytest.fixture
    def ids(self, api):
        """Seven batches, newest first."""
        return [api.add_batch(1, age_seconds=60 * i) for i in range(7)]

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
    def test_gives_all_batches_over_all_pages_newest_first(self, size, client, ids):
        assert [batch.id for batch in client.list(page_size=size)] == ids

    @pytest.mark.parametrize(("limit", "pages"), [(1, 1), (3, 1), (4, 2), (7, 3), (8, 3), (None, 3)])
    def test_gives_no_more_than_its_limit(self, limit, pages, client, api, ids):
        found = [batch.id for batch in client.list(limit, page_size=3)]
        assert (found, api.count()) == (ids[:limit], pages)

    @pytest.mark.parametrize("size", [2, 1000])
    def test_continues_behind_a_batch(self, size, client, ids):
        assert [batch.id for batch in client.list(after_id=ids[2], page_size=size)] == ids[3:]

    @pytest.mark.parametrize("size", [1, 2, 3, 1000])
    def test_goes_back_before_a_batch_to_the_newest(self, size, client, ids):
        assert sorted(batch.id for batch in client.list(before_id=ids[5], page_size=size)) == sorted(ids[:5])

    def test_of_no_batches_is_empty(self, client):
        assert client.list() == []

    def test_asks_for_as_few_pages_as_there_are(self, client, api, ids):
        client.list(page_size=3)
        assert [request.query.get("after_id") for request in api.requests] == [None, ids[2], ids[5]]

    def test_asks_for_no_page_that_nobody_wants(self, client, api, ids):
        client.first(("list", None), page_size=2)
        assert api.count() == 1

    def test_continues_after_a_page_that_failed_for_a_moment(self, client, api, ids):
        api.fault(Fault("list", after=1, times=2, html=True))
        assert [batch.id for batch in client.list(page_size=3)] == ids

    def test_reads_on_from_an_empty_page_that_has_more_and_a_cursor(self, client, api, ids):
        api.fault(Fault("list", body=json.dumps({"data": [], "has_more": True, "last_id": ids[2]})))
        assert [batch.id for batch in client.list()] == ids[3:]

    def test_repeats_an_empty_page_that_has_more_but_no_cursor(self, client, api):
        batch_id = api.add_batch(1)
        api.fault(Fault("list", body='{"data": [], "has_more": true}'))
        assert [batch.id for batch in client.list()] == [batch_id]

    @pytest.mark.parametrize("behavior", variants("list_deleted_cursor"), ids=str)
    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_gives_each_batch_once_although_all_are_deleted_meanwhile(self, behavior, size, client, api):
        api.behavior = behavior
        ids = [api.add_batch(1, status="ended", age_seconds=60 + i) for i in range(7)]
        found = client.each("list", lambda batch: client.client.delete(batch.id), page_size=size)
        assert ([batch.id for batch in found], api.ids()) == (ids, [])

    def test_gives_one_page_with_its_cursors(self, client, ids):
        pager = Pager(2)
        page = client.page(pager)
        assert (page.first_id, page.last_id, page.has_more) == (ids[0], ids[1], True)
        assert [raw["id"] for raw in client.page(pager).data] == ids[2:4]

    def test_gives_an_empty_page_whether_or_not_it_has_cursors(self, client, api):
        api.behavior = Behavior(optional_fields="absent")
        assert client.page().last_id is None

    @pytest.mark.parametrize("arguments", [{"limit": 0}, {"page_size": 0}, {"after_id": "a", "before_id": "b"}])
    def test_sends_nothing_if_an_argument_is_wrong(self, arguments, client, api):
        with pytest.raises(InvalidArgumentError):
            client.list(**arguments)
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
    def test_whose_answer_was_lost_is_repeated_and_is_success(self, refusal, client, api):
        api.behavior = Behavior(cancel_ended=refusal)
        api.fault(Fault("cancel", drop=True, applied=True))
        client.cancel(api.add_batch())
        assert api.count("cancel") == 2

    def test_of_an_unknown_batch_is_not_found(self, client):
        with pytest.raises(NotFoundError, match="Batch msgbatch_unknown was not found"):
            client.cancel("msgbatch_unknown")

    def test_that_meets_a_passing_404_is_repeated(self, client, api):
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
        with pytest.raises(NotFoundError, match="Batch msgbatch_unknown was not found"):
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

    @pytest.mark.parametrize("status", [403, 404, 409])
    def test_that_is_refused_for_a_moment_is_repeated(self, status, client, api):
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

    def test_that_are_odd_come_through_and_so_do_the_rest(self, client, api):
        """A lone surrogate, U+2028, NaN, a large number, a key that comes twice, after a byte order mark."""
        texts = [rb'"half \ud99c"', '"a\u2028b"'.encode(), b"NaN", b"7" * 5000, b'1, "text": "twice"', b'"plain"']
        line = b'{"custom_id":"r%d","result":{"type":"succeeded","message":{"text":%b}}}\n'
        body = b"\xef\xbb\xbf" + b"".join(line % each for each in enumerate(texts))
        api.fault(Fault("results", body=body, times=None))
        results = client.results(self.ended(api, len(texts)))
        found = [result.result.message["text"] for result in results]
        assert found == ["half \ufffd", "a\u2028b", pytest.approx(math.nan, nan_ok=True), "7" * 5000, "twice", "plain"]

    def test_may_be_an_error_in_place_of_all(self, client, api):
        body = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Later."}}, indent=2)
        api.fault(Fault("results", body=body))
        with pytest.raises(ResultsTruncatedError, match=r"is an error, overloaded_error: Later\."):
            client.results(self.ended(api))

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
        with pytest.raises(ResultsTruncatedError, match=r"received \d+ of 100"):
            client.results(self.ended(api))
        assert (len(client.came) > 0) is (cut_after == 20_000)

    def test_that_are_cut_after_a_whole_line_are_an_error_too(self, client, api):
        api.fault(Fault("results", body=b'{"custom_id": "a", "result": {"type": "canceled"}}\n'))
        with pytest.raises(ResultsTruncatedError, match="received 1 of 100"):
            client.results(self.ended(api))

    def test_that_fall_silent_are_an_error(self, connect, api):
        api.fault(Fault("results", hang=True, cut_after=20_000))
        with pytest.raises(ResultsTruncatedError, match="ReadTimeout"):
            connect(timeout=0.3).results(self.ended(api))

    def test_that_are_a_proxys_page_are_an_error(self, client, api):
        api.fault(Fault("results", html=True, status=200))
        with pytest.raises(ResultsTruncatedError, match="received 0 of 100"):
            client.results(self.ended(api))

    def test_are_opened_again_if_the_answer_was_lost(self, client, api):
        api.fault(Fault("results", drop=True))
        assert len(client.results(self.ended(api))) == 100

    def test_are_opened_again_if_a_proxy_failed(self, client, api):
        api.fault(Fault("results", html=True))
        assert len(client.results(self.ended(api))) == 100

    def test_are_opened_again_if_a_refusal_was_cut_short(self, client, api):
        api.fault(Fault("results", status=503, cut_after=5))
        assert len(client.results(self.ended(api))) == 100

    @pytest.mark.parametrize("status", ["in_progress", "canceling"])
    def test_of_a_running_batch_are_not_there_yet(self, status, client, api):
        with pytest.raises(BatchNotEndedError, match="has results only after it has ended"):
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
            anthropic_beta=",".join(BETAS),
            workspace_id="default",
            headers={"X-Mine": "1"},
            user_agent="agent/1",
        )
        batch_id = api.add_batch(1, status="ended", age_seconds=60)
        client.create(REQUESTS) if name == "create" else call(client, name, batch_id)
        names = ("anthropic-version", "anthropic-beta", "anthropic-workspace-id", "x-mine", "user-agent", "accept")
        sent = {tuple(request.headers.get(name) for name in names) for request in api.requests}
        assert sent == {("2026-10-21", ",".join(BETAS), "default", "1", "agent/1", "application/json")}

    def test_are_no_more_than_these_by_default(self, client, api):
        client.page()
        transport = {"host", "accept", "accept-encoding", "connection", "user-agent"}
        assert set(api.requests[0].headers) == transport | {"anthropic-version"}

    def test_name_json_if_there_is_a_body(self, client, api):
        client.create(REQUESTS)
        assert api.requests[0].headers["content-type"] == "application/json"

    def test_go_below_the_base_urls_path(self, connect, api, listen):
        url, got = listen(answer(body=b'{"data": [], "has_more": false}'))
        connect(base_url=f"{url}/gateway/anthropic/").page()
        assert got[0].startswith(b"GET /gateway/anthropic/v1/messages/batches?limit=1000 HTTP/1.1\r\n")


class TestTheKey:
    def test_that_is_wrong_is_an_error_that_says_what_to_check(self, connect, api):
        with pytest.raises(AccessDeniedError, match=r"401 authentication_error.*Check api_key, and that it may use"):
            connect(api_key="sk-ant-wrong").page()
        assert api.count() == 1 + len(NO_PAUSES)

    def test_that_is_wrong_is_an_error_at_once_for_who_only_asks_once(self, connect, api):
        with pytest.raises(AccessDeniedError):
            connect(api_key="sk-ant-wrong").page(retries=0, doubt=False)
        assert api.count() == 1

    def test_that_is_refused_once_by_mistake_is_not_a_failure(self, client, api):
        api.fault(Fault("list", status=401))
        client.page()
        assert api.count() == 2

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_does_not_follow_a_redirect(self, status, client, api):
        with Emulator(api_key=KEY) as other:
            api.fault(Fault("list", status=status, redirect=other.url))
            with pytest.raises(InvalidResponseError, match="Redirects are not followed"):
                client.page()
            assert other.count() == 0

    @pytest.mark.parametrize("host", ["http://xn--", "http://a..b", "http://[::", "nonsense:1:2"])
    def test_sends_a_create_once_even_if_it_is_redirected_to_a_name_that_is_not_valid(self, host, client, api):
        api.fault(Fault("create", redirect=host, times=None))
        with pytest.raises(BatchesError, match="Check the list of batches"):
            client.create(REQUESTS)
        assert api.count("create") == 1

    def test_does_not_go_through_the_environments_proxy_to_this_machine(self, connect, api, listen, monkeypatch):
        url, got = listen(answer(body=b'{"data": [], "has_more": false}'))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, url)
        connect().page()
        assert got == []

    @pytest.mark.parametrize("padding", [0, 150, 175, 185])
    @pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "502 Bad Gateway"])
    def test_is_not_shown_if_a_proxy_echoes_it(self, status, padding, connect, listen):
        echo = b"<p>" + b"x" * padding + b"x-api-key: " + KEY.encode()
        url, got = listen(answer(status, echo))
        with pytest.raises(BatchesError) as caught:
            connect(base_url=url, max_retries=0).page()
        assert (KEY.encode() in got[0], KEY[:4] in str(caught.value)) == (True, False)

    def test_is_not_shown_if_an_error_message_echoes_it(self, client, api):
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
    def test_that_passes_is_outlasted(self, name, fault, client, api):
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
    def test_is_raised_after_as_many_retries_as_the_caller_asks_for(self, name, client, api):
        api.fault(Fault(status=503, times=None))
        with pytest.raises(ServerError):
            client.page(retries=1) if name == LIST else client.retrieve("b", retries=1)
        assert api.count() == 2

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(status=400),
            Fault(status=402),
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
        with pytest.raises(SpendLimitError, match="Raise the spend limit"):
            client.page()

    def test_is_reported_with_status_type_message_and_request_id(self, client, api):
        api.fault(Fault(status=400, message="Wrong.", error_type="odd_error"))
        with pytest.raises(APIStatusError) as caught:
            client.page()
        error = caught.value
        found = (error.status, error.error_type, error.message, error.request_id)
        assert found == (400, "odd_error", "Wrong.", api.requests[0].request_id)

    def test_of_a_proxy_is_reported_in_its_own_words_with_who_answered(self, client, api):
        api.fault(Fault(html=True, times=None))
        url = re.escape(f"{api.url}/v1/messages/batches")
        text = rf"502 Bad Gateway: 502 from a proxy 502 from a proxy \(GET {url}, request-id None\)\. The answer is not"
        with pytest.raises(ServerError, match=rf"{text} from the API: a proxy or firewall answered\."):
            client.page()

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 451])
    def test_of_a_proxy_that_answers_for_the_api_is_outlasted(self, status, client, api):
        client.page()
        api.fault(Fault("list", status=status, html=True, times=3))
        client.page()
        assert api.count() == 5

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 451])
    def test_of_a_proxy_at_a_wrong_address_is_reported_at_once(self, status, client, api):
        api.fault(Fault("list", status=status, html=True, times=None))
        with pytest.raises(InvalidResponseError, match=r"a proxy or firewall answered\. Check base_url\.$"):
            client.page()
        assert api.count() == 1

    def test_with_a_timeout_names_the_url(self, connect, api):
        api.fault(Fault(hang=True, times=None))
        with pytest.raises(APIConnectionError, match=f"no answer from {api.url} .ReadTimeout"):
            connect(timeout=0.1, max_retries=1).page()

    def test_with_a_timeout_may_have_reached_the_api(self, connect, api):
        api.fault(Fault(hang=True))
        with pytest.raises(APIConnectionError) as caught:
            connect(timeout=0.1, max_retries=0).page()
        assert caught.value.evidence.in_doubt

    def test_with_the_connection_cannot_have_reached_the_api(self, connect, api):
        api.stop()
        with pytest.raises(APIConnectionError, match="ConnectError") as caught:
            connect(max_retries=0).page()
        assert not caught.value.evidence.in_doubt

    def test_with_an_unknown_host_names_the_url(self, connect):
        with pytest.raises(APIConnectionError, match=r"no answer from https://batches\.invalid"):
            connect(base_url="https://batches.invalid", max_retries=0).page()

    def test_with_a_proxy_that_wants_a_password_cannot_have_reached_the_api(self, connect, listen):
        url, got = listen(answer("407 Proxy Authentication Required"))
        with pytest.raises(APIConnectionError, match="407 Proxy Authentication Required") as caught:
            connect(base_url="https://batches.invalid", proxy=url, max_retries=0).page()
        assert (caught.value.evidence.in_doubt, KEY.encode() in got[0]) == (False, False)

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
    def test_are_outlasted_as_the_answer_asks(self, headers, low, high, client, api, brisk):
        api.fault(Fault(status=429, headers=headers))
        client.page()
        assert low <= brisk[0] <= high

    @pytest.mark.parametrize("form", ["seconds", "date", "ms"])
    def test_of_the_api_are_outlasted_in_each_form(self, form, connect, brisk, monkeypatch):
        with Emulator(api_key=KEY, requests_per_minute=1, behavior=Behavior(retry_after=form)) as api:
            client = connect(base_url=api.url)
            client.page()
            recorded = retry_module.backoff
            monkeypatch.setattr(retry_module, "backoff", lambda *args: recorded(*args) or api.clock.advance(61) or 0.0)
            client.page()
        assert 57 <= brisk[0] <= 60


class TestANewKey:
    """The key is rotated: the API refuses the former one from now on."""

    @pytest.fixture
    def rotate(self, api):
        """Replace the key of the API; the value is the settings that are read then."""

        def rotate(new_key=f"{KEY}-new"):
            api._settings.api_key = new_key
            return ClientSettings.parse(api_key=new_key, base_url=api.url, max_retries=3)

        return rotate

    @pytest.mark.parametrize("name", [*ON_A_BATCH, LIST, "create"])
    def test_replaces_the_refused_one_in_the_middle_of_calls(self, name, connect, api, rotate):
        found = []
        client = connect(renew=lambda: found[0])
        batch_id = api.add_batch(1, status="ended", age_seconds=60)
        client.page()
        found.append(rotate())
        client.create(REQUESTS) if name == "create" else call(client, name, batch_id)
        statuses = [request.status for request in api.requests]
        assert statuses.count(401) == 1
        assert client.client.settings.api_key.get_secret_value() == f"{KEY}-new"

    def test_may_come_late(self, connect, api, rotate):
        found = []

        def renew():
            found.append(1)
            return settings if len(found) == 3 else client.client.settings

        client = connect(renew=renew)
        settings = rotate()
        client.page()
        assert (len(found), api.count()) == (3, 4)

    def test_that_never_comes_ends_the_call_with_what_the_api_said(self, connect, api, rotate):
        found = []
        client = connect(renew=lambda: found.append(1) or client.client.settings)
        rotate()
        with pytest.raises(AccessDeniedError, match=r"Gave up after 4 attempts\.$"):
            client.page()
        assert len(found) == len(NO_PAUSES)

    def test_is_not_looked_for_if_a_proxy_refuses_the_key(self, connect, api):
        client = connect(renew=lambda: pytest.fail("The key was read again."))
        client.page()
        api.fault(Fault("list", status=401, html=True))
        client.page()

    def test_closes_the_connections_of_the_former_one_at_the_end(self, connect, api, rotate):
        client = connect(renew=rotate)
        client.page()
        api._settings.api_key = "another"
        client.page()
        former, current = (http for _, http in client.client._opened)
        assert (former.is_closed, current.is_closed, client.client._http is current) == (False, False, True)
        client._result(client.client.close() if isinstance(client.client, BatchesClient) else client.client.aclose())
        assert (former.is_closed, current.is_closed) == (True, True)

    def test_does_not_make_the_former_one_visible(self, connect, api, rotate):
        """The answer to a call with the former key comes after the new one was read."""
        client = connect(renew=rotate)
        api._settings.api_key = "another"
        client.page()
        api.fault(Fault("list", status=400, message=f"bad key {KEY}"))
        with pytest.raises(APIStatusError, match=r"bad key \*\*\*"):
            client.page()

    async def test_opens_connections_once_for_many_calls_in_flight(self, api, rotate):
        ids = [api.add_batch() for _ in range(16)]
        settings = ClientSettings.parse(api_key=KEY, base_url=api.url)
        async with AsyncBatchesClient(settings, renew=lambda: new) as client:
            new = rotate()
            found = await asyncio.gather(*map(client.retrieve, ids))
        assert ([batch.id for batch in found], len(client._opened)) == (ids, 2)


class TestASharedThrottle:
    """By a sync and an async client in two threads, as in a teardown that reads results in threads."""

    @pytest.fixture
    def both(self, api):
        """Run a call of each client at the same time, after `first`, one of the sync client."""
        settings = ClientSettings.parse(api_key=KEY, base_url=api.url, max_retries=0)

        def both(throttle, count=1, first=lambda client: None):
            async def many():
                async with AsyncBatchesClient(settings, throttle) as client:
                    for _ in range(count):
                        await client.page()

            with BatchesClient(settings, throttle) as client:
                first(client)
                thread = threading.Thread(target=asyncio.run, args=(many(),))
                begun = time.monotonic()
                thread.start()
                for _ in range(count):
                    client.page()
                thread.join()
            return time.monotonic() - begun

        return both

    def test_spreads_the_calls_of_all(self, both, api):
        seconds = both(Throttle(60 / 0.03), count=5)
        assert (seconds > 9 * 0.03, api.count()) == (True, 10)

    def test_holds_all_after_a_429_to_one(self, both, api, monkeypatch):
        monkeypatch.setattr(throttle, "backoff", lambda *_: 0.4)
        api.fault(Fault("list", status=429))

        def refused(client):
            with pytest.raises(RateLimitError):
                client.page()

        assert both(Throttle(), first=refused) > 0.3

    def test_has_the_answers_of_all(self, both):
        shared = Throttle()
        both(shared, count=5)
        assert (shared.has_answered, shared.answers) == (True, 10)


class TestAPatientClient:
    def test_outlasts_an_outage(self, connect, api, monkeypatch):
        pauses = []
        client = connect(throttle=Throttle(patient=True), max_retries=2)
        client.page()
        monkeypatch.setattr(throttle, "OUTAGE_PAUSE", 0.01)
        api.stop()
        outlast = client.client.throttle.outlast

        def recorded(error):
            pauses.append(outlast(error))
            if len(pauses) == 3:
                api.start()
            return pauses[-1]

        monkeypatch.setattr(client.client.throttle, "outlast", recorded)
        client.page()
        assert pauses == [0.01] * 3

    def test_outlasts_429s(self, connect, api):
        api.fault(Fault("list", status=429, times=20))
        connect(throttle=Throttle(patient=True), max_retries=0).page()
        assert api.count() == 21


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

    def test_with_a_certificate_that_no_authority_signed_sends_nothing(self, connect, api):
        with pytest.raises(APIConnectionError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            connect(max_retries=0).page()
        assert (caught.value.evidence.in_doubt, api.count()) == (False, 0)

    def test_trusts_a_given_authority(self, connect, certificate):
        assert connect(verify=str(certificate / "cert.pem")).page().data == []

    def test_checks_nothing_if_that_is_wished(self, connect):
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

    async def test_pauses_without_holding_others(self, api, monkeypatch):
        monkeypatch.setattr(flows, "NOT_FOUND_PAUSES", (0.05, 0.05, 0.05))
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
