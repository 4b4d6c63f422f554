"""Reading results, and merging them with their rows."""

from __future__ import annotations

import csv
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Control, Numbers, main, memory
from benchmarks.registry import CASES, Case, Row
from benchmarks.sides import hook
from benchmarks.teardown import CONTEXT

SCHEMA = {
    "type": "object",
    "required": ["label", "score", "why"],
    "properties": {"label": {"enum": ["bug", "billing"]}, "score": {"type": "integer"}, "why": {"type": "string"}},
}
PER_BATCH = 100_000


def run(side: str, url: str, kind: str, **options: Any) -> Numbers:
    kinds: dict[str, Callable[..., Numbers]] = {"stream": _stream, "merge": _merge}
    return kinds[kind](side, url, **options)


def _stream(side: str, url: str, count: int) -> Numbers:
    (batch_id,) = Control(url).add(requests=count, status="ended", age_seconds=30_000)
    made = hook(side)
    made.get_batch(batch_id)
    cpu, start, found = time.process_time(), time.perf_counter(), 0
    for _ in made.stream_batch_results(batch_id):
        found += 1
    return {"results": found, "cpu": time.process_time() - cpu, "seconds": time.perf_counter() - start}


def _merge(side: str, url: str, count: int, schema: bool = False) -> Numbers:
    import fastjsonschema  # noqa: F401 (imported before the measurement)
    import pyarrow.parquet  # noqa: F401

    from airflow_provider_batches.operators.results import MergeBatchResultsOperator
    from airflow_provider_batches.submission.rows import Rows

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with (place / "rows.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "body"])
            writer.writerows([f"row-{number}", "x" * 100] for number in range(count))
        task = MergeBatchResultsOperator(
            task_id="task",
            rows=Rows((place / "rows.csv").as_uri(), {}, "id"),
            results=[_results(place, start, min(count, start + PER_BATCH)) for start in range(0, count, PER_BATCH)],
            path=f"{place.as_uri()}/table.parquet",
            schema=SCHEMA if schema else None,
        )
        before, cpu, start = memory(), time.process_time(), time.perf_counter()
        task.execute(CONTEXT)
        return {
            "cpu": time.process_time() - cpu,
            "seconds": time.perf_counter() - start,
            "memory": memory("VmHWM") - before,
        }


def _results(folder: Path, start: int, end: int) -> str:
    """Write the results of a batch in any order, and return the URI of their file."""
    usage = {"input_tokens": 20, "output_tokens": 9, "service_tier": "batch"}
    text = json.dumps({"label": "bug", "score": 5, "why": "y" * 100})
    message = {"model": "m", "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": usage}
    numbers = list(range(start, end))
    random.shuffle(numbers)
    path = folder / f"{start}.jsonl"
    with path.open("w") as file:
        for number in numbers:
            line = {"custom_id": f"0123abcd-row-{number}", "result": {"type": "succeeded", "message": message}}
            file.write(f"{json.dumps(line)}\n")
    return path.as_uri()


def _case(name: str, title: str, cpu: float | None, most: float, **options: Any) -> Case:
    return Case(
        name,
        f"`MergeBatchResultsOperator`: {title}",
        "benchmarks.merge",
        (
            Row("cpu", "CPU", "s", cpu),
            Row("seconds", "duration", "s"),
            Row("memory", "memory beyond before, at most", "MB", most),
        ),
        {"kind": "merge", **options},
        sides=("ours",),
        skipped={"official": "it has no such operator"},
        runs=2,
    )


CASES.extend(
    [
        Case(
            "stream-results",
            "`hook.stream_batch_results` of 100,000 results",
            "benchmarks.merge",
            (Row("results", "results"), Row("cpu", "CPU", "s", share=0.15), Row("seconds", "duration", "s")),
            {"kind": "stream", "count": 100_000},
            runs=2,
        ),
        _case("merge-100000", "100,000 results, a CSV in, Parquet out", 6, 150, count=100_000),
        _case("merge-schema", "the same with a schema of three fields", 8, 150, count=100_000, schema=True),
        _case("merge-1000000", "1,000,000 results of ten batches", None, 400, count=1_000_000),
    ]
)

if __name__ == "__main__":
    main(run)
