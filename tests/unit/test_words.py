"""What people read is plain English: phrases that may not come back, and the limits of the README."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READ = {".md", ".py", ".toml", ".yml", ".css", ".js", ".html", ""}
#: Phrase -> what to write.
PHRASES = {
    r"(go|goes|went|going) on\b": "continue, is still running",
    r"for good\b": "permanently",
    r"(is|are|was|has|have|be) (told|heard)\b": "reported, received",
    r"(made|make|makes|asked|asks|ask) again\b": "retry, poll again",
    r"as (it is|they are|it was|they were)(?=[.,;:)]|$)": "unchanged",
    r"(?<!here )(is|are|was|were) (no|none)\b(?! (longer|one|more))": "is not a",
    r"what(ever)? happened before": "regardless of upstream failures",
    r"on (its|the) way\b": "in transit, while rendering",
    r"(none of )?the others (go|are|count|meet|stay)\b": "the remaining",
    r"takes Airflow": "requires Airflow",
    r"wants? to be": "requires",
    r"where (asked|it is set|there is|there are|nothing|one is)\b": "if",
    r"makes? None of": "renders as None",
    r"of no use": "cannot help",
    r"at hand\b": "available",
    r"\banew\b": "again",
    r"in the end\b": "finally, at last",
    r"what it takes": "what is required",
    r"beside the point": "does not matter",
    r"cut short": "incomplete",
    r"nobody needs": "abandoned",
    r"(API|list) (does|do|did) not know\b": "was not found",
}


def files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = (ROOT / name for name in listed.splitlines() if name not in ("LICENSE", "constraints.txt"))
    return [path for path in paths if path.suffix in READ and path.exists() and path != Path(__file__)]


@pytest.mark.parametrize("phrase", PHRASES)
def test_the_phrase_does_not_come_back(phrase: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(rf"\b{phrase}", line)
    ]

    assert found == [], f"write: {PHRASES[phrase]}"


class TestReadme:
    LINES = (ROOT / "README.md").read_text().splitlines()

    @pytest.fixture
    def prose(self) -> str:
        shown = re.sub(r"```.*?```", "", "\n".join(self.LINES), flags=re.DOTALL)
        kept = [line for line in shown.splitlines() if not line.startswith(("    ", "|", "#", "!["))]
        return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", "\n".join(kept))

    def test_it_is_short(self, prose: str) -> None:
        assert len(self.LINES) <= 120
        assert len(prose.split()) <= 600

    def test_a_sentence_has_at_most_18_words(self, prose: str) -> None:
        sentences = re.split(r"[.:!?;]\s|\n\n|\n- ", prose)

        assert [sentence for sentence in sentences if len(sentence.split()) > 18] == []
