"""What is compared: the same thing done with this provider and with the official one. Imported only as needed."""

from __future__ import annotations

import time
from typing import Any

KEY = "sk-ant-emulator"
CONNECTION = "AIRFLOW_CONN_ANTHROPIC_DEFAULT"
CONN_ID = "anthropic_default"
CONN_TYPES = {"ours": "anthropic_batches", "official": "anthropic", "common.ai": "pydanticai"}


def trigger(side: str, batch_id: str, poll_interval: float) -> Any:
    """Return the trigger of a wait that began ten minutes ago, as after a restart of the triggerer."""
    now = time.time()
    if side == "ours":
        from airflow_provider_batches.triggers.batches import BatchEndedTrigger

        return BatchEndedTrigger(batch_id, CONN_ID, poll_interval, start_time=now - 600, end_time=now + 7200)
    from airflow.providers.anthropic.triggers.batch import AnthropicBatchTrigger

    return AnthropicBatchTrigger(CONN_ID, batch_id, poll_interval, end_time=now + 7200)


def hook(side: str) -> Any:
    """Return a new hook."""
    if side == "ours":
        from airflow_provider_batches.hooks.batches import BatchesHook

        return BatchesHook(CONN_ID)
    from airflow.providers.anthropic.hooks.anthropic import AnthropicHook

    return AnthropicHook(CONN_ID)
