"""Measures the CPU time and memory of processes. Linux only."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


class Meter:
    """Measures components, even if one is killed and another process replaces it."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, int], float] = {}
        self._cpu: dict[tuple[str, int], float] = {}
        #: The most memory of each component, in MB.
        self.memory: dict[str, float] = {}

    def begin(self, pids: Mapping[str, int]) -> None:
        """Start to measure."""
        self._before = {(name, pid): usage(pid)[0] for name, pid in pids.items()}
        self._cpu = dict(self._before)
        self.memory = {}

    def sample(self, pids: Mapping[str, int]) -> None:
        """Take a sample of the processes. What a killed one has used since its last sample is lost."""
        for name, pid in pids.items():
            cpu, memory = usage(pid)
            self._cpu[name, pid] = cpu
            self.memory[name] = max(memory, self.memory.get(name, 0.0))

    def cpu(self, name: str) -> float:
        """Return the CPU seconds of a component."""
        return sum(cpu - self._before.get(key, 0.0) for key, cpu in self._cpu.items() if key[0] == name)


def usage(root: int) -> tuple[float, float]:
    """Return the CPU seconds and the current memory in MB of a process and all that it has started.

    Shared memory is divided equally among its processes.
    """
    seconds, memory = _tree([root]), 0.0
    for pid in seconds:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    memory += int(line.split()[1]) / 1024
    return sum(seconds.values()), memory


def cpu_of(roots: Iterable[int]) -> float:
    """Return the CPU seconds of these processes and all that they have started, including ended ones."""
    return sum(_tree(roots).values())


def _tree(roots: Iterable[int]) -> dict[int, float]:
    """Return the CPU seconds of each of these processes and of each that they have started."""
    children: dict[int, list[int]] = defaultdict(list)
    seconds: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            children[int(fields[1])].append(int(folder.name))
            seconds[int(folder.name)] = sum(map(int, fields[11:15])) / TICK
    found: dict[int, float] = {}
    left = list(roots)
    while left:
        pid = left.pop()
        found[pid] = seconds.get(pid, 0.0)
        left += children[pid]
    return found
