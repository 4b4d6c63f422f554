"""The README and the pages of the documentation, and the Python that they show."""

from __future__ import annotations

import re
from pathlib import Path

from tests.versions import AIRFLOW

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCKS = [
    (name, block) for name, text in PAGES.items() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
]
if AIRFLOW < (3, 2):  # as the comment beside it says
    BLOCKS = [(name, block.replace("airflow.dag_processing.dagbag", "airflow.models")) for name, block in BLOCKS]
