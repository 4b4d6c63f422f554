"""What processes take of the machine. Linux only."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def usage(root: int) -> tuple[float, float]:
    """Return the CPU seconds of a process and of all that it has started, and the MB that they hold now.

    Memory that several processes share is counted in equal parts.
    """
    children: dict[int, list[int]] = defaultdict(list)
    seconds: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            children[int(fields[1])].append(int(folder.name))
            seconds[int(folder.name)] = sum(map(int, fields[11:15])) / TICK
    cpu, memory, left = 0.0, 0.0, [root]
    while left:
        pid = left.pop()
        cpu += seconds.get(pid, 0.0)
        left += children[pid]
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    memory += int(line.split()[1]) / 1024
    return cpu, memory
