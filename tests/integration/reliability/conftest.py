from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.reliability.clock import Clock, Loop, install
from tests.integration.reliability.matrix import Row
from tests.integration.reliability.stage import Stage


@pytest.fixture
def brisk() -> None:
    """Leave the real pauses in: they pass on the test's clock."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, test = install(monkeypatch), threading.get_ident()
    new_event_loop = asyncio.events.new_event_loop

    def make() -> asyncio.AbstractEventLoop:
        return Loop(clock) if threading.get_ident() == test else new_event_loop()

    monkeypatch.setattr(asyncio.events, "new_event_loop", make)
    return clock


@pytest.fixture
def stage(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, certificates: list[Path]
) -> Iterator[Callable[[Row, str], Stage]]:
    """Make an API that a row's trouble comes over."""
    stages = []

    def make(row: Row, length: str) -> Stage:
        stages.append(Stage(row, length, clock, monkeypatch, certificates))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()
