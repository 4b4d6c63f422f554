"""Row by row, the table of docs/teardown.md: whatever fails, at any moment, the next try finishes the job."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches.emulator import Emulator, Fault
from tests.integration.teardown.conftest import make_brisk, watching
from tests.integration.teardown.harness import KilledError, Task, Watch, assert_whole, kills

# A worker that is killed closes nothing; what it leaves open is collected some time later, in whatever test runs then.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

HOUR = 3600
DAY = 24 * HOUR
MakeTask = Callable[..., Task]


@pytest.fixture(autouse=True)
def _what_the_killed_leave_behind() -> Iterator[None]:
    yield
    gc.collect()


def a_few_batches(api: Emulator) -> list[str]:
    return [
        api.add_batch(4, status="in_progress", age_seconds=2 * HOUR),
        api.add_batch(4, status="in_progress", age_seconds=2 * HOUR, cancel_seconds=0.05),
        api.add_batch(4, age_seconds=2 * HOUR),
        api.add_batch(4, age_seconds=30 * DAY),
    ]


def assert_done(api: Emulator, folder: Path, batch_ids: list[str]) -> None:
    assert not set(batch_ids) & set(api.ids())
    for batch_id in batch_ids:
        record = json.loads((folder / f"{batch_id}.json").read_text())
        if record["missing"]:
            assert record["missing"] == "archived"
            assert not (folder / f"{batch_id}.jsonl").exists()
        else:
            assert_whole(folder, batch_id)


def test_a_worker_lost_at_any_moment(
    api: Emulator, watch: Watch, task: MakeTask, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = 0
    while True:
        batch_ids = a_few_batches(api)[1:3]
        for batch_id in set(api.ids()) - set(batch_ids):
            api._store.delete(api._store.get(batch_id))
        made = task(older_than="PT1H", save_results_to=str(folder), max_in_flight=2)
        with kills(monkeypatch, at):
            try:
                made.run()
            except KilledError:
                pass
            else:
                break
        made.run()
        assert_done(api, folder, batch_ids)
        assert watch.faults == []
        at += 1
    assert at > 20


def test_a_worker_killed_in_the_middle_of_a_stream(api: Emulator, task: MakeTask, folder: Path) -> None:
    batch_id = api.add_batch(3000, age_seconds=2 * HOUR, result_bytes=4_000_000)
    # What comes is half of the results, and then silence, in which the worker is killed.
    api.fault(Fault("results", cut_after=2_500_000, hang=True))
    script = f"""
        from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
        from types import SimpleNamespace
        TeardownBatchesOperator(task_id="t", batch_ids=["{batch_id}"], save_results_to="{folder}").execute(
            {{"ti": SimpleNamespace()}}
        )
    """
    worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=dict(os.environ))
    while not any(path.stat().st_size > 1_000_000 for path in folder.glob(f".{batch_id}.*.part")):
        assert worker.poll() is None
    worker.kill()
    worker.wait()
    assert not (folder / f"{batch_id}.jsonl").exists()

    task(batch_ids=[batch_id], save_results_to=str(folder)).run()

    assert_done(api, folder, [batch_id])


def test_the_record_of_what_a_killed_worker_has_deleted_is_not_lost(api: Emulator, folder: Path) -> None:
    batch_ids = [api.add_batch(4, age_seconds=2 * HOUR) for _ in range(3)]
    api.fault(Fault("delete", batch_id=batch_ids[0], hang=True))
    script = f"""
        from airflow_provider_batches.operators import teardown
        from types import SimpleNamespace
        teardown.RECORD_SECONDS = 0.5
        teardown.TeardownBatchesOperator(task_id="t", batch_ids={batch_ids}, save_results_to="{folder}").execute(
            {{"ti": SimpleNamespace()}}
        )
    """
    worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=dict(os.environ))
    lines: list[Any] = []
    while len(lines) < 2:
        assert worker.poll() is None
        lines = [json.loads(line) for path in folder.glob("_teardown/*.jsonl") for line in path.open()]
    worker.kill()
    worker.wait()

    answered = {request.batch_id: request.request_id for request in api.requests if request.endpoint == "delete"}
    assert {line["batch_id"]: line["delete_request_id"] for line in lines} == {
        batch_id: answered[batch_id] for batch_id in batch_ids[1:]
    }


def test_a_triggerer_restarted_while_the_task_is_deferred(api: Emulator, task: MakeTask, folder: Path) -> None:
    batch_ids = [*a_few_batches(api), api.add_batch(4, status="in_progress", cancel_seconds=1)]
    made = task(batch_ids=batch_ids, save_results_to=str(folder))
    made.restarts = 3

    made.run()

    assert len(made.events) == 1
    assert_done(api, folder, batch_ids)


def test_two_workers_at_once(api: Emulator, task: MakeTask, folder: Path) -> None:
    """A worker that Airflow has given up may continue beside the next try."""
    from threading import Thread

    batch_ids = [api.add_batch(50, age_seconds=2 * HOUR) for _ in range(6)]
    outcomes: list[Any] = []

    def work() -> None:
        outcomes.append(task(batch_ids=batch_ids, save_results_to=str(folder)).run())

    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [outcome["failed"] for outcome in outcomes] == [0, 0]
    assert_done(api, folder, batch_ids)


FAULTS = st.sampled_from(
    [
        {"status": 500},
        {"status": 529},
        {"status": 429},
        {"status": 404},
        {"status": 409},
        {"drop": True},
        {"drop_after": True},
        {"status": 503, "applied": True},
        {"html": True},
        {"body": "nonsense"},
        {"body": "nonsense", "applied": True},
        {"cut_after": 100},
        {"cut_after": 700, "cut_cleanly": True},
    ]
)
ENDPOINTS = st.sampled_from(["list", "cancel", "results", "delete", "retrieve"])


class Faults(RuleBasedStateMachine):
    """Faults, kills and other people's doings between the tries of one task, in any order."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    @initialize(count=st.integers(1, 3), by_age=st.booleans(), statuses=st.booleans())
    def begin(self, count: int, by_age: bool, statuses: bool) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file():
                path.unlink()
        self.watch = watching(self.folder, self.monkeypatch)
        self.watch.active = True
        self.api = Emulator(on_request=self.watch)
        self.api.start()
        self.monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", self.api.connection_json)
        self.young = self.api.add_batch(1)
        self.chosen = [batch_id for _ in range(count) for batch_id in a_few_batches(self.api)]
        how: dict[str, Any] = {"older_than": "PT1H"} if by_age else {"batch_ids": self.chosen}
        if by_age and statuses:
            how |= {"statuses": ["in_progress"], "limit": 2}
            running = [batch_id for batch_id in self.chosen if self.api.batch(batch_id)["ended_at"] is None]  # type: ignore[index]
            self.chosen = running[:2]
        self.task = Task(save_results_to=str(self.folder), poll_interval=0.05, timeout=5, max_in_flight=3, **how)
        self.others: set[str] = set()

    @rule(endpoint=ENDPOINTS, kind=FAULTS, times=st.integers(1, 8), after=st.integers(0, 5))
    def fault(self, endpoint: str, kind: dict[str, Any], times: int, after: int) -> None:
        self.api.fault(Fault(endpoint, times=times, after=after, **kind))

    @rule(number=st.integers(0, 11))
    def somebody_cancels(self, number: int) -> None:
        batch = self.api._store.get(self.chosen[number % len(self.chosen)])
        if batch and not batch.deleted and batch.phase(self.api.clock.now()) == "in_progress" and self.task.tries:
            self.api._store.cancel(batch, True)

    @rule(number=st.integers(0, 11))
    def somebody_deletes(self, number: int) -> None:
        batch = self.api._store.get(self.chosen[number % len(self.chosen)])
        if batch and not batch.deleted and self.task.tries:
            self.others.add(batch.id)
            self.watch.exempt.add(batch.id)
            self.api._store.delete(batch)

    @rule(number=st.integers(0, 11), cut=st.booleans())
    def a_file_is_damaged(self, number: int, cut: bool) -> None:
        path = self.folder / f"{self.chosen[number % len(self.chosen)]}.jsonl"
        if path.exists() and path.stem in self.api.ids():
            path.write_bytes(path.read_bytes()[:-7] if cut else b"")
            self.watch.checked.discard(path.stem)

    @rule(at=st.one_of(st.none(), st.integers(0, 60)))
    def a_try(self, at: int | None) -> None:
        with kills(self.monkeypatch, at), suppress(KilledError, AirflowException, AirflowFailException):
            self.task.run()

    @invariant()
    def nothing_is_deleted_unsaved(self) -> None:
        assert self.watch.faults == []
        assert self.young in self.api.ids()

    def teardown(self) -> None:
        if not hasattr(self, "api"):
            return
        try:
            self.api.clear_faults()
            self.task.run()
            self.nothing_is_deleted_unsaved()
            assert_done(self.api, self.folder, [each for each in self.chosen if each not in self.others])
            assert list(self.folder.rglob("*.part")) == []
        finally:
            self.api.close()


def test_any_schedule_of_faults_followed_by_a_retry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_brisk(monkeypatch)
    folder.mkdir()

    class Case(Faults):
        pass

    Case.folder, Case.monkeypatch = folder, monkeypatch
    run_state_machine_as_test(
        Case,
        settings=settings(
            max_examples=int(os.environ.get("TEARDOWN_EXAMPLES", "25")),
            stateful_step_count=8,
            deadline=None,
            derandomize="TEARDOWN_EXAMPLES" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
