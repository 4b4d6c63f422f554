"""The tests and the demo in each environment that the package has to run in, one session each.

nox --list
nox -s airflow-3.0.6
nox -s airflow-3.0.6 -- tests/unit -k poller    # some tests only, without the demo
"""

from __future__ import annotations

from pathlib import Path

import nox

from scripts.compat import ENVIRONMENTS, RECORDS, Environment, report_of

nox.options.default_venv_backend = "uv"
# A session whose Python is not installed is skipped, and nox says so; on CI it is an error.
nox.options.download_python = "never"

INSTALL = ("uv", "pip", "install", "--quiet", "--exclude-newer")
AIRFLOW = ("apache-airflow", "apache-airflow-core", "apache-airflow-task-sdk")
# The tests' own dependencies must not change these; they may bring newer versions of other packages.
HELD = (*AIRFLOW, "asgiref", "fsspec", "httpx", "pydantic", "uvicorn")
LAST_DAY = max(environment.day for environment in ENVIRONMENTS.values())
# tests/system and tests/kills each start a real Airflow, for what happens only between scheduler and triggerer.
TESTS = (
    "tests/unit",
    "tests/integration",
    "tests/dags",
    "tests/examples",
    "tests/system/test_waits_without_worker.py",
    "tests/system/test_reports.py",
    "tests/kills",
)


def install(session: nox.Session, environment: Environment) -> None:
    """Install an Airflow of its day with this package, then what the tests need, which may be newer."""
    airflow = [f"apache-airflow=={environment.airflow}"] if environment.airflow else ["--resolution=lowest-direct"]
    session.run(*INSTALL, environment.day, *airflow, "--editable", ".[emulator]")
    installed = str(session.run("uv", "pip", "freeze", "--quiet", "--exclude-editable", silent=True))
    held = [line for line in installed.splitlines() if line.partition("==")[0] in HELD]
    constraints = Path(session.create_tmp()) / "constraints.txt"
    constraints.write_text("\n".join(held))
    groups = ("--group", "test", "--group", "storage")
    session.run(*INSTALL, LAST_DAY, "--compile-bytecode", f"--constraint={constraints}", *groups)


def register(name: str, environment: Environment) -> None:
    """Make the session of an environment."""

    @nox.session(name=name, python=environment.python)
    def tests_and_demo(session: nox.Session) -> None:
        install(session, environment)
        if environment.airflow is None:
            session.run("python", "-m", "scripts.compat", "floors")
        if session.posargs:
            session.run("python", "-m", "pytest", *session.posargs)
            return
        RECORDS.mkdir(parents=True, exist_ok=True)
        # Airflow 3.0 creates its API for each task of a DAG test, which takes seconds.
        options = ["-n", "2", "--no-loadscope-reorder", "--quiet", "--timeout=600", f"--junit-xml={report_of(name)}"]
        # docs/compatibility.md is made from these runs.
        options.append("--deselect=tests/unit/test_project.py::TestThePage")
        session.run("python", "-m", "pytest", *options, *TESTS)
        session.run("python", "-m", "scripts.demo")
        session.run("python", "-m", "scripts.compat", "record", name)


for each in ENVIRONMENTS.items():
    register(*each)


def register_page(name: str, environment: Environment, *packages: str, auth: str = "simple") -> None:
    """Make the session that drives the page in Airflow's UI in an environment; requires Chromium."""

    @nox.session(name=f"page-{name}", python=environment.python)
    def page(session: nox.Session) -> None:
        install(session, environment)
        session.run(*INSTALL, LAST_DAY, "--group", "e2e", *packages)
        session.env["E2E_AUTH"] = auth
        session.run(
            "python", "-m", "pytest", "tests/e2e/test_ui_page.py", "tests/e2e/test_ui_page_states.py", *session.posargs
        )


for version in ("3.1.8", "3.2.2"):
    register_page(version, ENVIRONMENTS[f"airflow-{version}"])
register_page("fab", ENVIRONMENTS["airflow-3.3.2"], "apache-airflow-providers-fab", auth="fab")
