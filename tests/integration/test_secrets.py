"""No secret is in anything that somebody can read, whatever happens to a call."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor
from airflow_provider_batches.triggers.batches import BatchEndedTrigger
from tests.canary import KEY, TOKEN
from tests.integration.conftest import TaskInstance

POLL = 0.02
#: Answers of a proxy that shows the request to its reader; the key is at the end of the excerpt, and before.
ECHOES = {
    "page": f"<html><body><h1>403</h1><pre>x-api-key: {KEY} x-gateway-token: {TOKEN}</pre></body></html>",
    "cut": "x" * 150 + KEY + " " + TOKEN,
    "envelope": json.dumps({"type": "error", "error": {"type": "x", "message": f"bad key {KEY} {TOKEN}"}}),
    "type": json.dumps({"type": "error", "error": {"type": f"x {KEY}", "message": f"{TOKEN}"}}),
    "no batch": json.dumps({"processing_status": KEY, "created_at": TOKEN}),
    "wrong types": json.dumps({"id": [KEY], "processing_status": {TOKEN: KEY}}),
}
#: Parts of the secrets that no text may hold.
PARTS = [secret[start : start + 24] for secret in (KEY, TOKEN) for start in (0, 20, 40, 60)]


class Seen:
    """All text that could be read by somebody."""

    def __init__(self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
        self._caplog = caplog
        self._capfd = capfd
        self._texts: list[str] = []

    def add(self, *things: Any) -> None:
        for thing in things:
            if isinstance(thing, BaseException):
                self._texts += traceback.format_exception(thing)
                while thing is not None:
                    self._texts += [repr(thing), str(thing), repr(vars(thing))]
                    thing = thing.__cause__ or thing.__context__
            else:
                self._texts += [repr(thing), str(thing)]

    def add_run(self, run: Any) -> None:
        self.add(run.value, run.xcom, run.deferrals, run.events, *run.triggers)
        if run.error:
            self.add(run.error)
        for task in run.tasks:
            self.add(task, [getattr(task, name) for name in task.template_fields], vars(task))
            if "hook" in vars(task):
                self.add(task.hook, vars(task.hook))

    def all(self) -> str:
        out, err = self._capfd.readouterr()
        self._texts += [out, err]
        for record in self._caplog.get_records("setup") + self._caplog.get_records("call"):
            self._texts += [record.name, record.getMessage(), repr(vars(record))]
            self._texts += traceback.format_exception(*record.exc_info) if record.exc_info else []
        return "\n".join(self._texts)


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[Seen]:
    """Collect what can be read; at the end of the test, the secrets are not in it."""
    loggers = [logging.getLogger(name) for name in ("", "httpx", "httpcore", "airflow", "airflow_provider_batches")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    caplog.handler.setLevel(logging.DEBUG)
    seen = Seen(caplog, capfd)
    yield seen
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    text = seen.all()
    assert "httpcore" in text or "never connected" in text
    assert [part for part in PARTS if part in text] == []


@pytest.fixture
def api(connect: Callable[..., str]) -> Iterator[Emulator]:
    with Emulator(api_key=KEY) as api:
        connect(password=KEY, host=api.url, extra={"headers": {"x-gateway-token": TOKEN}})
        yield api


def _batches(api: Emulator) -> dict[str, str]:
    return {
        "running": api.add_batch(5, status="in_progress", batch_seconds=0.1, cancel_seconds=0.1),
        "ended": api.add_batch(5, status="ended", outcomes={"succeeded": 3, "errored": 2}),
        "missing": "msgbatch_1",
        "no id": "a/b",
    }


CANCEL: dict[str, Any] = {"wait_for_completion": True, "poll_interval": POLL, "timeout": 0.2}
TASKS: list[tuple[str, Any, dict[str, Any]]] = [
    ("cancel", CancelBatchOperator, {}),
    ("cancel and wait", CancelBatchOperator, CANCEL),
    ("cancel and defer", CancelBatchOperator, {**CANCEL, "deferrable": True}),
    ("delete", DeleteBatchOperator, {}),
    ("poke", BatchEndedSensor, {"poke_interval": POLL, "timeout": 0.2, "fail_on_partial_error": True}),
    ("reschedule", BatchEndedSensor, {"mode": "reschedule", "poke_interval": POLL, "timeout": 0.2}),
    ("defer", BatchEndedSensor, {"deferrable": True, "poke_interval": POLL, "timeout": 0.2}),
    ("soft fail", BatchEndedSensor, {"deferrable": True, "poke_interval": POLL, "timeout": 0.2, "soft_fail": True}),
]
every_task = pytest.mark.parametrize(("operator", "options"), [t[1:] for t in TASKS], ids=[t[0] for t in TASKS])


@every_task
@pytest.mark.parametrize("batch", ["running", "ended", "missing", "no id"])
def test_a_task_that_succeeds_or_fails(
    batch: str, operator: Any, options: dict[str, Any], api: Emulator, run: Any, seen: Seen
) -> None:
    seen.add_run(run(operator, batch_id=_batches(api)[batch], **options))
    seen.add("never connected" if batch == "no id" else "")


FAULTS: dict[str, dict[str, Any]] = {
    **{f"echo {name}": {"status": 403, "body": body} for name, body in ECHOES.items()},
    **{f"garbage {name}": {"body": body} for name, body in ECHOES.items()},
    "echo later": {"status": 400, "body": ECHOES["cut"], "after": 1},
    "echo 404": {"status": 404, "body": ECHOES["page"]},
    "echo 502": {"status": 502, "body": ECHOES["page"]},
    "429": {"status": 429},
    "drop": {"drop": True},
    "redirect": {"redirect": "http://127.0.0.1:9"},
    "401": {"status": 401},
}


@pytest.mark.parametrize(("operator", "options"), [TASKS[2][1:], TASKS[3][1:], TASKS[6][1:]])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_task_that_meets_a_proxy_or_an_outage(
    fault: str, operator: Any, options: dict[str, Any], api: Emulator, run: Any, seen: Seen
) -> None:
    batch_id = _batches(api)["running"]
    api.fault(Fault(times=None, **FAULTS[fault]))
    seen.add_run(run(operator, batch_id=batch_id, **options))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_hook_and_its_connection_test(fault: str, api: Emulator, seen: Seen) -> None:
    hook = BatchesHook()
    seen.add(hook, vars(hook), hook.settings, hook.get_conn(), vars(hook.get_conn()), hook.test_connection())
    api.fault(Fault(times=None, **FAULTS[fault]))
    batch_id = _batches(api)["ended"]
    request = {"custom_id": "a", "params": {"model": "m", "max_tokens": 1, "messages": [{"role": "user"}]}}
    calls: list[Callable[[], Any]] = [
        hook.test_connection,
        lambda: hook.create_batch([request]),
        lambda: hook.get_batch(batch_id),
        lambda: list(hook.list_batches()),
        lambda: hook.cancel_batch(batch_id),
        lambda: hook.delete_batch(batch_id),
        lambda: list(hook.stream_batch_results(batch_id)),
        lambda: hook.wait_for_batch(batch_id, poll_interval=POLL, timeout=0.1),
    ]
    for call in calls:
        try:
            seen.add(call())
        except Exception as error:
            seen.add(error)


@pytest.mark.parametrize("fault", [None, *FAULTS])
async def test_the_trigger(fault: str | None, api: Emulator, seen: Seen, server_says: Any) -> None:
    import time

    if fault:
        api.fault(Fault(times=None, **FAULTS[fault]))
    trigger = BatchEndedTrigger(
        batch_id=_batches(api)["running"],
        conn_id="anthropic_default",
        poll_interval=POLL,
        start_time=time.time() - 10,
        end_time=time.time() + 0.2,
        cancel_on_kill=True,
    )
    seen.add(trigger, trigger.serialize(), vars(trigger))
    async for event in trigger.run():
        seen.add(event, event.payload)
    server_says("failed")
    trigger.task_instance = TaskInstance("wait")  # type: ignore[assignment]
    try:
        await trigger.on_kill()
    except Exception as error:
        seen.add(error)
    client = await BatchesHook().aget_conn()
    seen.add(client, vars(client), client.settings)
    await client.aclose()


def test_an_unreachable_api(api: Emulator, run: Any, seen: Seen) -> None:
    api.stop()
    seen.add(BatchesHook().test_connection())
    for _, operator, options in TASKS:
        seen.add_run(run(operator, batch_id="msgbatch_1", **options))


def test_a_proxy_that_is_not_there(connect: Callable[..., str], run: Any, seen: Seen) -> None:
    extra = {"proxy": f"http://user:{TOKEN}@127.0.0.1:9", "max_retries": 0}
    connect(password=KEY, host="https://api.invalid", extra=extra)
    hook = BatchesHook()
    seen.add(hook.test_connection(), hook.settings, hook.get_conn(), vars(hook.get_conn()))
    for _, operator, options in TASKS:
        seen.add_run(run(operator, batch_id="msgbatch_1", **options))
    assert not hook.test_connection()[0]


WRONG: list[Any] = [
    {"password": f"{KEY} {TOKEN}"},
    {"password": f"{KEY}\n{TOKEN}"},
    {"password": KEY, "host": f"https://user:{TOKEN}@api.anthropic.com"},
    {"password": KEY, "host": f"https://{TOKEN}@api.anthropic.com?{TOKEN}"},
    {"password": KEY, "extra": {"headers": {"x-api-key": TOKEN}}},
    {"password": KEY, "extra": {"headers": {"authorization": [TOKEN]}}},
    {"password": KEY, "extra": {"headers": f"authorization: {TOKEN}"}},
    {"password": KEY, "extra": {"headers": {"authorization": f"{TOKEN}\n"}}},
    {"password": KEY, "extra": {"proxy": f"user:{TOKEN}@proxy"}},
    {"password": KEY, "extra": {"proxy": f"socks5://user:{TOKEN}@proxy:99999"}},
    {"password": KEY, "extra": {"proxy": [TOKEN]}},
    {"password": KEY, "extra": {"timeout": -1, "max_retries": 99, "verify": "/nowhere"}},
    pytest.param({"password": KEY, "extra": f'{{"headers": "{TOKEN}"'}, marks=pytest.mark.feature("any_extra")),
    pytest.param({"password": KEY, "extra": f'["{TOKEN}"]'}, marks=pytest.mark.feature("any_extra")),
    {"conn_type": "anthropic", "extra": {"anthropic_client_kwargs": {"api_key": f"{KEY}\x07"}}},
    {"conn_type": "anthropic", "extra": {"anthropic_client_kwargs": [KEY]}},
    {"conn_type": "anthropic", "extra": {"workload_identity": {"token": KEY}}},
]


@pytest.mark.parametrize("fields", WRONG, ids=range(len(WRONG)))
def test_wrong_settings(fields: dict[str, Any], connect: Callable[..., str], run: Any, seen: Seen) -> None:
    connect(**fields)
    works, text = BatchesHook().test_connection()
    assert not works
    seen.add(text, "never connected")
    for _, operator, options in TASKS:
        done = run(operator, batch_id="msgbatch_1", **options)
        assert done.state in ("failed", "skipped")
        seen.add_run(done)

    async def async_client() -> None:
        await BatchesHook().aget_conn()

    try:
        asyncio.run(async_client())
    except Exception as error:
        seen.add(error)


def test_the_environment_s_key(
    api: Emulator, connect: Callable[..., str], run: Any, seen: Seen, monkeypatch: Any
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
    connect(password=None, host=None)
    for name, batch_id in _batches(api).items():
        seen.add_run(run(CancelBatchOperator, batch_id=batch_id))
        seen.add(name)
