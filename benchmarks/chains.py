"""Ten batches canceled, waited for and deleted by mapped tasks on a real Airflow."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.measure import Control, Numbers, main
from benchmarks.sides import CONNECTION
from scripts.real_airflow import COMPONENTS, RealAirflow
from scripts.usage import cpu_of

CHAINS = 10
DAGS = Path(__file__).parent / "dags"
#: Seconds for which the idle Airflow is measured first, once it has settled.
IDLE = 20.0
SETTLE = 20.0


def run(side: str, url: str) -> Numbers:
    api = Control(url)
    batch_ids = api.add(CHAINS)
    env = {CONNECTION: os.environ[CONNECTION], "BENCHMARK_BATCH_IDS": " ".join(batch_ids)}
    with RealAirflow(dags_folder=DAGS / side, env=env) as airflow:
        airflow.wait_for_dag("chains")
        time.sleep(SETTLE)
        roots = [airflow.pid(component) for component in COMPONENTS]
        cpu = cpu_of(roots)
        time.sleep(IDLE)
        idle = (cpu_of(roots) - cpu) / IDLE
        cpu, clock = cpu_of(roots), time.monotonic()
        run_id = airflow.trigger_dag("chains")
        state = airflow.wait_for_run("chains", run_id, timeout=420)
        seconds, cpu = time.monotonic() - clock, cpu_of(roots) - cpu
        tasks = airflow.task_instances("chains", run_id)
    return {
        "cpu": cpu,
        "cpu_beyond_idle": cpu - idle * seconds,
        "seconds": seconds,
        "success": float(state == "success"),
        "tries_lost": sum(max(0, task["try_number"] - 1) for task in tasks),
        "tasks_unsuccessful": sum(task["state"] != "success" for task in tasks),
        "batches_left": len(api.call("GET", "batches")["ids"]),
    }


if __name__ == "__main__":
    main(run)
