"""Submit requests as batches, wait, save and read the results, and delete the batches regardless of upstream failures.

    submit -> wait -> save -> read_results -> tear_down
    (setup)                                -> check (teardown)

`submit` can be retried and cleared: each request is sent once. `tear_down` deletes a batch only once its results are
saved. If the pipeline fails, or somebody marks the run or one of its tasks as failed, `tear_down` cancels the batches
that are still running, and billing, waits until they have ended, saves the results that they have, and deletes them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import ObjectStoragePath, Param, chain, dag, task

from airflow_provider_batches.api import BatchResult
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.operators.submit import SubmitBatchesOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

CONN_ID = "anthropic_default"
#: **Change this before you use it**: a temporary folder of one machine is enough to try the DAG. Set the Variable
#: `submit_pipeline_folder`, in the UI or as AIRFLOW_VAR_SUBMIT_PIPELINE_FOLDER, to a folder that all workers reach and
#: that outlives them, for example s3://aws_default@my-bucket/batches.
FOLDER = "{{ var.value.get('submit_pipeline_folder', '') or 'file:///tmp/batches' }}"


def requests(context: Mapping[str, Any]) -> Any:
    """Return the requests: the URI of a file of them, or one for each prompt of the form."""
    params = context["params"]
    if params["requests"]:
        return params["requests"]
    return [
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


@dag(
    description="Submit requests as message batches, wait, save and read the results, always delete the batches",
    schedule=None,
    # No dagrun_timeout: Airflow would skip the teardown too. The wait has a timeout of its own.
    tags=["anthropic", "message-batches", "example"],
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True},
    params={
        "requests": Param(
            "",
            type="string",
            title="Requests",
            description="A .jsonl file of requests, or a folder of them, for example s3://conn_id@bucket/requests. "
            "Empty: the prompts.",
        ),
        "model": Param("claude-haiku-5-5", type="string", title="Model of the prompts", minLength=1),
        "prompts": Param(
            ["Name a prime number.", "Name a river.", "Name a color."],
            type="array",
            items={"type": "string"},
            title="Prompts",
            description="One a line; each becomes one request.",
        ),
    },
    doc_md=__doc__,
)
def submit_pipeline() -> None:
    # If it fails, the batches that it has created keep running: correct the cause and clear the task, and it sends
    # only the remaining requests.
    submit = SubmitBatchesOperator(
        task_id="submit", requests=requests, path=f"{FOLDER}/submissions", conn_id=CONN_ID, keep_requests=False
    )
    wait = BatchEndedSensor(task_id="wait", batch_id=submit.output, conn_id=CONN_ID, deferrable=True)
    save = SaveBatchResultsOperator.partial(task_id="save", path=f"{FOLDER}/results", conn_id=CONN_ID).expand(
        batch_id=wait.output
    )

    # A saved file has one result a line, in any order. Line by line, memory use does not grow with the batch.
    @task
    def read_results(saved: Any) -> dict[str, int]:
        outcomes: Counter[str] = Counter()
        for file in saved:
            path: Any = ObjectStoragePath(file["path"])
            # Not `path.open`: before Airflow 3.1, its file cannot be read line by line.
            with path.fs.open(path.path, "rb") as lines:
                for line in lines:
                    result = BatchResult.model_validate(json.loads(line))
                    # Use the answer here: `original_id(result.custom_id)` names the request, `result.text` is the text
                    # of its answer (`from airflow_provider_batches.submission.tags import original_id`).
                    outcomes[result.result.type] += 1
        return dict(outcomes)

    results = read_results(save.output)

    # A teardown runs if its setup succeeded, regardless of the tasks between. By default a run succeeds although its
    # teardown failed. A batch that still exists should not go unnoticed.
    tear_down = TeardownBatchesOperator(
        task_id="tear_down",
        batch_ids=submit.output,
        save_results_to=f"{FOLDER}/results",
        conn_id=CONN_ID,
        ignore_if_missing=True,
    ).as_teardown(setups=submit, on_failure_fail_dagrun=True)

    # If somebody marks the whole run as failed, Airflow skips what has not started, runs the teardown, and would then
    # mark the run as success, since no task at its end has failed. This task fails unless the results were read.
    @task(retries=0)
    def check(outcomes: Any) -> None:
        if outcomes is None:
            raise RuntimeError("The results were not read: the run failed, or was stopped, before that.")

    chain(results, tear_down)
    checked = check(results)
    checked.as_teardown(on_failure_fail_dagrun=True)
    chain(submit, checked)


submit_pipeline()
