"""Hooks of mkdocs: files outside of docs/, such as the README, are pages of the site, too.

Links are written as they work in the repository. In the site, a link to a file that is a page points to the page; of
any other link, only the text is kept.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
#: Page of the site -> file of the repository.
PAGES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
    "measurements.md": "benchmarks/RESULTS.md",
}
EXAMPLES = "examples.md"
_SOURCES = {source: page for page, source in PAGES.items()}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from files outside of docs/."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.append(File.generated(config, EXAMPLES, content=_examples()))
    picture = ROOT / "benchmarks" / "results.png"
    files.append(File.generated(config, "results.png", content=picture.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point the links to where they are in the site, and rank the page in the search."""
    here = page.file.src_uri
    source = PAGES.get(here, f"docs/{here}")
    if here.startswith("decisions/") or here in (EXAMPLES, "changelog.md", "measurements.md"):
        page.meta["search"] = {"boost": 0.3}  # behind the pages that say how something is done

    def point(found: re.Match[str]) -> str:
        mark, text, target, anchor = found.groups()
        if ":" in target:
            return found[0]
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = _page_of(wanted)
        if there is None:
            return text
        way = posixpath.relpath(there, posixpath.dirname(here) or ".")
        return f"{mark}[{text}]({way}{anchor or ''})"

    return _LINK.sub(point, markdown)


def _page_of(path: str) -> str | None:
    """Return the page that a file of the repository is in the site, None if it is not one."""
    if not (ROOT / path).exists():
        # Left unchanged, so that the build fails.
        return path.removeprefix("docs/")
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == "benchmarks/results.png":
        return "results.png"
    return EXAMPLES if path.startswith("example_dags/") else _SOURCES.get(path)


def _examples() -> str:
    files = sorted((ROOT / "example_dags").glob("*.py"))
    code = [f"## {path.stem}\n\n```python\n{path.read_text()}```\n" for path in files]
    return "\n".join(["# Example DAGs\n\nThe files in `example_dags/`, to copy from.\n", *code])
