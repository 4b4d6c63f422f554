"""Cancel batches, or tear them down: what the page *Message Batches* starts for the batches that a person has selected.

    choose -> batch_ids -> cancel        cancels the batches, and leaves them otherwise unchanged
           -> save_and_delete            cancels, waits, saves the results and deletes the batches
           -> discard                    cancels, waits and deletes the batches, with their results

Keep the DAG ID, or set `[message_batches] teardown_dag_id`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.configuration import conf
from airflow.sdk import Param, chain, dag, task

from airflow_provider_batches.operators.batches import CancelBatchOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator

CONN_ID = "{{ params.conn_id }}"
BATCH_IDS = "{{ params.batch_ids }}"
STORAGE_FOLDER = conf.get("message_batches", "storage_folder", fallback="").rstrip("/")


@dag(
    description="Cancel the selected message batches, or tear them down",
    schedule=None,
    # Runs for different batches do not disturb each other, and most of a run is spent waiting.
    max_active_runs=16,
    tags=["anthropic", "message-batches", "example"],
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
    },
    params={
        "batch_ids": Param(
            type="array",
            title="Batch IDs",
            # The format of IDs may change, so this refuses only what can stand in no ID.
            items={"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,255}$"},
            minItems=1,
            # Airflow maps a task over this many.
            maxItems=1024,
        ),
        "action": Param(
            "save_and_delete",
            type="string",
            title="What to do",
            enum=["cancel", "save_and_delete", "discard"],
            description="discard deletes the results, too. This cannot be undone.",
        ),
        "folder": Param(
            f"{STORAGE_FOLDER}/results" if STORAGE_FOLDER else "",
            # Airflow's form requires every text that may not be null.
            type=["null", "string"],
            title="Folder for the results",
            description="Required by save_and_delete, for example s3://conn_id@bucket/results.",
        ),
        "conn_id": Param(
            "anthropic_default",
            type="string",
            title="Connection",
            # The key of a connection is sent to the API: whoever fills in the form may not pick just any connection.
            pattern=r"^anthropic[A-Za-z0-9._-]*$",
        ),
    },
    doc_md=__doc__,
)
def teardown_selected() -> None:
    @task.branch(retries=0)
    def choose(params: Any = None) -> str:
        return "batch_ids" if params["action"] == "cancel" else str(params["action"])

    @task
    def batch_ids(params: Any = None) -> Any:
        return params["batch_ids"]

    ids = batch_ids()
    CancelBatchOperator.partial(task_id="cancel", conn_id=CONN_ID).expand(batch_id=ids)
    save_and_delete = TeardownBatchesOperator(
        task_id="save_and_delete",
        batch_ids=BATCH_IDS,
        save_results_to="{{ params.folder }}",
        conn_id=CONN_ID,
        ignore_if_missing=True,
    )
    discard = TeardownBatchesOperator(
        task_id="discard", batch_ids=BATCH_IDS, discard_results=True, conn_id=CONN_ID, ignore_if_missing=True
    )
    chain(choose(), [ids, save_and_delete, discard])


teardown_selected()
