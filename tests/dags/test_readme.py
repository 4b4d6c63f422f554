"""What the README and the pages of the documentation show works as it stands there."""

from __future__ import annotations

import re
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
    assert len(code("def stop_batch(").splitlines()) <= 15


@pytest.mark.feature("dag_test")
def test_the_dag_and_its_test_run(
    airflow_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches_emulator: Emulator
) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "stop_batch.py").write_text(code("def stop_batch("))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path / "dags"))
    namespace: dict[str, Any] = {}
    exec(code("def test_the_batch_is_gone"), namespace)
    test: Callable[..., None] = namespace["test_the_batch_is_gone_in_the_end"]

    test(batches_emulator)


@pytest.mark.parametrize("field", EXTRA_FIELDS)
def test_every_field_of_the_connection_is_described(field: str) -> None:
    assert f"| `{field}` |" in PAGES["docs/connection.md"]


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
