"""Check that a tag can be released: `make release-check TAG=v1.2.3`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Stands in URLs until the repository has an owner.
PLACEHOLDER = "OWNER"


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """Return what prevents the release of a tag, one line for each problem."""
    found = []
    version = tag.removeprefix("v")
    (declared,) = re.findall(r'__version__ = "(.+)"', (root / "airflow_provider_batches" / "__init__.py").read_text())
    if tag != f"v{declared}":
        found.append(f"The tag is {tag!r}, but `__version__` is {declared!r}. Tag v{declared}, or change the version.")
    changes = (root / "CHANGELOG.md").read_text()
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        found.append(f"CHANGELOG.md has no section `## [{version}] - YYYY-MM-DD`. Rename the section `[Unreleased]`.")
    if "    pip install airflow-provider-batches\n" not in (root / "README.md").read_text():
        found.append("README.md, Install: replace `pip install .` with `pip install airflow-provider-batches`.")
    for number, line in enumerate((root / "pyproject.toml").read_text().splitlines(), 1):
        if f"/{PLACEHOLDER}" in line:
            found.append(
                f"pyproject.toml:{number} has the placeholder {PLACEHOLDER}. Replace it with the GitHub account."
            )
    return found


if __name__ == "__main__":
    sys.exit("\n".join(problems("".join(sys.argv[1:2]))) or None)
