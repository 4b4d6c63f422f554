"""What a bar of `benchmarks/RESULTS.md` is held against."""

from __future__ import annotations

import pytest

from benchmarks.registry import Case, Row
from benchmarks.report import table


def line(row, **numbers):
    case = Case("case", "Title", "module", (row,), sides=tuple(numbers))
    runs = {side: [{row.key: number}] for side, number in numbers.items()}
    cells = next(line for line in table(case, {"date": "today", "runs": runs}) if line.startswith(f"| {row.text} "))
    return [cell.strip() for cell in cells.strip("|").split("|")]


@pytest.mark.parametrize(
    ("ours", "bar"), [(1.5, "≤ 1.6 times bare httpx"), (1.7, "**≤ 1.6 times bare httpx: missed**")]
)
def test_a_share_of_bare_httpx_is_held_against_bare_httpx(ours, bar):
    row = Row("cpu", "CPU", "s", share=1.6, share_of="httpx")

    assert line(row, ours=ours, official=9.5, httpx=1.0) == [
        "CPU",
        bar,
        f"{ours:.2f} s",
        "9.50 s",
        "1 s",
        f"{ours:.2f}",
    ]


def test_a_share_is_one_of_the_official_providers_number_unless_it_says_otherwise():
    found = line(Row("first", "first call", "ms", share=0.5), ours=4.5, official=9.0, httpx=1.0)

    assert found[1] == "≤ 0.5 times official provider"
    assert found[-1] == "0.50"


def test_a_bar_without_a_share_is_an_absolute_number():
    assert line(Row("cpu", "CPU", "s", 1.0), ours=1.5, official=9.0)[1] == "**≤ 1 s: missed**"


def test_there_is_no_ratio_to_a_side_that_did_not_take_part():
    assert line(Row("seconds", "duration", "s"), ours=1.5, httpx=1.0)[-1] == ""
