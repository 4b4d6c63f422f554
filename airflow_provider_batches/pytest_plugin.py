"""Fixtures for the tests of DAGs: the emulator, and runs of a DAG against it. pytest loads them automatically."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_provider_batches.emulator import Emulator

FOLDER = "airflow_dags_folder"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting that gives the tests an Airflow of their own."""
    parser.addini(FOLDER, "folder of the DAG files; tests then get an AIRFLOW_HOME of their own, with a database")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker that configures the emulator."""
    config.addinivalue_line(
        "markers", "batches_emulator(**options): options of Emulator for the fixture batches_emulator"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Create an `AIRFLOW_HOME` in a temporary folder before Airflow is imported, because Airflow reads it on import."""
    folder = early_config.getini(FOLDER)
    if not folder:
        return
    if "airflow" in sys.modules:
        raise pytest.UsageError(f"{FOLDER}: Airflow was imported before pytest's plugins, so it has another home.")
    home = tempfile.mkdtemp(prefix="airflow-tests-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.update(
        {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__DAGS_FOLDER": str((early_config.rootpath / folder).resolve()),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        }
    )


class DagTestRun:
    """A run of a DAG that has ended.

    Attributes: `state` of the run, and `states` of its tasks by their ID (`success`, `failed`, ...).
    """

    def __init__(self, run: Any) -> None:
        self.state = str(run.state)
        self.states = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
        self._which = {"dag_id": run.dag_id, "run_id": run.run_id}

    def xcom(self, task_id: str, key: str = "return_value") -> Any:
        """Return an XCom of a task, by default its return value. For a mapped task, return a list."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            query = select(XComModel).filter_by(task_id=task_id, key=key, **self._which).order_by(XComModel.map_index)
            found = session.scalars(query).all()
            values = [XComModel.deserialize_value(each) for each in found]
        if found and found[0].map_index >= 0:
            return values
        (value,) = values
        return value


@pytest.fixture
def batches_emulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run an emulator for one test, with the connection `anthropic_default` pointing to it."""
    from airflow_provider_batches.emulator import Emulator

    marker = request.node.get_closest_marker("batches_emulator")
    with Emulator(**(marker.kwargs if marker else {})) as api:
        monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", api.connection_json)
        yield api


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Create Airflow's metadata database, once per process of the test run. Takes a few seconds."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def run_dag(airflow_db: None, batches_emulator: Emulator) -> Callable[..., DagTestRun]:
    """Run a DAG of the DAGs folder against the emulator: `run_dag(dag_id, conf=None)`.

    The DAG runs in the process of the test, by `dag.test()` (Airflow 3.0.2+): triggers included, each task once.
    """

    def run(dag_id: str, conf: dict[str, Any] | None = None) -> DagTestRun:
        from airflow import settings

        from airflow_provider_batches._compat import dag_bag

        bag = dag_bag(settings.DAGS_FOLDER)
        if dag_id not in bag.dags:
            why = "\n".join(f"{file}: {error}" for file, error in bag.import_errors.items())
            raise LookupError(f"There is no DAG {dag_id!r} in {settings.DAGS_FOLDER}. {why}".rstrip())
        dag = bag.dags[dag_id]
        for task in dag.tasks:
            # A retry would only wait: `dag.test` runs each task once.
            task.retries = 0
        return DagTestRun(dag.test(run_conf=conf))

    return run
