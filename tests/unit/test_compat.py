from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow import __version__ as installed
from packaging.version import Version

import airflow_provider_batches
from airflow_provider_batches import _compat
from airflow_provider_batches._compat import TaskMemory

PACKAGE = Path(airflow_provider_batches.__file__).parent


@pytest.mark.parametrize("name", ["BaseHook", "conf", "mask_secret"])
def test_each_name_is_there(name: str) -> None:
    assert getattr(_compat, name) is not None


def test_the_version_is_that_of_the_installed_airflow() -> None:
    assert installed == _compat.AIRFLOW_VERSION


def test_a_task_begins_in_the_triggerer_from_3_3_on() -> None:
    major, minor = (int(part) for part in installed.split(".")[:2])
    assert ((major, minor) >= (3, 3)) == _compat.STARTS_FROM_TRIGGER


def test_the_page_is_shown_from_3_1_1_on() -> None:
    assert (Version(installed) >= Version("3.1.1")) == _compat.HAS_PAGE


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


def test_no_other_file_tries_several_places_of_airflow() -> None:
    trying = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Try):
                imported = [n.module or "" for n in ast.walk(node) if isinstance(n, ast.ImportFrom)]
                if any(module.partition(".")[0] == "airflow" for module in imported):
                    trying.append(path.name)
    assert set(trying) == {"_compat.py"}


def test_nothing_is_imported_that_airflow_calls_deprecated(recwarn: pytest.WarningsRecorder) -> None:
    import importlib

    importlib.reload(_compat)
    assert [str(warning.message) for warning in recwarn if "airflow" in str(warning.message).lower()] == []


def memory(dag_id: str = "dag", run_id: str = "run", task_id: str = "task", map_index: int = -1) -> TaskMemory:
    return TaskMemory(
        {"ti": SimpleNamespace(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)},
    )


class Store:
    """What Airflow 3.3 hands to a task."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = value

    def delete(self, key: str) -> None:
        del self.values[key]


def test_a_task_remembers_in_its_state_store_if_there_is_one() -> None:
    store = Store()
    memory = TaskMemory({"ti": SimpleNamespace(), "task_state_store": store})
    memory.set("chosen", [1])
    assert (memory.expires, memory.get("chosen"), store.values) == (True, [1], {"chosen": [1]})
    memory.delete("chosen")
    assert (memory.get("chosen"), store.values) == (None, {})


class TestWhatATaskRemembersInAVariable:
    @pytest.fixture(autouse=True)
    def variables(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """The Variables of an Airflow on PostgreSQL, which refuses what its column has no room for."""
        kept: dict[str, Any] = {}

        def put(key: str, value: Any, serialize_json: bool) -> None:
            assert len(key) <= 250
            kept[key] = value

        variable = SimpleNamespace(
            get=lambda key, default, deserialize_json: kept.get(key, default), set=put, delete=kept.pop
        )
        monkeypatch.setattr(_compat, "Variable", variable)
        return kept

    @pytest.mark.parametrize("length", [1, 237])
    def test_has_a_name_that_is_unchanged_if_it_fits(self, variables: dict[str, Any], length: int) -> None:
        memory("d" * (length - 1) + "g", "r", "t", 7).set("k" * 6, 1)

        assert list(variables) == ["d" * (length - 1) + "g.r.t.7.kkkkkk"]

    def test_is_found_and_deleted_with_ids_of_any_length(self, variables: dict[str, Any]) -> None:
        for length in (60, 80, 100, 250):
            made = [memory("d" * length, "r" * length, "t" * length, index) for index in (-1, 1000)]
            assert [(each.expires, each.get("chosen")) for each in made] == [(False, None)] * 2
            for number, each in enumerate(made):
                each.set("chosen", [number])
            assert [each.get("chosen") for each in made] == [[0], [1]]
            for each in made:
                each.delete("chosen")
            assert variables == {}

    def test_is_not_another_task_s_if_its_name_is_cut(self, variables: dict[str, Any]) -> None:
        long = "x" * 250
        for ids in ((long, long + "1"), (long, long + "2"), (long + ".a", long), (long, "a." + long)):
            memory(*ids).set("chosen", 1)
        memory(long, long).set("other", 1)

        assert len(variables) == 5
        assert {name.rpartition(".")[2] for name in variables} == {"chosen", "other"}
