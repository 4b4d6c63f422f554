"""Every order in which tasks can submit one chunk: they die or stand still at any step, answers are lost, batches
appear late, and other batches of the same size exist.

The steps are those of `submission/sending.py`, `doubt.py` and `job.py`. The ledger's own code decides what its names
mean. `explore` returns what went wrong, with the shortest way to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from airflow_provider_batches.submission.ledger import ChunkState, Records

#: Attempts after which a way is not followed further.
MOST_ATTEMPTS = 3


@cache
def ledger_state(names: frozenset[str]) -> ChunkState:
    return Records.read(names).state(1, 0)


@dataclass(frozen=True)
class Rules:
    """The protocol. Each rule that is switched off must lead to a failure."""

    tags: bool = True
    tags_name_the_chunk: bool = True
    claims_are_exclusive: bool = True
    settles: bool = True
    deadline: bool = True
    withholds: bool = True
    http_retries: bool = False
    state: Callable[[frozenset[str]], ChunkState] = ledger_state


@dataclass(frozen=True)
class World:
    """One moment: where each task is, the names in the ledger, and what the API has."""

    tasks: tuple[tuple[str, int], ...]
    names: frozenset[str] = frozenset()
    #: Attempts whose batch exists, and those whose batch the list shows.
    made: tuple[int, ...] = ()
    listed: frozenset[int] = frozenset()
    #: Attempts whose complete request is in transit.
    in_flight: frozenset[int] = frozenset()
    #: Attempts whose claim has settled.
    settled: frozenset[int] = frozenset()

    def task(self, number: int, step: str, attempt: int, **changes: object) -> World:
        tasks = (*self.tasks[:number], (step, attempt), *self.tasks[number + 1 :])
        return replace(self, tasks=tasks, **changes)  # type: ignore[arg-type]

    def name(self, attempt: int, kind: str) -> frozenset[str]:
        return self.names | {f"1-00000-{attempt}.{kind}.json"}


def after(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    """Yield what can happen next."""
    for attempt in range(1, MOST_ATTEMPTS + 1):
        if attempt in world.in_flight:
            yield f"{attempt} arrives", _arrive(world, attempt)
        if f"1-00000-{attempt}.claim.json" in world.names and attempt not in world.settled:
            # By then all that was in transit has arrived or never will, and the list shows it.
            for arrived in (_arrive(world, attempt), world) if attempt in world.in_flight else (world,):
                settled = world.settled | {attempt}
                left, listed = arrived.in_flight - {attempt}, frozenset(arrived.made)
                yield f"{attempt} settles", replace(arrived, settled=settled, in_flight=left, listed=listed)
    if set(world.made) - world.listed:
        yield "the list shows it", replace(world, listed=frozenset(world.made))
    for number, (step, attempt) in enumerate(world.tasks):
        if step == "ready":
            yield f"task {number} starts", world.task(number, "start", 0)
            return
        if step not in ("dead", "done", "failed"):
            yield f"task {number} dies at {step}", world.task(number, "dead", 0)
            for event, found in _step(world, rules, number, step, attempt):
                yield f"task {number} {event}", found


def _arrive(world: World, attempt: int) -> World:
    return replace(world, made=(*world.made, attempt), in_flight=world.in_flight - {attempt})


def _step(world: World, rules: Rules, number: int, step: str, attempt: int) -> Iterator[tuple[str, World]]:
    state = rules.state(world.names)

    def go(event: str, step: str, **changes: object) -> tuple[str, World]:
        return event, world.task(number, step, attempt, **changes)

    if step == "start":
        attempt = state.attempt
        if attempt <= MOST_ATTEMPTS:
            following = {"sent": "done", "doubt": "resolve", "unsent": "upload"}[state.status]
            yield go(f"sees {state.status}", following)
    elif step == "upload":
        yield go("breaks off", "failed")
        if not rules.withholds:
            yield go("breaks off, and is complete", "failed", in_flight=world.in_flight | {attempt})
        claimed = f"1-00000-{attempt}.claim.json" in world.names
        if claimed and rules.claims_are_exclusive:
            yield go("finds a claim", "failed")
        else:
            yield go("claims", "check", names=world.name(attempt, "claim"), settled=world.settled - {attempt})
    elif step == "check":
        current = (state.status, state.attempt) == ("doubt", attempt)
        yield go("looks again", "send" if current else "void")
    elif step == "send":
        if rules.deadline and attempt in world.settled:
            yield go("is too late", "void")
            return
        made = (*world.made, attempt)
        yield go("sends", "answered", made=made)
        yield go("sends, and the answer is lost", "failed", made=made)
        yield go("sends, and it arrives late or never", "failed", in_flight=world.in_flight | {attempt})
        yield go("is refused", "void")
        if rules.http_retries:
            yield go("sends, loses the answer, and sends again", "answered", made=(*made, attempt))
    elif step == "void":
        yield go("voids", "failed", names=world.name(attempt, "void"))
    elif step == "answered":
        yield go("records", "done", names=world.name(attempt, "batch.own"))
    elif step == "resolve":
        if not rules.tags:
            yield go("adopts a foreign batch", "done", names=world.name(attempt, "batch.foreign"))
        if not rules.tags_name_the_chunk:
            yield go("adopts a sibling's batch", "done", names=world.name(attempt, "batch.foreign"))
        if world.listed:
            yield go("adopts", "done", names=world.name(attempt, "batch.own"))
        elif attempt in world.settled or not rules.settles:
            yield go("finds nothing", "void and start")
    elif step == "void and start":
        yield go("voids", "start", names=world.name(attempt, "void"))


def heals(world: World, rules: Rules) -> bool:
    """Return whether one more task finishes alone: exactly one batch exists, and it is recorded."""
    ways = [world]
    for attempt in world.in_flight:
        ways = [way for each in ways for way in (_arrive(each, attempt), replace(each, in_flight=frozenset()))]
    for way in ways:
        names, made = way.names, way.made
        for _ in range(2 * MOST_ATTEMPTS):
            state = rules.state(names)
            if state.status == "sent":
                break
            if state.status == "unsent":
                made += (state.attempt,)
            kind = "batch.own" if made else "void"
            names |= {f"1-00000-{state.attempt}.{kind}.json"}
        if len(made) != 1 or rules.state(names).batch_ids != ["own"]:
            return False
    return True


def explore(rules: Rules, tasks: int) -> tuple[int, dict[str, str]]:
    """Return the number of moments, and for each kind of failure the shortest way to it."""
    first = World((("ready", 0),) * tasks)
    seen, todo, failures = {first}, deque([(first, "")]), dict[str, str]()
    while todo:
        world, way = todo.popleft()
        if len(world.made) > 1:
            failures.setdefault("paid twice", way)
            continue
        if any("foreign" in name for name in world.names):
            failures.setdefault("foreign batch", way)
            continue
        if not heals(world, rules):
            failures.setdefault("not healed", way)
        for event, following in after(world, rules):
            if following not in seen:
                seen.add(following)
                todo.append((following, f"{way}; {event}" if way else event))
    return len(seen), failures
