from __future__ import annotations

import time

import pytest

from tests.unit.api.conftest import batch as batch
from tests.unit.api.conftest import batch_json as batch_json
from tests.unit.waiting.fakes import PAGE, Clock


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of 10 batches."""
    monkeypatch.setattr("airflow_provider_batches.waiting.pages.MAX_PAGE", PAGE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that a test moves."""
    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    return clock
