"""Measure this provider beside the official one, against the emulator; README.md says how to read the numbers."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Not this folder, whose modules are named after what they measure.
sys.path[0] = str(ROOT)

from benchmarks import report  # noqa: E402
from benchmarks.registry import Case, registered  # noqa: E402
from benchmarks.sides import CONN_TYPES, CONNECTION, KEY  # noqa: E402
from scripts.processes import emulator, exit_on_signals  # noqa: E402

#: Where each case's latest numbers are kept.
NUMBERS = ROOT / "build" / "benchmarks"
_NOT_INHERITED = ("AIRFLOW", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")


def main() -> int:
    cases = {case.name: case for case in registered()}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=cases, help="only this case; may be repeated")
    parser.add_argument("--runs", type=int, help="runs of each side, instead of each case's own number")
    parser.add_argument("--official", type=Path, default=ROOT / ".venv-official/bin/python", metavar="PYTHON",
                        help="the Python with the official provider")  # fmt: skip
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and results.png, from the latest "
                        "numbers of each case")  # fmt: skip
    options = parser.parse_args()
    exit_on_signals()
    pythons = dict.fromkeys(("official", "common.ai"), str(options.official.absolute()))
    NUMBERS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="airflow-") as home:
        for name in options.case or cases:
            numbers = measure(cases[name], pythons, home, options.runs or cases[name].runs)
            (NUMBERS / f"{name}.json").write_text(json.dumps(numbers, indent=1))
            print("\n".join(report.table(cases[name], numbers)), flush=True)
    if options.write:
        saved = {name: json.loads(path.read_text()) for name in cases if (path := NUMBERS / f"{name}.json").exists()}
        report.write(cases, saved, versions(pythons))
    return 0


def measure(case: Case, pythons: dict[str, str], home: str, runs: int) -> dict[str, Any]:
    """Run a case on all its sides by turns, so that what else the machine does meets all of them."""
    found: dict[str, list[Any]] = {side: [] for side in case.sides}
    for number in range(-1 if case.warm_up else 0, runs):
        for side in case.sides:
            numbers = run_once(case, side, pythons.get(side, sys.executable), home)
            log(f"{case.name}, {side}, run {number + 1} of {runs}: {json.dumps(numbers)}")
            if number >= 0:
                found[side].append(numbers)
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "load": round(os.getloadavg()[1], 1),
        "runs": found,
    }


def run_once(case: Case, side: str, python: str, home: str) -> Any:
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(emulator("--log-size", "100000", *case.emulator))
        connection = {"conn_type": CONN_TYPES.get(side, "generic"), "password": KEY, "host": api.url}
        env = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        env |= {"AIRFLOW_HOME": home, CONNECTION: json.dumps(connection)}
        arguments = json.dumps({"side": side, "url": api.url, **case.options})
        done = subprocess.run(
            [python, "-m", case.module, arguments],
            cwd=ROOT,
            env=env,
            capture_output=True,
            timeout=case.timeout,
        )
    if done.returncode:
        raise SystemExit(f"{case.name} failed on side {side}:\n{done.stderr.decode()[-4000:]}")
    return json.loads(done.stdout)


def versions(pythons: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return which versions of what matters each side's environment holds."""
    code = (
        "import json, platform\nfrom importlib.metadata import distributions\n"
        "print(json.dumps({'python': platform.python_version()} | {d.name: d.version for d in distributions()}))"
    )
    return {
        side: json.loads(subprocess.check_output([pythons.get(side, sys.executable), "-c", code], cwd="/"))
        for side in ("ours", "official")
    }


def log(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
