"""What all tests share: an Airflow of their own, in a temporary folder that exists before Airflow is imported."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest

from tests.versions import skip_what_this_airflow_lacks

ROOT = Path(__file__).parents[1]


def _isolate() -> None:
    # Nothing of the developer's own Airflow or account reaches the tests.
    for name in list(os.environ):
        if name.startswith(("AIRFLOW", "ANTHROPIC")):
            del os.environ[name]
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    home = tempfile.mkdtemp(prefix=f"airflow-tests-{worker}-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.update(
        {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
    )


_isolate()

pytest_plugins = ["airflow_provider_batches.emulator.pytest_plugin"]


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


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Make Airflow's metadata database, once for each worker process of the test run; it takes some seconds."""
    from airflow.utils.db import initdb

    initdb()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left alone with it in the end."""
    skip_what_this_airflow_lacks(items)
    folders = ("system", "dags", "packaging", "integration")
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
