"""Finds the plan of a submission, or makes one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from airflow_provider_batches.api import BatchesClient, BatchesError, InvalidArgumentError
from airflow_provider_batches.submission.job import Submission
from airflow_provider_batches.submission.ledger import Ledger, Plan, Summary
from airflow_provider_batches.submission.located import Located
from airflow_provider_batches.submission.planning import Planner

log = logging.getLogger(__name__)


class LostLedgerError(BatchesError):
    """The folder of a submission that has begun is empty."""


class NoRequestsError(BatchesError):
    """The source holds no requests."""


@dataclass(frozen=True)
class Start:
    """How a task begins or continues a submission.

    :param client: The client.
    :param ledger: The ledger.
    :param planner: Reads the requests, if a plan must be made.
    :param on_changed_input: What to do if there is a plan of other requests.
    :param has_begun: Whether this task has begun to send a plan from this folder before.
    """

    client: BatchesClient
    ledger: Ledger
    planner: Planner
    on_changed_input: Literal["fail", "submit"] = "fail"
    has_begun: bool = False

    def existing(self) -> Plan | None:
        """Return the newest plan, None if there is none.

        :raises LostLedgerError: There was one.
        """
        if number := self.ledger.records().plan:
            return self.ledger.plan(number)
        if self.has_begun:
            raise LostLedgerError(
                f"{self.ledger.folder.uri('')} is empty, but this task has sent requests, and recorded their "
                "batches there. All workers must share this folder. Restore it, or cancel the batches and set another "
                "submission_id."
            )
        return None

    def plan(self, requests: Iterable[Located], check: Callable[[Summary], Summary]) -> Plan:
        """Return the plan of these requests, which is made if there is none.

        :param check: Returns the summary with an estimate of the cost. Raises an error if it is too high.
        :raises NoRequestsError: There are none.
        :raises InvalidArgumentError: There is a plan of other requests.
        """
        before = self.existing()
        self.ledger.folder.probe(creates=True)
        summary = self.planner.read(requests)
        try:
            if not summary.requests:
                raise NoRequestsError("There are no requests to submit.")
            summary = check(summary)
            if before and not self._is_new_work(before, summary):
                return self._discard_for(before)
        except BaseException:
            self.planner.discard()
            raise
        settings = self.client.settings
        number = before.number + 1 if before else 1
        plan = self.planner.plan(number, summary, settings.base_url, settings.workspace_id)
        if self.ledger.create_plan(plan):
            return plan
        log.info("Another task has made plan %d meanwhile, so that one is sent", number)
        return self._discard_for(self.ledger.plan(number))

    def _discard_for(self, plan: Plan) -> Plan:
        self.planner.discard()
        return plan

    def _is_new_work(self, plan: Plan, summary: Summary) -> bool:
        """Return whether these requests need a plan of their own although there is one."""
        submission = Submission(self.client, self.ledger, plan)
        batch_ids = submission.batch_ids()
        if plan.summary.sha256 == summary.sha256:
            lost = submission.lost() if len(batch_ids) == len(plan.chunks) else {}
            if [*lost.values()] != ["deleted"] * len(plan.chunks):
                return False
            log.warning("All batches of plan %d have been deleted, so its requests are new work", plan.number)
            return True
        if self.on_changed_input == "submit":
            log.warning("The requests have changed. Batches of plan %d, which stay: %s", plan.number, batch_ids)
            return True
        raise InvalidArgumentError(
            "requests",
            f"they are not those that submission {plan.submission_id!r} was begun with, whose batches are: "
            f"{', '.join(batch_ids) or 'none yet'}. Nothing was sent. Restore the requests, set another submission_id, "
            "or set on_changed_input='submit' to submit the new requests as well.",
        )


def folder_name(submission_id: str) -> str:
    """Return the name of a submission's folder: readable, and different for each submission."""
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", submission_id)[:100].strip(".")
    return f"{readable}-{sha256(submission_id.encode()).hexdigest()[:16]}"
