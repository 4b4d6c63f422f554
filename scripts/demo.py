"""Take a running batch through cancel, wait and delete on a real Airflow, and show that the API no longer knows it.

By default it uses the emulator on this machine. If AIRFLOW_CONN_ANTHROPIC_DEFAULT is set, it uses the API of that
connection, and requires BATCH_ID, the batch to tear down, or MODEL, the model for a batch that it creates, which costs
money.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.processes import EmulatorProcess, emulator, exit_on_signals
from scripts.real_airflow import RealAirflow

DAG_ID = "teardown_batch"
CONNECTION = "AIRFLOW_CONN_ANTHROPIC_DEFAULT"
EXAMPLES = Path(__file__).parents[1] / "example_dags"
REQUESTS = 100
# The longest that the API takes to end a batch, and some more for Airflow.
API_ENDS_WITHIN = 25 * 3600.0
STARTED = time.monotonic()


def say(line: str) -> None:
    """Print what happens, with the seconds since the start."""
    print(f"{time.monotonic() - STARTED:6.1f} s  {line}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--batch-id", help="tear down this batch of the connection's workspace")
    parser.add_argument("--model", help="create a batch of 100 short requests for this model (this costs money)")
    options = parser.parse_args(arguments)
    exit_on_signals()

    connection = os.environ.get(CONNECTION)
    if connection and not (options.batch_id or options.model):
        parser.exit(
            2,
            f"{CONNECTION} is set, so this would use a real API. Name the batch to cancel and delete:\n"
            "  make demo BATCH_ID=msgbatch_...\n"
            "or a model for a new batch of 100 short requests, which costs money:\n"
            "  make demo MODEL=...\n",
        )
    if not connection and options.batch_id:
        parser.exit(2, f"BATCH_ID names a batch of a real API: set {CONNECTION} to reach it.\n")

    with contextlib.ExitStack() as stack:
        api: EmulatorProcess | None = None
        if not connection:
            # A batch that would run for an hour, and takes a few seconds to be canceled.
            api = stack.enter_context(emulator("--batch-seconds", "3600", "--cancel-seconds", "8"))
            connection = api.connection_json
            say(f"the API is the emulator on {api.url}; nothing leaves this machine")
        say("starting Airflow: api-server, scheduler, dag-processor, triggerer (SQLite, temporary folder)")
        airflow = stack.enter_context(RealAirflow(dags_folder=EXAMPLES, env={CONNECTION: connection}, say=say))
        say(f"Airflow {airflow.api('GET', '/version')['version']} is up on {airflow.url}")

        hook = _hook(airflow.home, connection)
        batch = (
            hook.get_batch(options.batch_id)
            if options.batch_id
            else hook.create_batch(_requests(options.model or "claude-haiku-5-5"))
        )
        say(f"batch {batch.id}: {batch.request_counts.total} requests, {batch.processing_status}")

        run_id = airflow.trigger_dag(DAG_ID, {"batch_id": batch.id})
        say(f'triggered DAG {DAG_ID} with {{"batch_id": "{batch.id}"}}')
        state = _follow(airflow, run_id, timeout=180 if api else API_ENDS_WITHIN)
        say(f"the run has ended: {state}")

        _print_tasks(airflow, run_id)
        if api:
            _print_requests(api.requests(), batch.id)
        _print_failed_tries(airflow, run_id)
        if state != "success":
            return 1
        return _prove_deletion(hook, batch.id)


def _hook(home: Path, connection: str) -> Any:
    """Return the provider's hook in this process, with the same connection as the tasks."""
    os.environ.update({"AIRFLOW_HOME": str(home), CONNECTION: connection})
    from airflow_provider_batches.hooks.batches import BatchesHook

    return BatchesHook()


def _requests(model: str) -> list[dict[str, Any]]:
    message = {"role": "user", "content": "Say yes."}
    return [
        {"custom_id": f"demo-{number}", "params": {"model": model, "max_tokens": 1, "messages": [message]}}
        for number in range(REQUESTS)
    ]


def _follow(airflow: RealAirflow, run_id: str, timeout: float) -> str:
    """Say each change of a task's state until the run has ended."""
    seen: dict[str, str | None] = {}
    deadline = time.monotonic() + timeout
    while True:
        state = str(airflow.run(DAG_ID, run_id)["state"])
        for task in _by_start(airflow, run_id):
            task_id, task_state = task["task_id"], task["state"]
            if task_state not in (None, seen.get(task_id), "scheduled", "queued"):
                say(f"  {task_id}: {task_state}")
            seen[task_id] = task_state
        if state in ("success", "failed"):
            return state
        if time.monotonic() > deadline:
            return f"still {state} after {timeout:g} s"
        time.sleep(0.5)


def _by_start(airflow: RealAirflow, run_id: str) -> list[dict[str, Any]]:
    return sorted(airflow.task_instances(DAG_ID, run_id), key=lambda task: task["start_date"] or "9")


def _print_tasks(airflow: RealAirflow, run_id: str) -> None:
    run_start = _time(airflow.run(DAG_ID, run_id)["start_date"])
    print("\nTasks, by Airflow's own clock:")
    print("  task     state     tries  started  ended")
    for task in _by_start(airflow, run_id):
        started, ended = (
            f"+{_time(task[field]) - run_start:.1f} s" if task[field] else "-" for field in ("start_date", "end_date")
        )
        print(f"  {task['task_id']:8} {task['state']!s:9} {task['try_number']:5}  {started:>7}  {ended:>7}")


def _print_requests(requests: list[dict[str, Any]], batch_id: str) -> None:
    print("\nRequests, as the API saw them:")
    start = requests[0]["time"] if requests else 0.0
    for request in requests:
        path = request["path"].replace(batch_id, "{batch_id}")
        print(f"  +{request['time'] - start:5.1f} s  {request['method']:6} {path} -> {request['status']}")


def _print_failed_tries(airflow: RealAirflow, run_id: str) -> None:
    for task in airflow.task_instances(DAG_ID, run_id):
        for number in range(1, task["try_number"] + (task["state"] == "failed")):
            print(f"\nLog of {task['task_id']}, try {number}, which failed:")
            print(airflow.task_log(DAG_ID, run_id, task["task_id"], number))


def _prove_deletion(hook: Any, batch_id: str) -> int:
    """Ask the API for the batch once more: it has to answer that there is none."""
    from airflow_provider_batches.api.errors import NotFoundError

    # A 404 is retried before it is believed, and each retry is logged: here, all of them are expected.
    logging.getLogger("airflow_provider_batches").setLevel(logging.WARNING)
    print("\nProof:")
    try:
        batch = hook.get_batch(batch_id)
    except NotFoundError as error:
        print(f"  GET /v1/messages/batches/{batch_id}")
        print(f"  -> {error.status} {error.error_type}: {error.message} (request-id {error.request_id})")
        print("  The API no longer knows the batch.")
        return 0
    print(f"  The API still knows the batch: {batch.processing_status}.", file=sys.stderr)
    return 1


def _time(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


if __name__ == "__main__":
    sys.exit(main())
