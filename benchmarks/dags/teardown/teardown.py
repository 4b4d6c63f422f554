from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_batches.operators.teardown import TeardownBatchesOperator

with DAG("teardown", schedule=None, default_args={"retries": 2, "retry_delay": timedelta(seconds=5)}):
    TeardownBatchesOperator(task_id="teardown", older_than=timedelta(hours=1), discard_results=True, poll_interval=10)
