"""Imports that depend on the Airflow version. No other module depends on it."""

# mypy: ignore-errors
# (mypy runs with one Airflow version, and cannot resolve imports of other versions)

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from typing import Any

from airflow import __version__
from airflow.sdk import Variable
from asgiref.sync import sync_to_async

try:  # 3.1+
    from airflow.sdk import BaseHook as BaseHook
    from airflow.sdk.log import mask_secret as mask_secret
except ImportError:  # 3.0
    from airflow.hooks.base import BaseHook as BaseHook
    from airflow.sdk.execution_time.secrets_masker import mask_secret as mask_secret

try:  # 3.2+
    from airflow.sdk import exceptions
    from airflow.sdk.configuration import conf as conf
except ImportError:  # 3.0, 3.1
    from airflow import exceptions
    from airflow.configuration import conf as conf

AirflowException = exceptions.AirflowException
AirflowFailException = exceptions.AirflowFailException
AirflowRescheduleException = exceptions.AirflowRescheduleException
AirflowSensorTimeout = exceptions.AirflowSensorTimeout
AirflowSkipException = exceptions.AirflowSkipException
AirflowTaskTimeout = exceptions.AirflowTaskTimeout
TaskDeferralError = exceptions.TaskDeferralError
TaskDeferralTimeout = exceptions.TaskDeferralTimeout

AIRFLOW_VERSION: str = __version__
_VERSION = tuple(map(int, re.findall(r"\d+", AIRFLOW_VERSION)[:3]))
#: Whether a task can start in the triggerer (`start_from_trigger`).
STARTS_FROM_TRIGGER = _VERSION >= (3, 3)
#: Whether Airflow's UI can show the page. 3.1.0 accepts no cookie as a login, and its API server reads no connections.
HAS_PAGE = _VERSION >= (3, 1, 1)


def task_ids(context: Mapping[str, Any]) -> list[str]:
    """Return what identifies a task instance: DAG ID, run ID, task ID and map index."""
    return [str(getattr(context["ti"], name, "")) for name in ("dag_id", "run_id", "task_id", "map_index")]


def task_states(ti: Any) -> list[str | None]:
    """Return a task instance's states from Airflow's API server. Works on a worker and in the triggerer."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    which = {"dag_id": ti.dag_id, "run_ids": [ti.run_id], "task_ids": [ti.task_id], "map_index": ti.map_index}
    return list(RuntimeTaskInstance.get_task_states(**which).get(ti.run_id, {}).values())


def dag_bag(folder: str) -> Any:
    """Return the DAGs of a folder or a file."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before 3.2
        from airflow.models.dagbag import DagBag
    return DagBag(folder)


def shared_stream_producer() -> Any:
    """Return Airflow's SharedStreamProducer; before 3.3, None. Not imported above, since hooks do without it."""
    try:
        from airflow.triggers.shared_stream import SharedStreamProducer
    except ImportError:
        return None
    return SharedStreamProducer


@cache
def stats() -> Any:
    """Return the client of Airflow's metrics."""
    try:  # 3.2+
        # In a triggerer, nothing but this import connects the client to its backend.
        import airflow.sdk.serde  # noqa: F401
        from airflow.sdk.observability.stats import Stats
    except ImportError:
        from airflow.stats import Stats
    return Stats


def lineage_collector() -> Any:
    """Return the collector of the assets that a task reads and writes. Without a reader of it, it collects nothing."""
    try:
        from airflow.sdk.lineage import get_hook_lineage_collector
    except ImportError:  # before 3.2
        from airflow.lineage.hook import get_hook_lineage_collector
    return get_hook_lineage_collector()


class EventMemory:
    """Stores one JSON value of a trigger that fires events: in the asset's state store, or before Airflow 3.3 in a
    Variable.
    """

    def __init__(self, trigger: Any, name: str) -> None:
        self._store = getattr(trigger, "asset_state_store", None)
        self._name = name

    async def get(self) -> Any:
        """Return the value; None if it is not stored."""
        if self._store is None:
            return await sync_to_async(Variable.get)(self._name, default=None, deserialize_json=True)
        if hasattr(self._store, "aget"):
            return await self._store.aget(self._name)
        return await sync_to_async(self._store.get)(self._name)

    async def set(self, value: Any) -> None:
        """Store the value."""
        if self._store is None:
            await sync_to_async(Variable.set)(self._name, value, serialize_json=True)
        elif hasattr(self._store, "aset"):
            await self._store.aset(self._name, value)
        else:
            await sync_to_async(self._store.set)(self._name, value)


class TaskMemory:
    """Stores small JSON values that survive retries, unlike XComs: in the task state store, or before Airflow 3.3 in
    Variables.
    """

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._store = context.get("task_state_store")
        #: Whether stored values expire.
        self.expires = self._store is not None
        self._ids = task_ids(context)

    def get(self, key: str) -> Any:
        """Return a value; None if it is not stored."""
        if self.expires:
            return self._store.get(key)
        return Variable.get(self._name(key), default=None, deserialize_json=True)

    def set(self, key: str, value: Any) -> None:
        """Store a value."""
        if self.expires:
            self._store.set(key, value)
        else:
            Variable.set(self._name(key), value, serialize_json=True)

    def delete(self, key: str) -> None:
        """Remove a value."""
        if self.expires:
            self._store.delete(key)
        else:
            Variable.delete(self._name(key))

    def _name(self, key: str) -> str:
        # Airflow allows 250 characters, and each ID alone may have as many. A shortened name cannot equal a full one,
        # which has a map index in place of the hash.
        name = ".".join([*self._ids, key])
        end = f".{sha256(repr(self._ids).encode()).hexdigest()}.{key}"
        return name if len(name) <= 250 else name[: 250 - len(end)] + end
