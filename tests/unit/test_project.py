"""What the repository says of itself: workflows call what is there, and every session of compat."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.compat import BEGIN, END, ENVIRONMENTS, NEEDED, PACKAGES, PAGE, read_report, table
from tests.versions import FEATURES, Feature

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def calls() -> list[tuple[str, str]]:
    texts = [(path.name, path.read_text()) for path in [*WORKFLOWS, ROOT / "CONTRIBUTING.md"]]
    pattern = r"(?:run: |    |`)make ([a-z0-9-]+)"
    return sorted({(name, target) for name, text in texts for target in re.findall(pattern, text)})


@pytest.mark.parametrize(("where", "target"), calls())
def test_every_make_target_that_is_named_is_there(where: str, target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("room", ["api", "submission", "waiting"])
def test_contributing_names_each_file_of_the_room(room: str) -> None:
    rows = (ROOT / "CONTRIBUTING.md").read_text().partition(f"| file of `{room}/` |")[2].partition("\n\n")[0]
    files = {path.name for path in (ROOT / "airflow_provider_batches" / room).glob("[!_]*.py")}

    assert set(re.findall(r"`([a-z]+\.py)`", rows)) == files


def test_contributing_names_each_room() -> None:
    package = ROOT / "airflow_provider_batches"
    rows = (ROOT / "CONTRIBUTING.md").read_text().partition("## The rooms")[2].partition("\n\n| file of")[0]
    rooms = [f"{path.parent.name}/" for path in package.glob("*/__init__.py")]

    assert set(re.findall(r"`(\w+/|_\w+\.py)`", rows)) == {*rooms, *(path.name for path in package.glob("_[a-z]*.py"))}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_only_and_ends_in_time(path: Path) -> None:
    workflow = load(path)

    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())


def test_only_what_publishes_may_ask_pypi_for_a_token() -> None:
    jobs = {name: job for path in WORKFLOWS for name, job in load(path)["jobs"].items()}

    assert {name: job["permissions"] for name, job in jobs.items() if "permissions" in job} == {
        "publish": {"id-token": "write"}
    }
    assert jobs["publish"]["environment"] == "pypi"


def test_ci_runs_every_session() -> None:
    matrix = load(ROOT / ".github" / "workflows" / "compat.yml")["jobs"]["compat"]["strategy"]["matrix"]

    assert matrix["session"] == list(ENVIRONMENTS)


RECORD = {
    "versions": {"Python": "3.11.7", "Airflow": "3.2.2"},
    "passed": 3000,
    "skipped": {"`new`: Airflow 3.3+": 2},
    "features": {"`new`": False, "form": True},
}


def test_the_table_says_what_works_where() -> None:
    newer = {**RECORD, "skipped": {}, "features": {"`new`": True, "form": True}}

    assert table({"airflow-3.2.2": RECORD, "airflow-3.3.2": newer}).splitlines() == [
        "|  | `airflow-3.2.2` | `airflow-3.3.2` |",
        "| --- | --- | --- |",
        "| Python | 3.11.7 | 3.11.7 |",
        "| Airflow | 3.2.2 | 3.2.2 |",
        "| `make demo` | passes | passes |",
        "| tests that pass | 3,000 | 3,000 |",
        "| tests that are skipped | 2 | 0 |",
        "| `new` | no | yes |",
        "| form | yes | yes |",
        "",
        "What is skipped, and why:",
        "",
        "- `new`: Airflow 3.3+ (2 in `airflow-3.2.2`)",
    ]


CASE = '<testcase name="{}"><properties><property name="feature" value="new"/></properties>{}</testcase>'


@pytest.mark.parametrize(
    ("second", "works", "skipped"),
    [("", True, {}), ('<skipped message="Airflow 3.3+"/>', False, {"Airflow 3.3+": 1})],
    ids=["all pass", "one is skipped"],
)
def test_a_feature_works_where_all_of_its_tests_pass(
    second: str, works: bool, skipped: dict[str, int], tmp_path: Path
) -> None:
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuites><testsuite>{CASE.format(1, '')}{CASE.format(2, second)}</testsuite></testsuites>")

    assert read_report(report) == (2 - len(skipped), skipped, {"new": works})


def test_a_session_with_a_failed_test_is_not_recorded(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuite>{CASE.format('bad', '<failure/>')}</testsuite>")

    with pytest.raises(ValueError, match="bad has failed"):
        read_report(report)


class TestThePage:
    @pytest.fixture
    def rows(self) -> dict[str, list[str]]:
        made = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.splitlines() if line[:1] == "|"]
        return {row[0]: row[1:] for row in cells}

    def test_there_is_a_column_for_each_session(self, rows: dict[str, list[str]]) -> None:
        assert {f"`{session}`" for session in NEEDED} <= set(rows[""]) <= {f"`{session}`" for session in ENVIRONMENTS}
        assert {"Python", "`make demo`", *PACKAGES} <= set(rows)

    @pytest.mark.parametrize("feature", FEATURES.values(), ids=FEATURES)
    def test_a_feature_works_from_its_version_on(self, feature: Feature, rows: dict[str, list[str]]) -> None:
        versions = [tuple(map(int, version.split("."))) for version in rows["Airflow"]]

        assert rows[feature.name] == ["yes" if version >= feature.since else "no" for version in versions]
