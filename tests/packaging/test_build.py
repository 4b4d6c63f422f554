"""The wheel and the source distribution, as a user gets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from uv import find_uv_bin

from airflow_provider_batches import __version__

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_batches"
DISTRIBUTION = "airflow-provider-batches"
STEM = f"{PACKAGE}-{__version__}"


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    answer = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert answer.returncode == 0, f"{command} failed:\n{answer.stdout}\n{answer.stderr}"
    return answer.stdout


def repository(*folders: str) -> set[str]:
    """Return the files of these folders that git does not ignore."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders)
    return {name for name in listed.splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(find_uv_bin(), "build", "--quiet", "--out-dir", folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{STEM}.dist-info/METADATA").decode())


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    about = {f"{STEM}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    assert names == repository(PACKAGE) | about | {f"{STEM}.dist-info/licenses/LICENSE"}
    assert f"{PACKAGE}/py.typed" in names


def test_the_source_distribution_holds_what_it_takes_to_build_and_test(dist: Path) -> None:
    (archive_path,) = dist.glob("*.tar.gz")
    with tarfile.open(archive_path) as archive:
        names = {member.name.removeprefix(f"{STEM}/") for member in archive.getmembers() if member.isfile()}

    files = {".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
    assert names == repository(PACKAGE, "example_dags") | files


def test_the_metadata_says_what_it_is_and_what_it_needs(metadata: Message) -> None:
    assert metadata["Name"] == DISTRIBUTION
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Framework :: Apache Airflow :: Provider" in metadata.get_all("Classifier", [])
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert needed == [
        "apache-airflow>=3.0.6",
        "asgiref>=3.5.0",
        "fsspec>=2023.12.2",
        "httpx>=0.27.0",
        "pydantic>=2.11.0",
    ]


@pytest.fixture(scope="module")
def airflow(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The airflow command of a new environment that holds the wheel and what the wheel itself asks for."""
    venv = tmp_path_factory.mktemp("venv")
    uv = find_uv_bin()
    run(uv, "venv", "--quiet", "--python", sys.executable, "--clear", venv)
    python = venv / "bin" / "python"
    run(uv, "pip", "install", "--quiet", "--python", python, "--constraint", "constraints.txt", wheel)
    return [python, "-m", "airflow"]


@pytest.fixture
def clean_env(tmp_path: Path) -> dict[str, str]:
    hidden = ("AIRFLOW", "COV", "PYTEST", "PYTHONPATH")
    return {k: v for k, v in os.environ.items() if not k.startswith(hidden)} | {"AIRFLOW_HOME": str(tmp_path)}


@pytest.mark.timeout(300)
def test_airflow_lists_the_installed_wheel(
    airflow: list[str | Path], clean_env: dict[str, str], tmp_path: Path
) -> None:
    answer = run(*airflow, "providers", "list", "--output", "json", cwd=tmp_path, env=clean_env)

    listed = {provider["package_name"]: provider["version"] for provider in json.loads(last_line(answer))}
    assert listed[DISTRIBUTION] == __version__


@pytest.mark.timeout(300)
def test_airflow_gets_the_installed_wheel_s_provider_info(
    airflow: list[str | Path], clean_env: dict[str, str], tmp_path: Path
) -> None:
    answer = run(*airflow, "providers", "get", DISTRIBUTION, "--full", "--output", "json", cwd=tmp_path, env=clean_env)

    (provider,) = json.loads(last_line(answer))
    assert provider["package-name"] == DISTRIBUTION
    assert "anthropic_batches" in str(provider["connection-types"])


@pytest.mark.timeout(300)
def test_the_emulator_runs_from_the_installed_wheel(
    airflow: list[str | Path], clean_env: dict[str, str], tmp_path: Path
) -> None:
    script = "from airflow_provider_batches.emulator import Emulator\nwith Emulator() as api: print(api.ids())"

    assert run(airflow[0], "-c", script, cwd=tmp_path, env=clean_env) == "[]\n"


def last_line(output: str) -> str:
    """Return the answer proper; Airflow may print warnings before it."""
    return output.strip().splitlines()[-1]
