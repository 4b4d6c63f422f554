"""Tearing down many batches in one task, and saving large results."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Control, Numbers, main, memory
from benchmarks.registry import CASES, Case, Row
from benchmarks.sides import CONNECTION, KEY

DAGS = Path(__file__).parent / "dags" / "teardown"
#: Requests in flight: the operator's default.
IN_FLIGHT = 16


class TaskInstance:
    """What a task uses of its context, without an Airflow around it."""

    dag_id, run_id, task_id, map_index, try_number, max_tries = "benchmark", "run", "task", -1, 1, 0

    def xcom_push(self, key: str, value: Any) -> None:
        pass


CONTEXT: Any = {"ti": TaskInstance()}


def run(side: str, url: str, kind: str, **options: Any) -> Numbers:
    many = _many_bare if side == "httpx" else _many
    kinds: dict[str, Callable[..., Numbers]] = {"many": many, "results": _results, "airflow": _airflow}
    return kinds[kind](Control(url), url, **options)


def _many(api: Control, url: str, count: int) -> Numbers:
    """Running batches are canceled, waited for and deleted by one task."""
    from airflow_provider_batches.operators.teardown import TeardownBatchesOperator

    def tear_down(batch_ids: list[str]) -> int:
        task = TeardownBatchesOperator(
            task_id="task", batch_ids=batch_ids, discard_results=True, max_in_flight=IN_FLIGHT
        )
        return int(task.execute(CONTEXT)["failed"])

    return _measured(api, count, tear_down)


def _many_bare(api: Control, url: str, count: int) -> Numbers:
    """The same requests with the least that httpx can do: no models, no errors, no retries."""
    import httpx

    async def tear_down(batch_ids: list[str]) -> int:
        headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
        # A plain connection needs no certificates; reading them would add 50 ms of CPU.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with httpx.AsyncClient(base_url=f"{url}/v1/messages", headers=headers, verify=tls) as client:

            async def call(method: str, path: str, **params: Any) -> Any:
                response = await client.request(method, path, params=params or None)
                return response.raise_for_status().json()

            async def read_list() -> None:
                page = await call("GET", "/batches", limit=1000)
                while page["has_more"]:
                    page = await call("GET", "/batches", limit=1000, after_id=page["last_id"])

            async def each(method: str, path: str) -> None:
                todo = iter(batch_ids)

                async def worker() -> None:
                    for batch_id in todo:
                        await call(method, path.format(batch_id))

                await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))

            if batch_ids:
                await read_list()
                await each("POST", "/batches/{}/cancel")
                await read_list()
                await each("DELETE", "/batches/{}")
        return 0

    return _measured(api, count, lambda batch_ids: asyncio.run(tear_down(batch_ids)))


def _measured(api: Control, count: int, tear_down: Callable[[list[str]], int]) -> Numbers:
    """Measure how running batches are torn down.

    :param tear_down: Tears down the batches with these IDs and returns how many failed.
    """
    tear_down([])  # imports what it needs
    batch_ids = [batch_id for _ in range(count // 100) for batch_id in api.add(100)]
    before, cpu, clock = memory(), time.process_time(), time.monotonic()
    failed = tear_down(batch_ids)
    cpu, clock = time.process_time() - cpu, time.monotonic() - clock
    sent = api.call("GET", "requests")["requests"]
    return {
        "cpu": cpu,
        "seconds": clock,
        "memory": memory("VmHWM") - before,
        "requests": len(sent) / count,
        "refused": sum(request["status"] == 429 for request in sent),
        "left": len(api.call("GET", "batches")["ids"]),
        "failed": failed,
    }


def _results(api: Control, url: str, size: int) -> Numbers:
    """One batch's results are saved, and fetched with curl before and after that."""
    from airflow_provider_batches.operators.results import SaveBatchResultsOperator
    from airflow_provider_batches.operators.teardown import TeardownBatchesOperator

    small, large = api.add(2, status="ended", age_seconds=40_000, requests=1000, result_bytes=1_000_000)
    (large,) = api.add(1, status="ended", age_seconds=40_000, requests=100_000, result_bytes=size)
    with tempfile.TemporaryDirectory() as folder:
        SaveBatchResultsOperator(task_id="idle", batch_id=small, path=folder).execute(CONTEXT)
        curls = [_curl(url, large, f"{folder}/curl")]
        task = SaveBatchResultsOperator(task_id="task", batch_id=large, path=folder)
        before, cpu, clock = memory(), time.process_time(), time.monotonic()
        saved = task.execute(CONTEXT)
        clock, cpu = time.monotonic() - clock, time.process_time() - cpu
        grown = memory("VmHWM") - before
        curls.append(_curl(url, large, f"{folder}/curl"))
        with open(f"{folder}/curl", "rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == saved["sha256"]
        full = time.monotonic()
        TeardownBatchesOperator(task_id="task", batch_ids=[large], save_results_to=f"{folder}/all").execute(CONTEXT)
        full = time.monotonic() - full
    curl = sum(curls) / len(curls)
    return {
        "seconds": clock,
        "cpu": cpu,
        "memory": grown,
        "curl_seconds": curl,
        "times_curl": clock / curl,
        "different": float(not same),
        "teardown_seconds": full,
    }


def _curl(url: str, batch_id: str, path: str) -> float:
    key = json.loads(os.environ[CONNECTION])["password"]
    headers = ["-H", f"x-api-key: {key}", "-H", "anthropic-version: 2023-06-01"]
    clock = time.monotonic()
    subprocess.run(
        ["curl", "-s", "-f", "-o", path, *headers, f"{url}/v1/messages/batches/{batch_id}/results"], check=True
    )
    return time.monotonic() - clock


def _airflow(api: Control, url: str, count: int) -> Numbers:
    """The same on a real Airflow: scheduler, triggerer, LocalExecutor."""
    from scripts.real_airflow import COMPONENTS, RealAirflow
    from scripts.usage import cpu_of

    for _ in range(count // 100):
        api.add(100, age_seconds=7200)
    with RealAirflow(dags_folder=DAGS, env={CONNECTION: os.environ[CONNECTION]}) as airflow:
        airflow.wait_for_dag("teardown")
        time.sleep(20)
        roots = [airflow.pid(component) for component in COMPONENTS]
        cpu = cpu_of(roots)
        time.sleep(20)
        idle = (cpu_of(roots) - cpu) / 20
        cpu, clock = cpu_of(roots), time.monotonic()
        run_id = airflow.trigger_dag("teardown")
        state = airflow.wait_for_run("teardown", run_id, timeout=420)
        seconds, cpu = time.monotonic() - clock, cpu_of(roots) - cpu
        tasks = airflow.task_instances("teardown", run_id)
    return {
        "cpu": cpu,
        "cpu_beyond_idle": cpu - idle * seconds,
        "seconds": seconds,
        "requests": len(api.call("GET", "requests")["requests"]) / count,
        "unsuccessful": float(state != "success"),
        "tries_lost": sum(max(0, task["try_number"] - 1) for task in tasks),
        "left": len(api.call("GET", "batches")["ids"]),
    }


_OURS = {"official": "it has nothing like it: a task for each batch and step"}
_MANY = (
    Row("seconds", "duration", "s"),
    Row("left", "batches left", "", 0),
    Row("failed", "batches failed", "", 0),
)
CASES += [
    Case(
        "teardown-1000",
        "One task cancels, waits for and deletes 1,000 running batches",
        "benchmarks.teardown",
        (
            Row("requests", "requests a batch", "", 2.2),
            Row("cpu", "CPU", "s", share=1.6, share_of="httpx"),
            Row("memory", "memory beyond an idle task's, at most", "MB", 60),
            *_MANY,
        ),
        {"kind": "many", "count": 1000},
        sides=("ours", "httpx"),
        skipped=_OURS,
    ),
    Case(
        "teardown-10000",
        "One task cancels, waits for and deletes 10,000 running batches",
        "benchmarks.teardown",
        (
            Row("requests", "requests a batch", "", 2.2),
            Row("cpu", "CPU", "s", 100),
            Row("memory", "memory beyond an idle task's, at most", "MB", 150),
            *_MANY,
        ),
        {"kind": "many", "count": 10_000},
        runs=1,
        sides=("ours",),
        skipped=_OURS,
    ),
    Case(
        "teardown-limited",
        "One task tears down 100 running batches under a limit of 50 requests a minute",
        "benchmarks.teardown",
        (
            *_MANY,
            Row("requests", "requests a batch"),
            Row("refused", "requests refused (429)"),
        ),
        {"kind": "many", "count": 100},
        runs=1,
        sides=("ours",),
        skipped=_OURS,
        emulator=("--requests-per-minute", "50"),
    ),
    Case(
        "results-1gb",
        "Saving 1 GB of results of one batch to a local file",
        "benchmarks.teardown",
        (
            Row("times_curl", "duration, as a multiple of `curl -o`", "", 2),
            Row("memory", "memory beyond before, at most", "MB", 40),
            Row("seconds", "duration", "s"),
            Row("curl_seconds", "duration of `curl -o`", "s"),
            Row("cpu", "CPU", "s"),
            Row("teardown_seconds", "saving, reading back and deleting", "s"),
            Row("different", "files that differ from curl's", "", 0),
        ),
        {"kind": "results", "size": 1_000_000_000},
        sides=("ours",),
        skipped=_OURS,
    ),
    Case(
        "teardown-airflow",
        "A real Airflow (LocalExecutor, SQLite): one task tears down 1,000 running batches that end after 8 s",
        "benchmarks.teardown",
        (
            Row("cpu", "CPU of all Airflow processes during the run", "s", 30),
            Row("cpu_beyond_idle", "the same beyond an idle Airflow's", "s"),
            Row("seconds", "duration of the run", "s"),
            Row("requests", "requests a batch"),
            Row("tries_lost", "tries lost"),
            Row("left", "batches not deleted", "", 0),
            Row("unsuccessful", "runs that failed", "", 0),
        ),
        {"kind": "airflow", "count": 1000},
        runs=1,
        sides=("ours",),
        skipped=_OURS,
        emulator=("--cancel-seconds", "8"),
    ),
]


if __name__ == "__main__":
    main(run)
