"""Create a batch, wait for it, save and read its results, and tear it down regardless of upstream failures.

    create -> wait -> save -> read_results -> tear_down
    (setup)                                -> check (teardown)

`tear_down` deletes the batch only once its results are saved. If the pipeline fails, or somebody marks the run or one
of its tasks as failed, `tear_down` cancels a batch that is still running, and billing, waits until it has ended, saves
the results that it has, and deletes it. A batch whose results cannot be saved stays at the API, and the run fails.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any

from airflow.sdk import ObjectStoragePath, Param, chain, dag, setup, task

from airflow_provider_batches.api import BatchResult
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

CONN_ID = "anthropic_default"
#: **Change this before you use it**: a temporary folder of one machine is enough to try the DAG. Set the Variable
#: `batch_pipeline_folder`, in the UI or as AIRFLOW_VAR_BATCH_PIPELINE_FOLDER, to a folder that all workers reach and
#: that outlives them, for example s3://aws_default@my-bucket/batch-results.
FOLDER = "{{ var.value.get('batch_pipeline_folder', '') or 'file:///tmp/batch-results' }}"


@dag(
    description="Create a message batch, wait, save and read its results, always tear it down",
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
)
def batch_pipeline() -> None:
    # No retries: the API has no idempotency key, so a second try after a lost answer would create a second batch, which
    # is billed too. A person decides whether to try again.
    @setup
    @task(retries=0)
    def create(**context: Any) -> str:
        params = context["params"]
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

    # A saved file has one result a line, in any order. Line by line, memory use does not grow with the batch.
    @task
    def read_results(saved: Any) -> dict[str, int]:
        outcomes: Counter[str] = Counter()
        path: Any = ObjectStoragePath(saved["path"])
        with path.open("rb") as lines:
            for line in lines:
                result = BatchResult.model_validate(json.loads(line))
                # Use the answer here: `result.custom_id` names the request, `result.text` is the text of its answer.
                outcomes[result.result.type] += 1
        return dict(outcomes)

    batch_id = create()
    wait = BatchEndedSensor(task_id="wait", batch_id=batch_id, conn_id=CONN_ID, deferrable=True)
    save = SaveBatchResultsOperator(task_id="save", batch_id=wait.output, path=FOLDER, conn_id=CONN_ID)
    results = read_results(save.output)

    # A teardown runs if its setup succeeded, regardless of the tasks between. Without a successful `create` there is no
    # ID, so there is nothing to tear down. By default a run succeeds although its teardown failed. A batch that still
    # exists should not go unnoticed.
    tear_down = TeardownBatchesOperator(
        task_id="tear_down", batch_ids=batch_id, save_results_to=FOLDER, conn_id=CONN_ID, ignore_if_missing=True
    ).as_teardown(on_failure_fail_dagrun=True)

    # If somebody marks the whole run as failed, Airflow skips what has not started, runs the teardown, and would then
    # mark the run as success, since no task at its end has failed. This task fails unless the results were read.
    @task(retries=0)
    def check(outcomes: Any) -> None:
        if outcomes is None:
            raise RuntimeError("The results were not read: the run failed, or was stopped, before that.")

    chain(results, tear_down)
    checked = check(results)
    checked.as_teardown(on_failure_fail_dagrun=True)
    chain(batch_id, checked)


batch_pipeline()
