"""Tears down the oldest of many batches in one task, and saves their results."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_batches.operators.teardown import TeardownBatchesOperator

with DAG("teardown", schedule=None, params={"limit": 1000}):
    TeardownBatchesOperator(
        task_id="teardown",
        older_than=timedelta(hours=1),
        limit="{{ params.limit }}",
        save_results_to=os.environ["SAVE_RESULTS_TO"],
        requests_per_minute=800,
        poll_interval=15,
        retries=6,
        retry_delay=timedelta(seconds=20),
    )
