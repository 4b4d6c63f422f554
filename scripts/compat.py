"""The environments that the package must run in, the results of each, and the table of docs/compatibility.md.

noxfile.py makes the environments and has each one's result recorded in it:

    python -m scripts.compat floors          # whether the lowest versions that pyproject.toml allows are installed
    python -m scripts.compat record SESSION  # what the tests' report says, into build/compat/
    python -m scripts.compat render          # all records, into docs/compatibility.md
"""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
RECORDS = ROOT / "build" / "compat"
BEGIN, END = "<!-- begin: made by make compat -->\n", "<!-- end: made by make compat -->\n"
DISTRIBUTION = "airflow-provider-batches"
PACKAGES = {"Airflow": "apache-airflow", "httpx": "httpx", "pydantic": "pydantic"}


@dataclass(frozen=True)
class Environment:
    """One session of nox: a Python with an Airflow and what it brings along."""

    #: Nothing that Airflow brings along is newer: an old Airflow runs on the packages of its time.
    day: str
    #: The Airflow, or None for the lowest versions of all that pyproject.toml asks for.
    airflow: str | None
    python: str = "3.11"


ENVIRONMENTS = {
    "lowest": Environment("2025-08-30", None),
    "airflow-3.0.6": Environment("2025-08-30", "3.0.6"),
    "airflow-3.1.8": Environment("2026-03-15", "3.1.8"),
    "airflow-3.2.2": Environment("2026-06-15", "3.2.2"),
    "airflow-3.3.2": Environment("2026-11-20", "3.3.2"),
    "python-3.10": Environment("2026-11-20", "3.3.2", python="3.10"),
}
#: The sessions without which there is no table: one for each Airflow. Another Python may not be installed.
NEEDED = [session for session in ENVIRONMENTS if session.startswith("airflow-")]


def report_of(session: str) -> Path:
    """Return where pytest writes its report (JUnit's XML)."""
    return RECORDS / f"{session}.xml"


def check_floors() -> None:
    """Fail unless each dependency of the package is installed in the lowest version that is allowed."""
    from packaging.requirements import Requirement

    wrong = []
    for text in requires(DISTRIBUTION) or ():
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": "emulator"}):
            continue  # an extra that the tests do without
        installed = version(requirement.name)
        if not any(each.operator == ">=" and each.version == installed for each in requirement.specifier):
            wrong.append(f"{requirement} is declared, {installed} is installed")
    if wrong:
        sys.exit("\n".join(wrong))


def record(session: str) -> None:
    """Write what a session has shown; nox calls it if tests and demo have passed."""
    passed, skipped, features = read_report(report_of(session))
    versions = {"Python": platform.python_version(), **{name: version(each) for name, each in PACKAGES.items()}}
    result = {"versions": versions, "passed": passed, "skipped": skipped, "features": features}
    report_of(session).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


def read_report(path: Path) -> tuple[int, dict[str, int], dict[str, bool]]:
    """Return the number of tests that passed, of those skipped by reason, and whether each feature works."""
    passed, skipped, features = 0, dict[str, int](), dict[str, bool]()
    for case in ElementTree.parse(path).iter("testcase"):  # noqa: S314 - pytest has just written it
        if case.find("failure") is not None or case.find("error") is not None:
            raise ValueError(f"{path.name}: {case.get('name')} has failed")
        skip = case.find("skipped")
        if skip is None:
            passed += 1
        else:
            reason = skip.get("message", "")
            skipped[reason] = skipped.get(reason, 0) + 1
        for each in case.iterfind("properties/property[@name='feature']"):
            name = each.get("value", "")
            features[name] = features.get(name, True) and skip is None
    return passed, skipped, features


def table(records: dict[str, dict[str, Any]]) -> str:
    """Return the table, with one column for each session, and the reasons for skipped tests."""
    rows = [["", *(f"`{session}`" for session in records)], ["---"] * (len(records) + 1)]
    rows += [
        [name, *(each["versions"][name] for each in records.values())]
        for name in next(iter(records.values()))["versions"]
    ]
    rows.append(["`make demo`", *("passes" for _ in records)])
    rows.append(["tests that pass", *(f"{each['passed']:,}" for each in records.values())])
    rows.append(["tests that are skipped", *(str(sum(each["skipped"].values())) for each in records.values())])
    for feature in sorted({name for each in records.values() for name in each["features"]}):
        rows.append([feature, *("yes" if each["features"].get(feature) else "no" for each in records.values())])

    lines = ["| " + " | ".join(row) + " |" for row in rows]
    reasons = sorted({reason for each in records.values() for reason in each["skipped"]})
    if reasons:
        lines += ["", "What is skipped, and why:", ""]
    for reason in reasons:
        counts = {session: each["skipped"].get(reason) for session, each in records.items()}
        where = ", ".join(f"{count} in `{session}`" for session, count in counts.items() if count)
        lines.append(f"- {reason} ({where})")
    return "\n".join(lines) + "\n"


def render() -> None:
    """Write the table into its page, if each required session has a result."""
    paths = {session: report_of(session).with_suffix(".json") for session in ENVIRONMENTS}
    missing = [session for session in NEEDED if not paths[session].exists()]
    if missing:
        print(f"The table is unchanged: no result of {', '.join(missing)}.")
        return
    records = {session: json.loads(path.read_text()) for session, path in paths.items() if path.exists()}
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(records)}\n{END}{after}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["floors"]:
            check_floors()
        case ["record", session]:
            record(session)
        case ["render"]:
            render()
        case _:
            sys.exit(__doc__)
