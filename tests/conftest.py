"""What all tests share. Their Airflow is in a temporary folder: see `airflow_dags_folder` in pyproject.toml."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

import pytest

from tests.versions import skip_what_this_airflow_lacks

#: What this package's own plugin sets.
SET = ("HOME", "_CORE__DAGS_FOLDER", "_CORE__LOAD_EXAMPLES", "_DATABASE__SQL_ALCHEMY_CONN")
# Nothing of the developer's own Airflow or account reaches the tests.
for name in list(os.environ):
    if name.startswith(("AIRFLOW", "ANTHROPIC")) and name.removeprefix("AIRFLOW_") not in SET:
        del os.environ[name]


@pytest.fixture(autouse=True)
def clients_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test's hooks leave open, as the end of a task's process does, before another test may notice it."""
    from airflow_provider_batches.api import BatchesClient

    clients: WeakSet[BatchesClient] = WeakSet()
    make = BatchesClient.__init__

    def watched(client: BatchesClient, *args: Any, **options: Any) -> None:
        make(client, *args, **options)
        clients.add(client)

    monkeypatch.setattr(BatchesClient, "__init__", watched)
    yield
    for client in clients:
        client.close()


@pytest.fixture
def server_says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set what Airflow's API server answers if it is asked for a task instance's state."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    def set_answer(state: str | None = None, *, error: Exception | None = None, seconds: float = 0) -> None:
        def answer(*, dag_id: str, map_index: int, task_ids: list[str], run_ids: list[str]) -> dict[str, Any]:
            time.sleep(seconds)
            if error:
                raise error
            name = task_ids[0] if map_index < 0 else f"{task_ids[0]}_{map_index}"
            return {run_ids[0]: {name: state}}

        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(answer))

    return set_answer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left alone with it."""
    for item in items:
        if "run_dag" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.feature("dag_test"))
    skip_what_this_airflow_lacks(items)
    folders = ("system", "dags", "examples", "packaging", "integration")
    items.sort(key=lambda item: next((i for i, name in enumerate(folders) if name in item.path.parts), len(folders)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal out whole files, and whole folders where an Airflow is started for them, so that it is started once."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file.rpartition("/")[0]
            return folder if folder in ("tests/dags", "tests/system") else file

    return Scheduling(config, log)
