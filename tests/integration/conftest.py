"""A stand-in for what runs tasks and triggers: Airflow's border, without its database and its processes."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches._compat import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow_provider_batches.api import retry, throttle
from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.waiting import wait

try:  # 3.2+
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # 3.0, 3.1
    from airflow.exceptions import TaskDeferred

PACKAGE = "airflow_provider_batches"
#: Seconds after a deferral before the trigger may poll; short, so that tests are.
FIRST_POLL = 0.02
#: Seconds between retries of what is believed only if it lasts: a 404, a refused key.
DOUBT = 0.001


class TaskInstance:
    """What tasks use of `context["ti"]`."""

    dag_id = "dag"
    run_id = "run"
    map_index = -1
    is_mapped = False

    def __init__(self, task_id: str, try_number: int = 1, max_tries: int = 0) -> None:
        self.task_id = task_id
        self.try_number = try_number
        self.max_tries = max_tries
        self.first_start: datetime | None = None
        self.xcom: dict[str, Any] = {}
        #: Return values of other tasks, by task ID.
        self.upstream: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcom[key] = json.loads(json.dumps(value))

    def xcom_pull(self, task_ids: Any = None, **_: Any) -> Any:
        return self.upstream[task_ids]

    def get_first_reschedule_date(self, context: Any) -> datetime | None:
        return self.first_start


@dataclass
class Run:
    """How a task ended, and what it took."""

    #: `success`, `skipped`, `failed` (permanently) or `retry` (failed, and Airflow would try again).
    state: str
    value: Any = None
    error: BaseException | None = None
    xcom: dict[str, Any] = field(default_factory=dict)
    reschedules: int = 0
    #: What was stored of each trigger, and what it was deferred with.
    deferrals: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    deferral_timeouts: list[float] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    #: The task of each process that took part.
    tasks: list[Any] = field(default_factory=list)
    triggers: list[Any] = field(default_factory=list)

    @property
    def text(self) -> str:
        return str(self.error)


def rebuild(stored: tuple[str, dict[str, Any]]) -> Any:
    """Make a trigger again from what the database keeps of it."""
    module, _, name = stored[0].rpartition(".")
    return getattr(importlib.import_module(module), name)(**json.loads(json.dumps(stored[1])))


async def all_events(trigger: Any) -> list[Any]:
    return [event.payload async for event in trigger.run()]


async def _killed_after(trigger: Any, seconds: float) -> None:
    task = asyncio.ensure_future(all_events(trigger))
    await asyncio.wait([task], timeout=seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Runner:
    """Runs one task to its end as Airflow would, each process with a task of its own."""

    def __init__(self, restarts: int = 0) -> None:
        self.restarts = restarts

    def __call__(
        self,
        operator: Callable[..., Any],
        *,
        ti: TaskInstance | None = None,
        params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Run:
        def process() -> Any:
            task = operator(task_id="task", **kwargs)
            run.tasks.append(task)
            return task

        def context(task: Any) -> dict[str, Any]:
            made = {"ti": ti, "task_instance": ti, "task": task, "params": params or {}}
            task.render_template_fields(made)
            return made

        run = Run("success")
        ti = ti or TaskInstance("task")
        run.xcom = ti.xcom
        ti.first_start = None
        started = datetime.now(timezone.utc)
        try:
            while True:
                task = process()
                try:
                    run.value = task.execute(context(task))
                    return run
                except AirflowRescheduleException as later:
                    run.reschedules += 1
                    ti.first_start = started
                    time.sleep(max(0.0, (later.reschedule_date - datetime.now(timezone.utc)).total_seconds()))
                except TaskDeferred as deferred:
                    event = self._trigger(run, deferred)
                    task = process()
                    run.value = task.resume_execution(
                        deferred.method_name, {**(deferred.kwargs or {}), "event": event}, context(task)
                    )
                    return run
        except AirflowSkipException as error:
            run.state, run.error = "skipped", error
        except (AirflowFailException, AirflowSensorTimeout) as error:
            run.state, run.error = "failed", error
        except AirflowTaskTimeout as error:
            run.tasks[-1].on_kill()
            run.state, run.error = "retry", error
        except BaseException as error:
            run.state, run.error = "retry", error
        finally:
            for task in run.tasks:
                task.hook.close()
        return run

    def _trigger(self, run: Run, deferred: Any) -> Any:
        stored = deferred.trigger.serialize()
        run.deferrals.append(stored)
        run.deferral_timeouts.append(deferred.timeout.total_seconds())
        for _ in range(self.restarts):
            asyncio.run(_killed_after(rebuild(stored), 0.03))
        trigger = rebuild(stored)
        run.triggers.append(trigger)
        run.events += asyncio.run(all_events(trigger))
        assert len(run.events) == 1
        return json.loads(json.dumps(run.events[0]))


def set_everywhere(monkeypatch: pytest.MonkeyPatch, name: str, value: Any, module: str = "") -> None:
    """Set a constant in each module of the package that has it under this name."""
    for loaded in list(sys.modules.values()):
        full_name = getattr(loaded, "__name__", "")
        if full_name.startswith(f"{PACKAGE}.{module}") and name in vars(loaded):
            monkeypatch.setattr(loaded, name, value)


def shorten_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the real pauses out, but not those of a task before it defers."""
    # What is first imported later would keep what is set here.
    for module in ("operators.batches", "operators.results", "operators.teardown", "sensors.batches"):
        importlib.import_module(f"{PACKAGE}.{module}")
    for name in ("NOT_FOUND_PAUSES", "KEY_PAUSES", "WORKING_KEY_PAUSES", "SPEND_LIMIT_PAUSES"):
        set_everywhere(monkeypatch, name, (DOUBT,) * len(getattr(retry, name)))
    for proof, pauses in wait._DOUBTS.items():
        monkeypatch.setitem(wait._DOUBTS, proof, (DOUBT,) * len(pauses))
    set_everywhere(monkeypatch, "backoff", lambda *_: 0.0)
    # A hold of zero seconds does not hold.
    for name, value in {"backoff": lambda *_: 0.01, "FIRST_GAP": 0.001, "LAST_GAP": 0.002}.items():
        monkeypatch.setattr(throttle, name, value)
    set_everywhere(monkeypatch, "FIRST_POLL", FIRST_POLL)


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the real pauses out."""
    shorten_pauses(monkeypatch)
    set_everywhere(monkeypatch, "WORKER_SECONDS", 0.0)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two certificates for 127.0.0.1 that no public authority has signed: folders with `cert.pem` and `key.pem`."""
    return [_certificate(tmp_path_factory.mktemp("tls")) for _ in range(2)]


def _certificate(folder: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


@pytest.fixture
def run() -> Runner:
    """Run a task to its end."""
    return Runner()


@pytest.fixture
def runner() -> type[Runner]:
    return Runner


@pytest.fixture
def task_instance() -> type[TaskInstance]:
    return TaskInstance


@pytest.fixture
def api(batches_emulator: Emulator) -> Emulator:
    """The API, with the connection `anthropic_default` leading to it."""
    return batches_emulator


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Define a connection and return its ID."""

    def make(conn_id: str = "anthropic_default", *, extra: Any = None, **fields: Any) -> str:
        values = {"conn_type": "anthropic_batches", "password": "sk-ant-emulator", **fields}
        if extra is not None:
            values["extra"] = extra if isinstance(extra, str) else json.dumps(extra)
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(values))
        return conn_id

    return make
