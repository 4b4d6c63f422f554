"""Creates batches; mapped tasks cancel, wait for and delete each."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task, task_group

from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

MESSAGE = {"role": "user", "content": "Say yes."}
PARAMS = {"model": "claude-haiku-5-5", "max_tokens": 1, "messages": [MESSAGE]}
RETRIES = {"retries": 6, "retry_delay": timedelta(seconds=20)}

with DAG("chains", schedule=None, default_args={"pool": "batches"}, params={"count": 40}):

    @task
    def create(count: str) -> list[str]:
        """Create them one after the other. Without retries, because a second try would create all of them again."""
        hook = BatchesHook()
        requests = [{"custom_id": f"request-{number}", "params": PARAMS} for number in range(10)]
        return [hook.create_batch(requests).id for _ in range(int(count))]

    @task_group(default_args=RETRIES)
    def chain(batch_id: str) -> None:
        cancel = CancelBatchOperator(task_id="cancel", batch_id=batch_id)
        wait = BatchEndedSensor(task_id="wait", batch_id=cancel.output, deferrable=True, poke_interval=15)
        DeleteBatchOperator(task_id="delete", batch_id=wait.output)

    chain.expand(batch_id=create("{{ params.count }}"))
