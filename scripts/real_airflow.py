"""Runs a real Airflow: api-server, scheduler, DAG processor and triggerer, on SQLite, in a temporary folder.

    with RealAirflow(dags_folder=Path("example_dags"), env={"AIRFLOW_CONN_ANTHROPIC_DEFAULT": ...}) as airflow:
        run_id = airflow.trigger_dag("teardown_batch", {"batch_id": "msgbatch_1", "action": "discard"})
        assert airflow.wait_for_run("teardown_batch", run_id) == "success"

It listens on free loopback ports and is controlled through Airflow's public REST API. It leaves nothing behind, except
its logs after a failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import httpx

if TYPE_CHECKING:
    from typing import Self

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
_FINAL_STATES = {"success", "failed"}
# Inherited variables that would change this Airflow's settings, or slow it down.
_NOT_INHERITED = ("AIRFLOW", "COVERAGE_", "COV_CORE_", "PYTHONDONTWRITEBYTECODE", "PYTEST_")


class RealAirflowError(Exception):
    """A component has exited, or a condition was not met in time."""


class RealAirflow:
    """
    Start Airflow's components on entry, stop them by their process IDs on exit.

    :param dags_folder: The folder with the DAG files.
    :param env: Additional variables for all components, such as ``AIRFLOW_CONN_...`` or ``AIRFLOW__SECTION__KEY``.
    :param roles: Roles of Airflow (``viewer``, ``user``, ``op``). Each gets a user with the role's name and the
        administrator's password.
    :param log: Called with each line of progress.
    :param start_timeout: Seconds until all components must be healthy.
    :param base_path: Path of the UI and the API, as behind a proxy that serves several applications.
    """

    #: The components to start, and the arguments of `airflow` for each.
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {component: (component,) for component in COMPONENTS}

    def __init__(
        self,
        *,
        dags_folder: Path,
        env: Mapping[str, str] | None = None,
        roles: Sequence[str] = (),
        log: Callable[[str], None] = lambda line: None,
        start_timeout: float = 180,
        base_path: str = "",
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="airflow-"))
        self.username = "admin"
        self.password = secrets.token_urlsafe(9)
        self._dags_folder = dags_folder.resolve()
        self._extra_env = dict(env or {})
        self._users = {self.username: "admin", **{role: role for role in roles}}
        self._log = log
        self._start_timeout = start_timeout
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._port, self._worker_log_port, self._trigger_log_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self._port}{base_path}"
        self._client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        try:
            self._migrate()
            for component in self.components:
                self.start(component)
            self._client.headers["Authorization"] = self.authorization(self.username)
            self.wait_until_healthy()
        except BaseException as error:
            self.stop(keep_logs=isinstance(error, Exception))
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(keep_logs=isinstance(error, Exception))

    @property
    def env(self) -> dict[str, str]:
        """The environment of all components."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        no_proxy = ",".join(filter(None, [inherited.get("NO_PROXY"), "127.0.0.1", "localhost"]))
        return {
            **inherited,
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self._port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self._dags_folder),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(map(":".join, self._users.items())),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "15",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "15",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(self._trigger_log_port),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self._worker_log_port),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            # With the default, tasks on a busy machine fail before they start.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            **self._extra_env,
        }

    def trigger_dag(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Unpause the DAG, start a run of it, and return the run's ID."""
        self.wait_for_dag(dag_id)
        self.api("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
        run = self.api("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": dict(conf or {})})
        return str(run["dag_run_id"])

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float = 300) -> str:
        """Return the final state of a run, ``success`` or ``failed``. Log the last logs of its failed tasks."""
        state = self.wait_until(
            lambda: self._final_state(dag_id, run_id), timeout, f"run {run_id} of {dag_id} to end", every=0.5
        )
        for ti in self.task_instances(dag_id, run_id) if state == "failed" else ():
            if ti["state"] == "failed":
                log = self.task_log(dag_id, run_id, ti["task_id"], ti["try_number"], ti["map_index"])
                self._log(f"{task_name(ti)} has failed:\n{log}")
        return str(state)

    def wait_for_task(self, dag_id: str, run_id: str, task_id: str, state: str, timeout: float = 120) -> None:
        """Return once a task is in a state, such as ``deferred``."""
        self.wait_until(
            lambda: self.task_states(dag_id, run_id).get(task_id) == state, timeout, f"task {task_id} to be {state}"
        )

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return the run as the REST API describes it."""
        run: dict[str, Any] = self.api("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
        return run

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run as ``failed`` or ``success``, like the buttons in the UI."""
        self.api("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", json={"state": state})

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the run's task instances as the REST API describes them."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self.api("GET", path, params={"limit": 100, "offset": len(found)})
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Return the state of each task; mapped ones are named ``task[0]``, ``task[1]``, ..."""
        return {task_name(ti): ti["state"] for ti in self.task_instances(dag_id, run_id)}

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try of a task, one line for each event."""
        answer = self.api(
            "GET",
            f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}",
            params={"map_index": map_index, "full_content": "true"},
        )
        return "\n".join(_log_line(event) for event in answer["content"])

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value of an XCom."""
        answer = self.api(
            "GET",
            f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}",
            params={"map_index": map_index, "stringify": "false"},
        )
        return answer["value"]

    def api(self, method: str, path: str, **kwargs: Any) -> Any:
        """Call Airflow's public REST API below ``/api/v2`` and return the decoded answer."""
        answer = self._client.request(method, f"/api/v2{path}", **kwargs)
        if answer.is_error:
            raise RealAirflowError(f"{method} {path} answered {answer.status_code}: {answer.text[:2000]}")
        return answer.json() if answer.content else None

    def authorization(self, username: str) -> str:
        """Return the `Authorization` header of a user for the REST API."""
        body = {"username": username, "password": self.password}

        def token() -> str | None:
            with contextlib.suppress(httpx.TransportError):
                answer = self._client.post("/auth/token", json=body)
                if answer.status_code == 201:
                    return str(answer.json()["access_token"])
            return None

        return f"Bearer {self.wait_until(token, self._start_timeout, 'the API server to answer')}"

    def wait_for_dag(self, dag_id: str, timeout: float = 120) -> None:
        """Return once Airflow has parsed the DAG; raise RealAirflowError if a DAG file cannot be imported."""

        def parsed() -> bool:
            if self._client.get(f"/api/v2/dags/{dag_id}").status_code == 200:
                return True
            errors = self.api("GET", "/importErrors")["import_errors"]
            if errors:
                raise RealAirflowError("\n\n".join(f"{e['filename']}:\n{e['stack_trace']}" for e in errors))
            return False

        self.wait_until(parsed, timeout, f"Airflow to parse DAG {dag_id}")

    def wait_until_healthy(self) -> None:
        """Return once scheduler, DAG processor, triggerer and metadata database are healthy."""
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")

        def healthy() -> bool:
            health = self.api("GET", "/monitor/health")
            return all(health[part]["status"] == "healthy" for part in parts)

        self.wait_until(healthy, self._start_timeout, "Airflow's components to be healthy")

    def check(self) -> None:
        """Raise RealAirflowError if a component has exited."""
        for component, process in self._processes.items():
            if process.poll() is not None:
                raise RealAirflowError(f"{component} exited with {process.returncode}:\n{self._tail(component)}")

    def pid(self, component: str) -> int:
        """Return the process ID of ``api-server``, ``scheduler``, ``dag-processor``, ..."""
        return self._processes[component].pid

    @property
    def pids(self) -> dict[str, int]:
        """The process IDs of all components that have been started and have not been killed."""
        return {component: process.pid for component, process in self._processes.items()}

    def start(self, component: str) -> None:
        """Start a component. It appends to its earlier log."""
        with self.log_file(component).open("ab") as log:
            self._processes[component] = subprocess.Popen(
                [*ends_with_this_process(), sys.executable, "-m", "airflow", *self.components[component]],
                env=self.env_of(component),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                start_new_session=True,
            )

    def kill(self, component: str) -> None:
        """Kill a component with all its processes (SIGKILL), as if its machine had lost power."""
        process = self._processes.pop(component)
        _kill_session(process.pid)
        process.wait()

    def env_of(self, component: str) -> dict[str, str]:
        """The environment of a component."""
        return self.env

    def log_file(self, component: str) -> Path:
        """Return the file with a component's output."""
        return self.home / f"{component}.log"

    def stop(self, *, keep_logs: bool = False) -> None:
        """Stop all components, and remove the temporary folder or log its path."""
        self._client.close()
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + 15
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            # Each component has its own session, so this ends only processes that it has left behind.
            _kill_session(process.pid)
            process.wait()
        self._processes.clear()
        if keep_logs:
            self._log(f"Airflow's logs are in {self.home}")
        else:
            shutil.rmtree(self.home, ignore_errors=True)

    def _migrate(self) -> None:
        (self.home / "passwords.json").write_text(json.dumps(dict.fromkeys(self._users, self.password)))
        with self.log_file("db-migrate").open("wb") as log:
            code = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
            ).returncode
        if code:
            raise RealAirflowError(f"airflow db migrate failed:\n{self._tail('db-migrate')}")

    def _final_state(self, dag_id: str, run_id: str) -> str | None:
        state = self.run(dag_id, run_id)["state"]
        return state if state in _FINAL_STATES else None

    def wait_until(
        self, condition: Callable[[], Any], timeout: float = 120, what: str = "a condition", every: float = 0.25
    ) -> Any:
        """Return the condition's value once it is true.

        :raises RealAirflowError: If a component has exited, or the condition is not true within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            if result := condition():
                return result
            self.check()
            if time.monotonic() > deadline:
                raise RealAirflowError(f"Timed out after {timeout:g} s while waiting for {what}. Logs: {self.home}")
            time.sleep(every)

    def _tail(self, component: str, lines: int = 30) -> str:
        return "\n".join(self.log_file(component).read_text(errors="replace").splitlines()[-lines:])


def task_name(task: Mapping[str, Any]) -> str:
    """Return the name of a task instance; for a mapped one, ``task[0]``."""
    return str(task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]")


def ends_with_this_process(signal_name: str = "TERM") -> list[str]:
    """Return a command prefix that ends the command if this process is killed; empty if not supported (Linux only)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal_name, "--"] if setpriv else []


def _kill_session(leader: int) -> None:
    """Kill a process and all that it has started, including Airflow's tasks, which have their own process groups."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    # Without /proc, tasks of a killed worker continue until they notice its death.
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(folder.name)) == leader:
                os.kill(int(folder.name), signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Return free loopback ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _log_line(event: Any) -> str:
    if not isinstance(event, dict):
        return str(event)
    rest = {key: value for key, value in event.items() if key not in ("timestamp", "level", "event")}
    words = [event.get("timestamp"), event.get("level"), event.get("event"), rest and json.dumps(rest)]
    return " ".join(str(word) for word in words if word)
