"""Kills each part of a distributed Airflow, and the API, while they work, and checks that no data is lost.

One DAG submits requests in three batches, and its worker is killed before it receives the first answer. Mapped tasks
create, cancel, wait for and delete 40 batches. One task tears down the oldest 1,000 of 1,100 other batches and saves
their results. A watcher announces 60 batches that end one after the other. Meanwhile the scheduler, a worker, the
watcher's triggerer and the emulator are killed with SIGKILL, once each. Events are logged to standard output. The exit
code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.distributed.cluster import distributed_airflow
from scripts.distributed.ledger import Account, account, unrecorded, unsaved
from scripts.distributed.scenario import Scenario
from scripts.distributed.servers import ServerError
from scripts.processes import EmulatorProcess, emulator, exit_on_signals
from scripts.real_airflow import RealAirflow, RealAirflowError, task_name
from scripts.usage import Meter

DAGS = Path(__file__).parent / "dags"
CHAINS = 40
#: Batches that exist at the start. The teardown selects the oldest 1,000; the younger ones must not change.
ENDED, RUNNING, YOUNGER = 600, 400, 100
#: Requests in each of them.
LINES = 20
#: Seconds until a canceled batch ends: long enough that waits are running during the kills.
CANCEL_SECONDS = 180
#: Seconds until any other batch ends: more, so that the chains wait for their cancels.
BATCH_SECONDS = 300
#: Requests of the DAG `submissions`.
SUBMITTED = 21
#: The rate limit of the API's first tier.
REQUESTS_PER_MINUTE = 1000
#: After how many seconds each of the batches ends that nothing but the watcher waits for.
WATCHED = range(30, 330, 5)
#: Seconds for which the idle Airflow is measured.
IDLE = 60.0
STARTED = time.time()


def log(line: str) -> None:
    """Print a line with the time of day and the seconds since the start."""
    now = time.time()
    print(f"{datetime.fromtimestamp(now):%H:%M:%S}  {now - STARTED:6.1f} s  {line}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make e2e-distributed", description=__doc__)
    parser.add_argument("--calm", action="store_true", help="run the same DAGs without any kill")
    options = parser.parse_args(arguments)
    exit_on_signals()
    try:
        problems = run(calm=options.calm)
    except ServerError as error:
        parser.exit(2, f"{error}\n")
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    log(f"{len(problems)} checks have failed" if problems else "all checks have passed")
    return 1 if problems else 0


def run(*, calm: bool) -> list[str]:
    """Run the scenario and return the problems that were found."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="distributed-")))
        results = folder / "results"
        api = stack.enter_context(
            emulator(
                *("--state", str(folder / "state")),
                *("--cancel-seconds", str(CANCEL_SECONDS)),
                *("--batch-seconds", str(BATCH_SECONDS)),
                *("--requests-per-minute", str(REQUESTS_PER_MINUTE)),
                *("--log-size", "1000000"),
            )
        )
        log(f"the emulator is up: {REQUESTS_PER_MINUTE:,} requests a minute, a cancel takes {CANCEL_SECONDS} s")
        seeded = Seeded(api)
        log(f"{ENDED} batches have ended and {RUNNING} run; {YOUNGER} younger ones are to be left alone")
        env = {"AIRFLOW_CONN_ANTHROPIC_DEFAULT": api.connection_json, "SAVE_RESULTS_TO": f"file://{results}"}
        airflow = stack.enter_context(distributed_airflow(dags_folder=DAGS, env=env, log=log))
        log(f"Airflow {airflow.api('GET', '/version')['version']} is up: {', '.join(airflow.components)}")

        scenario = Scenario(airflow, api, log)
        if calm:
            print_idle(airflow)
        watched = scenario.start_watching(WATCHED)
        scenario.start_runs(kill=not calm)
        began = time.time()
        if not calm:
            scenario.kill_scheduler()
            scenario.kill_worker()
            scenario.kill_triggerer()
            scenario.kill_api()
        states = scenario.wait_for_ends()
        ended = time.time()
        for dag_id, state in states.items():
            log(f"the run of {dag_id} has ended: {state}")

        with contextlib.suppress(RealAirflowError):
            airflow.wait_until(lambda: watched <= scenario.collected(), 300, "the watched batches", every=5)
        announced, collected = scenario.announced(), scenario.collected()
        twice = [batch_id for batch_id, times in announced.items() if times > 1]
        log(f"{len(watched & set(announced))} of {len(watched)} watched batches were announced, {len(twice)} twice")

        created = set(airflow.xcom("chains", scenario.runs["chains"], "create"))
        requests = api.requests()
        submitted = set(airflow.xcom("submissions", scenario.runs["submissions"], "submit"))
        accounts = [
            account("create", requests, created | submitted, scenario.kills),
            account("cancel", requests, created | seeded.running, scenario.kills),
            account("delete", requests, created | submitted | seeded.oldest, scenario.kills),
        ]
        left = set(api.ids())
        tries = list(all_tries(scenario))
        print_recovery(scenario, tries, requests)
        print_lost_tries(airflow, tries)
        print_accounts(accounts)
        print_pace(requests)
        print_usage(scenario.meter, ended - began)
        return [
            *(f"the run of {dag_id} is {state}" for dag_id, state in states.items() if state != "success"),
            *([] if len(created) == CHAINS else [f"{len(created)} batches were created instead of {CHAINS}"]),
            *([] if len(submitted) == 3 else [f"{len(submitted)} batches were submitted instead of 3"]),
            *(f"{batch_id} has ended, but was not announced" for batch_id in watched - set(announced)),
            *(f"{batch_id} was announced, but no run received it" for batch_id in watched - collected),
            *(["batches were announced twice, and nothing was killed"] if twice and calm else []),
            *(f"{batch_id} is still there" for batch_id in left & (created | submitted | seeded.oldest)),
            *(f"{batch_id} was deleted, but was not selected" for batch_id in seeded.younger - left),
            *(problem for each in accounts for problem in each.problems),
            *unsaved(results, requests, seeded.oldest, LINES),
            *unsaved(results / "submitted", requests, submitted, SUBMITTED // 3),
            *unrecorded(results, requests, seeded.oldest, scenario.kills),
        ]


class Seeded:
    """The batches that exist before the runs start."""

    def __init__(self, api: EmulatorProcess) -> None:
        batch = {"requests": LINES, "batch_seconds": 86_400, "age_seconds": 3 * 3600}
        ended = api.add_batches(**batch, count=ENDED, status="ended")
        self.running = set(api.add_batches(**batch, count=RUNNING, status="in_progress"))
        self.oldest = self.running | set(ended)
        younger = {**batch, "age_seconds": 2 * 3600}
        self.younger = {
            *api.add_batches(**younger, count=YOUNGER // 2, status="ended"),
            *api.add_batches(**younger, count=YOUNGER // 2, status="in_progress"),
        }


def all_tries(scenario: Scenario) -> Iterator[dict[str, Any]]:
    """Iterate over the tries of all tasks, as the REST API describes them."""
    for task in scenario.tasks().values():
        if task["try_number"] > 1:
            path = f"/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"
            index = f"/{task['map_index']}" if task["map_index"] >= 0 else ""
            yield from scenario.airflow.api("GET", f"{path}{index}/tries")["task_instances"]
        else:
            yield task


def print_recovery(scenario: Scenario, tries: list[dict[str, Any]], requests: list[dict[str, Any]]) -> None:
    """Print how long after each kill work resumed."""
    teardown = [each for each in tries if each["task_id"] == "teardown"]
    signs = {
        "scheduler": ("a task is queued", [_time(each["queued_when"]) for each in tries]),
        "worker": ("the next try of the teardown begins", [_time(each["start_date"]) for each in teardown]),
        "emulator": ("a request is answered", [request["time"] for request in requests]),
    }
    print("\nThe first sign of life after each kill:")
    for kill in scenario.kills:
        sign, times = signs.get(kill.what.partition("-")[0], ("", []))
        after = min((time - kill.at for time in times if time > kill.at), default=float("nan"))
        if sign:
            print(f"  {kill.what:12} {sign} after {after:.1f} s")


def print_lost_tries(airflow: RealAirflow, tries: list[dict[str, Any]]) -> None:
    """Print which tries were lost, and the end of their logs."""
    print("\nTries that were lost:")
    for task in tries:
        if task["state"] != "success":
            started, ended = (f"{_time(task[name]) - STARTED:.1f} s" for name in ("start_date", "end_date"))
            print(f"  {task_name(task)}, try {task['try_number']} on {task['hostname']}, from {started} to {ended}")
            log = airflow.task_log(
                task["dag_id"], task["dag_run_id"], task["task_id"], task["try_number"], task["map_index"]
            )
            print(f"    {last_words(log)}")


def last_words(log: str) -> str:
    """Return the first error in a log. Without one, because the task was killed, return the last line."""
    errors = re.findall(r'"exc_value": "((?:[^"\\]|\\.)*)"', log)
    return str(errors[0]) if errors else log.splitlines()[-1].partition(" {")[0]


def print_accounts(accounts: list[Account]) -> None:
    """Print how many calls changed something."""
    print("\nCalls that change something, from the API's log:")
    print(
        f"  {'call':8} {'expected':>8} {'made':>6} {'again':>6} {'unexplained':>11}  {'refused (429)':>13}  because of"
    )
    for each in accounts:
        why = ", ".join(f"{what}: {number}" for what, number in each.explained.items())
        print(
            f"  {each.call:8} {each.expected:8} {each.made:6} {each.explained.total():6} {len(each.problems):11}"
            f"  {each.refused:13}  {why}"
        )


def print_pace(requests: list[dict[str, Any]]) -> None:
    """Print the number of requests of each kind in each minute."""
    minutes: dict[int, Counter[str]] = defaultdict(Counter)
    for request in requests:
        minutes[int((request["time"] - STARTED) // 60)][request["endpoint"]] += 1
    print("\nRequests in each minute (before the emulator was killed, only those that change something):")
    for minute, counts in sorted(minutes.items()):
        print(f"  {minute:3}:  {', '.join(f'{call} {number}' for call, number in counts.most_common())}")


def print_idle(airflow: RealAirflow) -> None:
    """Print the CPU time and memory of the idle components."""
    for dag_id in ("chains", "teardown"):
        airflow.wait_for_dag(dag_id)
    time.sleep(IDLE / 2)
    meter = Meter()
    meter.begin(airflow.pids)
    time.sleep(IDLE)
    meter.sample(airflow.pids)
    print_usage(meter, IDLE)


def print_usage(meter: Meter, seconds: float) -> None:
    """Print the CPU time and memory of the components."""
    print(f"\nIn {seconds:.0f} s, each component:")
    for component in meter.memory:
        print(f"  {component:14} CPU {meter.cpu(component):6.1f} s   memory at most {meter.memory[component]:5.0f} MB")
    print(f"  {'all':14} CPU {sum(map(meter.cpu, meter.memory)):6.1f} s")


def _time(text: str | None) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0


if __name__ == "__main__":
    sys.exit(main())
