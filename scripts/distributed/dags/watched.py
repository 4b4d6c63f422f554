"""Collects the IDs of the batches that end, as an asset's watcher announces them."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_batches.triggers.events import BatchesEndedTrigger

# An event that no run has consumed is consumed with the reminder.
TRIGGER = BatchesEndedTrigger(poll_interval=15, reminder=30)
ENDED = Asset("ended", watchers=[AssetWatcher(name="ended", trigger=TRIGGER)])

with DAG("watched", schedule=[ENDED], catchup=False, max_active_runs=1):

    @task
    def collect(triggering_asset_events: Any = None) -> list[str]:
        events = triggering_asset_events[ENDED]
        return [batch["id"] for event in events for batch in event.extra["payload"]["batches"]]

    collect()
