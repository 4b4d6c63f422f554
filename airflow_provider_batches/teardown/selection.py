"""Which batches a task works on. Pure: the arguments in, the chosen batches out."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from airflow_provider_batches.api import InvalidArgumentError, MessageBatch
from airflow_provider_batches.api.endpoints import check_batch_ids, listed, shown

STATUSES = ("in_progress", "canceling", "ended")
_AGE = TypeAdapter(timedelta)
_TIME = TypeAdapter(datetime)


@dataclass(frozen=True)
class Selection:
    """The batches with these IDs, or all that are older than a moment and in one of these states.

    :param batch_ids: The IDs, None where age and state choose.
    :param before: Batches created at this time or later are left alone.
    :param statuses: States that are chosen, as they are when the choice is made.
    :param limit: How many are chosen at most, the oldest first. None: all.
    """

    batch_ids: list[str] | None = None
    before: datetime | None = None
    statuses: frozenset[str] = frozenset(STATUSES)
    limit: int | None = None

    def takes(self, batch: MessageBatch) -> bool:
        """Whether a batch is old enough and in one of the states."""
        old = self.before is None or batch.created_at < self.before
        # A state that this package does not know is chosen only where no state is asked for.
        return old and (batch.processing_status in self.statuses or self.statuses == frozenset(STATUSES))

    def choose(self, batches: Iterable[MessageBatch]) -> list[MessageBatch]:
        """Return those of all batches that are chosen, oldest first."""
        taken = sorted(filter(self.takes, batches), key=lambda batch: (batch.created_at, batch.id))
        return taken[: self.limit]


def read_selection(
    *,
    batch_ids: object = None,
    older_than: object = None,
    created_before: object = None,
    statuses: object = None,
    limit: object = None,
    started: datetime | None = None,
) -> Selection:
    """Return the selection that an operator's arguments stand for.

    :param started: When the run began: `older_than` counts back from there, and no newer batch is ever chosen. None
        where the arguments are only checked, those that a template or another task will give being left out.
    :raises InvalidArgumentError: One of them is wrong, they contradict each other, or they would choose everything.
    """
    checking = started is None
    given = {
        "batch_ids": batch_ids,
        "older_than": older_than,
        "created_before": created_before,
        "statuses": statuses,
    }
    named = [name for name, value in given.items() if value is not None]
    if not named:
        raise InvalidArgumentError(
            "batch_ids, older_than, created_before, statuses: none is given, which would choose every batch of the "
            "workspace. Say how old batches have to be (older_than=timedelta(days=7)), or name them."
        )
    if batch_ids is not None and (len(named) > 1 or limit is not None):
        others = [*named[1:], *(["limit"] if limit is not None else [])]
        raise InvalidArgumentError(
            f"batch_ids: given together with {', '.join(others)}. Either name the batches, or choose them by age."
        )
    if older_than is not None and created_before is not None:
        raise InvalidArgumentError("older_than, created_before: both are given; choose one of them.")
    if checking:
        batch_ids, older_than, created_before, statuses, limit = (
            None if is_template(value) else value for value in (batch_ids, older_than, created_before, statuses, limit)
        )
    if batch_ids is not None:
        return Selection(_ids(batch_ids))
    age = timedelta() if older_than is None else _age(older_than)
    before = None if created_before is None else _time(created_before)
    if started is not None:
        try:
            before = min(started - age, before or started)
        except OverflowError:
            raise InvalidArgumentError(f"older_than: {shown(older_than)} ago there were no dates.") from None
    return Selection(
        before=before,
        statuses=frozenset(STATUSES) if statuses is None else _statuses(statuses),
        limit=None if limit is None else read_count("limit", limit),
    )


def is_template(value: object) -> bool:
    """Whether Airflow puts another value in this one's place before the task runs."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, (list, tuple, set)):
        return any(map(is_template, value))
    return hasattr(value, "iter_references")


def read_count(name: str, value: object) -> int:
    """Return a whole number above 0, which a template may have made a text of."""
    number: object = value
    if isinstance(value, str) and value.isascii() and value.strip().isdigit():
        with suppress(ValueError):  # of thousands of digits
            number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidArgumentError(f"{name}: got {shown(value)}; it must be a whole number above 0, or None.")
    return number


def read_flag(name: str, value: object) -> bool:
    """Return a bool, which a template may have made a text of."""
    flags: dict[object, bool] = {"true": True, "false": False}
    flag = flags.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise InvalidArgumentError(f"{name}: got {shown(value)}; it must be True or False.")
    return flag


def _ids(value: object) -> list[str]:
    try:
        return check_batch_ids(value)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(str(error).replace("batch_id:", "batch_ids:", 1)) from None


def _age(value: object) -> timedelta:
    age: Any = None
    if isinstance(value, (str, timedelta)):
        with suppress(ValidationError):
            age = _AGE.validate_python(value)
    if not isinstance(age, timedelta) or age <= timedelta():
        raise InvalidArgumentError(
            f"older_than: got {shown(value)}; it must be a timedelta above 0, or a text like '7 days' or 'P7D'."
        )
    return age


def _time(value: object) -> datetime:
    time: Any = value
    if isinstance(value, str):
        try:
            time = None if value.strip().isdigit() else _TIME.validate_python(value.strip())
        except ValidationError:
            time = None
    if not isinstance(time, datetime):
        raise InvalidArgumentError(
            f"created_before: got {shown(value)}; it must be a datetime, or a text like '2026-01-31T00:00:00+00:00'."
        )
    if time.utcoffset() is None:
        raise InvalidArgumentError(
            f"created_before: {shown(value)} has no time zone; add one, for example tzinfo=timezone.utc."
        )
    return time


def _statuses(value: object) -> frozenset[str]:
    items: Any = value
    if isinstance(value, str):
        items = listed(value) if value.lstrip().startswith("[") else [value]
    if not isinstance(items, (list, tuple, set, frozenset)) or not items or not set(map(str, items)) <= set(STATUSES):
        raise InvalidArgumentError(
            f"statuses: got {shown(value)}; it must be a list of {', '.join(STATUSES)}. There is no 'canceled' and no "
            "'expired': such batches are 'ended'."
        )
    return frozenset(map(str, items))
