"""Each way in which Airflow ends a task whose wait owns its batch, on a real Airflow: only a user cancels the batch."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_batches.emulator import Emulator
from scripts.real_airflow import RealAirflow, RealAirflowError
from tests.versions import AIRFLOW

#: Seconds for which the API server is away.
AWAY = 25.0
TASK = "owner"
#: Airflow 3.0 leaves a running task that is cleared in the state `restarting`.
STARTS_AGAIN = AIRFLOW >= (3, 1)
#: Before, a supervisor passes no SIGTERM on to its task.
PASSES_SIGTERM = AIRFLOW >= (3, 3)
#: Before, a task outlasts an API server that is away for AWAY.
ENDS_WITHOUT_SERVER = AIRFLOW >= (3, 2)

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
on_a_worker = pytest.mark.skipif(AIRFLOW < (3, 0, 4), reason="an Airflow before 3.0.4 does not tell a task on a worker")
while_deferred = pytest.mark.feature("on_kill")
MODES = [pytest.param("worker", marks=on_a_worker), pytest.param("deferred", marks=while_deferred)]


@dataclass
class Waiting:
    """A task that waits for a batch that never ends by itself."""

    airflow: RealAirflow
    api: Emulator
    dag_id: str
    run_id: str
    batch_id: str

    @property
    def _instance(self) -> dict[str, object]:
        (found,) = self.airflow.task_instances(self.dag_id, self.run_id)
        return found

    @property
    def state(self) -> object:
        return self._instance["state"]

    @property
    def supervisor(self) -> int:
        """The process ID of the process that supervises the task's own."""
        stat = Path(f"/proc/{self._instance['pid']}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])

    def log(self, try_number: int = 1) -> str:
        with suppress(RealAirflowError):  # this try has not begun
            return self.airflow.task_log(self.dag_id, self.run_id, TASK, try_number)
        return ""

    def mark(self, state: str) -> None:
        path = f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/{TASK}"
        self.airflow.api("PATCH", path, json={"new_state": state})

    def clear(self) -> None:
        which = {"dag_run_id": self.run_id, "task_ids": [TASK]}
        options = {"dry_run": False, "only_failed": False}
        self.airflow.api("POST", f"/dags/{self.dag_id}/clearTaskInstances", json={**which, **options})

    def is_canceled(self) -> bool:
        return bool((self.api.batch(self.batch_id) or {})["cancel_initiated_at"])

    def wait_for_log(self, text: str) -> None:
        self.airflow.wait_until(lambda: text in self.log(), what=f"{text!r} in the log of {self.dag_id}")


@pytest.fixture
def waiting(airflow: RealAirflow, api: Emulator, request: pytest.FixtureRequest) -> Waiting:
    dag_id = request.param
    batch_id = api.add_batch(requests=10, status="in_progress")
    wait = Waiting(airflow, api, dag_id, airflow.trigger_dag(dag_id, {"batch_id": batch_id}), batch_id)
    if dag_id.endswith("deferred"):
        airflow.wait_for_task(dag_id, wait.run_id, TASK, "deferred")
        # The trigger must run before Airflow can tell it that its task is over.
        wait.wait_for_log("starting")
    else:
        airflow.wait_for_task(dag_id, wait.run_id, TASK, "running")
        wait.wait_for_log("is in_progress")
    return wait


def of(prefix: str) -> pytest.MarkDecorator:
    cases = [pytest.param(f"{prefix}_{mode.values[0]}", marks=mode.marks, id=str(mode.values[0])) for mode in MODES]
    return pytest.mark.parametrize("waiting", cases, indirect=True)


@of("wait")
@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_user_marks_the_task(state: str, waiting: Waiting) -> None:
    waiting.mark(state)
    waiting.airflow.wait_until(waiting.is_canceled)
    waiting.wait_for_log(f"A user marked the task: batch {waiting.batch_id} is canceling")
    assert waiting.state == state


@of("wait")
def test_a_user_marks_the_run_as_failed(waiting: Waiting) -> None:
    waiting.airflow.set_run_state(waiting.dag_id, waiting.run_id, "failed")
    waiting.airflow.wait_until(waiting.is_canceled)


@of("wait")
def test_a_user_clears_the_task_and_its_next_try_waits_for_the_same_batch(waiting: Waiting) -> None:
    waiting.clear()
    waiting.wait_for_log("not by a user")
    if STARTS_AGAIN:
        waiting.airflow.wait_until(lambda: "is in_progress" in waiting.log(try_number=2), what="the next try's wait")
    assert not waiting.is_canceled()


@of("limited_wait")
def test_the_runs_dagrun_timeout_is_over(waiting: Waiting) -> None:
    waiting.wait_for_log("not by a user (its state is skipped)")
    assert not waiting.is_canceled()


@on_a_worker
@pytest.mark.parametrize("waiting", ["wait_worker"], indirect=True)
def test_the_supervisor_of_a_task_gets_sigterm_and_the_task_waits_on(waiting: Waiting) -> None:
    os.kill(waiting.supervisor, signal.SIGTERM)
    if PASSES_SIGTERM:
        waiting.wait_for_log("not by a user (its state is running)")
    else:
        time.sleep(10)
    assert not waiting.is_canceled()
    polls = waiting.api.count("retrieve")
    waiting.airflow.wait_until(lambda: waiting.api.count("retrieve") > polls + 1, what="the wait to continue")
    assert waiting.state == "running"


@on_a_worker
@pytest.mark.parametrize("waiting", ["wait_worker"], indirect=True)
def test_the_api_server_is_away(waiting: Waiting) -> None:
    waiting.airflow.kill("api-server")
    time.sleep(AWAY)
    waiting.airflow.start("api-server")
    # Returns once the API server answers.
    waiting.airflow.authorization(waiting.airflow.username)
    if ENDS_WITHOUT_SERVER:
        waiting.wait_for_log("not by a user (its state is unknown: ")
    assert not waiting.is_canceled()
