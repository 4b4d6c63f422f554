"""Create a batch, wait for it, read its results, and tear it down regardless of upstream failures.

    create -> wait -> read_results -> cancel -> wait_for_cancel -> delete
    (setup)                        -> check    (teardown)

If the pipeline succeeds, the batch has ended, `cancel` changes nothing, and `delete` removes what has been read.
If it fails, or somebody marks the run or one of its tasks as failed, a batch that is still running, and billing, is
canceled, and deleted once it has ended. **Results that `read_results` could not read are deleted too**: remove
`delete` to keep them.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, chain, task

from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

CONN_ID = "anthropic_default"

with DAG(
    dag_id="batch_pipeline",
    description="Create a message batch, wait, read its results, always tear it down",
    schedule=None,
    # No dagrun_timeout: Airflow would skip the teardown too. The wait has a timeout of its own.
    tags=["anthropic", "message-batches", "example"],
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True},
    params={
        "model": Param("claude-haiku-5-5", type="string", title="Model", minLength=1),
        "prompts": Param(
            ["Name a prime number.", "Name a river.", "Name a color."],
            type="array",
            items={"type": "string"},
            minItems=1,
            title="Prompts",
            description="One a line; each becomes one request of the batch.",
        ),
    },
    doc_md=__doc__,
) as dag:
    # No retries: the API has no idempotency key, so a second try after a lost answer would create a second batch, which
    # is billed too. A person decides whether to try again.
    @task(retries=0)
    def create(params: dict[str, Any]) -> str:
        requests = [
            {
                "custom_id": f"prompt-{number}",
                "params": {
                    "model": params["model"],
                    "max_tokens": 100,
                    "messages": [{"role": "user", "content": prompt}],
                },
            }
            for number, prompt in enumerate(params["prompts"])
        ]
        return BatchesHook(CONN_ID).create_batch(requests).id

    # Streams: memory use does not grow with the batch. Store what you need here: the batch is deleted afterwards.
    @task
    def read_results(batch_id: str) -> dict[str, int]:
        outcomes = Counter(line.result.type for line in BatchesHook(CONN_ID).stream_batch_results(batch_id))
        return dict(outcomes)

    batch_id = create()
    wait = BatchEndedSensor(task_id="wait", batch_id=batch_id, conn_id=CONN_ID, deferrable=True)
    results = read_results(wait.output)

    # A teardown runs if its setup succeeded, regardless of the tasks between. Without a successful `create` there is no
    # ID, so there is nothing to tear down.
    create_task = batch_id.operator.as_setup()
    cancel = CancelBatchOperator(
        task_id="cancel", batch_id=batch_id, conn_id=CONN_ID, ignore_if_missing=True
    ).as_teardown(setups=create_task)
    wait_for_cancel = BatchEndedSensor(
        task_id="wait_for_cancel", batch_id=batch_id, conn_id=CONN_ID, deferrable=True, ignore_if_missing=True
    ).as_teardown(setups=create_task)
    # By default a run succeeds although its teardown failed. A batch that still exists should not go unnoticed.
    delete = DeleteBatchOperator(
        task_id="delete", batch_id=batch_id, conn_id=CONN_ID, ignore_if_missing=True
    ).as_teardown(setups=create_task, on_failure_fail_dagrun=True)

    chain(results, cancel, wait_for_cancel, delete)

    # If somebody marks the whole run as failed, Airflow skips what has not started, runs the teardown, and would then
    # mark the run as success, since no task at its end has failed. This task fails unless the results were read.
    @task(retries=0)
    def check(outcomes: dict[str, int] | None) -> None:
        if outcomes is None:
            raise RuntimeError("The results were not read: the run failed, or was stopped, before that.")

    check(results).operator.as_teardown(setups=create_task, on_failure_fail_dagrun=True)
