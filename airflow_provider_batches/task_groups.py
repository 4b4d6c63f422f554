"""Task groups for DAG files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup

from airflow_provider_batches._arguments import read_count, read_flag
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.operators.results import MergeBatchResultsOperator, SaveBatchResultsOperator
from airflow_provider_batches.operators.submit import SubmitBatchesOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

if TYPE_CHECKING:
    from airflow_provider_batches.submission.cost import Prices
    from airflow_provider_batches.submission.rows import Rows


def enrich(
    group_id: str,
    *,
    rows: Rows,
    path: str,
    folder: str | None = None,
    schema: Mapping[str, Any] | None = None,
    prefix: str = "",
    rounds: int = 2,
    max_cost: float | None = None,
    prices: Prices | None = None,
    delete_batches: bool = True,
    conn_id: str = BatchesHook.default_conn_name,
) -> TaskGroup:
    """Return a task group that sends each row of a table to a model, and writes a table with the answers.

    Each round has the tasks `submit`, `wait` (in the triggerer) and `save`. All rounds but the last have a task `sift`,
    which finds the failed requests that are worth retrying; the next round submits them, or is skipped if there are
    none. Then `merge` writes the table, and `delete` removes the batches from the API.

    :param group_id: The ID of the task group.
    :param rows: The table, and how each row becomes a request.
    :param path: The URI of the table to write, ending in `.jsonl`, `.csv` or `.parquet` (templated). The files of the
        failed requests are next to it.
    :param folder: Folder for submissions and saved results, which all workers share (templated). Default:
        `[message_batches] storage_folder`.
    :param schema: A JSON schema that the answers must fit. Default: none.
    :param prefix: Prefix of the added columns. Default: none.
    :param rounds: How often a request is sent at most. Default 2.
    :param max_cost: The most dollars that the requests of a round may cost. Default: no limit.
    :param prices: Dollars per million tokens, by model, as for SubmitBatchesOperator.
    :param delete_batches: Whether to delete the batches once the table is written. Default True.
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :raises InvalidArgumentError: An argument is not valid.
    """
    rounds, delete_batches = read_count("rounds", rounds), read_flag("delete_batches", delete_batches)
    stem = path.rpartition(".")[0]
    # If nothing is worth retrying, the next rounds are skipped.
    table: dict[str, Any] = {
        "rows": rows,
        "schema": schema,
        "prefix": prefix,
        "prices": prices,
        "trigger_rule": "none_failed",
    }
    requests: Any = rows
    sift: MergeBatchResultsOperator | None = None
    submits: list[str] = []
    saved: list[Any] = []
    with TaskGroup(group_id) as group:
        for number in range(1, rounds + 1):
            with TaskGroup(f"round_{number}"):
                submit = SubmitBatchesOperator(
                    task_id="submit",
                    requests=requests,
                    path=folder and f"{folder}/submissions",
                    conn_id=conn_id,
                    max_cost=max_cost,
                    prices=prices,
                )
                if sift:
                    sift >> submit
                wait = BatchEndedSensor(task_id="wait", batch_id=submit.output, conn_id=conn_id, deferrable=True)
                save = SaveBatchResultsOperator.partial(
                    task_id="save", path=folder and f"{folder}/results", conn_id=conn_id
                ).expand(batch_id=wait.output)
                submits.append(submit.task_id)
                saved.append(save.output)
                if number < rounds:
                    sift = MergeBatchResultsOperator(
                        task_id="sift",
                        results=[*saved],
                        path=f"{stem}.round_{number}.jsonl",
                        # `merge` counts all rounds.
                        counts_usage=False,
                        **table,
                    )
                    requests = f"{{{{ ti.xcom_pull('{sift.task_id}')['failed_path'] }}}}"
        about = f"(ti.xcom_pull('{submits[0]}', key='submission') or {{}})"
        merge = MergeBatchResultsOperator(
            task_id="merge",
            results=saved,
            path=path,
            estimated_cost=f"{{{{ {about}.get('estimated_cost') }}}}",
            **table,
        )
        if delete_batches:
            merge >> TeardownBatchesOperator(
                task_id="delete",
                batch_ids="{{ " + " + ".join(f"(ti.xcom_pull('{each}') or [])" for each in submits) + " }}",
                # They are saved, and merged.
                discard_results=True,
                ignore_if_missing=True,
                conn_id=conn_id,
            )
    return group
