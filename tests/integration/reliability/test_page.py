from __future__ import annotations

from tests.integration.reliability.matrix import CALLS_LEGEND, ERRORS, OTHER_ADVICE, ROWS, WAITS_LEGEND
from tests.integration.reliability.page import PAGE, render


def test_the_page_is_up_to_date() -> None:
    assert render() == PAGE.read_text(), "run `make reliability`"


def test_every_word_of_the_matrix_is_explained() -> None:
    assert {term.word for row in ROWS for term in row.calls.values()} == set(CALLS_LEGEND)
    assert {term.word for row in ROWS for term in row.waits.values()} == set(WAITS_LEGEND)


def test_every_advice_of_the_page_is_in_an_error_of_the_matrix() -> None:
    said = {text for row in ROWS for _, text in row.errors.values()} | set(OTHER_ADVICE.values())
    said |= {fault.says for row in ROWS for fault in row.faults}
    assert {text for kind in ERRORS.values() for text in kind.also} <= said
