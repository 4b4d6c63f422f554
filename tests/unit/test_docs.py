"""The pages that are made from the code are what the code makes."""

from __future__ import annotations

from scripts.reference import PAGE, page


def test_the_reference_is_that_of_the_docstrings() -> None:
    assert PAGE.read_text() == page(), "run `make reference`"
