"""Submits requests in three batches, waits for them, saves their results and deletes them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.operators.submit import SubmitBatchesOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

FOLDER = f"{os.environ['SAVE_RESULTS_TO']}/submitted"
RETRIES = {"retries": 6, "retry_delay": timedelta(seconds=20)}


def requests() -> list[dict[str, Any]]:
    """Return 21 requests."""
    message = {"role": "user", "content": "Say yes."}
    params = {"model": "claude-haiku-5-5", "max_tokens": 1, "messages": [message]}
    return [{"custom_id": f"submitted-{number}", "params": params} for number in range(21)]


with DAG("submissions", schedule=None, default_args=RETRIES):
    submit = SubmitBatchesOperator(
        task_id="submit", requests=requests, requests_per_batch=7, path=f"{FOLDER}/ledger", deferrable=True
    )
    wait = BatchEndedSensor(task_id="wait_for_all", batch_id=submit.output, deferrable=True, poll_interval=15)
    save = SaveBatchResultsOperator.partial(task_id="save", path=FOLDER).expand(batch_id=wait.output)
    remove = TeardownBatchesOperator(
        task_id="remove", batch_ids=submit.output, save_results_to=FOLDER, ignore_if_missing=True
    )
    save >> remove
