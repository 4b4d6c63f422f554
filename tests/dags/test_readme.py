"""What the README and the pages of the documentation show works unchanged."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.hooks.connection import EXTRA_FIELDS
from tests.pages import BLOCKS, PAGES, ROOT

README = PAGES["README.md"]
LINKS = sorted(
    {(name, link) for name, text in PAGES.items() for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)}
)


def code(holding: str) -> str:
    (block,) = (block for _, block in BLOCKS if holding in block)
    return block


def test_the_dag_is_short() -> None:
    assert len(code("def answer_requests(").splitlines()) <= 15


@pytest.mark.feature("dag_test")
@pytest.mark.batches_emulator(batch_seconds=0)
def test_the_dag_answers_a_file_of_requests(
    run_dag: Callable[..., Any], batches_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = code("def answer_requests(").replace("s3://aws_default@my-bucket", f"file://{tmp_path}/batches")
    monkeypatch.setenv("AIRFLOW__MESSAGE_BATCHES__STORAGE_FOLDER", f"file://{tmp_path}/batches")
    (tmp_path / "answer_requests.py").write_text(text)
    (tmp_path / "batches").mkdir()
    params = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    request = json.dumps({"custom_id": "row-1", "params": params})
    (tmp_path / "batches" / "requests.jsonl").write_text(request)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))

    run = run_dag("answer_requests")

    assert run.state == "success"
    assert [saved["lines"] for saved in run.xcom("save")] == [1]


@pytest.mark.feature("dag_test")
def test_the_dag_stops_a_batch(
    run_dag: Callable[..., Any], batches_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stop_batch.py").write_text(code("def stop_batch("))
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    batch_id = batches_emulator.add_batch(requests=100, status="in_progress")

    assert run_dag("stop_batch", {"batch_id": batch_id}).state == "success"
    assert batches_emulator.batch(batch_id) is None


@pytest.mark.feature("dag_test")
def test_the_page_on_testing_is_green_in_an_empty_folder(tmp_path: Path) -> None:
    (settings,) = re.findall(r"```toml\n(.*?)```", PAGES["docs/testing.md"], re.DOTALL)
    files = {
        "pyproject.toml": settings,
        "dags/classify_tickets.py": code("def classify_tickets("),
        "tests/test_classify_tickets.py": code("def test_tickets("),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_test_of_50_tickets_is_short() -> None:
    assert len(code("def test_tickets(").splitlines()) <= 15


@pytest.mark.parametrize("field", EXTRA_FIELDS)
def test_every_field_of_the_connection_is_described(field: str) -> None:
    pages = ("connection", "identity", "aws", "google")
    assert any(f"| `{field}` |" in PAGES[f"docs/{page}.md"] for page in pages)


@pytest.mark.parametrize(("name", "link"), LINKS)
def test_every_linked_file_is_there(name: str, link: str) -> None:
    assert ((ROOT / name).parent / link).is_file()


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(BLOCKS)])
def test_every_block_of_code_runs(name: str, block: str) -> None:
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    assert len(namespace) > 1


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|^    )make ([a-z0-9-]+)", README, re.MULTILINE))))
def test_every_make_command_exists(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text()

    assert re.search(rf"^{target}:.*  ## ", makefile, re.MULTILINE)


def test_the_scheduled_teardown_is_a_dag() -> None:
    namespace: dict[str, Any] = {}
    exec(code('DAG("tidy_up"'), namespace)
    assert namespace["TeardownBatchesOperator"]
