"""The operator that submits requests as message batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import cached_property, partial
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_batches import _datasets, _metrics
from airflow_provider_batches._arguments import is_template, read_choice, read_count, read_flag, read_seconds
from airflow_provider_batches._base import (
    BACKSTOP,
    DEFAULT_DEFERRABLE,
    SECTION,
    BatchesOperator,
    airflow_errors,
    is_retry,
    refuse_waiting,
    storage_folder,
    time_to_wait,
)
from airflow_provider_batches._compat import AirflowFailException, AirflowSkipException, TaskMemory, conf, task_ids
from airflow_provider_batches._on_kill import cancel_for_user
from airflow_provider_batches.api import AsyncBatchesClient, InvalidArgumentError
from airflow_provider_batches.api.bodies import MAX_BYTES, MAX_REQUESTS
from airflow_provider_batches.hooks.batches import (
    DEFAULT_POLL_INTERVAL,
    DEFAULT_TIMEOUT,
    BatchesHook,
    raise_unless_ended,
)
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.storage.uris import check_uri
from airflow_provider_batches.submission.cost import Prices, estimate, read_max_cost, read_prices
from airflow_provider_batches.submission.doubt import SETTLE_SECONDS
from airflow_provider_batches.submission.job import Pending, Submission, UndecidedError
from airflow_provider_batches.submission.ledger import Ledger, Plan, Summary
from airflow_provider_batches.submission.planning import Planner
from airflow_provider_batches.submission.requests import read_requests
from airflow_provider_batches.submission.starting import NoRequestsError, Start, folder_name
from airflow_provider_batches.waiting.outcome import Outcome, combine
from airflow_provider_batches.waiting.thread import run_in_thread
from airflow_provider_batches.waiting.wait import Wait

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_batches._base import Templated
    from airflow_provider_batches.submission.rows import Rows

    Requests = Iterable[Mapping[str, Any]] | Rows

#: Seconds for which `on_kill` may run; Airflow kills the process after five.
KILL_SECONDS = 4.0
_BEGUN = "submission"


class SubmitBatchesOperator(BatchesOperator):
    """Submits requests as message batches, each request exactly once.

    Checks all requests, splits them into batches, and sends each once. The task can be retried, cleared or killed at
    any point: a folder records what was sent, and a batch whose answer was lost is looked for before it is sent again.
    docs/submit.md says what cannot be promised.

    Returns the list of batch IDs. Pushes the XComs `created_batch_ids`, the batches created so far, and `submission`:
    its `folder`, the number of `requests` and `batches`, the `size` in bytes, `models` and `max_tokens` (the requests
    and the sum of `max_tokens` for each model), and `estimated_cost` in dollars, if `max_cost` or `prices` are set.

    See https://docs.claude.com/en/api/creating-message-batches.

    :param requests: A list of `{"custom_id", "params"}` or the output of a task (templated); a callable that returns
        them, and may take the context; the URI of a `.jsonl` file, or of a folder of them; or `Rows` of a table. A
        `custom_id` has up to 55 characters and is unique. Data is never rendered as a template.
    :param path: Folder that all workers share, for the record of what was sent and the requests themselves. Local, S3,
        Google Cloud Storage or Azure (templated). Default: `submissions` in `[message_batches] storage_folder`.
    :param conn_id: The connection (templated). Default `anthropic_default`.
    :param submission_id: Identifies the work: with the same ID, requests are submitted once, even across runs
        (templated). Default: DAG, run, task and map index.
    :param requests_per_batch: The most requests of a batch. Default 100,000.
    :param bytes_per_batch: The most bytes of a batch. Default 256,000,000.
    :param max_requests_total: The most requests of all batches; if there are more, nothing is sent. Default: no limit.
    :param max_cost: The most dollars that all requests may cost, at the batch discount and with answers of
        `max_tokens`; if it may be more, or if a price is not known, nothing is sent. The input tokens of a sample are
        counted at the API, which costs nothing. Default: no limit.
    :param prices: Dollars per million tokens, such as `{"model": {"input": 1.0, "output": 5.0}}`. Default: those of the
        package `genai-prices`, if it is installed.
    :param report_only: Whether to check and count the requests, and send nothing (templated). Default False.
    :param on_empty: If there are no requests: `skip` the task (default), or `fail`.
    :param on_doubt: If an answer was lost: `wait` until it is known whether the batch exists (default), or `fail`.
    :param on_changed_input: If a cleared task finds other requests than it has sent: `fail` (default), or `submit`
        them as well.
    :param keep_requests: Whether to keep the files of requests once all are sent. Default True.
    :param cancel_on_kill: Whether to cancel the batches when a user marks the running or deferred task as failed or
        success. Default False: they keep running, and a cleared task returns them.
    :param wait_for_completion: Whether to wait until all batches have ended. Default False.
    :param deferrable: Whether to wait in the triggerer instead of on the worker. Default: Airflow's
        `[operators] default_deferrable`.
    :param poll_interval: Seconds (or timedelta) between polls; the first ones come sooner. Default 60.
    :param timeout: Seconds (or timedelta) until the wait times out; the batches keep running. Default 25 hours.
    """

    template_fields: Sequence[str] = ("requests", "path", "submission_id", "report_only", "conn_id")

    def __init__(
        self,
        *,
        requests: Templated[Requests | str | ObjectStoragePath] | Callable[..., Requests],
        path: Templated[str | ObjectStoragePath] | None = None,
        conn_id: Templated[str] = BatchesHook.default_conn_name,
        submission_id: Templated[str] | None = None,
        requests_per_batch: int = MAX_REQUESTS,
        bytes_per_batch: int = MAX_BYTES,
        max_requests_total: int | None = None,
        max_cost: float | None = None,
        prices: Prices | None = None,
        report_only: Templated[bool | str] = False,
        on_empty: Literal["skip", "fail"] = "skip",
        on_doubt: Literal["wait", "fail"] = "wait",
        on_changed_input: Literal["fail", "submit"] = "fail",
        keep_requests: bool = True,
        cancel_on_kill: bool = False,
        wait_for_completion: bool = False,
        deferrable: bool = DEFAULT_DEFERRABLE,
        poll_interval: float | timedelta = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(conn_id=conn_id, **kwargs)
        # Airflow would call a function in a template field, and store what it returns in the database.
        self._function = requests if callable(requests) and not is_template(requests) else None
        self.requests: Any = getattr(requests, "__qualname__", "function") if self._function else requests
        self.path: Any = path
        # A template that renders to None is an error.
        self._is_default_path = path is None
        if path is not None:
            check_uri("path", path, rendered=False)
        self.submission_id: Any = submission_id
        self.report_only: Any = report_only
        if not is_template(report_only):
            read_flag("report_only", report_only)
        self.requests_per_batch = read_count("requests_per_batch", requests_per_batch, MAX_REQUESTS)
        self.bytes_per_batch = read_count("bytes_per_batch", bytes_per_batch, MAX_BYTES)
        self.max_requests_total = (
            None if max_requests_total is None else read_count("max_requests_total", max_requests_total)
        )
        self.max_cost = read_max_cost(max_cost)
        self.prices = read_prices(prices)
        self.on_empty = read_choice("on_empty", on_empty, "skip", "fail")
        self.on_doubt = read_choice("on_doubt", on_doubt, "wait", "fail")
        self.on_changed_input = read_choice("on_changed_input", on_changed_input, "fail", "submit")
        self.keep_requests = read_flag("keep_requests", keep_requests)
        self.cancel_on_kill = read_flag("cancel_on_kill", cancel_on_kill)
        self.wait_for_completion = read_flag("wait_for_completion", wait_for_completion)
        self.deferrable = read_flag("deferrable", deferrable)
        self.poll_interval = read_seconds("poll_interval", poll_interval)
        self.timeout = read_seconds("timeout", timeout)
        if not self.wait_for_completion:
            refuse_waiting(kwargs.get("default_args"), poll_interval, timeout)
        self._batch_ids: list[str] = []
        self._ti: Any = None

    def execute(self, context: Context) -> list[str]:
        """Submit the requests."""
        with airflow_errors():
            try:
                if read_flag("report_only", self.report_only):
                    planner = self._planner(context, None)
                    summary = planner.read(read_requests(self._function or self.requests, context))
                    self._report(context, None, self._check_cost(planner, summary), len(planner.chunks))
                    return []
                plan = self._plan(context)
            except NoRequestsError as error:
                raise (AirflowSkipException if self.on_empty == "skip" else AirflowFailException)(str(error)) from None
            submission = self._submission(context, plan)
            if is_retry(self, context) and (lost := submission.lost()):
                named = ", ".join(f"{batch_id} ({why})" for batch_id, why in lost.items())
                raise AirflowFailException(
                    f"Batches of this task will have no results: {named}. They are not submitted again by a retry. Set "
                    "another submission_id to submit all requests again."
                )
            return self._advance(context, submission)

    def execute_complete(self, context: Context, event: Any = None) -> list[str]:
        """Continue after a wait in the triggerer."""
        with airflow_errors():
            ledger = self._ledger(context)
            submission = self._submission(context, ledger.plan(ledger.records().plan))
            outcome = Outcome.from_event(event) if isinstance(event, dict) and "status" in event else None
            return self._advance(context, submission, outcome)

    def on_kill(self) -> None:
        """Send nothing more; cancel the batches if requested and if a user marked the task."""
        self._stop.set()
        if not (self.cancel_on_kill and self._batch_ids):
            return

        async def connect() -> AsyncBatchesClient:
            return AsyncBatchesClient(self.hook.settings)

        try:
            work = cancel_for_user(self._ti, self._batch_ids, self.conn_id, connect, self.log, KILL_SECONDS)
            run_in_thread(work, KILL_SECONDS + 1)
        except Exception as error:
            # The task's own code is interrupted here, and must not see it.
            self.log.warning("The task is being ended, and its batches are not canceled: %s", error)

    @cached_property
    def _stop(self) -> Event:
        # Not in `__init__`: Airflow copies operators, and an Event cannot be copied.
        return Event()

    def _submission_id(self, context: Context) -> str:
        if self.submission_id is None:
            return ".".join(task_ids(context))
        if str(self.submission_id).strip() in ("", "None"):
            raise InvalidArgumentError("submission_id", f"got {self.submission_id!r}; it must be a text, not empty.")
        return str(self.submission_id)

    def _ledger(self, context: Context) -> Ledger:
        path = storage_folder("path", "submissions") if self._is_default_path else self.path
        return Ledger(Folder(path).subfolder(folder_name(self._submission_id(context))))

    def _planner(self, context: Context, folder: Folder | None) -> Planner:
        limits = (self.requests_per_batch, self.bytes_per_batch, self.max_requests_total)
        return Planner(self._submission_id(context), folder, *limits)

    def _plan(self, context: Context) -> Plan:
        """Return the plan of this task, which is made if there is none. A retry never reads the requests again."""
        ledger = self._ledger(context)
        memory = self._memory(context)
        uri = ledger.folder.uri("")
        has_begun = bool(memory and memory.get(_BEGUN) == uri)
        planner = self._planner(context, ledger.folder)
        start = Start(self.hook.get_conn(), ledger, planner, self.on_changed_input, has_begun)
        plan = start.existing() if is_retry(self, context) else None
        if plan is None:
            plan = start.plan(
                read_requests(self._function or self.requests, context), partial(self._check_cost, planner)
            )
        if memory and not has_begun:
            memory.set(_BEGUN, uri)
        self._report(context, ledger.folder, plan.summary, len(plan.chunks))
        return plan

    def _memory(self, context: Context) -> TaskMemory | None:
        # Without a run, as in a test that calls `execute`, there is no retry.
        return TaskMemory(context) if context.get("dag_run") else None

    def _check_cost(self, planner: Planner, summary: Summary) -> Summary:
        """Return the summary with an estimate of the cost. Refuse requests that may cost too much."""
        if self.max_cost is None and self.prices is None:
            return summary
        cost = estimate(self.hook.get_conn(), planner.samples, summary, self.prices, self.max_cost)
        self.log.info("The requests cost at most about $%.2f", cost)
        return replace(summary, estimated_cost=cost)

    def _submission(self, context: Context, plan: Plan) -> Submission:
        self._ti = context["ti"]

        def on_batch(batch_ids: list[str], *, is_new: bool = True) -> None:
            _metrics.count("submitted", is_new, conn_id=self.conn_id)
            self._batch_ids = batch_ids
            self._ti.xcom_push(key="created_batch_ids", value=batch_ids)

        submission = Submission(
            self.hook.get_conn(),
            self._ledger(context),
            plan,
            conf.getfloat(SECTION, "settle_seconds", fallback=SETTLE_SECONDS),
            self._stop.is_set,
            on_batch,
        )
        if batch_ids := submission.batch_ids():
            self.log.info("Submitted already: %d of %d batches", len(batch_ids), len(plan.chunks))
            on_batch(batch_ids, is_new=False)
        return submission

    def _report(self, context: Context, folder: Folder | None, summary: Summary, batches: int) -> None:
        about = {
            "folder": folder.uri("") if folder else None,
            "requests": summary.requests,
            "size": summary.size,
            "batches": batches,
            "models": summary.models,
            "max_tokens": summary.max_tokens,
            "estimated_cost": summary.estimated_cost,
        }
        context["ti"].xcom_push(key="submission", value=about)
        for model, count in summary.models.items():
            self.log.info("%s: %d requests, at most %d output tokens", model, count, summary.max_tokens[model])
        text = "" if folder else "This is a report only: nothing is sent. "
        self.log.info("%s%d requests, %.1f MB, %d batches", text, summary.requests, summary.size / 1e6, batches)

    def _advance(self, context: Context, submission: Submission, outcome: Outcome | None = None) -> list[str]:
        """Send what is left, wait if requested, and return the batches.

        :param outcome: How a wait in the triggerer ended.
        """
        while pending := submission.advance():
            if self.on_doubt == "fail":
                raise UndecidedError(f"{pending.text} on_doubt is 'fail'. A retry looks again.")
            self.log.warning(pending.text)
            self._wait_for(pending)
        batch_ids = submission.batch_ids()
        _datasets.report_input(self, getattr(self.requests, "source", self.requests))
        if not self.keep_requests:
            submission.remove_requests()
        memory = self._memory(context)
        if memory and not memory.expires and memory.get(_BEGUN):
            memory.delete(_BEGUN)
        if not self.wait_for_completion:
            return batch_ids
        if outcome is None or outcome.batch_id != batch_ids:
            outcome = self._wait_for_all(batch_ids)
        raise_unless_ended(outcome)
        self.log.info(outcome.message)
        return batch_ids

    def _wait_for(self, pending: Pending) -> None:
        """Wait until a doubt can be settled: in the triggerer, or on the worker."""
        end_time = time.time() + DEFAULT_TIMEOUT
        if pending.batch_ids and self.deferrable:
            # The candidates may be another team's, so they are only watched.
            self._defer(pending.batch_ids, end_time=end_time, poll_interval=60.0, ignore_if_missing=True)
        elif pending.batch_ids:
            self._wait(self._waits(pending.batch_ids, end_time, confirm=True), None, lambda outcome: False)
        elif self.deferrable:
            from airflow.providers.standard.triggers.temporal import DateTimeTrigger

            moment = datetime.now(timezone.utc) + timedelta(seconds=pending.seconds)
            timeout = timedelta(seconds=pending.seconds + BACKSTOP)
            self.defer(trigger=DateTimeTrigger(moment), method_name="execute_complete", timeout=timeout)
        else:
            self._stop.wait(pending.seconds)

    def _wait_for_all(self, batch_ids: list[str]) -> Outcome:
        end_time = time.time() + time_to_wait(self, self.timeout)
        waits = self._waits(batch_ids, end_time)
        options = {"cancel_on_kill": self.cancel_on_kill}
        leave = partial(self._leave_to_triggerer, batch_ids, waits, **options) if self.deferrable else None
        return combine(batch_ids, self._wait(waits, leave))

    def _waits(self, batch_ids: list[str], end_time: float, *, confirm: bool = False) -> list[Wait]:
        now = time.time()
        make = partial(Wait, poll_interval=self.poll_interval, start_time=now, end_time=end_time, confirm=confirm)
        return [make(batch_id) for batch_id in batch_ids]
