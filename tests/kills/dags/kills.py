"""Waits that own their batches, for test_kills.py."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_batches.sensors.batches import BatchEndedSensor

for name, deferrable in {"worker": False, "deferred": True}.items():
    for dag_id, limit in {f"wait_{name}": None, f"limited_wait_{name}": timedelta(seconds=30)}.items():
        with DAG(dag_id, schedule=None, dagrun_timeout=limit):
            BatchEndedSensor(
                task_id="owner",
                batch_id="{{ dag_run.conf['batch_id'] }}",
                deferrable=deferrable,
                cancel_on_kill=True,
                poll_interval=2,
            )
