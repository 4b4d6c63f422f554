"""Buttons in the UI."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

#: The console's list of a workspace's batches; no link to a single batch is documented.
CONSOLE_URL = "https://platform.claude.com/workspaces/{}/batches"


class BatchesConsoleLink(BaseOperatorLink):
    """Leads from a task to the web console's list of message batches."""

    name = "Message Batches console"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the workspace that the task's connection names; it never fails."""
        workspace = None
        with suppress(Exception):
            workspace = operator.hook.settings.workspace_id  # type: ignore[attr-defined]
        return CONSOLE_URL.format(quote(workspace or "default", safe=""))
