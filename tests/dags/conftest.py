from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches._compat import dag_bag
from tests.integration.conftest import shorten_pauses

try:  # 3.2+
    from airflow.sdk.exceptions import ParamValidationError
except ImportError:  # 3.0, 3.1
    from airflow.exceptions import ParamValidationError

__all__ = ["EXAMPLES", "ParamValidationError"]

EXAMPLES = Path(__file__).parents[2] / "example_dags"


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the real pauses out."""
    shorten_pauses(monkeypatch)


@pytest.fixture(autouse=True)
def pipeline_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where submit_pipeline saves results."""
    folder = tmp_path / "pipeline"
    monkeypatch.setenv("AIRFLOW_VAR_SUBMIT_PIPELINE_FOLDER", f"file://{folder}")
    return folder


@pytest.fixture
def example() -> Callable[[str], Any]:
    """Load an example DAG as Airflow does."""

    def load(dag_id: str) -> Any:
        bag = dag_bag(str(EXAMPLES / f"{dag_id}.py"))
        assert not bag.import_errors
        return bag.dags[dag_id]

    return load


@pytest.fixture
def run(run_dag: Callable[..., Any]) -> Callable[..., Any]:
    """Run a DAG with the values of its form."""
    return lambda dag_id, **conf: run_dag(dag_id, conf)
