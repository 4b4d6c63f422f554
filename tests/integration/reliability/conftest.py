from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.reliability.clock import Clock, install
from tests.integration.reliability.matrix import Row
from tests.integration.reliability.stage import Stage


@pytest.fixture
def brisk() -> None:
    """Keep the real pauses, because they pass on the test's clock."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return install(monkeypatch)


@pytest.fixture
def stage(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, certificates: list[Path]
) -> Iterator[Callable[[Row, str, int], Stage]]:
    """Create an API with a row's faults."""
    stages = []

    def make(row: Row, length: str, start: int = 0) -> Stage:
        stages.append(Stage(row, length, clock, monkeypatch, certificates, start))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()
