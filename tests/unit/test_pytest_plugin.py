from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


def test_the_fixture_runs_an_emulator_and_sets_the_connection(pytester, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", raising=False)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    pytester.makepyfile(
        """
        import json, os, pytest

        def connection():
            return json.loads(os.environ["AIRFLOW_CONN_ANTHROPIC_DEFAULT"])

        def test_by_default(batches_emulator):
            assert connection()["host"] == batches_emulator.url

        @pytest.mark.batches_emulator(api_key="other", batch_seconds=0)
        def test_with_options(batches_emulator):
            assert connection()["password"] == "other"
            assert batches_emulator.batch(batches_emulator.add_batch())["processing_status"] == "ended"

        def test_afterwards():
            assert "AIRFLOW_CONN_ANTHROPIC_DEFAULT" not in os.environ
        """
    )
    pytester.runpytest_inprocess("--strict-markers", "-p", "no:cacheprovider").assert_outcomes(passed=3)


def run_in(folder: Path, *args: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that keeps its DAGs in `pipelines`, and whose conftest imports Airflow."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nairflow_dags_folder = pipelines\n")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "conftest.py").write_text("import airflow.settings\n")
    return tmp_path


@pytest.mark.feature("dag_test")
def test_a_dag_runs_on_an_airflow_of_its_own_without_its_retries(project: Path) -> None:
    (project / "pipelines" / "one.py").write_text(
        """
from airflow.sdk import dag, task

@dag(params={"fails": False}, default_args={"retries": 5})
def one():
    @task
    def first(**context):
        if context["params"]["fails"]:
            raise RuntimeError
        return [1, 2]
    first()

one()
"""
    )
    (project / "test_one.py").write_text(
        """
import os, pytest
from airflow import settings

def test_it_runs(run_dag):
    run = run_dag("one")
    assert (run.state, run.states, run.xcom("first")) == ("success", {"first": "success"}, [1, 2])
    assert settings.AIRFLOW_HOME == os.environ["AIRFLOW_HOME"] != os.path.expanduser("~/airflow")
    assert "airflow-tests-" in str(settings.engine.url)

def test_it_fails(run_dag):
    assert run_dag("one", {"fails": True}).state == "failed"

def test_another_name(run_dag):
    with pytest.raises(LookupError, match="There is no DAG 'two' in .*pipelines"):
        run_dag("two")
"""
    )
    assert "3 passed" in run_in(project)


def test_a_dag_that_does_not_import_says_why(project: Path) -> None:
    (project / "pipelines" / "broken.py").write_text("import no_such_module  # in an Airflow DAG\n")
    (project / "test_broken.py").write_text("def test_broken(run_dag):\n    run_dag('broken')\n")
    out = run_in(project)
    assert "There is no DAG 'broken'" in out
    assert "No module named 'no_such_module'" in out


def test_an_airflow_that_was_imported_too_early_is_an_error(project: Path) -> None:
    command = "import airflow, sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider']))"
    found = subprocess.run([sys.executable, "-c", command], cwd=project, capture_output=True, text=True)
    assert "airflow_dags_folder: Airflow was imported before" in found.stderr
