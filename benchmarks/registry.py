"""The cases: what is run, how often, and what of it stands in the table.

A further case is one more entry of CASES; a module of its own may be added to EXTENSIONS and append them.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any

PROVIDERS = ("ours", "official")
#: Modules that append to CASES when they are imported.
EXTENSIONS = ("benchmarks.teardown", "benchmarks.submit", "benchmarks.merge")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    :param key: The number's name in what the case returns.
    :param bar: What this provider may need at most.
    :param share: The highest ratio to the side that `share_of` names.
    :param share_of: The side that the ratio compares with. Default: the official provider.
    """

    key: str
    text: str
    unit: str = ""
    bar: float | None = None
    share: float | None = None
    share_of: str = "official"


@dataclass(frozen=True)
class Case:
    """One thing that is measured.

    :param module: Its `run(side, url, **options)` is called in a fresh process for each run.
    :param runs: How often it is run on each side.
    :param sides: Who takes part; `ours`, `official`, or a name that the module knows.
    :param skipped: Why a side does not take part, by side.
    :param emulator: Options of the emulator, which is started for each run.
    :param warm_up: Whether a first run of each side is thrown away.
    """

    name: str
    title: str
    module: str
    rows: tuple[Row, ...]
    options: dict[str, Any] = field(default_factory=dict)
    runs: int = 3
    sides: tuple[str, ...] = PROVIDERS
    skipped: dict[str, str] = field(default_factory=dict)
    emulator: tuple[str, ...] = ()
    warm_up: bool = False
    timeout: float = 900


def _waits(
    block: float, cpu: float, memory: float, cycle: float, delays: tuple[float, float] | None
) -> tuple[Row, ...]:
    median, worst = delays or (None, None)
    return (
        Row("cpu", "CPU a minute", "s", cpu),
        Row("memory", "memory beyond before, at most", "MB", memory),
        Row("requests_cycle", "requests a cycle", "", cycle),
        Row("requests_burst", "requests in half a poll interval, at most", "", cycle),
        Row("requests_minute", "requests a minute"),
        Row("delay", "end of batch to event, median", "s", median),
        Row("delay_worst", "end of batch to event, worst", "s", worst),
        Row("block", "event loop blocked, worst", "s", block),
        Row("block_gc", "  a garbage collection, worst", "s"),
        Row("unnoticed", "ended batches not noticed after 90 s"),
        Row("start_cpu", "start of all: CPU", "s"),
        Row("start_requests", "start of all: requests"),
        Row("start_seconds", "start of all, until the last is looked at", "s"),
        Row("start_block", "start of all: event loop blocked, worst", "s"),
    )


CASES: list[Case] = [
    Case(
        "imports",
        "Importing operators, sensor and trigger, beyond `import airflow.sdk`",
        "benchmarks.imports",
        (Row("cpu", "CPU", "s", 0.15), Row("memory", "memory", "MB", 5)),
        runs=5,
        warm_up=True,
    ),
    Case(
        "get-batch",
        "`hook.get_batch` in a fresh process, after its imports",
        "benchmarks.get_batch",
        (
            Row("first", "first call", "ms", share=0.5),
            Row("repeated", "repeated, median of 500", "ms", share=0.8),
            Row("cpu", "CPU a call, the first one included", "ms"),
            Row("cpu_repeated", "CPU a call, without the first one", "ms", share=1.15, share_of="httpx"),
        ),
        runs=5,
        sides=(*PROVIDERS, "httpx"),
        warm_up=True,
    ),
    Case(
        "waits-1000",
        "1,000 waits in one event loop, poll interval 10 s",
        "benchmarks.waits",
        _waits(0.1, 1.0, 20, 2, (6, 11)),
        {"kind": "steady", "count": 1000, "seconds": 30},
    ),
    Case(
        "waits-10000",
        "10,000 waits in one event loop, poll interval 10 s",
        "benchmarks.waits",
        _waits(0.2, 10, 100, 11, None),
        {"kind": "steady", "count": 10_000, "seconds": 30},
        sides=("ours",),
        skipped={
            "official": "ten times what it needs for 1,000 waits is 9 minutes of CPU for the start alone, 8 GB, "
            "1,000 requests a second, and from then on 4 minutes of CPU in a minute, in one Python process"
        },
    ),
    Case(
        "waits-behind",
        "Three waits whose batches lie behind 5,000 newer ones, poll interval 10 s, from the first cycle on",
        "benchmarks.waits",
        (
            Row("requests_burst", "requests a cycle, at most", "", 4),
            Row("requests_minute", "requests a minute"),
            Row("cpu", "CPU a minute", "s"),
        ),
        {"kind": "behind", "count": 3, "newer": 5000, "seconds": 35},
        runs=2,
    ),
    Case(
        "waits-limited",
        "300 waits, poll interval 10 s, under a limit of 50 requests a minute; all batches end within 30 s",
        "benchmarks.waits",
        (
            Row("delay", "end of batch to event, median", "s"),
            Row("delay_worst", "end of batch to event, worst", "s", 20),
            Row("refused", "requests refused (429)", "", 0),
            Row("requests", "requests"),
            Row("failed", "waits that ended with an error", "", 0),
            Row("unnoticed", "waits still running after 2 minutes", "", 0),
        ),
        {"kind": "limited", "count": 300, "seconds": 30, "cap": 120},
        runs=2,
        emulator=("--requests-per-minute", "50"),
    ),
    Case(
        "airflow",
        "A real Airflow (LocalExecutor, SQLite): 10 mapped chains of cancel, wait, delete",
        "benchmarks.chains",
        (
            Row("cpu", "CPU of all Airflow processes during the run", "s"),
            Row("cpu_beyond_idle", "the same beyond an idle Airflow's", "s"),
            Row("seconds", "duration of the run", "s"),
            Row("tries_lost", "tries lost"),
            Row("tasks_unsuccessful", "tasks not successful (skipped or failed)", "", 0),
            Row("batches_left", "batches not deleted", "", 0),
        ),
        runs=2,
        emulator=("--cancel-seconds", "8"),
    ),
]


def registered() -> list[Case]:
    """Return all cases."""
    for extension in EXTENSIONS:
        if importlib.util.find_spec(extension):
            importlib.import_module(extension)
    return CASES
