from __future__ import annotations

from tests.integration.reliability.matrix import LEGEND, ROWS
from tests.integration.reliability.page import PAGE, render


def test_the_page_is_what_the_matrix_says() -> None:
    assert render() == PAGE.read_text(), "run `make reliability`"


def test_every_word_of_the_matrix_is_explained() -> None:
    assert {term.word for row in ROWS for terms in (row.calls, row.waits) for term in terms.values()} == set(LEGEND)
