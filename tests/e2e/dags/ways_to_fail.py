"""Tasks that end in many ways, for test_what_a_run_leaves.py; whatever they write is searched for secrets."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor


def conf(name: str) -> str:
    return f"{{{{ dag_run.conf['{name}'] }}}}"


with DAG(
    "ways_to_fail",
    schedule=None,
    render_template_as_native_obj=True,
    # So that what ends well does so on a busy machine too.
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
):
    CancelBatchOperator(task_id="refused", batch_id=conf("refused"))
    CancelBatchOperator(task_id="echoed", batch_id=conf("echoed"), conn_id="anthropic_env")
    DeleteBatchOperator(task_id="malformed", batch_id=conf("malformed"), conn_id="anthropic_cli")
    CancelBatchOperator(
        task_id="deferred",
        batch_id=conf("slow"),
        conn_id="anthropic_env",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=2,
    )
    BatchEndedSensor(
        task_id="echoed_in_the_triggerer",
        batch_id=conf("echoed"),
        conn_id="anthropic_env",
        deferrable=True,
        start_from_trigger=True,
    )
    DeleteBatchOperator.partial(task_id="mapped").expand(batch_id=[conf("ended"), conf("running"), conf("echoed")])
    TeardownBatchesOperator(task_id="several", batch_ids=conf("several"), save_results_to=conf("folder"))
