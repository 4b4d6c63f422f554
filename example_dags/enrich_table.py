"""Label the tickets of a table with a model, at batch price, and write a table with the labels.

    first: submit -> wait -> save -> sift -> second: submit -> wait -> save -> merge -> delete

`sift` finds the requests that failed and are worth another try. `second` submits them, or is skipped if there are none.
`merge` writes the table. `delete` removes the batches, whose results are saved, from the API.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, TaskGroup, dag

from airflow_provider_batches.operators.results import MergeBatchResultsOperator, SaveBatchResultsOperator
from airflow_provider_batches.operators.submit import SubmitBatchesOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor
from airflow_provider_batches.submission.rows import Rows

#: **Change this before you use it**: set the Variable `enrich_table_folder` to a folder that all workers reach.
FOLDER = "{{ var.value.get('enrich_table_folder', '') or 'file:///tmp/enrich_table' }}"
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["billing", "bug", "other"]}, "urgent": {"type": "boolean"}},
    "required": ["label", "urgent"],
    "additionalProperties": False,
}
TICKETS = Rows(
    "{{ params.table }}",
    custom_id="ticket_id",
    params={
        "model": "claude-haiku-5-5",
        "max_tokens": 50,
        "system": "You label support tickets.",
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        "messages": [{"role": "user", "content": "{{ row.body }}"}],
    },
)


def answer(name: str, requests: Any) -> tuple[TaskGroup, Any]:
    """Submit requests, wait, and save the answers."""
    with TaskGroup(name) as group:
        submit = SubmitBatchesOperator(task_id="submit", requests=requests, path=f"{FOLDER}/submissions")
        wait = BatchEndedSensor(task_id="wait", batch_id=submit.output, deferrable=True)
        save = SaveBatchResultsOperator.partial(task_id="save", path=f"{FOLDER}/results").expand(batch_id=wait.output)
    return group, save.output


@dag(
    description="Label the rows of a table with a model, and write a table with the labels",
    schedule=None,
    tags=["anthropic", "message-batches", "example"],
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30)},
    params={
        "table": Param(
            "file:///tmp/tickets.csv",
            type="string",
            title="Table",
            description="A .csv, .jsonl or .parquet file with the columns ticket_id and body.",
        )
    },
    doc_md=__doc__,
)
def enrich_table() -> None:
    _, saved = answer("first", TICKETS)
    sift = MergeBatchResultsOperator(
        task_id="sift", rows=TICKETS, results=saved, path=f"{FOLDER}/first.jsonl", schema=SCHEMA
    )
    second, saved_again = answer("second", "{{ ti.xcom_pull('sift')['failed_path'] }}")
    # If nothing failed, the second round is skipped.
    merge = MergeBatchResultsOperator(
        task_id="merge",
        rows=TICKETS,
        results=[saved, saved_again],
        path=f"{FOLDER}/labels.parquet",
        schema=SCHEMA,
        trigger_rule="none_failed",
    )
    delete = TeardownBatchesOperator(
        task_id="delete",
        batch_ids="{{ ti.xcom_pull('first.submit') + (ti.xcom_pull('second.submit') or []) }}",
        save_results_to=f"{FOLDER}/results",
        ignore_if_missing=True,
    )
    sift >> second
    merge >> delete


enrich_table()
