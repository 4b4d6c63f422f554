from __future__ import annotations

import ast
from pathlib import Path

import pytest
from airflow import __version__ as installed

import airflow_provider_batches
from airflow_provider_batches import _compat

PACKAGE = Path(airflow_provider_batches.__file__).parent


@pytest.mark.parametrize("name", _compat.__all__)
def test_each_name_is_there(name: str) -> None:
    assert getattr(_compat, name) is not None


def test_the_version_is_that_of_the_installed_airflow() -> None:
    assert installed == _compat.AIRFLOW_VERSION


def test_a_task_begins_in_the_triggerer_from_3_3_on() -> None:
    major, minor = (int(part) for part in installed.split(".")[:2])
    assert ((major, minor) >= (3, 3)) == _compat.STARTS_FROM_TRIGGER


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("AirflowFailException", "AirflowException"),
        ("AirflowSensorTimeout", "AirflowException"),
        ("AirflowSkipException", "AirflowException"),
        ("AirflowRescheduleException", "AirflowException"),
        ("TaskDeferralError", "AirflowException"),
        ("TaskDeferralTimeout", "AirflowException"),
    ],
)
def test_the_exceptions_are_those_that_airflow_acts_on(name: str, base: str) -> None:
    assert issubclass(getattr(_compat, name), getattr(_compat, base))


def test_no_other_file_tries_where_airflow_has_something() -> None:
    trying = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Try):
                imported = [n.module or "" for n in ast.walk(node) if isinstance(n, ast.ImportFrom)]
                if any(module.partition(".")[0] == "airflow" for module in imported):
                    trying.append(path.name)
    assert set(trying) == {"_compat.py"}


def test_no_import_that_airflow_calls_deprecated(recwarn: pytest.WarningsRecorder) -> None:
    import importlib

    importlib.reload(_compat)
    assert [str(warning.message) for warning in recwarn if "airflow" in str(warning.message).lower()] == []
