"""The DAG runs, and the kills while they run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from scripts.distributed.cluster import DistributedAirflow
from scripts.distributed.ledger import Kill
from scripts.processes import EmulatorProcess
from scripts.real_airflow import task_name
from scripts.usage import Meter

Tasks = dict[str, dict[str, Any]]

#: Seconds until a killed process is restarted, as a supervisor would do.
RESTART = 20.0
API_IS_DOWN = 60.0
#: Seconds between log lines on the progress.
PROGRESS = 20.0


class Scenario:
    """Starts the runs, kills components while they run, and logs the events.

    :param airflow: The Airflow.
    :param api: The emulator.
    :param log: Called with each line of the log.
    """

    def __init__(self, airflow: DistributedAirflow, api: EmulatorProcess, log: Callable[[str], None]) -> None:
        self.airflow = airflow
        self.api = api
        self.kills: list[Kill] = []
        self.runs: dict[str, str] = {}
        self.meter = Meter()
        self._log = log
        self._tries: Counter[str] = Counter()
        self._logged_at = 0.0

    def start_runs(self, *, kill: bool) -> None:
        """Start a run of each DAG.

        :param kill: Whether to kill the worker of the submission before it gets the answer to its first create.
        """
        self.meter.begin(self.airflow.pids)
        self.airflow.api("POST", "/pools", json={"name": "batches", "slots": 3})
        for dag_id in ("submissions", "chains", "teardown"):
            self.airflow.wait_for_dag(dag_id)
        self.runs["submissions"] = self.airflow.trigger_dag("submissions")
        self._log("triggered DAG submissions")
        if kill:
            self._kill_submitter()
        for dag_id in ("chains", "teardown"):
            self.runs[dag_id] = self.airflow.trigger_dag(dag_id)
            self._log(f"triggered DAG {dag_id}")

    def start_watching(self, seconds: Iterable[int]) -> set[str]:
        """Watch the workspace, and add batches that end one after the other. Returns their IDs.

        :param seconds: After how many seconds each of them ends.
        """
        self.airflow.wait_for_dag("watched")
        before = self.api.count("list")
        self.airflow.api("PATCH", "/dags/watched", json={"is_paused": False})
        self.airflow.wait_until(lambda: self.api.count("list") > before, 120, "the watcher to look")
        self._log(f"{self.airflow.watcher()} watches for batches that end")
        return {
            batch_id
            for each in seconds
            for batch_id in self.api.add_batches(requests=1, status="in_progress", batch_seconds=each)
        }

    def announced(self) -> Counter[str]:
        """Return how often each batch was announced."""
        events = self.airflow.api("GET", "/assets/events", params={"limit": 1000})["asset_events"]
        batches = (batch for event in events for batch in event["extra"]["payload"]["batches"])
        return Counter(batch["id"] for batch in batches)

    def collected(self) -> set[str]:
        """Return the batches that the runs of the DAG `watched` have received."""
        runs = self.airflow.api("GET", "/dags/watched/dagRuns", params={"limit": 1000})["dag_runs"]
        ended = [run["dag_run_id"] for run in runs if run["state"] == "success"]
        return {batch_id for run_id in ended for batch_id in self.airflow.xcom("watched", run_id, "collect")}

    def tasks(self) -> Tasks:
        """Return all task instances by name, and log new tries and the progress."""
        found = {
            task_name(task): task
            for dag_id, run_id in self.runs.items()
            for task in self.airflow.task_instances(dag_id, run_id)
        }
        for name, task in found.items():
            if task["try_number"] > max(1, self._tries[name]):
                self._log(f"  {name}: try {task['try_number']}")
            self._tries[name] = task["try_number"]
        if time.monotonic() - self._logged_at > PROGRESS:
            self._logged_at = time.monotonic()
            self.meter.sample(self.airflow.pids)
            self._log(f"  {describe(found)}")
        return found

    def until(self, what: str, condition: Callable[[Tasks], Any], timeout: float = 1200) -> Any:
        """Return the value of a condition on the task instances once it is true."""
        return self.airflow.wait_until(lambda: condition(self.tasks()), timeout, what, every=3)

    def _kill_submitter(self) -> None:
        self.api.fault(endpoint="create", delay=8)
        self.until("the first create", lambda tasks: self.api.count("create") >= 1)
        task = self.tasks()["submit"]
        self._kill(task["hostname"], "the API has received the first requests of submit, and not answered them")
        self._restart(task["hostname"])

    def kill_scheduler(self) -> None:
        """Kill the scheduler while it queues the tasks of the chains."""
        self.until("5 cancels", lambda tasks: count(tasks, "cancel", "success") >= 5)
        self._kill("scheduler", describe(self.tasks()))
        self._restart("scheduler")

    def kill_worker(self) -> None:
        """Kill the worker that runs the teardown, while it saves and deletes."""

        def moment(tasks: Tasks) -> Any:
            task = tasks["teardown"]
            return task["state"] == "running" and self.api.count("delete") >= 150 and task

        task = self.until("150 deletes of a running teardown", moment)
        self._kill(task["hostname"], f"the teardown runs there, try {task['try_number']}; {self._deleted()}")
        self._restart(task["hostname"])

    def kill_triggerer(self) -> None:
        """Kill the triggerer that watches for batches that end, once it has waits, too."""
        name = self.airflow.watcher()
        waits = self.until("5 waits beside the watcher", lambda tasks: self._waits_on(name, 5))
        self._kill(name, f"the watcher and {waits} waits are there")
        self.until("another triggerer to take its waits", lambda tasks: name not in self._triggerers())
        self._log(f"no wait is left with {name}, {time.time() - self.kills[-1].at:.1f} s after its death")
        self._restart(name)

    def kill_api(self) -> None:
        """Kill the emulator while a later try of the teardown saves and deletes."""
        before = self.api.count("delete")
        self.until("100 more deletes", lambda tasks: self.api.count("delete") >= before + 100)
        self._kill("emulator", f"{self._deleted()}; {describe(self.tasks())}")
        self._restart("emulator", API_IS_DOWN)

    def wait_for_ends(self) -> dict[str, str]:
        """Return the final state of each run."""

        def states() -> dict[str, str]:
            return {dag_id: str(self.airflow.run(dag_id, run_id)["state"]) for dag_id, run_id in self.runs.items()}

        def over(tasks: Tasks) -> bool:
            return set(states().values()) <= {"success", "failed"}

        self.until("the runs to end", over, timeout=2400)
        self.meter.sample(self.airflow.pids)
        return states()

    def _kill(self, what: str, why: str) -> None:
        if what == "emulator":
            self.api.kill()
        else:
            self.airflow.kill(what)
        self.kills.append(Kill(what, time.time()))
        self._log(f"KILLED {what}: {why}")

    def _restart(self, what: str, after: float = RESTART) -> None:
        time.sleep(max(0.0, self.kills[-1].at + after - time.time()))
        if what == "emulator":
            self.api.start()
        else:
            self.airflow.start(what)
        self._log(f"STARTED {what} again")

    def _waits_on(self, name: str, least: int) -> int:
        waits = self._triggerers().count(name)
        return waits if waits >= least else 0

    def _deleted(self) -> str:
        return f"{self.api.count('delete')} deletes so far"

    def _triggerers(self) -> list[str]:
        """Return the triggerer of each deferred task."""
        return [name for dag_id, run_id in self.runs.items() for name in self.airflow.triggers(dag_id, run_id).values()]


def count(tasks: Tasks, step: str, state: str) -> int:
    """Return the number of tasks of a step in a state."""
    return sum(task["task_id"].rpartition(".")[2] == step and task["state"] == state for task in tasks.values())


def describe(tasks: Tasks) -> str:
    """Return the progress of the runs, such as ``cancel: 12 success, 3 running; wait: 4 deferred``."""
    steps: dict[str, Counter[str]] = {}
    for task in tasks.values():
        steps.setdefault(task["task_id"].rpartition(".")[2], Counter())[task["state"] or "not yet"] += 1
    return "; ".join(
        f"{step}: {', '.join(f'{number} {state}' for state, number in states.most_common())}"
        for step, states in steps.items()
    )
