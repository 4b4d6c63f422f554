"""Cancel one batch, wait until it has ended, and delete it with its results.

For a person in the UI: *Trigger* shows a form that asks for the batch ID.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, chain, dag

from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor


@dag(
    description="Cancel a message batch, wait until it has ended, delete it",
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
            description="The batch to cancel and delete, such as msgbatch_01AbCd. Its results are deleted too.",
            minLength=1,
            maxLength=256,
            # The format of IDs may change, so this refuses only what can stand in no ID.
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]*$",
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
### Cancel, wait for and delete a message batch

1. `cancel` asks the API to cancel the batch. A batch that has ended already is left unchanged.
2. `wait` waits until the batch has ended, without holding a worker slot.
3. `delete` deletes the batch **together with its results**. This cannot be undone: fetch the results first
   if anybody needs them.

A batch that does not exist fails the run at `cancel`: check the ID, and that the connection's key belongs to
the workspace of the batch. A run that failed half-way can be cleared, and continues where it stopped.
""",
)
def teardown_batch() -> None:
    cancel = CancelBatchOperator(
        task_id="cancel",
        batch_id="{{ params.batch_id }}",
        conn_id="{{ params.conn_id }}",
    )
    # `cancel` has found the batch, so the ID is right. A batch that is gone later is a success: an earlier try, or
    # somebody else, has deleted it.
    wait = BatchEndedSensor(
        task_id="wait",
        batch_id="{{ params.batch_id }}",
        conn_id="{{ params.conn_id }}",
        deferrable=True,
        ignore_if_missing=True,
    )
    delete = DeleteBatchOperator(
        task_id="delete",
        batch_id="{{ params.batch_id }}",
        conn_id="{{ params.conn_id }}",
        ignore_if_missing=True,
    )

    chain(cancel, wait, delete)


teardown_batch()
