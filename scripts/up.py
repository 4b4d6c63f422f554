"""Runs Airflow's UI with the emulator and the example DAGs until Ctrl-C, to try things by hand."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from scripts.processes import emulator, exit_on_signals
from scripts.real_airflow import RealAirflow

EXAMPLES = Path(__file__).parents[1] / "example_dags"
BATCHES: dict[str, dict[str, Any]] = {
    "running": {"status": "in_progress"},
    "running, takes long to be canceled": {"status": "in_progress", "cancel_seconds": 60},
    "ended, partly errored": {"status": "ended", "age_seconds": 7200, "outcomes": {"succeeded": 97, "errored": 3}},
}


def main() -> int:
    exit_on_signals()
    print("Starting Airflow and the emulator ...", flush=True)
    with (
        # Batches that you create end within a minute.
        emulator("--batch-seconds", "60", "--cancel-seconds", "3") as api,
        # By default, Airflow disables the Test button of connections.
        RealAirflow(dags_folder=EXAMPLES, env={"AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}, log=print) as airflow,
    ):
        connection = {"connection_id": "anthropic_default", **json.loads(api.connection_json)}
        airflow.api("POST", "/connections", json=connection)
        for dag_file in EXAMPLES.glob("*.py"):
            airflow.wait_for_dag(dag_file.stem)
            # DAGs with a schedule stay paused until you unpause them.
            if not airflow.api("GET", f"/dags/{dag_file.stem}")["timetable_summary"]:
                airflow.api("PATCH", f"/dags/{dag_file.stem}", json={"is_paused": False})
        print(f"\nAirflow   {airflow.url}   user {airflow.username}, password {airflow.password}")
        print(f"Emulator  {api.url}   API key {api.api_key}")
        print("\nBatches to try teardown_batch on:")
        for what, batch in BATCHES.items():
            (batch_id,) = api.add_batches(**{"batch_seconds": 86_400, **batch})
            print(f"  {batch_id}   {what}")
        print("\nCtrl-C stops everything.", flush=True)
        while True:
            time.sleep(1)
            airflow.check()


if __name__ == "__main__":
    sys.exit(main())
