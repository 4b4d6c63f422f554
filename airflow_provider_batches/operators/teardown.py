"""The operator that tears down many batches in one task."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_batches._compat import AirflowException, AirflowFailException, TaskMemory, task_ids
from airflow_provider_batches._task import (
    BACKSTOP,
    WORKER_SECONDS,
    airflow_errors,
    is_retry,
    run_start,
    time_to_wait,
)
from airflow_provider_batches.api import BatchesError, InvalidArgumentError, MessageBatch
from airflow_provider_batches.api.pacing import PacedClient
from airflow_provider_batches.api.waiting import check_seconds
from airflow_provider_batches.hooks.batches import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT, BatchesHook
from airflow_provider_batches.operators._choosing import ChoosingOperator
from airflow_provider_batches.teardown.job import Record, Tally, Teardown
from airflow_provider_batches.teardown.saving import Saver
from airflow_provider_batches.teardown.selection import is_template, read_count, read_flag
from airflow_provider_batches.teardown.storage import Folder, check_uri
from airflow_provider_batches.triggers.batches import BatchEndedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Batches that an error text names; all are in the log and in the full record.
NAMED = 200
#: Seconds after which the records of what is done are written: a worker that is killed takes no more of them with it.
RECORD_SECONDS = 30.0
_CHOSEN = "chosen"


class TeardownBatchesOperator(ChoosingOperator):
    """Cancels, waits for, saves and deletes many message batches in one task.

    Chooses batches once, cancels those that run, waits in the triggerer until all have ended, saves their results
    where asked, and deletes them. Any try goes on where the one before stopped. A batch that somebody else cancels,
    ends or deletes meanwhile is no error. One batch's failure stops none of the others: the task fails in the end,
    naming each, and a retry does only what is left. Where a cancel failed, it fails before the wait, since that batch
    goes on costing money. An outage of the API is waited out, up to 15 minutes.

    Returns the summary: how many batches were `selected`, `canceled`, `ended`, `saved`, `deleted`, `already_gone`,
    `failed` in this try, the `bytes_saved`, and `dry_run`. The full record, a JSON line a batch with the request IDs,
    is written to `_teardown/` in `save_results_to`, or else to the task's log.

    :param batch_ids: The batches (templated). Either these, or a choice by age and state.
    :param older_than: Batches created longer ago than this, counted from the start of the run: a timedelta, or a text
        like `7 days` or `P7D` (templated).
    :param created_before: Batches created before this time, a datetime with a time zone, or a text (templated).
    :param statuses: Batches in these states when the choice is made: `in_progress`, `canceling`, `ended`. Default:
        any. Alone, it chooses all batches in these states that were created before the run started (templated).
    :param limit: How many batches at most, the oldest first. Default: all (templated).
    :param save_results_to: Folder for `{id}.jsonl`, the results as the API sent them, and `{id}.json`, what is known
        of them: any URI of ObjectStoragePath, such as `file:///data` or `s3://conn_id@bucket/results`. A batch is
        deleted only once its saved file has been read back. Default: results are deleted unsaved (templated).
    :param dry_run: Whether to report only what would be torn down. Default False (templated).
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :param requests_per_minute: The most calls a minute. Default: as many as the API takes.
    :param max_in_flight: How many calls are made at once. Default 16.
    :param poll_interval: Seconds (or timedelta) between looks while waiting. Default 60.
    :param timeout: Seconds (or timedelta) until the wait is given up. Default 25 hours. A shorter `execution_timeout`
        counts.
    """

    template_fields: Sequence[str] = (
        "batch_ids",
        "older_than",
        "created_before",
        "statuses",
        "limit",
        "save_results_to",
        "only_report",
        "conn_id",
    )

    def __init__(
        self,
        *,
        batch_ids: str | list[str] | None = None,
        older_than: timedelta | str | None = None,
        created_before: datetime | str | None = None,
        statuses: list[str] | str | None = None,
        limit: int | str | None = None,
        save_results_to: Any = None,
        dry_run: bool | str = False,
        conn_id: str = BatchesHook.default_conn_name,
        requests_per_minute: int | None = None,
        max_in_flight: int = 16,
        poll_interval: float | timedelta = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            batch_ids=batch_ids,
            older_than=older_than,
            created_before=created_before,
            statuses=statuses,
            limit=limit,
            conn_id=conn_id,
            **kwargs,
        )
        self.save_results_to = save_results_to
        # `dry_run` is a method of every operator.
        self.only_report = dry_run
        self.requests_per_minute = (
            None if requests_per_minute is None else read_count("requests_per_minute", requests_per_minute)
        )
        self.max_in_flight = read_count("max_in_flight", max_in_flight)
        self.poll_interval = check_seconds("poll_interval", poll_interval)
        self.timeout = check_seconds("timeout", timeout)
        if save_results_to is not None:
            check_uri("save_results_to", save_results_to, rendered=False)
            self._given.add("save_results_to")
        if not is_template(dry_run):
            read_flag("dry_run", dry_run)
        self._stopped = False
        self._fatal: BatchesError | None = None
        self._written: set[str] = set()

    def execute(self, context: Context) -> dict[str, Any]:
        """Choose the batches, tear down what can be at once, and defer for the rest."""
        with airflow_errors():
            dry_run = read_flag("dry_run", self.only_report)
            folder = self._folder()
            chosen, batches = self._choose(context, remember=not dry_run)
            tally = Tally(selected=len(chosen))
            if dry_run:
                return self._report(chosen, batches, tally)
            records = [Record(batch_id) for batch_id in chosen]
            left = self._tear_down(context, folder, records, tally, batches, min(WORKER_SECONDS, self.timeout))
            running = [record.batch_id for record in left if not record.ended]
            # What could not be canceled is for a retry, not for a wait: it costs money until it is.
            unfinished = self._stopped or self._fatal or any(record.runs_on for record in left)
            if running and not unfinished:
                self._leave(running, left, tally)
            return self._conclude(context, folder, left, tally)

    def execute_complete(
        self, context: Context, event: dict[str, Any], left: list[dict[str, Any]], tally: dict[str, int]
    ) -> dict[str, Any]:
        """Go on with the batches that had not ended before."""
        self.log.info("%s", event["message"])
        with airflow_errors():
            folder = self._folder()
            total = Tally(**tally)
            records = self._tear_down(context, folder, [Record(**record) for record in left], total)
            return self._conclude(context, folder, records, total)

    def on_kill(self) -> None:
        """Begin nothing new: the next try goes on."""
        self._stopped = True

    def _folder(self) -> Folder | None:
        self._check_given("save_results_to")
        if self.save_results_to is None:
            return None
        return Folder(check_uri("save_results_to", self.save_results_to))

    def _choose(self, context: Context, remember: bool) -> tuple[list[str], list[MessageBatch]]:
        """Return the batches of this task, the same in each try, and how those are that have been looked at.

        By age alone the choice is the same whenever it is made, but for batches that are gone. One by state, or of
        some out of many, is written down before the first batch is touched.
        """
        selection = self._read_selection(run_start(context))
        if selection.batch_ids is not None:
            return selection.batch_ids, []
        memory = self._memory(context)
        asked = [
            *(str(each) for each in (self.older_than, self.created_before, selection.limit, self.conn_id)),
            *sorted(selection.statuses),
        ]
        note = memory.get(_CHOSEN) if memory else None
        if note and self._goes_on(context, note, asked):
            self.log.info("Going on with what an earlier try has chosen; batches: %d", len(note["batch_ids"]))
            return note["batch_ids"], []
        batches = asyncio.run(self._select(selection, self.requests_per_minute))
        chosen = [batch.id for batch in batches]
        self.log.info("Batches chosen: %d", len(chosen))
        if memory and remember:
            memory.set(_CHOSEN, {"batch_ids": chosen, "asked": asked, "finished": False})
        return chosen, batches

    def _memory(self, context: Context) -> TaskMemory | None:
        """Return where a choice is kept that would be another one once some batches are canceled or deleted."""
        drifts = self.batch_ids is None and (self.limit is not None or self.statuses is not None)
        # Where there is no run, as in a test that calls `execute`, there is no retry to remember anything for.
        return TaskMemory(context) if drifts and context.get("dag_run") else None

    def _goes_on(self, context: Context, note: dict[str, Any], asked: list[str]) -> bool:
        """Return whether an earlier try's choice is this one's too."""
        same: bool = note["asked"] == asked
        if not is_retry(self, context):
            return same and not note["finished"]
        if not same:
            raise InvalidArgumentError(
                "older_than, created_before, statuses, limit, conn_id: they have changed since this task has chosen "
                f"its batches, from {', '.join(note['asked'])} to {', '.join(asked)}. Nothing is touched. Clear the "
                "task, and it chooses anew."
            )
        return True

    def _finish_choice(self, context: Context) -> None:
        if not (memory := self._memory(context)):
            return
        note = memory.get(_CHOSEN) if memory.expires else None
        if note:
            # Should the news of this success be lost, the retry chooses nothing more.
            memory.set(_CHOSEN, {**note, "finished": True})
        else:
            memory.delete(_CHOSEN)

    def _tear_down(
        self,
        context: Context,
        folder: Folder | None,
        records: list[Record],
        tally: Tally,
        batches: Sequence[MessageBatch] = (),
        patience: float = 0.0,
    ) -> list[Record]:
        """Do what can be done now; return what is left."""
        try:
            asyncio.run(self._work(context, folder, records, tally, batches, patience))
        finally:
            self._write_records(context, folder, self._unwritten(records))
        return [record for record in records if not record.done]

    async def _work(
        self,
        context: Context,
        folder: Folder | None,
        records: list[Record],
        tally: Tally,
        batches: Sequence[MessageBatch],
        patience: float,
    ) -> None:
        saver = Saver(folder, stopped=lambda: self._stopped) if folder else None
        async with PacedClient(self.hook.settings, self.requests_per_minute) as client:
            job = Teardown(
                client,
                tally,
                self._say,
                in_flight=self.max_in_flight,
                stopped=lambda: self._stopped,
                saver=saver,
                reader=self.hook.get_conn() if saver else None,
            )
            keeper = asyncio.create_task(self._keep_records(context, folder, records))
            try:
                await job.run(records, batches, patience)
            except BaseException:
                # A thread that still saves would be waited for.
                self._stopped = True
                raise
            finally:
                keeper.cancel()
            self._fatal = job.fatal

    def _leave(self, running: list[str], left: list[Record], tally: Tally) -> None:
        now = time.time()
        limit = time_to_wait(self, self.timeout)
        self.log.info("Batches that have not ended yet: %d; the wait goes on in the triggerer", len(running))
        self.defer(
            trigger=BatchEndedTrigger(
                batch_id=running,
                conn_id=self.conn_id,
                poll_interval=self.poll_interval,
                start_time=now,
                end_time=now + limit,
                ignore_if_missing=True,
            ),
            method_name="execute_complete",
            kwargs={"left": [asdict(record) for record in left], "tally": asdict(tally)},
            timeout=timedelta(seconds=limit + BACKSTOP),
        )

    def _report(self, chosen: list[str], batches: list[MessageBatch], tally: Tally) -> dict[str, Any]:
        snapshots = {batch.id: batch.snapshot() for batch in batches}
        for batch_id in chosen:
            self.log.info("Would tear down %s", json.dumps(snapshots.get(batch_id, {"id": batch_id})))
        self.log.info("This is a dry run, and nothing is changed; batches that would be torn down: %d", len(chosen))
        return {**asdict(tally), "dry_run": True}

    def _conclude(self, context: Context, folder: Folder | None, left: list[Record], tally: Tally) -> dict[str, Any]:
        tally.failed = len(left)
        if not left:
            self._finish_choice(context)
            self.log.info("%s", tally)
            if tally.selected and tally.already_gone == tally.selected:
                self.log.warning(
                    "The API knows none of these batches. Unless they were deleted before, check that the key of "
                    "connection %s belongs to their workspace.",
                    self.conn_id,
                )
            return {**asdict(tally), "dry_run": False}
        for record in left:
            record.error = record.error or "It was not tried: the task ended before."
        self._write_records(context, folder, left)
        named = [f"{record.batch_id}: {record.error}" for record in left[:NAMED]]
        if len(left) > NAMED:
            named.append(f"and {len(left) - NAMED:,} more, in the full record")
        why = [str(self._fatal)] if self._fatal else []
        text = "\n".join([*why, f"{tally}. A retry does only what is left:", *named])
        again = self._fatal.passing if self._fatal else any(record.transient for record in left)
        raise (AirflowException if again else AirflowFailException)(text)

    async def _keep_records(self, context: Context, folder: Folder | None, records: list[Record]) -> None:
        while True:
            await asyncio.sleep(RECORD_SECONDS)
            await asyncio.to_thread(self._write_records, context, folder, self._unwritten(records))

    def _unwritten(self, records: list[Record]) -> list[Record]:
        """Return what is done and not written down yet, for the caller to write down."""
        found = [record for record in records if record.done and record.batch_id not in self._written]
        self._written.update(record.batch_id for record in found)
        return found

    def _write_records(self, context: Context, folder: Folder | None, records: list[Record]) -> None:
        """Write the full record of these batches beside the results, or to the log."""
        lines = [json.dumps(record.line()) for record in records]
        if folder and lines:
            now = datetime.now(timezone.utc)
            name = f"_teardown/{quote('.'.join(task_ids(context)), safe='')}.{now:%Y%m%dT%H%M%S.%f}Z.jsonl"
            try:
                folder.write(name, "".join(f"{line}\n" for line in lines).encode())
                self.log.info("The full record is in %s; batches: %d", folder.uri(name), len(lines))
                return
            except Exception as error:
                self.log.warning("The full record could not be written (%s: %s)", type(error).__name__, error)
        for line in lines:
            self.log.info("%s", line)
