"""Writes RESULTS.md and the plot from the numbers of all runs."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.registry import Case, Row

HERE = Path(__file__).parent
NAMES = {"ours": "this provider", "official": "official provider", "httpx": "bare httpx"}
PACKAGES = (
    "python",
    "apache-airflow",
    "airflow-provider-batches",
    "apache-airflow-providers-anthropic",
    "anthropic",
    "httpx",
    "pydantic",
)
Saved = Mapping[str, Any]


def values(numbers: Saved, side: str, key: str) -> list[float]:
    """Return a number from all runs of a side, without those in which there was nothing to measure."""
    found = [run[key] for run in numbers["runs"].get(side, ()) if key in run]
    return [value for value in found if not math.isnan(value)]


def table(case: Case, numbers: Saved) -> list[str]:
    """Return a case's part of RESULTS.md."""
    others = [side for side in case.sides if side not in ("ours", "official")]
    head = ["", "bar", NAMES["ours"], NAMES["official"], *(NAMES.get(side, side) for side in others), "ratio"]
    counts = ", ".join(f"{NAMES.get(side, side)} {len(runs)}" for side, runs in numbers["runs"].items())
    lines = [f"### {case.title}", "", f"`--case {case.name}`, {numbers['date']}; runs: {counts}", ""]
    lines += [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for row in case.rows:
        ours, other = (values(numbers, side, row.key) for side in ("ours", row.share_of))
        cells = [_cell(values(numbers, side, row.key), row.unit) for side in ("ours", "official", *others)]
        ratio = _number(median(ours) / median(other)) if ours and other and median(other) else ""
        lines.append(_line([row.text, _bar(row, ours, other), *cells, ratio]))
    for side, reason in case.skipped.items():
        lines += ["", f"Not measured with the {NAMES.get(side, side)}: {reason}."]
    return [*lines, ""]


def write(cases: Mapping[str, Case], saved: Mapping[str, Saved], versions: Mapping[str, Mapping[str, str]]) -> None:
    """Write RESULTS.md and results.png."""
    plot(saved)
    loads = ", ".join(f"{name} {numbers['load']}" for name, numbers in saved.items())
    lines = [
        "# Results",
        "",
        "Written by `make bench`; README.md beside it says how to read it. Each number is the median over the runs,",
        "with the smallest and the largest behind it. A bar that is missed is set in bold.",
        "",
        "![This provider beside the official one](results.png)",
        "",
        f"Machine: {os.cpu_count()} cores ({_cpu_model()}), {_memory()} of memory, {platform.system()}. Load average",
        f"(5 minutes) after each case: {loads}.",
        "",
        _line(["", NAMES["ours"], NAMES["official"]]),
        _line(["---", "---", "---"]),
        *(
            _line([package, versions["ours"].get(package, "-"), versions["official"].get(package, "-")])
            for package in PACKAGES
        ),
        "",
    ]
    for name, numbers in saved.items():
        lines += table(cases[name], numbers)
    (HERE / "RESULTS.md").write_text("\n".join(lines).rstrip() + "\n")


def plot(saved: Mapping[str, Saved]) -> None:
    """Draw the two providers' costs side by side, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [
        ("imports", "cpu", "imports\nCPU (s)"),
        ("imports", "memory", "imports\nmemory (MB)"),
        ("get-batch", "first", "first\nget_batch (ms)"),
        ("waits-1000", "cpu", "1,000 waits\nCPU/min (s)"),
        ("waits-1000", "memory", "1,000 waits\nmemory (MB)"),
        ("waits-1000", "requests_minute", "1,000 waits\nrequests/min"),
        ("waits-1000", "delay", "1,000 waits\ndelay (s)"),
        ("waits-limited", "delay", "rate limit\ndelay (s)"),
        ("airflow", "cpu", "real Airflow\nCPU (s)"),
    ]
    shown = [(case, key, text) for case, key, text in shown if case in saved and values(saved[case], "ours", key)]
    figure, axes = pyplot.subplots(figsize=(10, 3.6), dpi=90)
    for offset, side, color in ((-0.2, "ours", "#3b7dd8"), (0.2, "official", "#c9a27e")):
        for place, (case, key, _) in enumerate(shown):
            found = values(saved[case], side, key)
            if found:
                bars = axes.bar(place + offset, median(found), 0.38, color=color)
                axes.bar_label(bars, [_number(median(found))], fontsize=8)
        axes.bar(0, 0, color=color, label=NAMES[side])
    axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.set_xticks(range(len(shown)), [text for _, _, text in shown], fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(HERE / "results.png", metadata={"Software": None})


def _bar(row: Row, ours: list[float], other: list[float]) -> str:
    limit, text = row.bar, "" if row.bar is None else f"≤ {row.bar:g} {row.unit}".strip()
    if row.share is not None:
        limit, text = median(other) * row.share if other else None, f"≤ {row.share:g} times {NAMES[row.share_of]}"
    if limit is None or not ours:
        return text
    return text if median(ours) <= limit else f"**{text}: missed**"


def _cell(found: list[float], unit: str) -> str:
    if not found:
        return "-"
    spread = f" ({_number(min(found))} to {_number(max(found))})" if min(found) != max(found) else ""
    return f"{_number(median(found))} {unit}".strip() + spread


def _number(value: float) -> str:
    digits = 0 if value == int(value) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:,.{digits}f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as info:
        return next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown")


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB"
