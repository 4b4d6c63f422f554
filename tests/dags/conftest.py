from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import shorten_pauses

try:  # 3.2+
    from airflow.sdk.exceptions import ParamValidationError
except ImportError:  # 3.0, 3.1
    from airflow.exceptions import ParamValidationError

__all__ = ["EXAMPLES", "ParamValidationError"]

EXAMPLES = Path(__file__).parents[2] / "example_dags"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs a DAG, before the tests of what this Airflow lacks are skipped."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "run" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.feature("dag_test"))


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the real pauses out."""
    shorten_pauses(monkeypatch)


@pytest.fixture(autouse=True)
def pipeline_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where batch_pipeline saves results."""
    folder = tmp_path / "pipeline"
    monkeypatch.setenv("AIRFLOW_VAR_BATCH_PIPELINE_FOLDER", f"file://{folder}")
    return folder


@pytest.fixture
def example() -> Callable[[str], Any]:
    """Load an example DAG as Airflow does."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before 3.2
        from airflow.models.dagbag import DagBag

    def load(dag_id: str) -> Any:
        bag = DagBag(str(EXAMPLES / f"{dag_id}.py"))
        assert not bag.import_errors
        return bag.dags[dag_id]

    return load


@pytest.fixture
def run(airflow_db: None, example: Callable[[str], Any]) -> Callable[..., DagTestRun]:
    """Run an example DAG in this process, triggers included, each task once."""

    def test(dag_id: str, **conf: Any) -> DagTestRun:
        dag = example(dag_id)
        for task in dag.tasks:
            task.retries = 0
        return DagTestRun(dag.test(run_conf=conf))

    return test


class DagTestRun:
    """A run that has ended."""

    def __init__(self, dag_run: Any) -> None:
        self.state = str(dag_run.state)
        self.states = {ti.task_id: str(ti.state) for ti in dag_run.get_task_instances()}
        self._run_id = dag_run.run_id
        self._dag_id = dag_run.dag_id

    def xcom(self, task_id: str, key: str = "return_value") -> Any:
        """Return an XCom of a task."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            query = select(XComModel).filter_by(dag_id=self._dag_id, run_id=self._run_id, task_id=task_id, key=key)
            return XComModel.deserialize_value(session.scalars(query).one())
