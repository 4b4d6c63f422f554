"""Decides which batches a task works on. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from airflow_provider_batches._arguments import is_template, read_batch_ids, read_count, read_literal
from airflow_provider_batches.api import InvalidArgumentError, MessageBatch
from airflow_provider_batches.api.errors import shown

STATUSES = frozenset({"in_progress", "canceling", "ended"})
_AGE = TypeAdapter(timedelta)
_TIME = TypeAdapter(datetime)


@dataclass(frozen=True)
class Selection:
    """The batches with these IDs, or all that are older than a moment and in one of these states.

    :param batch_ids: The IDs, None if age and state select.
    :param before: Batches created at this time or later are not selected.
    :param statuses: States that are selected, at the time of the selection.
    :param limit: How many are selected at most, the oldest first. None: all.
    """

    batch_ids: list[str] | None = None
    before: datetime | None = None
    statuses: frozenset[str] = STATUSES
    limit: int | None = None

    def takes(self, batch: MessageBatch) -> bool:
        """Whether a batch is old enough and in one of the states."""
        old = self.before is None or (batch.created_at is not None and batch.created_at < self.before)
        state = "ended" if batch.ended else batch.processing_status
        # An unknown state is selected only if no state is asked for.
        return old and (state in self.statuses or self.statuses == STATUSES)

    def choose(self, batches: Iterable[MessageBatch]) -> list[MessageBatch]:
        """Return those of all batches that are selected, oldest first."""
        taken = sorted(filter(self.takes, batches), key=lambda batch: (batch.listed_since, batch.id))
        return taken[: self.limit]


def read_selection(*, started: datetime | None = None, **arguments: object) -> Selection:
    """Return the selection that an operator's arguments describe.

    :param started: When the run was due: `older_than` counts back from there, and no newer batch is ever selected. None
        if the arguments are only checked, but for those that a template or an upstream task will give.
    :param arguments: `batch_ids`, `older_than`, `created_before`, `statuses`, `limit`; None, or left out: not given.
    :raises InvalidArgumentError: One of them is wrong, they contradict each other, or they would select everything.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if given.keys() <= {"limit"}:
        raise InvalidArgumentError(
            "batch_ids, older_than, created_before, statuses",
            "none is given, which would select every batch of the workspace. Say how old batches have to be "
            "(older_than=timedelta(days=7)), or name them.",
        )
    if others := [name for name in given if name != "batch_ids" and "batch_ids" in given]:
        raise InvalidArgumentError(
            "batch_ids", f"given together with {', '.join(others)}. Either name the batches, or select them by age."
        )
    if {"older_than", "created_before"} <= given.keys():
        raise InvalidArgumentError("older_than, created_before", "both are given; choose one of them.")
    if started is None:
        given = {name: value for name, value in given.items() if not is_template(value)}
    if "batch_ids" in given:
        return Selection(read_batch_ids(given["batch_ids"], "batch_ids"))
    before = _time(given["created_before"]) if "created_before" in given else None
    age = _age(given["older_than"]) if "older_than" in given else timedelta()
    if started is not None:
        try:
            before = min(started - age, before or started)
        except OverflowError:
            raise InvalidArgumentError(
                "older_than", f"{shown(arguments['older_than'])} ago is before the first date that exists."
            ) from None
    return Selection(
        before=before,
        statuses=_statuses(given["statuses"]) if "statuses" in given else STATUSES,
        limit=read_count("limit", given["limit"]) if "limit" in given else None,
    )


def _age(value: object) -> timedelta:
    if isinstance(value, (str, timedelta)):
        with suppress(ValidationError):
            age = _AGE.validate_python(value)
            if age > timedelta():
                return age
    raise InvalidArgumentError(
        "older_than", f"got {shown(value)}; it must be a timedelta above 0, or a text like '7 days' or 'P7D'."
    )


def _time(value: object) -> datetime:
    time = value
    # pydantic would read a text of digits as seconds since the epoch.
    if isinstance(value, str) and not value.strip().isdigit():
        with suppress(ValidationError):
            time = _TIME.validate_python(value.strip())
    if not isinstance(time, datetime):
        problem = f"got {shown(value)}; it must be a datetime, or a text like '2026-01-31T00:00:00+00:00'."
    elif time.utcoffset() is None:
        problem = f"{shown(value)} has no time zone; add one, for example tzinfo=timezone.utc."
    else:
        return time
    raise InvalidArgumentError("created_before", problem)


def _statuses(value: object) -> frozenset[str]:
    items: Any = [value]
    if not isinstance(value, str) or value.lstrip().startswith("["):
        items = read_literal(value) if isinstance(value, str) else value
    if isinstance(items, (list, tuple, set, frozenset)) and items and STATUSES.issuperset(map(str, items)):
        return frozenset(map(str, items))
    raise InvalidArgumentError(
        "statuses",
        f"got {shown(value)}; it must be a list of in_progress, canceling, ended. There is no 'canceled' and no "
        "'expired': such batches are 'ended'.",
    )
