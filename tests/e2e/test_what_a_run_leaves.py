"""Secrets are searched for in all that a full run leaves behind; test_ui.py has done its part of the run before.

What Airflow shows to whom: `viewer` and `user` see no connection; `op` and `admin` see connections with their secrets
masked. Who runs `airflow connections get` on the machine has the database and the Fernet key, and so the secrets.

Airflow itself writes down what this provider cannot hide: its audit log holds the command line of `airflow connections
add`, with the password masked but not the extra; and where a task logs a password, the task's log has it masked, but
not the copy on the output of LocalExecutor.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from airflow_provider_batches.emulator import Emulator, Fault
from scripts.real_airflow import RealAirflow, RealAirflowError
from tests.canary import ECHO, KEY, found_in
from tests.e2e.conftest import FERNET_KEY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROLES = ("viewer", "user", "op", "admin")
DAGS = ("teardown_batch", "scheduled_teardown", "ways_to_fail")


@pytest.fixture(scope="module")
def cli(airflow: RealAirflow, api: Emulator) -> dict[str, str]:
    """What Airflow's command line prints: by the name of the command."""

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "connections", *command],
            env=airflow.env,
            cwd=airflow.home,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return {
        "add": run("add", "anthropic_cli", "--conn-json", api.connection_json),
        "list": run("list"),
        "get": run("get", "anthropic_default", "--output", "json"),
    }


@pytest.fixture(scope="module")
def batches(airflow: RealAirflow, api: Emulator, cli: dict[str, str]) -> dict[str, str]:
    """The batches of a run in which much goes wrong, by what goes wrong with each."""
    batches = {name: api.add_batch(status="in_progress") for name in ("refused", "echoed", "slow", "running")}
    batches |= {name: api.add_batch(status="ended") for name in ("ended", "saved")}
    api.fault(Fault(endpoint="any", batch_id=batches["refused"], times=None, status=401))
    api.fault(Fault(endpoint="any", batch_id=batches["echoed"], times=None, status=403, body=ECHO))
    conf: dict[str, Any] = {
        **batches,
        "malformed": "../messages",
        "several": [batches["saved"], batches["echoed"]],
        "folder": (airflow.home / "saved").as_uri(),
    }
    run_id = airflow.trigger_dag("ways_to_fail", conf)

    assert airflow.wait_for_run("ways_to_fail", run_id, timeout=600) == "failed"
    states = airflow.task_states("ways_to_fail", run_id)
    assert states == {
        "refused": "failed",
        "echoed": "failed",
        "malformed": "failed",
        "deferred": "success",
        "echoed_in_the_triggerer": "failed",
        "mapped[0]": "success",
        "mapped[1]": "failed",
        "mapped[2]": "failed",
        "several": "failed",
    }
    return batches


def test_nothing_on_the_disk_holds_a_secret(airflow: RealAirflow, batches: dict[str, str], lineage: Path) -> None:
    files = {path: path.read_bytes() for path in (*airflow.home.rglob("*"), lineage) if path.is_file()}

    assert {str(path): found for path, data in files.items() if (found := found_in(data))} == {}

    names = {path.name for path in files}
    assert b"ways_to_fail" in files[lineage]
    assert {"airflow.db", "api-server.log", "scheduler.log", "dag-processor.log", "triggerer.log"} <= names
    written = b"".join(data for path, data in files.items() if path.suffix in (".log", ".jsonl"))
    assert all(batch_id.encode() in written for batch_id in batches.values())
    assert b"x-api-key: ***" in written
    assert f"{batches['saved']}.jsonl" in names


def test_the_database_as_text_holds_no_secret(airflow: RealAirflow, batches: dict[str, str]) -> None:
    with sqlite3.connect(f"file:{airflow.home / 'airflow.db'}?mode=ro", uri=True) as database:
        dump = "\n".join(database.iterdump())
        stored = dict(database.execute("SELECT conn_id, password FROM connection"))

    assert found_in(dump) == []

    for table in ("xcom", "rendered_task_instance_fields", "serialized_dag", "trigger", "log", "task_instance"):
        assert f'CREATE TABLE "{table}"' in dump or f"CREATE TABLE {table}" in dump
    for table in ("xcom", "rendered_task_instance_fields", "serialized_dag", "log", "task_instance"):
        assert f'INSERT INTO "{table}"' in dump
    assert all(batch_id in dump for batch_id in batches.values())
    assert Fernet(FERNET_KEY).decrypt(stored["anthropic_default"].encode()).decode() == KEY
    assert Fernet(FERNET_KEY).decrypt(stored["anthropic_cli"].encode()).decode() == KEY


@pytest.mark.parametrize("role", ROLES)
def test_nobody_reads_a_secret_through_the_rest_api(role: str, airflow: RealAirflow, batches: dict[str, str]) -> None:
    headers = {"Authorization": airflow.authorization(role)}
    seen, refused = [], []
    for path in _paths(airflow):
        try:
            seen.append(json.dumps(airflow.api("GET", path, headers=headers)))
        except RealAirflowError as error:
            refused.append(path)
            seen.append(str(error))

    text = "\n".join(seen)
    assert found_in(text) == []
    assert all(batch_id in text for batch_id in batches.values())
    assert all("connections" in path or "eventLogs" in path for path in refused)
    assert ('"connection_id": "anthropic_default"' in text) == (role in ("op", "admin"))


def test_the_command_line_lists_no_secret(cli: dict[str, str]) -> None:
    assert "anthropic_cli" in cli["add"]
    for command in ("add", "list"):
        assert "anthropic_cli" in cli[command]
        assert found_in(cli[command]) == [], command


def test_who_has_the_machine_has_the_key(cli: dict[str, str]) -> None:
    assert KEY in cli["get"]


def _paths(airflow: RealAirflow) -> list[str]:
    paths = [
        "/connections?limit=100",
        "/connections/anthropic_default",
        "/connections/anthropic_cli",
        "/eventLogs?limit=1000",
        "/importErrors",
    ]
    for dag_id in DAGS:
        paths += [f"/dags/{dag_id}/details", f"/dagSources/{dag_id}", f"/dags/{dag_id}/tasks"]
        for run in airflow.api("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]:
            run_path = f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}"
            # Task instances carry their rendered templates and their trigger.
            paths += [run_path, f"{run_path}/taskInstances?limit=100"]
            for ti in airflow.task_instances(dag_id, run["dag_run_id"]):
                task_path = f"{run_path}/taskInstances/{ti['task_id']}"
                index = f"map_index={ti['map_index']}"
                paths.append(f"{task_path}/logs/{ti['try_number']}?{index}&full_content=true")
                entries = airflow.api("GET", f"{task_path}/xcomEntries?{index}")["xcom_entries"]
                paths += [f"{task_path}/xcomEntries/{entry['key']}?{index}" for entry in entries]
    return paths
