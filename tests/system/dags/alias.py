"""A task that announces what it has saved, and a DAG that begins because of it."""

from __future__ import annotations

from typing import Any

from airflow.sdk import AssetAlias, dag, task

from airflow_provider_batches.operators.results import SaveBatchResultsOperator

SAVED = AssetAlias("saved_results")


@dag(schedule=None, params={"batch_id": "", "folder": ""})
def announces_results() -> None:
    SaveBatchResultsOperator(
        task_id="save", batch_id="{{ params.batch_id }}", path="{{ params.folder }}", outlets=[SAVED]
    )


@dag(schedule=[SAVED], catchup=False)
def begins_with_results() -> None:
    @task
    def read(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        # From Airflow 3.1 on, an event stands below its asset and below the alias.
        found = {event.asset.uri: event.extra for events in triggering_asset_events.values() for event in events}
        return [{"uri": uri, **extra} for uri, extra in found.items()]

    read()


announces_results()
begins_with_results()
