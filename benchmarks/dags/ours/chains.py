from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, task_group

from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

with DAG(
    "chains", schedule=None, default_args={"retries": 2, "retry_delay": timedelta(seconds=5)}, max_active_tasks=16
):

    @task_group
    def chain(batch_id: str) -> None:
        cancel = CancelBatchOperator(task_id="cancel", batch_id=batch_id)
        wait = BatchEndedSensor(task_id="wait", batch_id=batch_id, deferrable=True, poke_interval=10)
        delete = DeleteBatchOperator(task_id="delete", batch_id=batch_id)
        cancel >> wait >> delete

    chain.expand(batch_id=os.environ["BENCHMARK_BATCH_IDS"].split())
