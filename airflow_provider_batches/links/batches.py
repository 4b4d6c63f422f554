"""Buttons on tasks in the UI."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

#: The console's list of batches of a workspace. No link to a single batch is documented.
CONSOLE_URL = "https://platform.claude.com/workspaces/{}/batches"


class BatchesConsoleLink(BaseOperatorLink):
    """Links a task to the list of message batches in Anthropic's web console."""

    name = "Message Batches console"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL for the workspace of the task's connection. Never raises."""
        workspace = None
        with suppress(Exception):
            workspace = operator.hook.settings.workspace_id  # type: ignore[attr-defined]
        return CONSOLE_URL.format(quote(workspace or "default", safe=""))
