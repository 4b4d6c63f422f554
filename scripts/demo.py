"""Submit a file of requests on a real Airflow, kill the worker once, save the results and delete the batch.

By default it uses the emulator on this machine. If AIRFLOW_CONN_ANTHROPIC_DEFAULT is set, it cancels, waits for and
deletes a batch of the API of that connection instead. It requires BATCH_ID, the batch to tear down, or MODEL, the model
for a batch that it creates, which costs money.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.processes import emulator, exit_on_signals
from scripts.real_airflow import RealAirflow

PIPELINE, TEARDOWN = "submit_pipeline", "teardown_batch"
CONNECTION = "AIRFLOW_CONN_ANTHROPIC_DEFAULT"
ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "example_dags"
#: The requests and their results, for you to inspect.
FOLDER = ROOT / "build" / "demo"
REQUESTS = 100
# The API ends a batch within 24 h; the rest is for Airflow.
API_ENDS_WITHIN = 25 * 3600.0
STARTED = time.monotonic()


def log(line: str) -> None:
    """Print a line with the seconds since the start."""
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

    return _tear_down(options, connection) if connection else _submit()


def _submit() -> int:
    """Submit a file of requests to the emulator, and kill the worker as soon as the API has received them."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    source = FOLDER / "requests.jsonl"
    source.write_text("".join(f"{json.dumps(request)}\n" for request in _requests("claude-haiku-5-5")))
    log(f"wrote {source.relative_to(ROOT)}: {REQUESTS} requests")
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(emulator("--batch-seconds", "20"))
        log(f"the API is the emulator on {api.url}; nothing leaves this machine")
        env = {CONNECTION: api.connection_json, "AIRFLOW_VAR_SUBMIT_PIPELINE_FOLDER": FOLDER.as_uri()}
        airflow = _start(stack, env)
        # Delays the answer to the create, so that the worker is killed before it arrives.
        api.fault(endpoint="create", delay=5)
        run_id = airflow.trigger_dag(PIPELINE, {"requests": source.as_uri()})
        log(f"triggered DAG {PIPELINE} with this file")
        airflow.wait_until(lambda: api.count("create") > 0, 60, "the API to receive the requests")
        (task,) = (task for task in airflow.task_instances(PIPELINE, run_id) if task["task_id"] == "submit")
        os.kill(task["pid"], signal.SIGKILL)
        log("KILLED the worker of submit: the API has the requests, but its answer is lost")
        if str(airflow.api("GET", "/version")["version"]).startswith("3.0."):
            airflow.wait_for_task(PIPELINE, run_id, "submit", "failed")
            airflow.wait_until(api.ids, 60, "the API to create the batch")
            time.sleep(10)
            log("Airflow 3.0 does not retry a task whose process was killed. Clearing it, as a user would")
            which = {"dag_run_id": run_id, "task_ids": ["submit"], "include_downstream": True}
            options = {"dry_run": False, "only_failed": False}
            airflow.api("POST", f"/dags/{PIPELINE}/clearTaskInstances", json={**which, **options})
        state = _follow(airflow, PIPELINE, run_id, timeout=300)
        log(f"the run has ended: {state}")
        _print_tasks(airflow, PIPELINE, run_id)
        lines = [line for path in (FOLDER / "results").glob("*.jsonl") for line in path.read_bytes().splitlines()]
        creates, left = api.count("create"), api.ids()
    print("\nProof:")
    print(f"  results on disk: {len(lines)} of {REQUESTS}, in {FOLDER.relative_to(ROOT)}/results")
    print(f"  creates that the API received: {creates}; remaining batches: {len(left)}")
    return 0 if (state, len(lines), creates, left) == ("success", REQUESTS, 1, []) else 1


def _start(stack: contextlib.ExitStack, env: dict[str, str]) -> RealAirflow:
    log("starting Airflow: api-server, scheduler, dag-processor, triggerer (SQLite, temporary folder)")
    airflow = stack.enter_context(RealAirflow(dags_folder=EXAMPLES, env=env, log=log))
    log(f"Airflow {airflow.api('GET', '/version')['version']} is up on {airflow.url}")
    return airflow


def _tear_down(options: argparse.Namespace, connection: str) -> int:
    """Cancel, wait for and delete a batch of a real API."""
    with contextlib.ExitStack() as stack:
        airflow = _start(stack, {CONNECTION: connection})
        hook = _hook(airflow.home, connection)
        batch = hook.get_batch(options.batch_id) if options.batch_id else hook.create_batch(_requests(options.model))
        log(f"batch {batch.id}: {batch.request_counts.total} requests, {batch.processing_status}")
        params = {"batch_id": batch.id, "action": "discard"}
        run_id = airflow.trigger_dag(TEARDOWN, params)
        log(f"triggered DAG {TEARDOWN} with {json.dumps(params)}")
        state = _follow(airflow, TEARDOWN, run_id, timeout=API_ENDS_WITHIN)
        log(f"the run has ended: {state}")
        _print_tasks(airflow, TEARDOWN, run_id)
        _print_failed_tries(airflow, TEARDOWN, run_id)
        return _prove_deletion(hook, batch.id) if state == "success" else 1


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


def _follow(airflow: RealAirflow, dag_id: str, run_id: str, timeout: float) -> str:
    """Log each change of a task's state until the run has ended; return the run's state."""
    seen: dict[str, str | None] = {}
    deadline = time.monotonic() + timeout
    while True:
        state = str(airflow.run(dag_id, run_id)["state"])
        for task in _by_start(airflow, dag_id, run_id):
            task_id, task_state = task["task_id"], task["state"]
            if task_state not in (None, seen.get(task_id), "scheduled", "queued"):
                log(f"  {task_id}: {task_state}")
            seen[task_id] = task_state
        if state in ("success", "failed"):
            return state
        if time.monotonic() > deadline:
            return f"still {state} after {timeout:g} s"
        time.sleep(0.5)


def _by_start(airflow: RealAirflow, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    return sorted(airflow.task_instances(dag_id, run_id), key=lambda task: task["start_date"] or "9")


def _print_tasks(airflow: RealAirflow, dag_id: str, run_id: str) -> None:
    run_start = _time(airflow.run(dag_id, run_id)["start_date"])
    print("\nTasks, with the times that Airflow recorded:")
    print("  task         state     tries  started  ended")
    for task in _by_start(airflow, dag_id, run_id):
        started, ended = (
            f"+{_time(task[field]) - run_start:.1f} s" if task[field] else "-" for field in ("start_date", "end_date")
        )
        print(f"  {task['task_id']:12} {task['state']!s:9} {task['try_number']:5}  {started:>7}  {ended:>7}")


def _print_failed_tries(airflow: RealAirflow, dag_id: str, run_id: str) -> None:
    for task in airflow.task_instances(dag_id, run_id):
        for number in range(1, task["try_number"] + (task["state"] == "failed")):
            print(f"\nLog of {task['task_id']}, try {number}, which failed:")
            print(airflow.task_log(dag_id, run_id, task["task_id"], number))


def _prove_deletion(hook: Any, batch_id: str) -> int:
    """Retrieve the batch once more: the API must answer 404."""
    from airflow_provider_batches.api.errors import NotFoundError

    # The hook retries a 404 and logs each retry, but here a 404 is expected.
    logging.getLogger("airflow_provider_batches").setLevel(logging.WARNING)
    print("\nProof:")
    try:
        batch = hook.get_batch(batch_id)
    except NotFoundError as error:
        print(f"  GET /v1/messages/batches/{batch_id}")
        print(f"  -> {error.status} {error.error_type}: {error.message} (request-id {error.request_id})")
        print("  The batch no longer exists.")
        return 0
    print(f"  The batch still exists: {batch.processing_status}.", file=sys.stderr)
    return 1


def _time(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


if __name__ == "__main__":
    sys.exit(main())
