from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.anthropic.hooks.anthropic import AnthropicHook
from airflow.providers.anthropic.sensors.batch import AnthropicBatchSensor
from airflow.sdk import DAG, TriggerRule, task, task_group

with DAG(
    "chains", schedule=None, default_args={"retries": 2, "retry_delay": timedelta(seconds=5)}, max_active_tasks=16
):

    @task
    def cancel(batch_id: str) -> str:
        AnthropicHook().cancel_batch(batch_id)
        return batch_id

    # The sensor skips itself where a batch was canceled; the delete has to run all the same.
    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def delete(batch_id: str) -> str:
        AnthropicHook().get_conn().messages.batches.delete(batch_id)
        return batch_id

    @task_group
    def chain(batch_id: str) -> None:
        wait = AnthropicBatchSensor(task_id="wait", batch_id=batch_id, deferrable=True, poke_interval=10)
        cancel(batch_id) >> wait >> delete(batch_id)

    chain.expand(batch_id=os.environ["BENCHMARK_BATCH_IDS"].split())
