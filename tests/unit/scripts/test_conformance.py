from __future__ import annotations

import shutil

import pytest

from scripts.conformance.__main__ import HERE, PAGE, PARTS


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_commands_of_the_batch_guide_work_with_curl_and_sed() -> None:
    (row,) = PARTS["curl"]()
    assert row.does == "create, retrieve, results, list, cancel, delete"


def test_the_page_has_a_row_for_each_part() -> None:
    programs = ["SDK for Python", "SDK for TypeScript", "curl"]
    assert len(programs) == len(PARTS)
    assert all(program in PAGE.read_text() for program in programs)
    assert (HERE / "calls.mjs").is_file()
