"""The whole life of a batch, with a connection that has no key."""

from airflow.sdk import dag

from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.operators.submit import SubmitBatchesOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

CONN_ID = "federated"
PARAMS = {"model": "claude-haiku-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}


@dag(schedule=None, params={"folder": ""}, default_args={"conn_id": CONN_ID})
def federated() -> None:
    requests = [{"custom_id": f"r{number}", "params": PARAMS} for number in range(20)]
    submit = SubmitBatchesOperator(
        task_id="submit", requests=requests, path="{{ params.folder }}/submissions", requests_per_batch=10
    )
    wait = BatchEndedSensor(task_id="wait", batch_id=submit.output, deferrable=True, poke_interval=5)
    cancel = CancelBatchOperator.partial(task_id="cancel").expand(batch_id=wait.output)
    save = SaveBatchResultsOperator.partial(task_id="save", path="{{ params.folder }}/results").expand(
        batch_id=cancel.output
    )
    delete = DeleteBatchOperator.partial(task_id="delete").expand(batch_id=wait.output)
    save >> delete


federated()
