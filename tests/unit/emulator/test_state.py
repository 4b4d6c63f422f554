from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from airflow_provider_batches.emulator.__main__ import main

from .conftest import BATCHES, a_request, connect


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def test_batches_survive_a_restart(emulate, state):
    first = emulate(state=state)
    first.clock.freeze()
    first.clock.advance(12345)
    with connect(first) as http:
        created = http.post(BATCHES, json={"requests": [a_request("mine"), a_request("yours")]}).json()["id"]
        canceled, gone = first.add_batch(10, age_seconds=360), first.add_batch(5, status="ended")
        http.post(f"{BATCHES}/{canceled}/cancel")
        http.delete(f"{BATCHES}/{gone}")
    first.close()
    second = emulate(state=state)
    assert second.clock.now() == first.clock.now()
    for batch_id in (created, canceled):
        before, after = first.batch(batch_id), second.batch(batch_id)
        assert {**after, "results_url": None} == {**before, "results_url": None}
    assert second.batch(gone) is None
    assert second.ids() == first.ids()
    second.clock.advance(3600)
    with connect(second) as http:
        assert b'"custom_id":"mine"' in http.get(f"{BATCHES}/{created}/results").content
        assert http.delete(f"{BATCHES}/{gone}").status_code == 404


def test_changing_calls_stay_in_the_log_after_a_restart(emulate, state):
    first = emulate(state=state)
    with connect(first) as http:
        http.post(BATCHES, json={"requests": [a_request()]})
        http.get(BATCHES)
    first.close()
    second = emulate(state=state)
    assert [(r.endpoint, r.status) for r in second.requests] == [("create", 200)]
    assert second.count("create") == 1
    assert b"sk-ant-emulator" not in state.read_bytes()


def test_half_a_line_at_the_end_is_dropped(emulate, state):
    first = emulate(state=state)
    batch_id = first.add_batch()
    first.close()
    whole = state.read_bytes()
    state.write_bytes(whole + b'["delete", {"batch_')
    second = emulate(state=state)
    assert second.ids() == [batch_id]
    second.close()
    assert state.read_bytes() == whole


def test_a_kill_loses_nothing_that_was_answered(state, tmp_path):
    command = [sys.executable, "-m", "airflow_provider_batches.emulator", "--port", "0", "--state", str(state)]
    created: list[str] = []
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            url = process.stdout.readline().split(" on ")[1].split()[0]
            headers = {"x-api-key": "sk-ant-emulator", "anthropic-version": "2023-06-01"}
            with httpx.Client(base_url=url, headers=headers) as http:
                listed = [b["id"] for b in http.get(BATCHES).json()["data"]]
                assert listed == created[::-1]
                created += [http.post(BATCHES, json={"requests": [a_request()]}).json()["id"] for _ in range(5)]
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def test_the_command_serves_until_it_is_told_to_stop(capsys, monkeypatch):
    monkeypatch.setenv("BATCHES_EMULATOR_API_KEY", "sk-canary")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    statuses: list[int] = []

    def use_and_stop() -> None:
        headers = {"x-api-key": "sk-canary", "anthropic-version": "2023-06-01"}
        transport = httpx.HTTPTransport(retries=5)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, transport=transport) as http:
            statuses.append(http.post(BATCHES, json={"requests": [a_request()]}).status_code)
        os.kill(os.getpid(), signal.SIGTERM)

    user = threading.Thread(target=use_and_stop)
    user.start()
    before = signal.getsignal(signal.SIGTERM)
    assert main(["--port", str(port), "-v", "--behavior", "cancel_ended=409", "--behavior", "list_lag=0.5"]) == 0
    user.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert statuses == [200]
    printed = capsys.readouterr().out
    assert f"on http://127.0.0.1:{port}" in printed
    assert f"POST {BATCHES} 200 req_" in printed
    assert "sk-canary" not in printed


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--host", "0.0.0.0"], "loopback"),
        (["--behavior", "cancel_ended=never"], "cancel_ended"),
        (["--behavior", "nonsense=1"], "nonsense"),
        (["--host", "192.0.2.1", "--allow-remote"], "cannot start"),
    ],
)
def test_the_command_says_why_it_cannot_start(capsys, arguments, reason):
    assert main(["--port", "0", *arguments]) == 1
    assert reason in capsys.readouterr().err
