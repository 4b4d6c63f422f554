from __future__ import annotations

from typing import Any

from airflow_provider_batches.emulator.settings import Settings
from airflow_provider_batches.emulator.store import Batch, Store, new_batch_id


def seed(
    store: Store,
    settings: Settings,
    requests: int | list[Any] = 100,
    *,
    status: str | None = None,
    age_seconds: float = 0.0,
    outcomes: dict[str, int] | None = None,
    result_bytes: int = 0,
    batch_seconds: float | None = None,
    cancel_seconds: float | None = None,
    foreign: bool = False,
) -> Batch:
    """Put a batch into the store without HTTP; see `Emulator.add_batch`."""
    now = store.clock.now()
    ids = None if isinstance(requests, int) else [r if isinstance(r, str) else r["custom_id"] for r in requests]
    total = requests if isinstance(requests, int) else len(requests)
    if outcomes is None:
        errored = round(total * settings.error_fraction)
        outcomes = {"succeeded": total - errored, "errored": errored}
    if outcomes.keys() - {"succeeded", "errored", "canceled", "expired"} or sum(outcomes.values()) != total:
        raise ValueError(f"outcomes must say how each of the {total} requests ends, not {outcomes}.")
    batch = Batch(
        id=new_batch_id(),
        created_at=now - age_seconds,
        total=total,
        batch_seconds=settings.batch_seconds if batch_seconds is None else batch_seconds,
        cancel_seconds=settings.cancel_seconds if cancel_seconds is None else cancel_seconds,
        errored=outcomes.get("errored", 0),
        canceled=outcomes.get("canceled", 0),
        expired=outcomes.get("expired", 0),
        custom_ids=ids,
        result_bytes=result_bytes,
        foreign=foreign,
    )
    if status == "ended":
        batch.batch_seconds = min(batch.batch_seconds, age_seconds)
        if batch.canceled:
            batch.cancel_at, batch.cancel_seconds = batch.ended_at, 0.0
    elif status is not None:
        batch.batch_seconds += age_seconds
        if status == "canceling":
            batch.cancel_at, batch.cancel_seconds = now, batch.cancel_seconds or 3600.0
    if status is not None and batch.phase(now) not in (status, "archived" if status == "ended" else status):
        raise ValueError(f"A batch {age_seconds} s old cannot be {status}.")
    return store.add(batch)
