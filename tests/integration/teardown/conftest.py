from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.teardown.saving import Saver
from tests.integration.teardown.harness import Task, Watch

PACKAGE = "airflow_provider_batches"


def make_brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the real pauses out."""
    for module, name, value in (
        ("api.flows", "MISSING_PAUSES", (0.001, 0.001, 0.001)),
        ("api.waiting", "MISSING_PAUSES", (0.001, 0.001, 0.001)),
        ("api.retry", "pause", lambda *_: 0.0),
        ("api.pacing", "pause", lambda *_: 0.01),
        ("api.pacing", "FIRST_GAP", 0.001),
        ("api.pacing", "LAST_GAP", 0.01),
        ("api.pacing", "OUTAGE_PAUSE", 0.01),
        ("teardown.job", "DOUBT", 0.01),
        ("teardown.saving", "pause", lambda *_: 0.0),
        ("triggers.batches", "FIRST_LOOK", 0.02),
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
        return Task(**{"poll_interval": 0.05, "timeout": 20, **kwargs})

    return make
