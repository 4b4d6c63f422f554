"""Runs a teardown try by try as Airflow would, and watches what it does to batches and files."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_batches.api.client import AsyncBatchesClient, BatchesClient
from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.storage.folder import Folder

try:  # 3.2+
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # 3.0, 3.1
    from airflow.exceptions import TaskDeferred


#: Set while a trigger runs: in another process than the worker that is killed.
in_triggerer = Event()


class KilledError(BaseException):
    """Stands for the end of a worker: no `except Exception` sees it."""


class StateStore:
    """Airflow's state store of a task, which survives its tries."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str) -> Any:
        return json.loads(self.values[key]) if key in self.values else None

    def set(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.values.pop(key, None)


class Outlets:
    """`outlet_events` of one process: Airflow receives those of the last one, and only if it succeeds."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __getitem__(self, alias: object) -> Outlets:
        return self

    def add(self, asset: Any, extra: dict[str, Any]) -> None:
        self.events.append((asset.uri, extra))


class Task:
    """A task of one run; each try, and each process of it, has an operator of its own."""

    def __init__(self, operator: Callable[..., Any] = TeardownBatchesOperator, **kwargs: Any) -> None:
        self._operator = operator
        self._kwargs = kwargs
        self.store = StateStore()
        self.outlets = Outlets()
        self.tries = 0
        self.map_index = -1
        self.run_id = "run"
        #: How many tries there were when a person cleared the task.
        self.cleared = 0
        self.deferrals: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.started = datetime.now(timezone.utc)
        #: How often the triggerer dies before the trigger fires.
        self.restarts = 0
        #: Called between the deferral and the trigger, and between the trigger and the next process.
        self.while_deferred: Callable[[], Any] = lambda: None
        self.before_resuming: Callable[[], Any] = lambda: None

    def run(self) -> Any:
        """Run one try to its end, triggers included."""
        self.tries += 1
        step: Callable[[], Any] = partial(self._process().execute, self._context())
        while True:
            try:
                return step()
            except TaskDeferred as deferred:
                stored = json.loads(json.dumps(deferred.trigger.serialize(), default=str))
                kwargs = json.loads(json.dumps(deferred.kwargs or {}))
                self.deferrals.append(stored[1])
                self.while_deferred()
                for _ in range(self.restarts):
                    asyncio.run(_fire_for(stored, 0.03))
                event = asyncio.run(_fire(stored))
                self.events.append(event)
                self.before_resuming()
                given = {**kwargs, "event": event}
                step = partial(self._process().resume_execution, deferred.method_name, given, self._context())

    def _process(self) -> Any:
        task = self._operator(task_id="teardown", **self._kwargs)
        self.outlets = Outlets()
        task.render_template_fields(self._context())
        return task

    def _context(self) -> Any:
        ti = SimpleNamespace(
            dag_id="dag",
            run_id=self.run_id,
            task_id="teardown",
            map_index=self.map_index,
            try_number=self.tries,
            max_tries=self.cleared + self._kwargs.get("retries", 0),
            xcom_push=lambda **_: None,
        )
        run = SimpleNamespace(run_after=self.started, run_type="scheduled")
        context = {"ti": ti, "dag_run": run, "params": {}, "task_state_store": self.store}
        return {**context, "outlet_events": self.outlets}


async def _fire(stored: Any) -> Any:
    module, _, name = stored[0].rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**stored[1])
    in_triggerer.set()
    try:
        async for event in trigger.run():
            return json.loads(json.dumps(event.payload, default=str))
    finally:
        in_triggerer.clear()


async def _fire_for(stored: Any, seconds: float) -> None:
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_fire(stored), seconds)


def expected_results(api: Emulator, batch_id: str) -> bytes:
    """Return the results as the API would send them now."""
    batch = api._store.get(batch_id)
    return b"".join(batch.results())


def assert_whole(folder: Path, batch_id: str) -> dict[str, Any]:
    """Check that what is saved of a batch is whole, and return its record."""
    record: dict[str, Any] = json.loads((folder / f"{batch_id}.json").read_text())
    data = (folder / f"{batch_id}.jsonl").read_bytes()
    assert len(data) == record["size"]
    assert hashlib.sha256(data).hexdigest() == record["sha256"]
    lines = data.removesuffix(b"\n").split(b"\n")
    counts = [record["request_counts"][name] for name in ("succeeded", "errored", "canceled", "expired")]
    assert len(lines) == record["lines"] == sum(counts)
    assert record["batch"]["id"] == batch_id
    for line in lines:
        json.loads(line)
    return record


class Watch:
    """Sees each delete at the API, and fails the test if the batch's file was not whole by then.

    :param folder: Where results are saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: Whether the task saves results at all.
        self.active = False
        self.checked: set[str] = set()
        self.faults: list[str] = []
        self.exempt: set[str] = set()

    def __call__(self, entry: Any) -> None:
        if not self.active or entry.endpoint != "delete" or entry.batch_id in self.exempt:
            return
        if entry.batch_id not in self.checked:
            self.faults.append(f"{entry.batch_id} was deleted before its file was read back")
        try:
            record = json.loads((self.folder / f"{entry.batch_id}.json").read_text())
            if not record["missing"]:
                assert_whole(self.folder, entry.batch_id)
        except (OSError, AssertionError, ValueError) as error:
            self.faults.append(f"{entry.batch_id} was deleted unsaved: {error!r}")


@contextmanager
def kills(monkeypatch: pytest.MonkeyPatch, at: int | None) -> Iterator[list[str]]:
    """End the worker at moment number `at`: moments come before and after each request and each step on files."""
    moments: list[str] = []

    def moment(name: str) -> None:
        if in_triggerer.is_set():
            return
        moments.append(name)
        if at is not None and len(moments) > at:
            raise KilledError(name)

    def wrap(owner: type, name: str) -> None:
        original = getattr(owner, name)
        if asyncio.iscoroutinefunction(original):

            async def apart(*args: Any, **kwargs: Any) -> Any:
                moment(f"before {name}")
                answer = await original(*args, **kwargs)
                moment(f"after {name}")
                return answer
        else:

            def apart(*args: Any, **kwargs: Any) -> Any:
                moment(f"before {name}")
                answer = original(*args, **kwargs)
                moment(f"after {name}")
                return answer

        patch.setattr(owner, name, apart)

    with monkeypatch.context() as patch:
        wrap(AsyncBatchesClient, "_send")
        wrap(BatchesClient, "_send")
        wrap(Folder, "_open")
        wrap(Folder, "_move")
        yield moments
