"""Buttons in the UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

#: The console's list of a workspace's batches; no link to a single batch is documented.
CONSOLE_URL = "https://platform.claude.com/workspaces/default/batches"


class BatchesConsoleLink(BaseOperatorLink):
    """Leads from a task to the web console's list of message batches."""

    name = "Message Batches console"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the console's address; the same for every task, so that it never fails."""
        return CONSOLE_URL
