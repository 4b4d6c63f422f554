"""Answers of something in front of the API prove nothing: in every mode, no task takes a batch for gone or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowSensorTimeout
from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.sensors.batches import BatchEndedSensor

POLL = 0.02
ENVELOPE = '{"type": "error", "error": {"type": "not_found_error", "message": "Not found"}}'
SITUATIONS: dict[str, dict[str, Any]] = {
    "a router's text 404": {"status": 404, "body": "404 page not found\n"},
    "a challenge page's 403": {"status": 403, "body": "<html><title>Just a moment...</title></html>"},
    "a proxy's text 401": {"status": 401, "body": "Unauthorized"},
    "a gateway's envelope without a request ID": {"status": 404, "body": ENVELOPE, "headers": {"request-id": ""}},
    "a gateway's error in OpenAI's format": {"status": 404, "body": '{"error": {"message": "x", "code": "not_found"}}'},
    "a load balancer's HTML 200": {"status": 200, "body": "<html><body>Welcome</body></html>\n"},
    "a captive portal's redirect": {"status": 302, "body": "", "headers": {"location": "https://login.example.com/"}},
    "an empty 200": {"status": 200, "body": ""},
    "an API error in a 200": {"status": 200, "body": '{"type": "error", "error": {"type": "api_error"}}'},
}
SENSOR = {"poke_interval": POLL, "timeout": 0.6, "ignore_if_missing": True}
CANCEL = {"ignore_if_missing": True, "poll_interval": POLL, "timeout": 0.6}
MODES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "sensor, poke": (BatchEndedSensor, SENSOR, "in_progress"),
    "sensor, reschedule": (BatchEndedSensor, {**SENSOR, "mode": "reschedule"}, "in_progress"),
    "sensor, deferrable": (BatchEndedSensor, {**SENSOR, "deferrable": True}, "in_progress"),
    "cancel": (CancelBatchOperator, {"ignore_if_missing": True}, "in_progress"),
    "cancel, waits": (CancelBatchOperator, {**CANCEL, "wait_for_completion": True}, "in_progress"),
    "cancel, deferrable": (
        CancelBatchOperator,
        {**CANCEL, "wait_for_completion": True, "deferrable": True},
        "in_progress",
    ),
    "delete": (DeleteBatchOperator, {"ignore_if_missing": True}, "ended"),
    "save": (SaveBatchResultsOperator, {"on_missing_results": "ignore"}, "ended"),
}
in_every_mode = pytest.mark.parametrize("mode", MODES)
in_each_situation = pytest.mark.parametrize("situation", SITUATIONS)


def _options(mode: str, folder: Path) -> dict[str, Any]:
    operator, options, _ = MODES[mode]
    return {**options, "path": folder.as_uri()} if operator is SaveBatchResultsOperator else options


@in_each_situation
@in_every_mode
def test_it_answers_for_good(situation: str, mode: str, api: Emulator, run: Any, tmp_path: Path) -> None:
    operator, _, status = MODES[mode]
    batch_id = api.add_batch(5, status=status)
    api.fault(Fault(times=None, **SITUATIONS[situation]))

    done = run(operator, batch_id=batch_id, **_options(mode, tmp_path))

    # A sensor whose time is over fails permanently, as Airflow's sensors do; all else Airflow retries.
    assert done.state == ("failed" if isinstance(done.error, AirflowSensorTimeout) else "retry"), done.error
    assert "was not found" not in done.text
    assert api.batch(batch_id)
    assert not list(tmp_path.glob("*.json*"))


@in_each_situation
@in_every_mode
def test_it_answers_for_a_moment(situation: str, mode: str, api: Emulator, run: Any, tmp_path: Path) -> None:
    operator, _, status = MODES[mode]
    batch_id = api.add_batch(5, status=status, batch_seconds=0.2)
    # The address has answered before: a task's first call may meet it only later.
    api.fault(Fault(times=2, after=1, **SITUATIONS[situation]))

    done = run(operator, batch_id=batch_id, **_options(mode, tmp_path))

    assert done.state == "success", done.error
    assert (api.batch(batch_id) is None) == (mode == "delete")
    if mode == "save":
        assert len((tmp_path / f"{batch_id}.jsonl").read_bytes().splitlines()) == 5


@in_each_situation
@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
def test_it_answers_in_the_middle_of_a_wait_for_several(situation: str, mode: str, api: Emulator, run: Any) -> None:
    ids = [api.add_batch(5, status="in_progress", batch_seconds=0.2) for _ in range(3)]
    api.fault(Fault(times=4, after=3, **SITUATIONS[situation]))

    done = run(BatchEndedSensor, batch_id=ids, **{**MODES[f"sensor, {mode}"][1], "timeout": 20})

    assert (done.state, done.xcom["batch"]["missing"]) == ("success", []), done.error
