"""The operator that saves the results of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_batches import api
from airflow_provider_batches._arguments import read_batch_id
from airflow_provider_batches._base import BatchTask, airflow_errors, storage_folder
from airflow_provider_batches._compat import AirflowFailException, AirflowSkipException, task_ids
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.results.saving import Saver
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.storage.uris import check_uri

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_batches._base import Templated

_ON_MISSING = {"fail": AirflowFailException, "skip": AirflowSkipException, "ignore": None}


class SaveBatchResultsOperator(BatchTask):
    """Saves the results of a message batch that has ended, whole or not at all.

    `{id}.jsonl` holds the bytes as the API sent them, counted against the batch's `request_counts`; `{id}.json` beside
    it holds the batch, the counts, the size and the SHA-256. Results that are saved already, and whole, are not fetched
    again. Memory use does not grow with the size of the results.

    Returns `batch_id`, `path` of the results (None if there are none), `request_counts`, `lines`, `size` in bytes,
    `sha256`, and `missing`: None, `archived`, or `none` for a batch in which nothing was answered.

    See https://docs.claude.com/en/api/retrieving-message-batch-results.

    :param batch_id: The batch (templated).
    :param path: Folder for the files, or the file itself if it ends in `.jsonl`: any URI of ObjectStoragePath, such as
        `file:///data` or `s3://conn_id@bucket/results` (templated). In one run a file has the results of one batch: if
        another task of the run has saved there, this one fails permanently. Default: `results` in
        `[message_batches] storage_folder`.
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :param on_missing_results: What to do if the results are archived or there are none: `fail` (default), `skip` the
        task, or `ignore`.
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
            why = "they are archived, and gone" if saved.missing == "archived" else "nothing was answered"
            text = f"Batch {batch_id} has no results: {why}."
            if error := _ON_MISSING[self.on_missing_results]:
                raise error(text)
            self.log.warning(text)
        elif saved.fetched:
            self.log.info("Saved %d bytes of batch %s to %s", saved.size, batch_id, saved.path)
        else:
            self.log.info("The results of batch %s are saved already, and whole: %s", batch_id, saved.path)
        names = ("request_counts", "lines", "size", "sha256", "missing")
        return {"batch_id": batch_id, "path": saved.path, **{name: saved.record[name] for name in names}}

    def on_kill(self) -> None:
        """Stop, and never publish a partial file."""
        self._stopped = True
