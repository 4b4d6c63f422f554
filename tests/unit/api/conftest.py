from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from airflow_provider_batches.api import MessageBatch

# Without limits of time, so that a busy machine fails no test.
settings.register_profile("batches", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("batches")


@pytest.fixture(scope="session")
def batch_json() -> Callable[..., dict[str, Any]]:
    """A batch in progress as the API shows it, but for the fields that are given."""

    def make(**fields: Any) -> dict[str, Any]:
        return {
            "id": "msgbatch_1",
            "type": "message_batch",
            "processing_status": "in_progress",
            "request_counts": {"processing": 100, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
            "created_at": "2026-01-02T03:04:05.678901+00:00",
            "expires_at": "2026-01-03T03:04:05.678901+00:00",
            "ended_at": None,
            "cancel_initiated_at": None,
            "archived_at": None,
            "results_url": None,
            **fields,
        }

    return make


@pytest.fixture(scope="session")
def batch(batch_json: Callable[..., dict[str, Any]]) -> Callable[..., MessageBatch]:
    """The same as a model; `ended=True` is short for all that comes with it."""

    def make(ended: bool = False, **fields: Any) -> MessageBatch:
        if ended:
            counts = {"processing": 0, "succeeded": 97, "errored": 1, "canceled": 2, "expired": 0}
            fields = {
                "processing_status": "ended",
                "request_counts": counts,
                "ended_at": "2026-01-02T04:00:00Z",
                **fields,
            }
        return MessageBatch.model_validate(batch_json(**fields))

    return make
