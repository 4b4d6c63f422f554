"""What tasks report besides their results: asset events, lineage and metrics."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches import _datasets, _metrics
from airflow_provider_batches._compat import lineage_collector
from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.pytest_plugin import DagTestRun

DAG = """
    from airflow.sdk import AssetAlias, chain, dag
    from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
    from airflow_provider_batches.operators.results import MergeBatchResultsOperator, SaveBatchResultsOperator
    from airflow_provider_batches.operators.submit import SubmitBatchesOperator
    from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
    from airflow_provider_batches.sensors.batches import BatchEndedSensor
    from airflow_provider_batches.submission.rows import Rows

    FOLDER = "{folder}"
    OLD = "{{{{ params.old }}}}"

    @dag(schedule=None, params={{"old": ""}})
    def reports():
        message = {{"role": "user", "content": "{{{{ row.q }}}}"}}
        params = {{"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [message]}}
        rows = Rows(f"{{FOLDER}}/rows.csv", params=params)
        submit = SubmitBatchesOperator(task_id="submit", requests=rows, path=f"{{FOLDER}}/submissions")
        wait = BatchEndedSensor(task_id="wait", batch_id=submit.output, deferrable=True)
        save = SaveBatchResultsOperator.partial(
            task_id="save", path=f"{{FOLDER}}/results", outlets=[AssetAlias("results")]
        ).expand(batch_id=wait.output)
        merge = MergeBatchResultsOperator(
            task_id="merge",
            rows=rows,
            results=save.output,
            path=f"{{FOLDER}}/table.csv",
            prices={{"claude-haiku-5-5": {{"input": 1000.0, "output": 1000.0}}}},
            outlets=[AssetAlias("tables")],
        )
        cancel = CancelBatchOperator(task_id="cancel", batch_id=OLD)
        delete = TeardownBatchesOperator(
            task_id="delete", batch_ids=[OLD], save_results_to=f"{{FOLDER}}/old", outlets=[AssetAlias("old")]
        )
        finish = DeleteBatchOperator.partial(task_id="finish").expand(batch_id=wait.output)
        chain(merge, cancel, delete, finish)

    reports()
"""


class Backend:
    """Records what Airflow's metrics client is called with."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.gauges: dict[str, list[float]] = {}
        self.delays: list[float] = []
        self.tags: list[Mapping[str, str]] = []

    def incr(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        assert type(value) in (int, float)
        self.counters[name.removeprefix("message_batches.")] += value  # type: ignore[assignment]
        self.tags.append(tags)

    def gauge(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        self.gauges.setdefault(name.removeprefix("message_batches."), []).append(value)

    def timing(self, name: str, value: Any, tags: Mapping[str, str]) -> None:
        self.delays.append(value.total_seconds())


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    backend = Backend()
    monkeypatch.setattr(_metrics, "stats", lambda: backend)
    return backend


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Airflow's collector of lineage, as if the OpenLineage provider were installed and configured."""
    (kind,) = type(lineage_collector()).__mro__[1:2]
    collector = kind() if kind.__name__ == "HookLineageCollector" else type(lineage_collector())()
    monkeypatch.setattr(_datasets, "lineage_collector", lambda: collector)
    return collector


@pytest.fixture
def reports(
    run_dag: Callable[..., DagTestRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], DagTestRun]:
    """Run a DAG whose tasks read and write in the test's folder; the argument is an old batch that it tears down."""
    from airflow import settings

    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "reports.py").write_text(textwrap.dedent(DAG).format(folder=tmp_path.as_uri()))
    (tmp_path / "rows.csv").write_text("q\na\nb\nc\n")
    monkeypatch.setattr(settings, "DAGS_FOLDER", str(tmp_path / "dags"))
    return lambda old: run_dag("reports", {"old": old})


def asset_events() -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return the URI and extra of each asset event, by the alias that it came through."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        events = session.scalars(select(AssetEvent).order_by(AssetEvent.id)).all()
        return {
            alias.name: [(event.asset.uri, event.extra) for event in events if alias in event.source_aliases]
            for event in events
            for alias in event.source_aliases
        }


@pytest.mark.batches_emulator(batch_seconds=0.1)
def test_assets_lineage_and_metrics(
    reports: Callable[[str], DagTestRun],
    batches_emulator: Emulator,
    backend: Backend,
    collector: Any,
    tmp_path: Path,
) -> None:
    old = batches_emulator.add_batch(5, status="in_progress", batch_seconds=3600)

    run = reports(old)

    assert run.state == "success"
    (batch_id,) = run.xcom("submit")
    folder = tmp_path.as_uri()
    found = asset_events()
    (saved,) = run.xcom("save")
    about = {**saved["request_counts"], **{name: saved[name] for name in ("batch_id", "lines", "size", "sha256")}}
    assert found["results"] == [(f"{folder}/results/{batch_id}.jsonl", about)]
    assert found["tables"] == [(f"{folder}/table.csv", {"succeeded": 3, "failed": 0})]
    ((uri, extra),) = found["old"]
    assert uri == f"{folder}/old/{old}.jsonl"
    assert (extra["batch_id"], extra["canceled"], extra["lines"]) == (old, 5, 5)

    assert {info.asset.uri for info in collector.collected_assets.inputs} == {
        f"{folder}/rows.csv",
        f"{folder}/results/{batch_id}.jsonl",
    }
    assert {info.asset.uri for info in collector.collected_assets.outputs} == {
        f"{folder}/results/{batch_id}.jsonl",
        f"{folder}/table.csv",
        f"{folder}/table.failed.jsonl",
        f"{folder}/old",
    }

    assert {name: backend.counters[name] for name in ("submitted", "canceled", "ended", "saved", "deleted")} == {
        "submitted": 1,
        # The teardown cancels the batch again, instead of asking for its state first.
        "canceled": 2,
        "ended": 1,
        "saved": 2,
        "deleted": 2,
    }
    assert backend.counters["requests.succeeded"] == 3
    assert backend.counters["answers"] == 3
    usage = run.xcom("merge")["usage"]["claude-haiku-5-5"]
    assert backend.counters["output_tokens"] == usage["output_tokens"] > 0
    assert backend.counters["cost_usd"] == pytest.approx(run.xcom("merge")["cost"])
    assert {tuple(tags) for tags in backend.tags} == {("conn_id",), ("model",), ()}


def test_a_task_without_an_alias_adds_no_event(
    run_dag: Callable[..., DagTestRun], batches_emulator: Emulator, tmp_path: Path
) -> None:
    before = asset_events()
    batch_id = batches_emulator.add_batch(status="ended")

    run_dag("teardown_batch", {"batch_id": batch_id, "folder": tmp_path.as_uri()})

    assert asset_events() == before


class Broken:
    """A metrics backend of which nothing works."""

    def __getattr__(self, name: str) -> Any:
        raise OSError("no route to host")


def test_a_metrics_backend_that_fails_fails_no_task(
    run_dag: Callable[..., DagTestRun], batches_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_metrics, "stats", Broken)
    batch_id = batches_emulator.add_batch(status="in_progress")

    assert run_dag("teardown_batch", {"batch_id": batch_id, "action": "discard"}).state == "success"
