"""Any sequence of runs, retries, clears, changed requests, mapped siblings and foreign batches, under any faults."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from airflow_provider_batches._compat import AirflowException
from airflow_provider_batches.emulator import Emulator
from tests.integration.submission.attack import FAULTS
from tests.integration.submission.test_operator import Submitting, requests, sent
from tests.integration.teardown.conftest import make_brisk

TASKS = st.integers(0, 1)


class Submissions(RuleBasedStateMachine):
    """Two mapped tasks that submit requests of the same number."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.api = Emulator(batch_seconds=0.02)
        self.api.start()
        os.environ["AIRFLOW_CONN_ANTHROPIC_DEFAULT"] = self.api.connection_json
        self.foreign: set[str] = set()
        self.tasks = [Submitting(self.folder, requests=requests(5, f"{n}-0-"), requests_per_batch=2) for n in range(2)]
        for number, task in enumerate(self.tasks):
            task.map_index = number
        self.versions = [itertools.count(1), itertools.count(1)]

    @rule(number=TASKS, fault=st.sampled_from(sorted(FAULTS)), after=st.integers(0, 2))
    def run(self, number: int, fault: str, after: int) -> None:
        """Run a try of a task, the first or a retry, while something fails."""
        if armed := FAULTS[fault]:
            self.api.fault(type(armed)(**{**vars(armed), "after": after, "delay": 0.0}))
        self._run(number)
        self.api.clear_faults()

    @rule(number=TASKS)
    def clear(self, number: int) -> None:
        self.tasks[number].clear()

    @rule(number=TASKS)
    def change(self, number: int) -> None:
        """Change the requests of a task, and clear it."""
        prefix = f"{number}-{next(self.versions[number])}-"
        self.tasks[number].change(requests=requests(5, prefix), on_changed_input="submit")
        self.tasks[number].clear()

    @rule()
    def create_foreign(self) -> None:
        self.foreign.add(self.api.add_batch(2, status="in_progress", batch_seconds=0.02))

    @invariant()
    def no_request_is_sent_twice(self) -> None:
        found = sent(self.api)
        for batch_id in self.foreign:
            found -= Counter(self.api._store.get(batch_id).custom_ids or [])  # type: ignore[union-attr]
        assert [name for name, count in found.items() if count > 1 and not name.startswith("request")] == []

    def teardown(self) -> None:
        for number, task in enumerate(self.tasks):
            found: Any = None
            for _ in range(3):
                found = self._run(number) or found
            assert found is not None, "stuck"
            assert len(found) == 3
            assert not set(found) & self.foreign
            names = {name for batch_id in found for name in self.api._store.get(batch_id).custom_ids or []}  # type: ignore[union-attr]
            assert len(names) == 5, task
        self.no_request_is_sent_twice()
        self.api.close()
        shutil.rmtree(self.folder)

    def _run(self, number: int) -> Any:
        try:
            return self.tasks[number].run()
        except AirflowException:
            return None


def test_nothing_is_sent_twice_or_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    make_brisk(monkeypatch)
    monkeypatch.setenv("AIRFLOW__MESSAGE_BATCHES__SETTLE_SECONDS", "0.05")
    monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", "")
    monkeypatch.setattr("airflow_provider_batches.submission.sending.DEADLINE", 0.05)
    monkeypatch.setattr("airflow_provider_batches.submission.doubt.MARGIN", 2.0)
    run_state_machine_as_test(
        Submissions,
        settings=settings(
            max_examples=8, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
