"""The plugin that adds the page *Message Batches* to Airflow's UI.

Every Airflow process imports this module, so it imports next to nothing. The API server alone creates the app.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_batches._compat import HAS_PAGE, conf

PREFIX = "message-batches"
#: `href` is relative to the UI's base path. Without its slash, Airflow would answer with the UI itself.
PAGE = {
    "name": "Message Batches",
    "href": f"{PREFIX}/",
    "url_route": PREFIX,
    "destination": "nav",
    "category": "browse",
    "icon": f"{PREFIX}/static/icon.svg",
    "icon_dark_mode": f"{PREFIX}/static/icon-dark.svg",
}
TAB = {
    **PAGE,
    "href": f"{PREFIX}/?dag_id={{DAG_ID}}&run_id={{RUN_ID}}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}",
    "url_route": f"{PREFIX}-of-task",
    "destination": "task_instance",
}
ENABLED = HAS_PAGE and conf.getboolean("message_batches", "page_enabled", fallback=True)


class MessageBatchesPlugin(AirflowPlugin):
    """Adds the page to the menu *Browse*, and a tab to task instances, from Airflow 3.1.1 on."""

    name = "message_batches"
    external_views = [PAGE, TAB] if ENABLED else []

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The app; none in other processes than the API server."""
        if not ENABLED or os.environ.get("_AIRFLOW_PROCESS_CONTEXT") != "server":
            return []
        from airflow_provider_batches.page.app import app

        return [{"app": app, "url_prefix": f"/{PREFIX}", "name": "Message Batches"}]
