"""No process of a killed component keeps running."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.real_airflow import _kill_session

# A worker, and a task of it with a process group of its own, as Airflow starts them.
WORKER = """
import os, subprocess
task = subprocess.Popen(["sleep", "60"], preexec_fn=os.setpgrp)
print(task.pid, flush=True)
task.wait()
"""


def runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc to find the processes in")
def test_a_killed_worker_takes_its_tasks_with_it() -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, start_new_session=True) as worker:
        assert worker.stdout
        task = int(worker.stdout.readline())
        assert runs(task)

        _kill_session(worker.pid)

        worker.wait()
        deadline = time.monotonic() + 10
        while runs(task):
            assert time.monotonic() < deadline
            time.sleep(0.01)
