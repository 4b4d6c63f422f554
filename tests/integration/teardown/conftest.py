from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.results.saving import Saver
from tests.integration.teardown.harness import Task, Watch

PACKAGE = "airflow_provider_batches"


def make_brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the real pauses out."""
    again = (0.001, 0.001, 0.001)
    for module, name, value in (
        ("api.flows", "NOT_FOUND_PAUSES", again),
        ("api.flows", "KEY_PAUSES", again),
        ("api.flows", "WORKING_KEY_PAUSES", again),
        ("api.flows", "SPEND_LIMIT_PAUSES", (0.001,)),
        ("api.retry", "backoff", lambda *_: 0.0),
        ("api.throttle", "backoff", lambda *_: 0.01),
        ("api.throttle", "FIRST_GAP", 0.001),
        ("api.throttle", "LAST_GAP", 0.01),
        ("api.throttle", "OUTAGE_PAUSE", 0.01),
        ("teardown.job", "LIST_LAG", 0.01),
        ("triggers.batches", "FIRST_POLL", 0.02),
        ("operators.teardown", "WORKER_SECONDS", 0.0),
    ):
        monkeypatch.setattr(importlib.import_module(f"{PACKAGE}.{module}"), name, value)


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    make_brisk(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def watch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """See that nothing is deleted before its file was read back."""
    return watching(folder, monkeypatch)


def watching(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch(folder)
    check = Saver.check

    def checked(self: Saver, batch_id: str, saved: Any) -> None:
        check(self, batch_id, saved)
        watch.checked.add(batch_id)

    monkeypatch.setattr(Saver, "check", checked)
    return watch


@pytest.fixture
def api(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator(on_request=watch) as api:
        monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", api.connection_json)
        yield api
    assert watch.faults == []


@pytest.fixture
def task(watch: Watch) -> Callable[..., Task]:
    def make(**kwargs: Any) -> Task:
        watch.active = "save_results_to" in kwargs
        discard = not watch.active and "report_only" not in kwargs
        return Task(**{"poll_interval": 0.05, "timeout": 20, "discard_results": discard, **kwargs})

    return make
