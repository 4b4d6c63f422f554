from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_batches import _datasets

TASK: Any = SimpleNamespace(log=logging.getLogger(__name__))


class Collector:
    """Collects URIs, as Airflow's collector of lineage."""

    def __init__(self) -> None:
        self.inputs: list[str] = []

    def add_input_asset(self, context: Any, uri: str) -> None:
        self.inputs.append(uri)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    collector = Collector()
    monkeypatch.setattr(_datasets, "lineage_collector", lambda: collector)
    return collector


@pytest.mark.parametrize(
    ("source", "uris"),
    [
        ("s3://aws_default@bucket/rows/a.csv", ["s3://bucket/rows/a.csv"]),
        ("s3://bucket/rows/", ["s3://bucket/rows"]),
        ("gs://bucket/a@b.csv", ["gs://bucket/a@b.csv"]),
        ("/data/a.csv", ["file:///data/a.csv"]),
        ("file:///data/", ["file:///data"]),
        ("requests_of_today", []),
        ([{"custom_id": "a", "params": {"file": "s3://bucket/a"}}], []),
        (Path("/data/a.csv"), ["file:///data/a.csv"]),
    ],
)
def test_what_is_reported_of_a_source(source: object, uris: list[str], collector: Collector) -> None:
    _datasets.report_input(TASK, source)

    assert collector.inputs == uris


def test_a_uri_that_airflow_refuses_is_logged_and_fails_nothing(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        _datasets.report_input(TASK, f"file:///{'x' * 1600}")

    assert collector.inputs == []
    assert "is not reported as an asset" in caplog.text


def test_a_collector_that_fails_is_logged_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(_datasets, "lineage_collector", broken)
    with caplog.at_level(logging.WARNING):
        _datasets.report_output(TASK, "s3://key:secret@bucket/a")

    assert "s3://bucket/a is missing in the lineage: RuntimeError" in caplog.text
    assert "secret" not in caplog.text
