"""One run for each batch that ends, regardless of who submitted it.

    relay_batch_ends: ended -> start        starts a run of on_each_batch_end for each batch
    on_each_batch_end: save                 saves the results of one batch

The watcher of an asset starts `relay_batch_ends`. The run ID contains the batch ID: a batch that is announced twice has
one run.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Asset, AssetWatcher, Param, dag, task

from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.triggers.events import BatchesEndedTrigger

CONN_ID = "anthropic_default"
#: **Change this before you use it**: set the Variable `on_batch_end_folder` to a folder that all workers reach.
FOLDER = "{{ var.value.get('on_batch_end_folder', '') or 'file:///tmp/batches' }}"
# Each file that names this asset must define it with the same watcher.
ENDED = Asset(
    "message_batches_ended", watchers=[AssetWatcher(name="batches", trigger=BatchesEndedTrigger(conn_id=CONN_ID))]
)
TAGS = ["anthropic", "message-batches", "example"]


@dag(description="Start a run for each message batch that ends", schedule=[ENDED], catchup=False, tags=TAGS)
def relay_batch_ends() -> None:
    @task
    def ended(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        events = triggering_asset_events[ENDED] if triggering_asset_events else []
        ids = dict.fromkeys(batch["id"] for event in events for batch in event.extra["payload"]["batches"])
        return [{"trigger_run_id": f"batch__{batch_id}", "conf": {"batch_id": batch_id}} for batch_id in ids]

    TriggerDagRunOperator.partial(
        task_id="start", trigger_dag_id="on_each_batch_end", skip_when_already_exists=True
    ).expand_kwargs(ended())


@dag(
    description="Save the results of one message batch that has ended",
    schedule=None,
    tags=TAGS,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30)},
    params={"batch_id": Param(type="string", title="Batch ID", minLength=1, maxLength=256)},
    doc_md=__doc__,
)
def on_each_batch_end() -> None:
    SaveBatchResultsOperator(
        task_id="save",
        batch_id="{{ params.batch_id }}",
        path=f"{FOLDER}/results",
        conn_id=CONN_ID,
        on_missing_results="skip",
    )


relay_batch_ends()
on_each_batch_end()
