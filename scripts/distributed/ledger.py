"""Checks the emulator's request log and the saved files after a run with kills."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

#: Calls that a process made in its last seconds may be repeated: their answers were in transit, or the task had not
#: yet reported its success. A scheduler and a triggerer make none of these calls.
REACH = {"emulator": 5.0, "worker": 30.0}

#: Deletes in the last seconds of a teardown may be missing in its full record, which is written every 30 s.
UNRECORDED = 45.0


@dataclass(frozen=True)
class Kill:
    """A process was killed at this time, in seconds since the epoch."""

    what: str
    at: float

    def explains(self, before: float, again: float) -> bool:
        """Whether this explains why a call was repeated."""
        reach = REACH.get(self.what.partition("-")[0], 0.0)
        return self.at - reach <= before <= self.at < again


@dataclass
class Account:
    """The calls of one kind that change something, compared with the expected ones."""

    call: str
    expected: int
    made: int = 0
    #: Refused with 429, so that they changed nothing.
    refused: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def account(
    call: str, requests: Iterable[Mapping[str, Any]], batch_ids: Collection[str], kills: Sequence[Kill]
) -> Account:
    """Compare the requests of one kind with the batches that need exactly one each.

    :param call: `create`, `cancel` or `delete`.
    :param requests: The emulator's log, oldest first.
    :param batch_ids: The batches that need exactly one call each.
    :param kills: Kills that may explain repeated calls.
    """
    found = Account(call, len(batch_ids))
    times = defaultdict(list)
    for request in requests:
        if request["endpoint"] != call:
            continue
        if request["status"] == 429:
            found.refused += 1
            continue
        found.made += 1
        times[request["batch_id"]].append(request["time"])
    for batch_id in times.keys() - set(batch_ids):
        found.problems.append(f"unexpected {call} of {batch_id}")
    for batch_id in set(batch_ids) - times.keys():
        found.problems.append(f"no {call} of {batch_id}")
    for batch_id, each in times.items():
        for before, again in pairwise(each):
            kill = next((kill for kill in kills if kill.explains(before, again)), None)
            if kill:
                found.explained[kill.what] += 1
            else:
                found.problems.append(
                    f"{call} of {batch_id} was repeated after {again - before:.1f} s, and no kill explains it"
                )
    return found


def unsaved(folder: Path, requests: Iterable[Mapping[str, Any]], batch_ids: Collection[str], lines: int) -> list[str]:
    """Return the problems of saved results. Each file must have been complete before the first delete of its batch.

    :param folder: The folder with the files.
    :param requests: The emulator's log, oldest first.
    :param batch_ids: The batches whose results must be saved.
    :param lines: The number of lines of each file.
    """
    deleted: dict[str, float] = {}
    for request in requests:
        if request["endpoint"] == "delete":
            deleted.setdefault(request["batch_id"], request["time"])
    problems = []
    for batch_id in batch_ids:
        results, record = folder / f"{batch_id}.jsonl", folder / f"{batch_id}.json"
        if not (results.exists() and record.exists()):
            problems.append(f"{batch_id} is not saved")
            continue
        known, data = json.loads(record.read_text()), results.read_bytes()
        if (hashlib.sha256(data).hexdigest(), len(data)) != (known["sha256"], known["size"]):
            problems.append(f"{results} does not match its record")
        if (found := data.count(b"\n")) != lines:
            problems.append(f"{results} has {found} lines instead of {lines}")
        saved = max(path.stat().st_mtime for path in (results, record))
        if batch_id in deleted and saved > deleted[batch_id]:
            problems.append(f"{batch_id} was saved {saved - deleted[batch_id]:.3f} s after its first delete")
    return problems


def unrecorded(
    folder: Path, requests: Iterable[Mapping[str, Any]], batch_ids: Collection[str], kills: Sequence[Kill]
) -> list[str]:
    """Return the batches that the teardown's full record does not list as deleted, unless a kill explains it."""
    lines = [json.loads(line) for path in folder.glob("_teardown/*.jsonl") for line in path.open()]
    deleted = {line["batch_id"] for line in lines if line["outcome"] == "deleted"}
    gone = {line["batch_id"] for line in lines if line["outcome"] == "already_gone"}
    for request in requests:
        if request["endpoint"] == "delete" and any(0 <= kill.at - request["time"] <= UNRECORDED for kill in kills):
            # The next try has recorded it as already gone.
            deleted |= gone & {request["batch_id"]}
    return [f"the full record does not list {batch_id} as deleted" for batch_id in set(batch_ids) - deleted]
