"""What a task run pays for: every module that a DAG file's imports load beyond Airflow's own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: What each DAG file with operators, sensors and triggers has loaded already.
AIRFLOW = """
from airflow.sdk import BaseOperator, BaseOperatorLink, BaseSensorOperator
from airflow.triggers.base import BaseTrigger
"""
OURS = """
import airflow_provider_batches.operators.batches
import airflow_provider_batches.operators.results
import airflow_provider_batches.operators.teardown
import airflow_provider_batches.sensors.batches
import airflow_provider_batches.triggers.batches
"""
#: Packages that ours may load on top: its own dependencies, and what Airflow 3.0 does not load by itself.
ALLOWED = {"airflow_provider_batches", "asgiref", "httpcore", "httpx", "pydantic", "pydantic_core"}
#: Costly ones, of which not one more module may be loaded than Airflow loads.
HEAVY = (
    "airflow.api",
    "airflow.api_fastapi",
    "airflow.cli",
    "airflow.jobs",
    "airflow.models",
    "airflow.providers",
    "airflow.serialization",
    "airflow.utils.db",
    "airflow.www",
    "airflow_provider_batches.emulator",
    "airflow_provider_batches.get_provider_info",
    "alembic",
    "anthropic",
    "boto3",
    "fastapi",
    "flask",
    "fsspec",
    "numpy",
    "pandas",
    "requests",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "wtforms",
)


def _modules(code: str) -> set[str]:
    script = f"{code}\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def added() -> set[str]:
    return _modules(AIRFLOW + OURS) - _modules(AIRFLOW)


def test_nothing_heavy_is_loaded(added: set[str]) -> None:
    heavy = tuple(f"{name}." for name in HEAVY)
    assert sorted(name for name in added if f"{name}.".startswith(heavy)) == []


def test_only_this_package_and_its_dependencies_are_loaded(added: set[str]) -> None:
    # httpx loads its command line (rich, click) where these are installed; Airflow has them everywhere.
    loose = {"click", "rich", "pygments", "markdown_it", "mdurl", "airflow", "certifi", "h11", "httptools", "sniffio"}
    # httpx 0.27 loads these at once.
    loose |= {"anyio", "idna"}
    tops = {name.partition(".")[0] for name in added} - set(sys.stdlib_module_names)
    assert tops - ALLOWED - loose == set()


def test_of_airflow_the_hook_s_base_is_all_that_is_loaded(added: set[str]) -> None:
    ours = {name for name in added if name.startswith("airflow.")}
    assert {name for name in ours if not name.startswith(("airflow.hooks", "airflow.sdk."))} == set()


@pytest.mark.parametrize("module", ["api", "waiting.poller", "results.saving", "teardown.job"])
def test_a_room_below_the_hook_does_not_load_airflow(module: str) -> None:
    assert [name for name in _modules(f"import airflow_provider_batches.{module}") if name.startswith("airflow.")] == []


def test_the_emulator_s_package_does_not_load_the_rest_or_a_server() -> None:
    loaded = _modules("import airflow_provider_batches.emulator")
    prefixes = ("airflow.", "airflow_provider_batches.api", "airflow_provider_batches.hooks", "uvicorn.", "starlette.")
    assert [name for name in loaded if f"{name}.".startswith(prefixes)] == []


def test_the_plugin_that_every_process_imports_adds_next_to_nothing() -> None:
    airflow = "import airflow.plugins_manager"
    added = _modules(f"{airflow}\nimport airflow_provider_batches.page.plugin") - _modules(airflow)

    assert {name for name in added if name.startswith("airflow_provider_batches.")} == {
        "airflow_provider_batches._compat",
        "airflow_provider_batches.page",
        "airflow_provider_batches.page.plugin",
    }
    heavy = tuple(f"{name}." for name in HEAVY)
    assert sorted(name for name in added if f"{name}.".startswith(heavy)) == []
