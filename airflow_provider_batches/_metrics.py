"""Airflow's metrics of this package. docs/observe.md lists them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_batches._compat import stats
from airflow_provider_batches.api.models import read_time
from airflow_provider_batches.waiting.outcome import Outcome
from airflow_provider_batches.waiting.wait import Wait

PREFIX = "message_batches"


def count(name: str, value: float = 1, **tags: str) -> None:
    """Add to a counter."""
    if value:
        # StatsD would receive `True` as text.
        _send("incr", name, +value, tags)


def gauge(name: str, value: float, **tags: str) -> None:
    """Set a gauge."""
    _send("gauge", name, value, tags)


def count_ended(conn_id: str, outcomes: Sequence[Outcome], waits: Sequence[Wait]) -> None:
    """Count the batches of waits that have ended."""
    ended = [outcome for outcome in outcomes if outcome.status == "ended"]
    count("ended", len(ended), conn_id=conn_id)
    for outcome in ended:
        for state, number in outcome.request_counts.by_state.items():
            count(f"requests.{state}", number, conn_id=conn_id)
    times = [read_time((outcome.snapshot or {}).get("ended_at")) for outcome in ended]
    # Nobody waited for a batch that had ended before.
    since = min((wait.start_time for wait in waits), default=0.0)
    report_delay(conn_id, (each for each in times if each and each.timestamp() > since))


def count_usage(usage: Mapping[str, Mapping[str, int]], cost: float | None) -> None:
    """Count answers and tokens by model, and dollars."""
    for model, counts in usage.items():
        for name, value in counts.items():
            count(name, value, model=model)
    count("cost_usd", cost or 0.0)


def report_delay(conn_id: str, ended: Iterable[datetime]) -> None:
    """Report the time since the last of some batches ended."""
    if last := max(ended, default=None):
        _send("timing", "end_delay", timedelta(seconds=max(0.0, time.time() - last.timestamp())), {"conn_id": conn_id})


def _send(kind: str, name: str, value: Any, tags: dict[str, str]) -> None:
    # A metrics backend that fails must not fail a task.
    with suppress(Exception):
        getattr(stats(), kind)(f"{PREFIX}.{name}", value, tags=tags)
