"""What the emulator's log of requests and the saved files say of a run in which things were killed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

#: Calls that a process made within so many seconds before its death may be repeated: their answers were in transit, or
#: the task had not yet reported its success. A scheduler and a triggerer make none of these calls.
REACH = {"emulator": 5.0, "worker": 30.0}

#: For how many seconds before its death what a teardown has deleted may be missing in its full record: it is written
#: every 30 s.
UNRECORDED = 45.0


@dataclass(frozen=True)
class Kill:
    """A process was killed at a time, in seconds since the epoch."""

    what: str
    at: float

    def explains(self, before: float, again: float) -> bool:
        """Whether this explains that a call was repeated."""
        reach = REACH.get(self.what.partition("-")[0], 0.0)
        return self.at - reach <= before <= self.at < again


@dataclass
class Account:
    """The calls of one kind that change something, held against those that were to be made."""

    call: str
    expected: int
    made: int = 0
    #: Refused with 429, so that nothing was changed.
    refused: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def account(
    call: str, requests: Iterable[Mapping[str, Any]], batch_ids: Collection[str], kills: Sequence[Kill]
) -> Account:
    """Hold the requests of one kind against the batches for which one each was to be made.

    :param call: `create`, `cancel` or `delete`.
    :param requests: The emulator's log, oldest first.
    :param batch_ids: For which batches it was to be made, once each.
    :param kills: What may explain that one was repeated.
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
        found.problems.append(f"{call} of {batch_id}, which was to be left alone")
    for batch_id in set(batch_ids) - times.keys():
        found.problems.append(f"no {call} of {batch_id}")
    for batch_id, each in times.items():
        for before, again in pairwise(each):
            kill = next((kill for kill in kills if kill.explains(before, again)), None)
            if kill:
                found.explained[kill.what] += 1
            else:
                found.problems.append(
                    f"{call} of {batch_id} again after {again - before:.1f} s, and nothing explains it"
                )
    return found


def unsaved(folder: Path, requests: Iterable[Mapping[str, Any]], batch_ids: Collection[str], lines: int) -> list[str]:
    """Return what is wrong with the saved results of batches: each had to be there whole before its first delete.

    :param folder: Where they are saved.
    :param requests: The emulator's log, oldest first.
    :param batch_ids: Whose results were to be saved.
    :param lines: How many each has.
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
            problems.append(f"{results} is not what its record says")
        if (found := data.count(b"\n")) != lines:
            problems.append(f"{results} has {found} lines instead of {lines}")
        saved = max(path.stat().st_mtime for path in (results, record))
        if batch_id in deleted and saved > deleted[batch_id]:
            problems.append(f"{batch_id} was saved {saved - deleted[batch_id]:.3f} s after it was to be deleted")
    return problems


def unrecorded(
    folder: Path, requests: Iterable[Mapping[str, Any]], batch_ids: Collection[str], kills: Sequence[Kill]
) -> list[str]:
    """Return which batches the teardown's full record does not say to be deleted, though no kill explains it."""
    lines = [json.loads(line) for path in folder.glob("_teardown/*.jsonl") for line in path.open()]
    deleted = {line["batch_id"] for line in lines if line["outcome"] == "deleted"}
    gone = {line["batch_id"] for line in lines if line["outcome"] == "already_gone"}
    for request in requests:
        if request["endpoint"] == "delete" and any(0 <= kill.at - request["time"] <= UNRECORDED for kill in kills):
            # The next try has found it gone, and has said so.
            deleted |= gone & {request["batch_id"]}
    return [f"the full record does not say that {batch_id} is deleted" for batch_id in set(batch_ids) - deleted]
