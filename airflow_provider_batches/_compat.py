"""The only file that knows that Airflow versions differ: each name from where the installed Airflow has it."""

# mypy: ignore-errors
# (checked against one Airflow, where the other versions' places are missing)

from __future__ import annotations

from airflow import __version__ as AIRFLOW_VERSION

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
    "conf",
    "mask_secret",
]
