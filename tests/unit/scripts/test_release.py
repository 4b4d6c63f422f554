"""A release is refused until version, changelog, address and README are those of a release."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.release import ROOT, problems

FILES = {
    "airflow_provider_batches/__init__.py": '__version__ = "1.2.0"\n',
    "CHANGELOG.md": "## [1.2.0] - 2026-12-01\n",
    "pyproject.toml": 'Homepage = "https://github.com/somebody/airflow-provider-batches"\n',
    "README.md": "## Install\n\n    pip install airflow-provider-batches\n",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_release_that_is_ready_has_no_problems(repository: Path) -> None:
    assert problems("v1.2.0", repository) == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("CHANGELOG.md", "## [Unreleased]\n", "has no section `## [1.2.0] - YYYY-MM-DD`"),
        ("pyproject.toml", 'Homepage = "https://github.com/OWNER/x"\n', "pyproject.toml:1 has the placeholder OWNER"),
        ("README.md", "    pip install .\n", "replace `pip install .`"),
        ("airflow_provider_batches/__init__.py", '__version__ = "1.1.0"\n', "`__version__` is '1.1.0'. Tag v1.1.0"),
    ],
)
def test_what_is_missing_is_named(file: str, text: str, message: str, repository: Path) -> None:
    (repository / file).write_text(text)

    (problem,) = problems("v1.2.0", repository)

    assert message in problem


def test_this_repository_has_a_placeholder_until_it_is_published() -> None:
    assert any("OWNER" in problem for problem in problems("v0.1.0", ROOT))
