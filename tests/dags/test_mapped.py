"""The output of a mapped task is not a list: it is fetched when it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator

DAG = """
from airflow.sdk import DAG

from airflow_provider_batches.operators.batches import CancelBatchOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

with DAG("mapped"):
    cancel = CancelBatchOperator.partial(task_id="cancel").expand(batch_id=BATCH_IDS)
    wait = BatchEndedSensor(task_id="wait", batch_id=cancel.output, poke_interval=0.1, deferrable=DEFERRABLE)
    tear_down = TeardownBatchesOperator(task_id="tear_down", batch_ids=cancel.output, discard_results=True)
    wait >> tear_down
"""


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_batches_of_a_mapped_task_are_waited_for_and_torn_down(
    deferrable: bool,
    run: Callable[..., Any],
    batches_emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("airflow_provider_batches._base.WORKER_SECONDS", 0.0)
    batch_ids = [batches_emulator.add_batch(status="in_progress", cancel_seconds=1.0) for _ in "123"]
    code = DAG.replace("BATCH_IDS", repr(batch_ids)).replace("DEFERRABLE", repr(deferrable))
    (tmp_path / "mapped.py").write_text(code)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    monkeypatch.setattr("tests.dags.conftest.EXAMPLES", tmp_path)

    ended = run("mapped")

    assert ended.state == "success"
    assert ended.xcom("wait") == batch_ids
    assert ended.xcom("tear_down")["deleted"] == 3
    assert batches_emulator.ids() == []
