"""Parses arguments, which templates and upstream tasks often render as text. Raises InvalidArgumentError."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from airflow_provider_batches.api.endpoints import check_batch_id
from airflow_provider_batches.api.errors import InvalidArgumentError, shown
from airflow_provider_batches.api.models import MessageBatch


def read_batch_id(value: object) -> str:
    """Return the ID of one batch."""
    if isinstance(value, (list, tuple, set)) or (isinstance(value, str) and "," in value):
        raise InvalidArgumentError(
            "batch_id", f"expected one batch ID, got {shown(value)}. For several, use .expand(batch_id=[...])."
        )
    return _check_id(value, "batch_id")


def _check_id(value: object, field: str) -> str:
    if value is None or (isinstance(value, str) and value.strip() in ("", "None", "null")):
        raise InvalidArgumentError(field, f"got {shown(value)}; the upstream task or template returned no ID.")
    if isinstance(value, (dict, MessageBatch)):
        raise InvalidArgumentError(field, f"got a batch, {shown(value)}; pass its ID, batch.id or batch['id'].")
    if isinstance(value, (list, tuple, set)):
        raise InvalidArgumentError(field, f"got {shown(value)} inside a list; pass one flat list of IDs.")
    return check_batch_id(value, field)


def read_batch_ids(value: object, field: str = "batch_id") -> list[str]:
    """Return IDs without duplicates, in order, from one ID, a list of IDs, or the text of a list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        text, value = value, read_literal(value)
        if value is None:
            raise InvalidArgumentError(field, f"{shown(text)} is not a list of IDs.")
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        value = _items(value)
    if isinstance(value, (list, set)):
        return list(dict.fromkeys(_check_id(each, field) for each in value))
    return [_check_id(value, field)]


def _items(sequence: Sequence[object]) -> list[object]:
    """Return the items of a sequence, which Airflow may fetch lazily, as for a mapped task's output."""
    try:
        return list(sequence[:])
    except TypeError:
        # Some do not support slices. Not an iterator, which may end silently if fetching an item fails.
        return [sequence[index] for index in range(len(sequence))]


def read_literal(text: str) -> object:
    """Return the Python literal in a text, as rendered by a template; None if it is not valid."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        # Python raises the last two for thousands of nested signs or brackets.
        return None


def read_seconds(name: str, value: object) -> float:
    """Return a duration above 0 in seconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
        raise InvalidArgumentError(name, f"got {value!r}; it must be a timedelta or a number of seconds above 0.")
    return float(seconds)


def read_count(name: str, value: object, most: int | None = None) -> int:
    """Return a whole number above 0, up to `most`, which may be given as text."""
    number: object = value
    if isinstance(value, str) and value.isascii() and value.strip().isdigit():
        with suppress(ValueError):  # of thousands of digits
            number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidArgumentError(name, f"got {shown(value)}; it must be a whole number above 0, or None.")
    if most is not None and number > most:
        raise InvalidArgumentError(name, f"got {number}; it must be {most} at most.")
    return number


def read_choice(name: str, value: object, *choices: str) -> Any:
    """Return one of several texts."""
    if value not in choices:
        raise InvalidArgumentError(name, f"got {shown(value)}; it must be one of {', '.join(choices)}.")
    return value


def read_flag(name: str, value: object) -> bool:
    """Return True or False, which may be given as text."""
    flag = {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise InvalidArgumentError(name, f"got {shown(value)}; it must be True or False.")
    return flag


def is_template(value: object) -> bool:
    """Whether Airflow replaces this value before the task runs."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, (list, tuple, set)):
        return any(map(is_template, value))
    return hasattr(value, "iter_references")
