"""Every night, save the results of old batches and delete the batches with everything they hold.

Retention rules require it, abandoned batches keep running, and billing, until they end, and results that nobody has
fetched are gone after 29 days. Scheduled runs report only until the Variable `batch_results_folder` says where to save
results; from then on they delete. **They select every old batch of the workspace, whoever created it**: read a report
first. A run that a person starts reports only, unless its form says otherwise; without the Variable it then fails
before it touches a batch.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import Param, dag

from airflow_provider_batches.operators.teardown import TeardownBatchesOperator

CONN_ID = "anthropic_default"
#: A place that outlives the worker. The Variable is set in the UI, or as AIRFLOW_VAR_BATCH_RESULTS_FOLDER; for a bucket
#: it looks like s3://aws_default@my-bucket/batch-results. Without it, a report gets a folder that nothing can be saved
#: to, and any other run no folder but a text, which the task shows when it refuses it.
FOLDER = (
    "{{ var.value.get('batch_results_folder', '') or ("
    "'file:///dev/null' if dag_run.run_type == 'scheduled' or params.report_only "
    "else 'unset: say in the Variable batch_results_folder where to save results') }}"
)
#: The defaults of the form hold for scheduled runs too, so the kind of run has to decide. And whoever unpauses the DAG,
#: be it by the form of a report, starts the scheduled run that was missed last: that one must not delete unasked.
ONLY_REPORT = (
    "{{ not var.value.get('batch_results_folder', '') if dag_run.run_type == 'scheduled' else params.report_only }}"
)


@dag(
    description="Save the results of old message batches, then delete the batches",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    # The next run does what was missed: it selects by age.
    catchup=False,
    # Two runs would work on the same batches. That breaks nothing, but makes each call twice.
    max_active_runs=1,
    tags=["anthropic", "message-batches", "example"],
    default_args={
        # A retry does only what is left.
        "retries": 5,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=30),
    },
    params={
        "older_than_days": Param(
            7,
            type="integer",
            minimum=1,
            maximum=365,
            title="Older than (days)",
            description="Batches created longer ago than this are torn down, including those that are still running.",
        ),
        "report_only": Param(
            True,
            type="boolean",
            title="Report only",
            description="Nothing is changed. Without it, the batches are deleted, once their results are saved.",
        ),
    },
    doc_md="""
### Save the results of old batches, and delete the batches

One task selects the batches older than a week, cancels those that are still running, waits without a worker slot until
all have ended, saves their results to the folder in the Variable `batch_results_folder`, checks them, and then deletes
the batches.

**All old batches of the workspace are selected, whoever created them.** Read the log of a report first.

**The nightly run deletes once the Variable is set**; until then it reports only: its log names what would be deleted.
A run started by hand reports only, unless its form says otherwise, and then it requires the Variable, too. If the DAG
was paused, its form unpauses it, and Airflow also starts the nightly run that was missed last.
""",
)
def scheduled_teardown() -> None:
    TeardownBatchesOperator(
        task_id="teardown",
        older_than="P{{ params.older_than_days }}D",
        save_results_to=FOLDER,
        report_only=ONLY_REPORT,
        conn_id=CONN_ID,
    )


scheduled_teardown()
