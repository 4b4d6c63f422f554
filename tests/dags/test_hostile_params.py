"""What a person types into the form of an example is text: nothing of it is rendered, or leads anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator
from tests.dags.conftest import ParamValidationError

SECRET = "{{ conn.anthropic_default.password }}{{ 6 * 7 }}"


@pytest.mark.batches_emulator(batch_seconds=0.1)
def test_a_template_in_a_prompt_is_sent_unchanged(run: Callable[..., Any], batches_emulator: Emulator) -> None:
    prompts = [SECRET, "a\r\nx-injected: 1\r\n\r\nDELETE / HTTP/1.1", "../../v1/models"]

    sent: dict[str, Any] = {}
    batches_emulator.answers = lambda request: sent.update({request["custom_id"]: request["params"]})

    run("submit_pipeline", prompts=prompts, model=f"m{SECRET}")

    assert [params["messages"][0]["content"] for _, params in sorted(sent.items())] == prompts
    assert {params["model"] for params in sent.values()} == {f"m{SECRET}"}
    assert batches_emulator.count("create") == 1
    assert batches_emulator.count("unknown") == 0


@pytest.mark.parametrize(
    ("dag_id", "params"),
    [
        ("teardown_batch", {"batch_id": SECRET, "action": "discard"}),
        ("teardown_batch", {"batch_id": "../models", "action": "discard"}),
        ("teardown_batch", {"batch_id": "msgbatch_1", "action": "delete"}),
        ("teardown_batch", {"batch_id": "msgbatch_1", "action": "discard", "conn_id": "postgres_default"}),
        ("teardown_batch", {"batch_id": "msgbatch_1", "action": "discard", "conn_id": "anthropic/../x"}),
        ("scheduled_teardown", {"older_than_days": "1D{{ 1 }}", "report_only": False}),
        ("scheduled_teardown", {"older_than_days": 7, "report_only": "{{ False }}"}),
    ],
)
def test_what_the_form_does_not_allow_sends_nothing(
    dag_id: str, params: dict[str, Any], run: Callable[..., Any], batches_emulator: Emulator
) -> None:
    batches_emulator.add_batch(status="ended", age_seconds=30 * 24 * 3600)

    with suppress(ParamValidationError, ValueError):  # `dag.test()` of Airflow 3.2 raises the latter
        assert run(dag_id, **params).state == "failed"
    assert batches_emulator.count() == 0
    assert len(batches_emulator.ids()) == 1
