from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dags.conftest import EXAMPLES

LIMIT_SECONDS = 0.5
TRIES = 5
# CPU time, so that what else the machine does does not count, beyond the names that each DAG file takes from Airflow.
SCRIPT = """
import runpy, sys, time
from airflow.sdk import DAG, Param, chain, task
before = time.process_time()
runpy.run_path(sys.argv[1])
print(time.process_time() - before)
"""


@pytest.mark.parametrize("dag_file", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_dag_file_imports_quickly(dag_file: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "COV_"))}
    for _ in range(TRIES):
        answer = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(dag_file)], env=env, capture_output=True, text=True, check=True
        )
        seconds = float(answer.stdout.splitlines()[-1])
        if seconds < LIMIT_SECONDS:
            return
    pytest.fail(f"{dag_file.name} took {seconds:.2f} s of CPU time beyond Airflow's own; {LIMIT_SECONDS} s are allowed")
