"""Cancel one batch, wait until it has ended, save its results and delete it, as far as a person chooses in the form.

    check -> cancel -> wait -> choose -> save -> delete
                                      -> discard

For many batches in one run, and for the page *Message Batches*: `teardown_selected.py`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.configuration import conf
from airflow.sdk import Param, chain, dag, task

from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

BATCH_ID = "{{ params.batch_id }}"
CONN_ID = "{{ params.conn_id }}"
STORAGE_FOLDER = conf.get("message_batches", "storage_folder", fallback="").rstrip("/")


@dag(
    description="Cancel a message batch, wait until it has ended, save its results, delete it",
    schedule=None,
    # Runs for different batches do not disturb each other, and most of a run is spent waiting.
    max_active_runs=16,
    tags=["anthropic", "message-batches", "example"],
    default_args={
        # Each step is idempotent: what an earlier try has done already counts as done.
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
    },
    params={
        "batch_id": Param(
            type="string",
            title="Batch ID",
            description="The batch to cancel, such as msgbatch_01AbCd.",
            minLength=1,
            maxLength=256,
            # The format of IDs may change, so this refuses only what can stand in no ID.
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]*$",
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
            description="The Airflow connection whose key belongs to the workspace of the batch.",
            # The key of a connection is sent to the API: whoever fills in the form may not pick just any connection.
            pattern=r"^anthropic[A-Za-z0-9._-]*$",
        ),
    },
    doc_md="""
### Cancel a message batch, or tear it down

1. `cancel` asks the API to cancel the batch. A batch that has ended already is left unchanged.
2. `wait` waits until the batch has ended, without holding a worker slot. The action `cancel` ends here.
3. `save` saves the results that exist, and `delete` deletes the batch.
4. Or `discard` deletes the batch **together with its results**. This cannot be undone.

A batch that does not exist fails the run at `cancel`: check the ID, and that the connection's key belongs to
the workspace of the batch. A run that failed half-way can be cleared, and continues where it stopped.
""",
)
def teardown_batch() -> None:
    @task(retries=0)
    def check(params: Any = None) -> None:
        if params["action"] == "save_and_delete" and not (params["folder"] or "").strip():
            raise ValueError("folder is empty, and the action is save_and_delete. Trigger the DAG again with a folder.")

    @task.branch(retries=0)
    def choose(params: Any = None) -> list[str]:
        return {"cancel": [], "save_and_delete": ["save"], "discard": ["discard"]}[params["action"]]

    cancel = CancelBatchOperator(task_id="cancel", batch_id=BATCH_ID, conn_id=CONN_ID)
    # `cancel` has found the batch, so the ID is right. A batch that is gone later is a success: an earlier try, or
    # somebody else, has deleted it.
    wait = BatchEndedSensor(task_id="wait", batch_id=BATCH_ID, conn_id=CONN_ID, deferrable=True, ignore_if_missing=True)
    # A batch that was canceled early has no results.
    save = SaveBatchResultsOperator(
        task_id="save", batch_id=BATCH_ID, path="{{ params.folder }}", conn_id=CONN_ID, on_missing_results="ignore"
    )
    delete = DeleteBatchOperator(task_id="delete", batch_id=BATCH_ID, conn_id=CONN_ID, ignore_if_missing=True)
    discard = DeleteBatchOperator(task_id="discard", batch_id=BATCH_ID, conn_id=CONN_ID, ignore_if_missing=True)

    chain(check(), cancel, wait, choose(), [save, discard])
    chain(save, delete)


teardown_batch()
