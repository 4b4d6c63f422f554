"""Kill or suspend a task that submits at each of its steps, under each fault, and see that nothing is paid twice.

python -m tests.integration.submission.attack               # all steps of all faults
python -m tests.integration.submission.attack --every 7     # each seventh step
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_batches.emulator import Emulator, Fault
from tests.integration.submission import child
from tests.integration.submission.child import PER_BATCH, REQUESTS

#: What happens to the first create, by name.
FAULTS: dict[str, Fault | None] = {
    "none": None,
    "answer lost": Fault("create", drop_after=True),
    "answer lost, reset": Fault("create", drop_after=True, reset=True),
    "connection closed before the work": Fault("create", drop=True),
    "created late, answer lost": Fault("create", delay=0.3, drop_after=True),
    "500 after the work": Fault("create", status=500, applied=True),
    "500 before the work": Fault("create", status=500),
    "502 as HTML": Fault("create", html=True),
    "502 as HTML after the work": Fault("create", html=True, applied=True),
    "incomplete answer": Fault("create", cut_after=40),
    "incomplete answer that looks whole": Fault("create", cut_after=40, cut_cleanly=True),
    "429": Fault("create", status=429),
    "408 after the work": Fault("create", status=408, applied=True),
    "409": Fault("create", status=409),
    "a gateway's 403 after the work": Fault("create", status=403, gateway="text", applied=True),
    "the list fails": Fault("list", status=503, times=2),
    "results cannot be read": Fault("results", status=500, times=2),
}
#: Killed; suspended while a second task begins, and resumed at once or after that one has ended.
WAYS = ("kill", "resume early", "resume late")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([child.__name__, "airflow.sdk"])


@dataclass
class Report:
    """What an attack found."""

    struck: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0


class Attack:
    """Strikes one task at one step, lets others finish its work, and checks what the API has."""

    def __init__(self, api: Emulator, folder: Path) -> None:
        self.api = api
        self.folder = folder
        self.report = Report()
        self._number = 0

    def strike(self, name: str, way: str, at: int) -> bool:
        """Strike at a step; return whether there was such a step."""
        self._number += 1
        ledger = self.folder / str(self._number)
        before = set(self.api.ids())
        foreign = {self._foreign()}
        if fault := FAULTS[name]:
            self.api.fault(fault)
        sign = signal.SIGKILL if way == "kill" else signal.SIGSTOP
        first = self._start(ledger, "first", at, sign)
        is_struck = _wait_until_struck(first)
        foreign.add(self._foreign())
        began = time.monotonic()
        if is_struck and way == "resume early":
            threading.Timer(0.1, os.kill, (first.pid, signal.SIGCONT)).start()
        answer: Any = None
        for _ in range(6):
            second = self._start(ledger, "second", None, 0, retried=True)
            second.join(30)
            if second.exitcode == 0:
                answer = json.loads((self.folder / "second").read_text())
                break
            second.kill()
        self.report.slowest = max(self.report.slowest, time.monotonic() - began)
        if is_struck and way == "resume late":
            os.kill(first.pid, signal.SIGCONT)
        first.join(30)
        self.api.clear_faults()
        time.sleep(0.4 if fault and fault.delay else 0.0)
        self._check(f"{name}, {way} at step {at}", set(self.api.ids()) - before - foreign, answer)
        self.report.struck += is_struck
        return is_struck

    def _check(self, what: str, made: set[str], answer: Any) -> None:
        tags = Counter(self.api._store.get(batch_id).custom_ids[0].partition("-")[0] for batch_id in made)  # type: ignore[index]
        problems = []
        if any(count > 1 for count in tags.values()):
            problems.append("paid twice")
        if answer is None:
            problems.append("stuck")
        elif set(answer) != made or len(answer) != REQUESTS // PER_BATCH:
            problems.append(f"answered {answer}, created {sorted(made)}")
        if problems:
            self.report.failures.append(f"{what}: {', '.join(problems)}")

    def _foreign(self) -> str:
        return self.api.add_batch(PER_BATCH, status="in_progress", age_seconds=0.0, batch_seconds=0.2)

    def _start(self, ledger: Path, answer: str, at: int | None, sign: int, retried: bool = False) -> Any:
        arguments = (self.api.url, str(ledger), str(self.folder / answer), at, sign, retried)
        process = _CONTEXT.Process(target=child.run, args=arguments)
        process.start()
        return process


def _wait_until_struck(process: Any) -> bool:
    """Return whether the process was killed or suspended; False if it has ended by itself."""
    while process.is_alive():
        try:
            stat = Path(f"/proc/{process.pid}/stat").read_text()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] == "T":
            return True
        time.sleep(0.005)
    return bool(process.exitcode == -signal.SIGKILL)


def attack(folder: Path, faults: list[str], ways: tuple[str, ...], every: int, offset: int = 0) -> Report:
    """Strike at every so many steps."""
    with Emulator(api_key=None, batch_seconds=0.2) as api:
        striker = Attack(api, folder)
        for name in faults:
            for way in ways:
                at = offset
                while striker.strike(name, way, at):
                    at += every
                print(f"{way:12s} {name:36s} strikes so far {striker.report.struck:5d}", flush=True)
        return striker.report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="strike at every so many steps (default 1)")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only this fault")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = attack(Path(folder), arguments.fault or list(FAULTS), WAYS, arguments.every)
    print(f"Strikes: {report.struck}, failures: {len(report.failures)}, slowest recovery: {report.slowest:.1f} s")
    print(*report.failures, sep="\n")
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
