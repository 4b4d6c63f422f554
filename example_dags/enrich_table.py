"""Label the tickets of a table with a model, at batch price, and write a table with the labels.

    round_1: submit -> wait -> save -> sift -> round_2: submit -> wait -> save -> merge -> delete

`sift` finds the requests that failed and are worth retrying. `round_2` submits them, or is skipped if there are none.
`merge` writes the table. `delete` removes the batches, whose results are saved, from the API.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from airflow_provider_batches.submission.rows import Rows
from airflow_provider_batches.task_groups import enrich

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


@dag(
    description="Label the rows of a table with a model, and write a table with the labels",
    schedule=None,
    tags=["anthropic", "message-batches", "example"],
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30)},
    params={"table": Param("file:///tmp/tickets.csv", type="string", description="Has columns ticket_id and body.")},
    doc_md=__doc__,
)
def enrich_table() -> None:
    enrich("labels", rows=TICKETS, path=f"{FOLDER}/labels.parquet", folder=FOLDER, schema=SCHEMA)


enrich_table()
