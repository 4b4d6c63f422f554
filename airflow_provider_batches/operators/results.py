"""The operator that saves the results of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_batches._compat import AirflowFailException, AirflowSkipException, task_ids
from airflow_provider_batches._task import BatchTask, airflow_errors
from airflow_provider_batches.api import BatchNotEndedError, check_batch_id
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.teardown.saving import Saver
from airflow_provider_batches.teardown.storage import Folder, check_uri

if TYPE_CHECKING:
    from airflow.sdk import Context

_MISSING = ("fail", "skip", "ignore")


class SaveBatchResultsOperator(BatchTask):
    """Saves the results of a message batch that has ended, whole or not at all.

    `{id}.jsonl` holds the bytes as the API sent them, counted against the batch's `request_counts`; `{id}.json` beside
    it holds the batch, the counts, the size and the SHA-256. Results that are saved already and whole are not fetched
    again. Memory stays flat at any size.

    Returns `batch_id`, `path` of the results (None where there are none), `request_counts`, `lines`, `size` in bytes,
    `sha256`, and `missing`: None, `archived`, or `none` for a batch in which nothing was answered.

    See https://docs.claude.com/en/api/retrieving-message-batch-results.

    :param batch_id: The batch (templated).
    :param path: Folder for the files, or the file itself where it ends in `.jsonl`: any URI of ObjectStoragePath, such
        as `file:///data` or `s3://conn_id@bucket/results` (templated). In one run a file has the results of one batch:
        where another task of the run has saved there, this one fails for good.
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :param on_missing_results: Where the results are archived, or there are none: `fail` (default), `skip` the task, or
        `ignore`.
    """

    template_fields: Sequence[str] = ("batch_id", "path", "conn_id")

    def __init__(
        self,
        *,
        batch_id: str,
        path: Any,
        conn_id: str = BatchesHook.default_conn_name,
        on_missing_results: Literal["fail", "skip", "ignore"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_id=batch_id, conn_id=conn_id, **kwargs)
        self.path = path
        self.on_missing_results = on_missing_results
        if on_missing_results not in _MISSING:
            raise ValueError(
                f"on_missing_results: got {on_missing_results!r}; it must be one of {', '.join(_MISSING)}."
            )
        check_uri("path", path, rendered=False)
        self._stopped = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Save the results."""
        with airflow_errors():
            batch_id = check_batch_id(self.batch_id)
            uri, name = check_uri("path", self.path), None
            if uri.endswith(".jsonl"):
                folder, slash, name = uri.removesuffix(".jsonl").rpartition("/")
                uri = folder + slash
            saver = Saver(Folder(uri), name, task=task_ids(context), stopped=lambda: self._stopped)
            saved = saver.existing(batch_id)
            if not saved:
                batch = self.hook.get_conn().find(batch_id)
                if not batch.ended:
                    raise BatchNotEndedError(batch, "has results")
                saved = saver.save(self.hook.get_conn(), batch)
        if saved.missing:
            text = f"Batch {batch_id} has no results: " + (
                "they are archived, and gone." if saved.missing == "archived" else "nothing was answered."
            )
            if self.on_missing_results != "ignore":
                raise (AirflowFailException if self.on_missing_results == "fail" else AirflowSkipException)(text)
            self.log.warning(text)
        elif saved.fetched:
            self.log.info("Saved %d bytes of batch %s to %s", saved.size, batch_id, saved.path)
        else:
            self.log.info("The results of batch %s are in %s already, and whole", batch_id, saved.path)
        names = ("request_counts", "lines", "size", "sha256", "missing")
        return {"batch_id": batch_id, "path": saved.path, **{name: saved.record[name] for name in names}}

    def on_kill(self) -> None:
        """Leave nothing half."""
        self._stopped = True
