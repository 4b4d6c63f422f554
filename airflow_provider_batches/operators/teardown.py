"""The operator that tears down many batches in one task."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property
from threading import Event
from typing import TYPE_CHECKING, Any

from airflow_provider_batches import _datasets, _metrics
from airflow_provider_batches._arguments import is_template, read_count, read_flag, read_seconds
from airflow_provider_batches._base import WORKER_SECONDS, airflow_errors, is_retry, run_start, time_to_wait
from airflow_provider_batches._compat import AirflowException, AirflowFailException, TaskMemory, task_ids
from airflow_provider_batches.api import BatchesClient, InvalidArgumentError, MessageBatch, Throttle
from airflow_provider_batches.hooks.batches import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT
from airflow_provider_batches.operators._choice import Choice
from airflow_provider_batches.operators._selecting import SelectingOperator
from airflow_provider_batches.results.saving import RECORDED, Saver
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.storage.uris import check_uri
from airflow_provider_batches.teardown.job import Teardown
from airflow_provider_batches.teardown.record import FullRecord, Record, Tally
from airflow_provider_batches.waiting.thread import run_in_thread

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_batches._base import BatchIds, Templated

#: Batches that an error text names; all are in the log and in the full record.
NAMED = 200
#: Seconds between writes of the full record. A worker that is killed loses at most the records since the last one.
RECORD_SECONDS = 30.0


class TeardownBatchesOperator(SelectingOperator):
    """Cancels, waits for, saves and deletes many message batches in one task.

    Selects batches once, cancels those that are running, waits in the triggerer until all have ended, saves their
    results if requested, and deletes them. If another process cancels or deletes a batch meanwhile, that is not
    an error. If one batch fails, the remaining batches are still processed. The task then fails, names each failed
    batch, and a retry does only what is left. If a cancel fails, the task fails immediately instead of waiting, because
    the batch is still running. The task outlasts an outage of the API, up to 15 minutes.

    Returns the summary: how many batches were `selected`, `canceled`, `ended`, `saved`, `deleted`, `already_gone`,
    `failed` in this try, the `bytes_saved`, and `report_only`. The full record, one JSON line per batch with the
    request IDs, is written to `_teardown/` in `save_results_to`, or else to the task's log.

    **A selection by age takes all old batches of the workspace, including those that others created.** Begin with
    `report_only=True`.

    :param batch_ids: The batches (templated). Either these, or a selection by age and state.
    :param older_than: Batches created longer ago than this, counted from the run's `run_after`: a timedelta, or a
        string like `7 days` or `P7D` (templated).
    :param created_before: Batches created before this time, a datetime with a time zone, or a string (templated).
    :param statuses: Batches in these states when selected: `in_progress`, `canceling`, `ended`. Default: any. Alone,
        it selects all batches in these states that were created before the run's `run_after` (templated).
    :param limit: The most batches to select, the oldest first. Default: all (templated).
    :param save_results_to: Folder for `{id}.jsonl`, the results as the API sent them, and `{id}.json`, their counts,
        size and SHA-256: any URI of ObjectStoragePath, such as `file:///data` or `s3://conn_id@bucket/results`. A batch
        is deleted only once its saved file has been read back. Required unless `discard_results` is True (templated).
    :param discard_results: Whether to delete the results unsaved. Default False (templated).
    :param report_only: Whether to report only what would be torn down. Default False (templated).
    :param ignore_if_missing: Whether the task succeeds if none of `batch_ids` is found. Default False: most likely the
        key belongs to another workspace. A retry succeeds: an earlier try may have deleted them.
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :param requests_per_minute: The most calls per minute. Default: as many as the API accepts.
    :param max_in_flight: The most calls in flight. Default 16.
    :param poll_interval: Seconds (or timedelta) between polls while waiting. Default 60.
    :param timeout: Seconds (or timedelta) until the wait times out. Default 25 hours. A shorter `execution_timeout`
        takes precedence.
    """

    template_fields: Sequence[str] = (
        "batch_ids",
        "older_than",
        "created_before",
        "statuses",
        "limit",
        "save_results_to",
        "discard_results",
        "report_only",
        "conn_id",
    )

    def __init__(
        self,
        *,
        batch_ids: BatchIds | None = None,
        save_results_to: Templated[str | ObjectStoragePath] | None = None,
        discard_results: Templated[bool | str] = False,
        report_only: Templated[bool | str] = False,
        ignore_if_missing: bool = False,
        requests_per_minute: int | None = None,
        max_in_flight: int = 16,
        poll_interval: float | timedelta = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.batch_ids = batch_ids
        if batch_ids is not None:
            self._given.add("batch_ids")
        self._read_selection(None)
        self.save_results_to: Any = save_results_to
        self.discard_results: Any = discard_results
        self.report_only: Any = report_only
        self.ignore_if_missing = read_flag("ignore_if_missing", ignore_if_missing)
        self.requests_per_minute = (
            None if requests_per_minute is None else read_count("requests_per_minute", requests_per_minute)
        )
        self.max_in_flight = read_count("max_in_flight", max_in_flight)
        self.poll_interval = read_seconds("poll_interval", poll_interval)
        self.timeout = read_seconds("timeout", timeout)
        if save_results_to is not None:
            check_uri("save_results_to", save_results_to, rendered=False)
            self._given.add("save_results_to")
        self._check_results(rendered=False)

    def execute(self, context: Context) -> dict[str, Any]:
        """Select the batches, tear down those that are ready, and defer until the rest have ended."""
        return self._start(context)

    def _start(self, context: Context, resumed: bool = False) -> dict[str, Any]:
        with airflow_errors():
            report_only = self._check_results()
            full_record = self._full_record(context)
            records, batches = self._choose(context, remember=not report_only)
            tally = Tally(selected=len(records))
            if report_only:
                return self._report(records, batches, tally)
            if records and full_record.folder:
                # Before the first cancel: if nothing can be saved, leave the batches running.
                full_record.folder.probe()
            job = self._tear_down(full_record, records, tally, batches)
            running = [record for record in job.left if not record.ended]
            # If a cancel failed, a retry is better than a wait, because the batch is still billed.
            is_over = self._stop.is_set() or job.fatal or any(record.uncanceled for record in running)
            if running and not is_over and not resumed:
                done = tally.plus(record for record in records if record.done)
                self._defer(
                    [record.batch_id for record in running],
                    end_time=time.time() + time_to_wait(self, self.timeout),
                    poll_interval=self.poll_interval,
                    ignore_if_missing=True,
                    seen_since=min((each.seen_since for each in running if each.seen_since is not None), default=None),
                    kwargs={"left": [asdict(record) for record in job.left], "tally": asdict(done)},
                )
            return self._conclude(context, full_record, job, resumed)

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        left: list[Any] | None = None,
        tally: dict[str, int] | None = None,
    ) -> dict[str, Any]:
        """Continue with the batches that had not ended before."""
        self.log.info("%s", event["message"])
        if left is None or tally is None:
            # `dag.test` drops the arguments of a deferral. Each step is idempotent, so start again.
            return self._start(context, resumed=True)
        with airflow_errors():
            full_record = self._full_record(context)
            job = self._tear_down(full_record, [Record(**record) for record in left], Tally(**tally))
            return self._conclude(context, full_record, job, resumed=True)

    def on_kill(self) -> None:
        """Start no further work. The next try continues."""
        self._stop.set()

    @cached_property
    def _stop(self) -> Event:
        # Not in `__init__`: Airflow copies operators, and an Event cannot be copied.
        return Event()

    def _full_record(self, context: Context) -> FullRecord:
        self._check_given("save_results_to")
        uri = self.save_results_to
        folder = None if uri is None else Folder(uri, "save_results_to")
        return FullRecord(folder, ".".join(task_ids(context)), self.log)

    def _check_results(self, *, rendered: bool = True) -> bool:
        """Return `report_only`; refuse arguments that neither save nor discard the results.

        :param rendered: Whether Airflow has rendered the arguments. If not, templates are not checked.
        """
        hides_discard = not rendered and is_template(self.discard_results)
        hides_report = not rendered and is_template(self.report_only)
        discards = not hides_discard and read_flag("discard_results", self.discard_results)
        report_only = not hides_report and read_flag("report_only", self.report_only)
        saves = "save_results_to" in self._given
        if saves and discards:
            raise InvalidArgumentError(
                "save_results_to, discard_results", "both are given. Either save the results, or discard them."
            )
        if not (saves or discards or hides_discard or report_only):
            raise InvalidArgumentError(
                "save_results_to, discard_results",
                "neither is given, and a batch is deleted with its results. Set save_results_to to save them "
                "first, or discard_results=True to delete them unsaved.",
            )
        return report_only

    def _choose(self, context: Context, remember: bool) -> tuple[list[Record], list[MessageBatch]]:
        """Return the batches of this task, the same in each try, and the state of those that were listed.

        A selection by age alone is the same in each try, except for deleted batches. One by state, or with a limit, is
        stored before the first batch is changed.
        """
        selection = self._read_selection(run_start(context))
        if selection.batch_ids is not None:
            return [Record(batch_id) for batch_id in selection.batch_ids], []
        choice = self._choice(context)
        arguments = (self.older_than, self.created_before, selection.limit, self.conn_id, *sorted(selection.statuses))
        asked = [str(argument) for argument in arguments]
        records = choice.stored(asked, is_retry=is_retry(self, context))
        if records is not None:
            self.log.info("Continuing with what an earlier try selected; batches: %d", len(records))
            return records, []
        batches = self._select(selection, self.requests_per_minute)
        self.log.info("Batches selected: %d", len(batches))
        if remember:
            choice.store(batches, asked)
        return [Record(batch.id) for batch in batches], batches

    def _choice(self, context: Context) -> Choice:
        # Only such a selection changes once some batches are canceled or deleted.
        drifts = self.batch_ids is None and (self.limit is not None or self.statuses is not None)
        # Without a run, as in a test that calls `execute`, there is no retry.
        return Choice(TaskMemory(context) if drifts and context.get("dag_run") else None)

    def _tear_down(
        self, full_record: FullRecord, records: list[Record], tally: Tally, batches: Sequence[MessageBatch] = ()
    ) -> Teardown:
        """Process the batches that are ready."""
        seen = any(record.seen_since is not None for record in records)
        throttle = Throttle(self.requests_per_minute, patient=True, has_answered=seen)
        job = Teardown(self._client(throttle), tally, self.log, self.max_in_flight, self._stop)
        if full_record.folder:
            job.saver = Saver(full_record.folder, stopped=self._stop.is_set)
            job.reader = BatchesClient(self.hook.settings, throttle, self.hook.read_settings)

        async def keep_records() -> None:
            while True:
                await asyncio.sleep(RECORD_SECONDS)
                self.log.info("So far: %s", job.summary())
                await asyncio.to_thread(full_record.write, [record for record in records if record.done])

        async def work() -> None:
            async with job.client:
                keeper = asyncio.create_task(keep_records())
                try:
                    await job.run(records, batches, min(WORKER_SECONDS, self.timeout))
                finally:
                    keeper.cancel()

        before = Tally().plus(records)
        try:
            run_in_thread(work())
        finally:
            self._count(before, records)
            if job.reader:
                job.reader.close()
            full_record.write(record for record in records if record.done)
        return job

    def _count(self, before: Tally, records: list[Record]) -> None:
        """Count in Airflow's metrics what has changed."""
        after = Tally().plus(records)
        _metrics.count("canceled", after.canceled - before.canceled, conn_id=self.conn_id)
        _metrics.count("deleted", after.deleted - before.deleted, conn_id=self.conn_id)
        fetched = sum(bool(record.results and record.results["fetched"]) for record in records)
        _metrics.count("saved", fetched, conn_id=self.conn_id)

    def _report(self, records: list[Record], batches: list[MessageBatch], tally: Tally) -> dict[str, Any]:
        snapshots = {batch.id: batch.snapshot() for batch in batches}
        for record in records:
            snapshot = snapshots.get(record.batch_id, {"id": record.batch_id})
            self.log.info("Would tear down %s", json.dumps(snapshot))
        states = Counter(batch.processing_status for batch in batches)
        self.log.info(
            "This is a report only: nothing is changed. Batches that would be torn down: %d%s%s. To tear them down, "
            "set report_only=False, with save_results_to or discard_results=True.",
            len(records),
            "".join(f", {count} {state}" for state, count in sorted(states.items())),
            f", created {batches[0].created_at} to {batches[-1].created_at}" if batches else "",
        )
        return {**asdict(tally), "report_only": True}

    def _conclude(self, context: Context, full_record: FullRecord, job: Teardown, resumed: bool) -> dict[str, Any]:
        """Return the summary, or raise the error that fails the task."""
        tally, left = job.summary(), job.left
        if not left:
            self._announce(context, full_record, job)
            self._choice(context).finish()
            self.log.info("%s", tally)
            was_seen = any(record.seen_since is not None for record in job.records.values())
            if tally.selected and tally.already_gone == tally.selected and not was_seen:
                text = (
                    "None of these batches was found. Check first that the key of connection "
                    f"{self.conn_id!r} belongs to their workspace. "
                )
                if not (resumed or self.ignore_if_missing or is_retry(self, context)):
                    raise AirflowFailException(
                        f"{text}If they were deleted before, mark the task as success, or set ignore_if_missing=True."
                    )
                self.log.warning("%sIf they were deleted before, nothing is wrong.", text)
            return {**asdict(tally), "report_only": False}
        for record in left:
            record.error = record.error or "It was not tried: the task ended before."
        full_record.write(left)
        tally.failed = len(left)
        lines = [str(job.fatal)] if job.fatal else []
        lines.append(f"{tally}. A retry does only what is left:")
        lines += [f"{record.batch_id}: {record.error}" for record in left[:NAMED]]
        if len(left) > NAMED:
            lines.append(f"and {len(left) - NAMED:,} more, in the full record")
        again = job.fatal.retryable if job.fatal else any(record.retryable for record in left)
        raise (AirflowException if again else AirflowFailException)("\n".join(lines))

    def _announce(self, context: Context, full_record: FullRecord, job: Teardown) -> None:
        """Report the results that any try of this task has saved."""
        if full_record.folder is None:
            return
        _datasets.report_output(self, full_record.folder.uri(""))
        if not _datasets.aliases_of(self):
            return
        for batch_id, results in job.results(full_record).items():
            about = {name: results.get(name) for name in RECORDED}
            _datasets.announce(self, context, results["path"], {"batch_id": batch_id, **about})
