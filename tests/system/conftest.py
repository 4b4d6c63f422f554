from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_batches.emulator import Emulator
from scripts.real_airflow import RealAirflow
from tests.statsd import StatsD

HERE = Path(__file__).parent
CANARY = "sk-ant-canary-4b1d7f0e"


@pytest.fixture(scope="package")
def api() -> Iterator[Emulator]:
    with Emulator(api_key=CANARY, cancel_seconds=1) as api:
        yield api


@pytest.fixture(scope="package")
def statsd() -> Iterator[StatsD]:
    """What the Airflow of these tests reports."""
    with StatsD() as statsd:
        yield statsd


@pytest.fixture(scope="package")
def airflow(api: Emulator, statsd: StatsD, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAirflow]:
    """One real Airflow for all tests in here, with the example DAGs and those of the tests."""
    dags = tmp_path_factory.mktemp("dags")
    for folder in (HERE.parents[1] / "example_dags", HERE / "dags"):
        for path in folder.glob("*.py"):
            shutil.copy(path, dags)
    saved = tmp_path_factory.mktemp("saved").as_uri()
    env = {
        "AIRFLOW_CONN_ANTHROPIC_DEFAULT": api.connection_json,
        "AIRFLOW_VAR_BATCH_PIPELINE_FOLDER": saved,
        **statsd.env,
    }
    with RealAirflow(dags_folder=dags, env=env, log=print) as airflow:
        yield airflow
