"""The official SDK and the official Airflow provider, unchanged, against the emulator."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import anthropic
import pytest

from airflow_provider_batches.emulator import Emulator, Fault
from tests.versions import official_provider

REQUESTS = [
    {
        "custom_id": f"request-{i}",
        "params": {"model": "claude-x", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]},
    }
    for i in range(10)
]


@pytest.fixture
def api():
    with Emulator(batch_seconds=100) as api:
        api.clock.freeze()
        yield api


@pytest.fixture
def batches(api):
    with anthropic.Anthropic(api_key=api.api_key, base_url=api.url, max_retries=0) as client:
        yield client.messages.batches


def official_connection(api: Emulator) -> str:
    extra = {"anthropic_client_kwargs": {"max_retries": 0}}
    return json.dumps({"conn_type": "anthropic", "password": api.api_key, "host": api.url, "extra": extra})


class TestSDK:
    def test_create_and_retrieve(self, api, batches):
        created = batches.create(requests=REQUESTS)
        assert created == batches.retrieve(created.id)
        assert created.processing_status == "in_progress"
        assert created.request_counts.processing == 10
        assert (created.expires_at - created.created_at).days == 1

    def test_list_pages_in_both_directions(self, api, batches):
        newest_first = [api.add_batch(1) for _ in range(25)][::-1]
        assert [b.id for b in batches.list(limit=10)] == newest_first
        assert api.count("list") == 3
        assert [b.id for b in batches.list(limit=10, after_id=newest_first[9])] == newest_first[10:]
        page = batches.list(limit=2, before_id=newest_first[5])
        assert [b.id for b in page.data] == newest_first[3:5]
        assert [b.id for b in page.get_next_page().data] == newest_first[1:3]

    def test_cancel_and_results(self, api, batches):
        batch_id = batches.create(requests=REQUESTS).id
        api.clock.advance(30)
        assert batches.cancel(batch_id).processing_status == "canceling"
        ended = batches.retrieve(batch_id)
        assert (ended.processing_status, ended.request_counts.succeeded, ended.request_counts.canceled) == (
            "ended",
            3,
            7,
        )
        results = list(batches.results(batch_id))
        assert {r.custom_id for r in results} == {r["custom_id"] for r in REQUESTS}
        assert Counter(r.result.type for r in results) == {"succeeded": 3, "canceled": 7}

    def test_results_of_every_type_are_parsed(self, api, batches):
        outcomes = {"succeeded": 4, "errored": 3, "canceled": 2, "expired": 1}
        results = list(batches.results(api.add_batch(10, status="ended", outcomes=outcomes)))
        assert Counter(r.result.type for r in results) == outcomes
        succeeded = next(r.result for r in results if r.result.type == "succeeded")
        assert succeeded.message.content[0].text.startswith("An answer")
        errored = next(r.result for r in results if r.result.type == "errored")
        assert errored.error.error.type == "invalid_request_error"

    def test_results_before_the_end_are_refused_by_the_sdk(self, api, batches):
        with pytest.raises(anthropic.AnthropicError, match="No `results_url`"):
            batches.results(api.add_batch())

    def test_delete(self, api, batches):
        batch_id = api.add_batch(status="ended")
        assert batches.delete(batch_id).type == "message_batch_deleted"
        with pytest.raises(anthropic.NotFoundError):
            batches.retrieve(batch_id)

    async def test_the_async_client_does_the_same(self, api):
        async with anthropic.AsyncAnthropic(auth_token=api.api_key, base_url=api.url) as client:
            created = await client.messages.batches.create(requests=REQUESTS)
            api.clock.advance(100)
            stream = await client.messages.batches.results(created.id)
            assert len([r async for r in stream]) == 10
            assert [b.id async for b in client.messages.batches.list()] == [created.id]
            await client.messages.batches.delete(created.id)
        assert api.requests[0].auth == "bearer"
        assert api.ids() == []

    def test_a_wrong_key(self, api):
        client = anthropic.Anthropic(api_key="wrong", base_url=api.url)
        with client, pytest.raises(anthropic.AuthenticationError, match="invalid x-api-key"):
            client.messages.batches.list()

    def test_a_malformed_create(self, batches):
        with pytest.raises(anthropic.BadRequestError, match="custom_id"):
            batches.create(requests=[{**REQUESTS[0], "custom_id": "not allowed"}])

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, anthropic.BadRequestError),
            (401, anthropic.AuthenticationError),
            (403, anthropic.PermissionDeniedError),
            (404, anthropic.NotFoundError),
            (409, anthropic.ConflictError),
            (429, anthropic.RateLimitError),
            (500, anthropic.InternalServerError),
            (529, anthropic.InternalServerError),
        ],
    )
    def test_each_status_gives_its_error(self, api, batches, status, error):
        api.fault(Fault(status=status, message="On demand", error_code="a_code"))
        with pytest.raises(error, match="On demand") as caught:
            batches.list()
        assert caught.value.status_code == status
        assert caught.value.request_id == api.requests[0].request_id
        assert caught.value.error_code == "a_code"

    def test_a_proxy_that_answers_in_html(self, api, batches):
        api.fault(Fault(html=True))
        with pytest.raises(anthropic.InternalServerError, match="502"):
            batches.list()

    def test_a_dropped_connection(self, api, batches):
        api.fault(Fault(drop=True))
        with pytest.raises(anthropic.APIConnectionError):
            batches.list()

    def test_a_request_that_hangs(self, api, batches):
        api.fault(Fault(hang=True))
        with pytest.raises(anthropic.APITimeoutError):
            batches.list(timeout=0.1)

    def test_the_sdk_waits_as_long_as_it_is_told(self, api):
        api.fault(Fault(status=429, headers={"retry-after-ms": "300"}))
        with anthropic.Anthropic(api_key=api.api_key, base_url=api.url, max_retries=1) as client:
            start = time.monotonic()
            client.messages.batches.list()
        assert time.monotonic() - start >= 0.3
        assert [r.status for r in api.requests] == [429, 200]

    def test_a_create_whose_answer_is_lost_is_repeated_and_paid_twice(self, api):
        api.fault(Fault("create", drop_after=True))
        with anthropic.Anthropic(api_key=api.api_key, base_url=api.url, max_retries=1) as client:
            client.messages.batches.create(requests=REQUESTS)
        assert len(api.ids()) == 2


@official_provider
class TestOfficialProvider:
    @pytest.fixture(autouse=True)
    def connection(self, api, monkeypatch):
        """Name the API to the official provider, and close the clients that it leaves to the garbage collector."""
        monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", official_connection(api))
        clients = []
        make = anthropic.Anthropic.__init__

        def watched(client, **options):
            clients.append(client)
            make(client, **options)

        monkeypatch.setattr(anthropic.Anthropic, "__init__", watched)
        yield
        for client in clients:
            client.close()
        assert all(client.is_closed() for client in clients)

    @pytest.fixture
    def hook(self):
        from airflow.providers.anthropic.hooks.anthropic import AnthropicHook

        return AnthropicHook()

    async def event(self, batch_id: str, **options: Any) -> dict[str, Any]:
        from airflow.providers.anthropic.triggers.batch import AnthropicBatchTrigger

        arguments = {"poll_interval": 0.05, "end_time": time.time() + 60, **options}
        trigger = AnthropicBatchTrigger(conn_id="anthropic_default", batch_id=batch_id, **arguments)
        [event] = [event.payload async for event in trigger.run()]
        return event

    def test_hook_takes_a_batch_through_its_life(self, api, hook):
        created = hook.create_batch(REQUESTS)
        assert [b.id for b in hook.list_batches()] == [created.id]
        assert hook.cancel_batch(created.id).processing_status == "canceling"
        assert hook.get_batch(created.id).request_counts.canceled == 10
        assert hook.wait_for_batch(created.id, wait_seconds=0).processing_status == "ended"
        assert {r.result.type for r in hook.stream_batch_results(created.id)} == {"canceled"}
        hook.conn.messages.batches.delete(created.id)
        assert api.ids() == []

    def test_operator_creates_and_waits(self, monkeypatch, mocker):
        from airflow.providers.anthropic.operators.batch import AnthropicBatchOperator

        operator = AnthropicBatchOperator(task_id="batch", requests=REQUESTS, poll_interval=0.1, deferrable=False)
        with Emulator(batch_seconds=0.3) as api:
            monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", official_connection(api))
            batch_id = operator.execute({"ti": mocker.Mock()})
            assert api.batch(batch_id)["request_counts"]["succeeded"] == 10
            assert api.count("retrieve") > 1

    def test_sensor_pokes_until_the_end(self, api):
        from airflow.providers.anthropic.sensors.batch import AnthropicBatchSensor

        sensor = AnthropicBatchSensor(task_id="wait", batch_id=api.add_batch())
        assert sensor.poke({}) is False
        api.clock.advance(100)
        assert sensor.poke({}) is True

    async def test_trigger_sees_the_end(self, api):
        event = await self.event(api.add_batch(10, status="ended", outcomes={"succeeded": 9, "errored": 1}))
        assert event["status"] == "success"
        assert event["request_counts"]["errored"] == 1

    async def test_trigger_times_out(self, api):
        assert (await self.event(api.add_batch(), end_time=time.time()))["status"] == "timeout"

    async def test_trigger_gives_up_on_a_missing_batch(self, api):
        event = await self.event("msgbatch_none", poll_interval=0)
        assert event["status"] == "error"
        assert "404" in event["message"]
