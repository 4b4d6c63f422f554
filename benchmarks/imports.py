"""What importing operators, sensor and trigger costs beyond `import airflow.sdk`: each task run pays it."""

from __future__ import annotations

import importlib
import time

from benchmarks.measure import Numbers, main, memory

MODULES = {
    "ours": [f"airflow_provider_batches.{room}.batches" for room in ("operators", "sensors", "triggers")],
    "official": [f"airflow.providers.anthropic.{room}.batch" for room in ("operators", "sensors", "triggers")],
}


def run(side: str, url: str) -> Numbers:
    importlib.import_module("airflow.sdk")
    cpu, before = time.process_time(), memory()
    for module in MODULES[side]:
        importlib.import_module(module)
    return {"cpu": time.process_time() - cpu, "memory": memory() - before}


if __name__ == "__main__":
    main(run)
