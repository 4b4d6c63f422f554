"""Save the results of each batch that ends, regardless of who submitted it, and delete the batch.

    ended -> save_and_delete

An asset's watcher notices the batches of the connection's workspace that end, and starts this DAG. Batches that ended
before the DAG was unpaused for the first time are left unchanged.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.triggers.events import BatchesEndedTrigger

CONN_ID = "anthropic_default"
#: **Change this before you use it**: set the Variable `on_batch_end_folder` to a folder that all workers reach.
FOLDER = "{{ var.value.get('on_batch_end_folder', '') or 'file:///tmp/batches' }}"
# Each file that names this asset must define it with the same watcher: defined without it, the asset loses the watcher,
# and with `Asset.ref`, the runs of Airflow 3.3.2 receive no events.
ENDED = Asset(
    "message_batches_ended", watchers=[AssetWatcher(name="batches", trigger=BatchesEndedTrigger(conn_id=CONN_ID))]
)


@dag(
    description="Save the results of each message batch that ends, and delete the batch",
    schedule=[ENDED],
    catchup=False,
    tags=["anthropic", "message-batches", "example"],
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30)},
    doc_md=__doc__,
)
def on_batch_end() -> None:
    # Airflow may pass several events to one run, and a reminder has no batches.
    @task.short_circuit(retries=0)
    def ended(triggering_asset_events: Any = None) -> list[str]:
        events = triggering_asset_events[ENDED] if triggering_asset_events else []
        batches = [batch for event in events for batch in event.extra["payload"]["batches"]]
        return list(dict.fromkeys(batch["id"] for batch in batches))

    TeardownBatchesOperator(
        task_id="save_and_delete",
        batch_ids=ended(),
        save_results_to=f"{FOLDER}/results",
        conn_id=CONN_ID,
        ignore_if_missing=True,
    )


on_batch_end()
