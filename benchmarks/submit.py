"""Creating batches: what it costs, and how many are paid for if answers are lost."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Control, Numbers, main, memory
from benchmarks.registry import CASES, Case, Row
from benchmarks.sides import CONN_ID, KEY, hook
from benchmarks.teardown import CONTEXT

#: Characters of a prompt, so that a request has about 0.7 kB.
PROMPT = "x" * 570


def run(side: str, url: str, kind: str, **options: Any) -> Numbers:
    kinds: dict[str, Callable[..., Numbers]] = {"create": _create, "submit": _submit, "lost": _lost}
    return kinds[kind](side, url, **options)


def _request(number: int) -> dict[str, Any]:
    message = {"role": "user", "content": PROMPT}
    params = {"model": "claude-haiku-5-5", "max_tokens": 100, "messages": [message]}
    return {"custom_id": f"row-{number:07}", "params": params}


def _create(side: str, url: str, count: int) -> Numbers:
    """The single call, from a list in memory."""
    made = hook(side)
    requests = [_request(number) for number in range(count)]
    if side == "ours":
        next(made.list_batches(limit=1), None)
    else:
        made.get_conn().messages.batches.list(limit=1)
    before, cpu, start = memory(), time.process_time(), time.perf_counter()
    if side == "ours":
        made.create_batch(requests)
    else:
        made.get_conn().messages.batches.create(requests=requests)
    return {
        "cpu": time.process_time() - cpu,
        "seconds": time.perf_counter() - start,
        "memory": memory("VmHWM") - before,
    }


def _submit(side: str, url: str, count: int) -> Numbers:
    """SubmitBatchesOperator, from a JSONL file."""
    from airflow_provider_batches.operators.submit import SubmitBatchesOperator

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "requests.jsonl"
        with source.open("w") as file:
            for number in range(count):
                file.write(f"{json.dumps(_request(number))}\n")

        def submit(**kwargs: Any) -> int:
            task = SubmitBatchesOperator(task_id="task", path=f"file://{folder}/submissions", **kwargs)
            return len(task.execute(CONTEXT))

        # Everything is imported and connected before the measurement.
        submit(requests=[_request(0)], submission_id="first")
        before, cpu, start = memory(), time.process_time(), time.perf_counter()
        batches = submit(requests=source.as_uri(), submission_id="second")
        return {
            "size": source.stat().st_size / 1e6,
            "batches": batches,
            "cpu": time.process_time() - cpu,
            "seconds": time.perf_counter() - start,
            "memory": memory("VmHWM") - before,
        }


def _lost(side: str, url: str) -> Numbers:
    """The API creates the batch, and its answer is lost, two times in a row. Airflow retries a task that fails."""
    api = Control(url)
    api.call("POST", "faults", {"endpoint": "create", "drop_after": True, "times": 2})
    requests = [_request(number) for number in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            try:
                _create_once(side, url, requests, folder)
            except BaseException as error:
                # A deferral means that the batch was created; Airflow retries a task that fails.
                if type(error).__name__ != "TaskDeferred":
                    continue
            break
    return {"batches": len(api.call("GET", "batches")["ids"])}


def _create_once(side: str, url: str, requests: list[dict[str, Any]], folder: str) -> None:
    if side == "sdk":
        import anthropic

        anthropic.Anthropic(api_key=KEY, base_url=url).messages.batches.create(requests=requests)  # type: ignore[arg-type]
    elif side == "official":
        from airflow.providers.anthropic.operators.batch import AnthropicBatchOperator

        task = AnthropicBatchOperator(task_id="task", requests=requests, wait_for_completion=False)
        task.execute(CONTEXT)
    elif side == "common.ai":
        from airflow.providers.common.ai.operators.llm_batch import LLMBatchOperator  # type: ignore[import-not-found]

        LLMBatchOperator(
            task_id="task",
            requests=[PROMPT] * len(requests),
            result_path=f"file://{folder}",
            llm_conn_id=CONN_ID,
            model_id="anthropic:claude-haiku-5-5",
            poll_interval=30,
            deferrable=True,
        ).execute({**CONTEXT, "task_instance": CONTEXT["ti"]})
    else:
        os.environ["AIRFLOW__MESSAGE_BATCHES__SETTLE_SECONDS"] = "5"
        from airflow_provider_batches.operators.submit import SubmitBatchesOperator

        SubmitBatchesOperator(task_id="task", requests=requests, path=f"file://{folder}").execute(CONTEXT)


_COST = (
    Row("cpu", "CPU", "s", share=1.0),
    Row("seconds", "duration", "s"),
    Row("memory", "memory beyond the requests, at most", "MB"),
)


def _from_file(count: int, title: str, bar: float | None) -> Case:
    return Case(
        f"submit-{count}",
        f"`SubmitBatchesOperator`: {title} in a JSONL file",
        "benchmarks.submit",
        (
            Row("size", "size of the file", "MB"),
            Row("batches", "batches"),
            Row("cpu", "CPU", "s"),
            Row("seconds", "duration", "s"),
            Row("memory", "memory beyond before, at most", "MB", bar),
        ),
        {"kind": "submit", "count": count},
        sides=("ours",),
        skipped={"official": "it has no such operator"},
        emulator=("--batch-seconds", "3600"),
        runs=2,
    )


CASES.extend(
    [
        Case(
            "create",
            "A create of 100,000 requests of 0.7 kB from a list: hook, and the official SDK",
            "benchmarks.submit",
            _COST,
            {"kind": "create", "count": 100_000},
            emulator=("--batch-seconds", "3600"),
        ),
        _from_file(28_000, "28,000 requests of 0.7 kB", 40),
        _from_file(350_000, "350,000 requests of 0.7 kB", 40),
        _from_file(1_000_000, "1,000,000 requests of 0.7 kB", 60),
        Case(
            "lost",
            "Two answers to a create are lost in a row: batches that are created, and paid for",
            "benchmarks.submit",
            (Row("batches", "batches", "", 1, share=0.5),),
            {"kind": "lost"},
            sides=("ours", "official", "sdk", "common.ai"),
            runs=1,
            emulator=("--batch-seconds", "1"),
        ),
    ]
)

if __name__ == "__main__":
    main(run)
