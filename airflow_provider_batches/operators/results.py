"""Operators that save the results of a batch, and merge results with their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator

from airflow_provider_batches import _datasets, _metrics, api
from airflow_provider_batches._arguments import is_template, read_batch_id, read_flag
from airflow_provider_batches._base import BatchTask, airflow_errors, storage_folder
from airflow_provider_batches._compat import AirflowFailException, AirflowSkipException, task_ids
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.results.columns import compile_schema, is_worth_another_try
from airflow_provider_batches.results.merging import Merge
from airflow_provider_batches.results.saving import RECORDED, Saver
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.storage.uris import check_uri
from airflow_provider_batches.submission.cost import Prices, read_estimated_cost, read_prices, spent

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_batches._base import Templated
    from airflow_provider_batches.submission.rows import Rows

_ON_MISSING = {"fail": AirflowFailException, "skip": AirflowSkipException, "ignore": None}


class SaveBatchResultsOperator(BatchTask):
    """Saves the results of a message batch that has ended, completely or not at all.

    `{id}.jsonl` holds the bytes as the API sent them. The number of results must match the batch's `request_counts`.
    `{id}.json` holds the batch, the counts, the size and the SHA-256. Results that are already saved and complete are
    not fetched again. Memory use does not grow with the size of the results.

    Returns `batch_id`, `path` of the results (None if there are none), `request_counts`, `lines`, `size` in bytes,
    `sha256`, and `missing`: None, `archived`, or `none` if no request of the batch was answered.

    See https://docs.claude.com/en/api/retrieving-message-batch-results.

    :param batch_id: The batch (templated).
    :param path: Folder for the files, or the file itself if it ends in `.jsonl`: any URI of ObjectStoragePath, such as
        `file:///data` or `s3://conn_id@bucket/results` (templated). If another task of the same run has saved
        to the same file, this one fails permanently. Default: `results` in
        `[message_batches] storage_folder`.
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :param on_missing_results: What to do if the results are archived or no request was answered: `fail` (default),
        `skip` the task, or `ignore`.
    """

    template_fields: Sequence[str] = ("batch_id", "path", "conn_id")

    def __init__(
        self,
        *,
        batch_id: Templated[str],
        path: Templated[str | ObjectStoragePath] | None = None,
        conn_id: Templated[str] = BatchesHook.default_conn_name,
        on_missing_results: Literal["fail", "skip", "ignore"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_id=batch_id, conn_id=conn_id, **kwargs)
        self.path: Any = path
        # A template that renders to None is an error.
        self._is_default = path is None
        self.on_missing_results = on_missing_results
        if on_missing_results not in _ON_MISSING:
            raise ValueError(f"on_missing_results: got {on_missing_results!r}; it must be one of fail, skip, ignore.")
        if path is not None:
            check_uri("path", path, rendered=False)
        self._stopped = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Save the results."""
        with airflow_errors():
            batch_id, name = read_batch_id(self.batch_id), None
            uri = check_uri("path", storage_folder("path", "results") if self._is_default else self.path)
            if uri.endswith(".jsonl"):
                folder, slash, name = uri.removesuffix(".jsonl").rpartition("/")
                uri = folder + slash
            saver = Saver(Folder(uri), name, task=task_ids(context), stopped=lambda: self._stopped)
            saved = saver.existing(batch_id)
            if not saved:
                client = self.hook.get_conn()
                batch = client.find(batch_id)
                if not batch.ended:
                    raise api.BatchNotEndedError(batch, "has results")
                saved = saver.save(client, batch)
        if saved.missing:
            archived = saved.missing == "archived"
            why = "the API has archived them permanently" if archived else "no request was answered"
            text = f"Batch {batch_id} has no results: {why}."
            if error := _ON_MISSING[self.on_missing_results]:
                raise error(text)
            self.log.warning(text)
        elif saved.fetched:
            _metrics.count("saved", conn_id=self.conn_id)
            self.log.info("Saved %d bytes of batch %s to %s", saved.size, batch_id, saved.path)
        else:
            self.log.info("The results of batch %s are already saved and complete: %s", batch_id, saved.path)
        about = {"batch_id": batch_id, **{name: saved.record[name] for name in RECORDED}}
        if saved.path:
            _datasets.report_output(self, saved.path)
            _datasets.announce(self, context, saved.path, about)
        return {**about, "path": saved.path, "missing": saved.missing}

    def on_kill(self) -> None:
        """Stop, and never publish a partial file."""
        self._stopped = True


class MergeBatchResultsOperator(BaseOperator):
    """Joins saved results with the rows of their requests, and writes a table, completely or not at all.

    The table has the rows in their original order, with these columns added: `status` (`succeeded`, `errored`,
    `canceled`, `expired` or `unusable`), `text`, `parsed` (the JSON of a structured output, or the input of a tool
    call), `stop_reason`, `error_type`, `error_message`, `input_tokens`, `output_tokens`, `cache_creation_input_tokens`,
    `cache_read_input_tokens` and `service_tier`. An answer is `unusable` if it ended with `refusal`, `max_tokens` or
    `model_context_window_exceeded`, or does not fit the schema. If a row has no result, or a result no row, the task
    fails and names them.

    Next to the table, `{name}.failed.jsonl` holds the failed requests that are worth retrying. SubmitBatchesOperator
    accepts it, and a second merge accepts the results of both rounds.

    Returns `path`, `failed_path`, the number of `failed` requests in it, `statuses` (rows by status), `usage` (by
    model, the number of `answers` and the sum of each counter), `cost` in dollars, None if a price is not known, and
    `estimated_cost`.

    :param rows: The `Rows` that were submitted. Its source is templated.
    :param results: What `SaveBatchResultsOperator` returned, for one batch or several, or the URIs of the `.jsonl`
        files (templated). If a row has several results, the last that succeeded counts, or else the last.
    :param path: The URI of the table. Its suffix decides the format: `.jsonl`, `.csv` or `.parquet`
        (templated).
    :param schema: A JSON schema for `parsed`. Requires `pip install 'airflow-provider-batches[schema]'`. Default: none.
    :param prefix: Prefix of the added columns, needed if the rows have columns of the same names. Default: none.
    :param is_tagged: Whether the batches were created by SubmitBatchesOperator. Default True.
    :param retries_request: Decides which failed requests are worth retrying, by the columns of their results.
        Default: `canceled`, `expired`, and `errored` unless the request itself is wrong.
    :param prices: As for SubmitBatchesOperator.
    :param estimated_cost: Dollars, to be logged and returned with the actual cost, such as `estimated_cost` of the
        XCom `submission` of SubmitBatchesOperator (templated). Default: none.
    :param counts_usage: Whether tokens and cost count in Airflow's metrics. Default True. Set it to False if another
        task merges the same results, too.
    """

    template_fields: Sequence[str] = ("rows", "results", "path", "estimated_cost")
    ui_color = "#f3e5dc"

    def __init__(
        self,
        *,
        rows: Rows,
        results: Templated[Sequence[str] | Sequence[Mapping[str, Any]] | str],
        path: Templated[str | ObjectStoragePath],
        schema: Mapping[str, Any] | None = None,
        prefix: str = "",
        is_tagged: bool = True,
        retries_request: Callable[[Mapping[str, Any]], bool] = is_worth_another_try,
        prices: Prices | None = None,
        estimated_cost: Templated[float | str | None] = None,
        counts_usage: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rows = rows
        self.results: Any = results
        self.path: Any = path
        check_uri("path", path, rendered=False)
        self.schema = schema
        self.prefix = prefix
        self.is_tagged = is_tagged
        self.retries_request = retries_request
        self.prices = read_prices(prices)
        self.estimated_cost: Any = estimated_cost
        if not is_template(estimated_cost):
            read_estimated_cost(estimated_cost)
        self.counts_usage = read_flag("counts_usage", counts_usage)

    def execute(self, context: Context) -> dict[str, Any]:
        """Merge the results."""
        with airflow_errors():
            estimated_cost = read_estimated_cost(self.estimated_cost)
            fits = compile_schema(self.schema)
            merge = Merge(self.rows, self.path, fits, self.prefix, self.is_tagged, self.retries_request)
            merged = merge.run(self.results)
        cost = spent(merged.usage, self.prices)
        rows = ", ".join(f"{count} {status}" for status, count in merged.statuses.most_common()) or "none"
        self.log.info("Merged rows into %s: %s", merge.path, rows)
        for model, counts in merged.usage.items():
            self.log.info("%s: %s", model, ", ".join(f"{count:,} {name}" for name, count in counts.items()))
        if self.counts_usage:
            _metrics.count_usage(merged.usage, cost)
        for source in (self.rows.source, *merge.results):
            _datasets.report_input(self, source)
        for path in (merge.path, merge.failed_path):
            _datasets.report_output(self, path)
        _datasets.announce(self, context, merge.path, {"statuses": dict(merged.statuses), "failed": merged.failed})
        if cost is not None:
            estimated = "" if estimated_cost is None else f"; the estimate was ${estimated_cost:.2f}"
            self.log.info("The answers cost $%.2f%s", cost, estimated)
        return {
            "path": merge.path,
            "failed_path": merge.failed_path,
            "failed": merged.failed,
            "statuses": dict(merged.statuses),
            "usage": {model: dict(counts) for model, counts in merged.usage.items()},
            "cost": cost,
            "estimated_cost": estimated_cost,
        }
