from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_batches.emulator import Emulator
from scripts.real_airflow import RealAirflow

HERE = Path(__file__).parent
#: Airflow stops a task after three heartbeats that failed: with its defaults, after one to three minutes.
HEARTBEATS = {
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "2",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "1",
}


@pytest.fixture(scope="package")
def api() -> Iterator[Emulator]:
    # A canceled batch ends long after its test, so that no task ends for another reason than its kill.
    with Emulator(cancel_seconds=3600) as api:
        yield api


@pytest.fixture(scope="package")
def airflow(api: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAirflow]:
    dags = tmp_path_factory.mktemp("dags")
    shutil.copytree(HERE / "dags", dags, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    env = {"AIRFLOW_CONN_ANTHROPIC_DEFAULT": api.connection_json, "AIRFLOW__CORE__PARALLELISM": "12", **HEARTBEATS}
    with RealAirflow(dags_folder=dags, env=env, log=print) as airflow:
        yield airflow
