"""The only file that knows that Airflow versions differ: each name from where the installed Airflow has it."""

# mypy: ignore-errors
# (checked against one Airflow, where the other versions' places are missing)

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from airflow import __version__ as AIRFLOW_VERSION
from airflow.sdk import Variable

try:  # 3.1+
    from airflow.sdk import BaseHook
    from airflow.sdk.log import mask_secret
except ImportError:  # 3.0
    from airflow.hooks.base import BaseHook
    from airflow.sdk.execution_time.secrets_masker import mask_secret

try:  # 3.2+
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowRescheduleException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferralError,
        TaskDeferralTimeout,
    )
except ImportError:  # 3.0, 3.1
    from airflow.configuration import conf
    from airflow.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowRescheduleException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferralError,
        TaskDeferralTimeout,
    )

#: Whether a task can begin in the triggerer (`start_from_trigger`).
STARTS_FROM_TRIGGER = tuple(int(part) for part in AIRFLOW_VERSION.split(".")[:2]) >= (3, 3)


def task_ids(context: Mapping[str, Any]) -> list[str]:
    """Return what tells a task from all others: the IDs of its DAG, its run and itself, and its map index."""
    return [str(getattr(context["ti"], name, "")) for name in ("dag_id", "run_id", "task_id", "map_index")]


class TaskMemory:
    """Keeps small JSON values of a task over its tries, which lose their XComs: in the task's state store, or before
    Airflow 3.3 in a Variable.

    :param context: The task's context.
    """

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._store = context.get("task_state_store")
        self._ids = task_ids(context)

    @property
    def expires(self) -> bool:
        """Whether Airflow takes away by itself what is kept."""
        return self._store is not None

    def get(self, key: str) -> Any:
        """Return a value, None where there is none."""
        if self._store is not None:
            return self._store.get(key)
        return Variable.get(self._name(key), default=None, deserialize_json=True)

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        if self._store is not None:
            self._store.set(key, value)
        else:
            Variable.set(self._name(key), value, serialize_json=True)

    def delete(self, key: str) -> None:
        """Forget a value."""
        if self._store is not None:
            self._store.delete(key)
        else:
            Variable.delete(self._name(key))

    def _name(self, key: str) -> str:
        # Airflow takes 250 characters, and as many for each of the IDs. No name that is left whole looks like one that
        # is cut: its map index stands where the hash does.
        name = ".".join([*self._ids, key])
        if len(name) <= 250:
            return name
        end = f".{sha256(repr(self._ids).encode()).hexdigest()}.{key}"
        return name[: 250 - len(end)] + end


__all__ = [
    "AIRFLOW_VERSION",
    "STARTS_FROM_TRIGGER",
    "AirflowException",
    "AirflowFailException",
    "AirflowRescheduleException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "BaseHook",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "TaskMemory",
    "conf",
    "mask_secret",
    "task_ids",
]
