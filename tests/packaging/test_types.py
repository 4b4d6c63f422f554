"""What the README, the documentation and the example DAGs show passes strict type checkers in a project of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import BLOCKS, ROOT

pytestmark = pytest.mark.system

#: An upstream task's output, and a list of them, for every template field.
OUTPUTS = """
from airflow.sdk import dag, task

from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator, ListBatchesOperator
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor


@task
def upstream() -> str:
    return "msgbatch_1"


@dag()
def outputs() -> None:
    given, listed = upstream(), ListBatchesOperator(task_id="list", older_than=upstream(), limit=upstream())
    cancel = CancelBatchOperator(task_id="cancel", batch_id=given, conn_id=given)
    BatchEndedSensor(task_id="wait", batch_id=[given, cancel.output], conn_id=given)
    DeleteBatchOperator(task_id="delete", batch_id=given, conn_id=given)
    SaveBatchResultsOperator(task_id="save", batch_id=given, path=given, conn_id=given)
    TeardownBatchesOperator(task_id="tear_down", batch_ids=listed.output, save_results_to=given, report_only=given)
    TeardownBatchesOperator(task_id="discard", batch_ids=[given], discard_results=given, conn_id=given)


outputs()
"""
CHECKERS = {
    "mypy": ["-m", "mypy", "--strict", "."],
    "pyright": ["-m", "basedpyright", "--pythonpath", sys.executable, "."],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("project")
    for number, (page, block) in enumerate(BLOCKS):
        name = page.removesuffix(".md").replace("/", "_").replace("-", "_").lower()
        (project / f"{name}_{number}.py").write_text(block)
    for path in (ROOT / "example_dags").glob("*.py"):
        shutil.copy(path, project)
    (project / "outputs.py").write_text(OUTPUTS)
    (project / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "standard"}))
    return project


@pytest.mark.parametrize("checker", CHECKERS)
def test_what_is_shown_passes(checker: str, project: Path) -> None:
    found = subprocess.run([sys.executable, *CHECKERS[checker]], cwd=project, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_what_is_wrong_does_not_pass(checker: str, project: Path, tmp_path: Path) -> None:
    wrong = (
        (project / "outputs.py").read_text().replace('task_id="cancel", batch_id=given', 'task_id="cancel", batch_id=1')
    )
    (tmp_path / "wrong.py").write_text(wrong)
    found = subprocess.run([sys.executable, *CHECKERS[checker]], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "batch_id" in found.stdout
