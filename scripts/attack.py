"""Let Airflow's `execution_timeout` interrupt busy teardowns at random moments: each alarm must end its task.

Airflow raises AirflowTaskTimeout once, from a signal handler in the main thread. If code drops the exception, as an
event loop does in a callback, the task never ends.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from statistics import mean
from types import FrameType, SimpleNamespace
from typing import Any

from scripts.processes import emulator, exit_on_signals

#: Seconds after its alarm within which a task and its process must end, and after which it is killed.
LIMIT, HANG = 5.0, 30.0
TIMED_OUT, NO_END = "AirflowTaskTimeout", "no end"
#: A success, because the alarm came too late or because it was dropped.
EARLY, DROPPED = "success before its alarm", "success despite its alarm"


@dataclass(frozen=True)
class End:
    """How a try ended. `late` and `gone` are the seconds from its alarm until `execute` and the process ended."""

    ended: str = NO_END
    late: float = 0.0
    gone: float = 0.0
    struck: str = ""
    log: str = ""

    @property
    def good(self) -> bool:
        """Whether the task succeeded before its alarm, or timed out soon after it."""
        return self.ended == EARLY or (self.ended == TIMED_OUT and max(self.late, self.gone) <= LIMIT)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make attack", description=__doc__)
    parser.add_argument("--alarms", type=int, default=100, help="tasks, with one alarm each (default 100)")
    parser.add_argument("--batches", type=int, default=600, help="batches that each task tears down (default 600)")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 10**6, help="seed of an earlier run, to repeat its moments"
    )
    parser.add_argument("--victim", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.victim is not None:
        return victim(options.victim)
    exit_on_signals()
    ends: list[End] = []
    with ThreadPoolExecutor(2) as pool:
        undisturbed = list(pool.map(attempt, repeat(options.batches), [0.0] * 4))
        if failed := [end for end in undisturbed if end.ended != EARLY]:
            raise SystemExit(f"A teardown without an alarm did not succeed: {failed[0].ended}\n{failed[0].log}")
        length = mean(end.late for end in undisturbed)
        print(f"seed {options.seed}; without an alarm, {options.batches} batches take {length:.2f} s", flush=True)
        chance = random.Random(options.seed)  # noqa: S311
        moments = [chance.uniform(0.001, length) for _ in range(options.alarms)]
        for moment, end in zip(moments, pool.map(attempt, repeat(options.batches), moments), strict=True):
            ends.append(end)
            after = f" after {end.late:.2f} s, process {end.gone:.2f} s, in {end.struck}" if end.struck else ""
            line = f"{len(ends):4}  alarm at {moment:.3f} s: {end.ended}{after}"
            print(line if end.good else f"{line}  BAD\n{end.log}", flush=True)
    counts = ", ".join(f"{count} {ended}" for ended, count in Counter(end.ended for end in ends).most_common())
    bad, last = sum(not end.good for end in ends), max((end.gone for end in ends), default=0.0)
    print(f"{len(ends)} alarms, seed {options.seed}: {counts}; slowest end {last:.2f} s after its alarm; bad: {bad}")
    return 1 if bad else 0


def attempt(batches: int, moment: float) -> End:
    """Run a teardown in a new process, with an alarm after `moment` seconds; 0: without an alarm."""
    with tempfile.TemporaryDirectory(prefix="airflow-") as home, emulator() as api, open(f"{home}/log", "w+") as log:
        ids = json.dumps(api.add_batches(count=batches, batch_seconds=20_000))
        env = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW_CONN_ANTHROPIC_DEFAULT": api.connection_json}
        command = [sys.executable, "-m", "scripts.attack", "--victim", str(moment)]
        done = subprocess.run(command, env=env, input=ids, stdout=subprocess.PIPE, stderr=log, text=True, timeout=120)
        now = time.monotonic()
        log.seek(0)
        lines = [line for line in log if "[info " not in line]
        found = json.loads(done.stdout or "{}")
        return End(gone=now - found.pop("alarm", now), **found, log="".join(lines[-60:]))


def victim(seconds: float) -> int:
    """Tear down the batches that stdin lists, with Airflow's timeout, and print how the task ended."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from airflow.sdk.execution_time.timeout import timeout

    from airflow_provider_batches.operators.teardown import TeardownBatchesOperator

    alarm: Any = timeout(seconds)
    raise_timeout, struck = alarm.handle_timeout, []

    def handle(number: int, frame: FrameType) -> None:
        struck.append(f"{'/'.join(frame.f_code.co_filename.split('/')[-2:])}:{frame.f_lineno} {frame.f_code.co_name}")
        raise_timeout(number, frame)

    alarm.handle_timeout = handle
    task = TeardownBatchesOperator(
        task_id="task", batch_ids=json.load(sys.stdin), discard_results=True, max_in_flight=16
    )
    names = {"dag_id": "attack", "run_id": "run", "task_id": "task", "map_index": -1, "try_number": 1}
    context: Any = {"ti": SimpleNamespace(**names, xcom_push=lambda key, value: None)}
    # Logs the stack of each thread, and ends the process even if its threads hang.
    faulthandler.dump_traceback_later(seconds + HANG, exit=True)
    due = time.monotonic() + seconds
    try:
        with alarm:
            task.execute(context)
        ended = DROPPED if struck else EARLY
    except BaseException as error:
        ended = type(error).__name__
    found = {"ended": ended, "late": time.monotonic() - due, "struck": "".join(struck), "alarm": due}
    print(json.dumps(found), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
