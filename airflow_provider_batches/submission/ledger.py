"""The ledger of a submission: files that are only ever created, never changed. Their names alone hold its state.

`plan-1.json` says which requests make up the batches. `1-00002-1.claim.json` says that a task is about to send chunk 2
of plan 1 for the first time, `1-00002-1.batch.msgbatch_01.json` that it is a batch, and `1-00002-1.void.json` that this
attempt created nothing. docs/submit.md has the protocol.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import quote, unquote
from uuid import uuid4

from airflow_provider_batches.storage.folder import Folder, StorageError

_PLAN = re.compile(r"plan-(\d+)\.json")
_RECORD = re.compile(r"(\d+)-(\d+)-(\d+)\.(?:(claim|void)|batch\.(.+))\.json")


@dataclass(frozen=True)
class Chunk:
    """The requests of one batch.

    :param file: Their file, one request a line.
    :param requests: Their number.
    :param size: The bytes of the request body.
    :param sha256: The SHA-256 of the request body.
    :param tag: What each `custom_id` in the file begins with.
    """

    file: str
    requests: int
    size: int
    sha256: str
    tag: str


@dataclass(frozen=True)
class Summary:
    """What a source of requests holds.

    :param requests: The number of requests.
    :param size: The bytes of all request bodies.
    :param models: The number of requests for each model.
    :param max_tokens: The sum of `max_tokens` for each model.
    :param sha256: The SHA-256 of all requests, regardless of how they are split.
    :param estimated_cost: The most dollars that they cost, approximately. None: not estimated.
    """

    requests: int
    size: int
    models: dict[str, int]
    max_tokens: dict[str, int]
    sha256: str
    estimated_cost: float | None = None


@dataclass(frozen=True)
class Plan:
    """Which requests a submission sends in which batches.

    :param number: Counts the plans of a submission, from 1. The newest counts.
    :param id: Identifies the plan.
    :param submission_id: What the plan submits.
    :param base_url: Where it is sent.
    :param workspace_id: The workspace of the connection, if it names one.
    :param summary: What the source held.
    :param chunks: One for each batch.
    """

    number: int
    id: str
    submission_id: str
    base_url: str
    workspace_id: str | None
    summary: Summary
    chunks: list[Chunk]

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Plan:
        """Return the plan that `as_json` returned."""
        given = {name: content[name] for name in cls.__dataclass_fields__}
        chunks = [Chunk(**chunk) for chunk in content["chunks"]]
        return cls(**{**given, "summary": Summary(**content["summary"]), "chunks": chunks})

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class ChunkState:
    """What the ledger knows of a chunk.

    :param status: `unsent`; `doubt`, if it may have been sent; or `sent`.
    :param attempt: The number of the attempt that counts, from 1.
    :param batch_ids: Its batch. More than one if it was sent twice, which the protocol prevents.
    """

    status: Literal["unsent", "doubt", "sent"]
    attempt: int
    batch_ids: list[str]


@dataclass(frozen=True)
class Records:
    """The names of the files in a ledger, read once.

    :param plan: The number of the newest plan, 0 if there is none.
    """

    plan: int = 0
    _claims: set[tuple[int, int, int]] = field(default_factory=set)
    _voids: set[tuple[int, int, int]] = field(default_factory=set)
    _batches: dict[tuple[int, int], list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, names: Iterable[str]) -> Records:
        """Return the records with these names. Other files are ignored."""
        claims, voids, batches = (
            set[tuple[int, int, int]](),
            set[tuple[int, int, int]](),
            dict[tuple[int, int], list[str]](),
        )
        plan = 0
        for name in sorted(names):
            if found := _PLAN.fullmatch(name):
                plan = max(plan, int(found[1]))
            elif found := _RECORD.fullmatch(name):
                number, chunk, attempt = map(int, found.group(1, 2, 3))
                if found[5]:
                    batches.setdefault((number, chunk), []).append(unquote(found[5]))
                else:
                    (claims if found[4] == "claim" else voids).add((number, chunk, attempt))
        return cls(plan, claims, voids, batches)

    @property
    def batch_ids(self) -> set[str]:
        """All batches of all plans."""
        return {batch_id for batch_ids in self._batches.values() for batch_id in batch_ids}

    def state(self, plan: int, chunk: int) -> ChunkState:
        """Return the state of a chunk. A known batch counts more than anything else."""
        attempt = 1
        while (plan, chunk, attempt) in self._voids:
            attempt += 1
        if batch_ids := list(dict.fromkeys(self._batches.get((plan, chunk), []))):
            return ChunkState("sent", attempt, batch_ids)
        return ChunkState("doubt" if (plan, chunk, attempt) in self._claims else "unsent", attempt, [])


class Ledger:
    """Reads and creates the files of one submission.

    :param folder: The submission's folder, which all workers must share.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._writer = uuid4().hex

    def records(self) -> Records:
        """Return which files there are now."""
        return Records.read(self.folder.names())

    def plan(self, number: int) -> Plan:
        """Return a plan."""
        name = f"plan-{number}.json"
        try:
            return Plan.from_json(self._read(name))
        except (KeyError, TypeError) as error:
            raise StorageError(f"{self.folder.uri(name)} is not a plan of this version ({error!r}).") from None

    def create_plan(self, plan: Plan) -> bool:
        """Write a plan. Returns False if there is one with its number already."""
        return self._create(f"plan-{plan.number}.json", plan.as_json())

    def claim(self, plan: int, chunk: int, attempt: int, content: dict[str, Any]) -> bool:
        """Record that the last bytes of a chunk are about to be sent. Returns False if somebody else has."""
        return self._create(f"{plan}-{chunk:05}-{attempt}.claim.json", content)

    def claims(self, plan: int, chunk: int, attempt: int) -> list[dict[str, Any]]:
        """Return the claims of a chunk up to an attempt."""
        return [self._read(f"{plan}-{chunk:05}-{each}.claim.json") for each in range(1, attempt + 1)]

    def void(self, plan: int, chunk: int, attempt: int, reason: str) -> None:
        """Record that an attempt created nothing, and never will."""
        self._create(f"{plan}-{chunk:05}-{attempt}.void.json", {"reason": reason})

    def record_batch(self, plan: int, chunk: int, attempt: int, batch_id: str, content: dict[str, Any]) -> None:
        """Record the batch of a chunk."""
        self._create(f"{plan}-{chunk:05}-{attempt}.batch.{quote(batch_id, safe='')}.json", content)

    def _create(self, name: str, content: dict[str, Any]) -> bool:
        data = json.dumps({**content, "writer": self._writer}, indent=1).encode() + b"\n"
        try:
            self.folder.create(name, data)
        except FileExistsError:
            # The store may have created it, and lost the answer.
            return self.folder.read(name) == data
        return True

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self.folder.read(name) or b"{}")
        except ValueError:
            raise StorageError(f"{self.folder.uri(name)} is not whole. Retry later.") from None
        return content
