"""Give tests an emulator: ``pytest_plugins = ["airflow_provider_batches.emulator.pytest_plugin"]``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_batches.emulator import Emulator


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker that configures the fixture."""
    config.addinivalue_line(
        "markers", "batches_emulator(**options): options of Emulator for the fixture batches_emulator"
    )


@pytest.fixture
def batches_emulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run an emulator for one test, with the connection ``anthropic_default`` pointing to it."""
    marker = request.node.get_closest_marker("batches_emulator")
    with Emulator(**(marker.kwargs if marker else {})) as api:
        monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", api.connection_json)
        yield api
