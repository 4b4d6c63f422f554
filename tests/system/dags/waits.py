"""Waits that begin and end in the triggerer, for test_waits_without_worker.py."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_batches.sensors.batches import BatchEndedSensor

with DAG("waits_without_worker", schedule=None, render_template_as_native_obj=True):
    for name, options in {
        "whole_wait": {"start_from_trigger": True, "end_from_trigger": True},
        "start_only": {"start_from_trigger": True},
        "end_only": {"end_from_trigger": True},
    }.items():
        BatchEndedSensor(
            task_id=name,
            batch_id="{{ dag_run.conf['batch_id'] }}",
            deferrable=True,
            poke_interval=2,
            **options,
        )
    BatchEndedSensor(
        task_id="several",
        batch_id="{{ dag_run.conf['batch_ids'] }}",
        deferrable=True,
        start_from_trigger=True,
        poke_interval=2,
    )
    BatchEndedSensor.partial(task_id="mapped", deferrable=True, start_from_trigger=True, poke_interval=2).expand(
        batch_id=["{{ dag_run.conf['batch_id'] }}"]
    )

with DAG("waits_that_fail", schedule=None):
    BatchEndedSensor(
        task_id="missing",
        batch_id="{{ dag_run.conf['batch_id'] }}",
        deferrable=True,
        start_from_trigger=True,
        end_from_trigger=True,
        poke_interval=2,
    )
