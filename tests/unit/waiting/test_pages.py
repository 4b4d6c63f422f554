from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batches.api import BatchPage
from airflow_provider_batches.waiting.pages import Pages, worth_a_page
from tests.unit.waiting.fakes import NEWEST, PAGE, a_batch, created_at

pytestmark = pytest.mark.usefixtures("small_pages")


def a_page(numbers: range) -> BatchPage:
    return BatchPage(data=[a_batch(number).model_dump() for number in numbers], has_more=True)


def test_one_or_two_waits_are_not_worth_a_page() -> None:
    assert not worth_a_page([0], 0)
    assert not worth_a_page([0, 0], 0)


def test_three_waits_on_the_next_page_are_worth_it() -> None:
    assert worth_a_page([0, 0, 0], 0)


def test_a_page_far_down_is_worth_it_for_enough_waits_only() -> None:
    assert not worth_a_page([5] * 7, 0)
    assert worth_a_page([5] * 8, 0)


def test_waits_on_pages_already_read_do_not_count() -> None:
    assert not worth_a_page([0, 0, 0], 1)


@given(st.lists(st.integers(0, 30), max_size=60))
def test_pages_are_read_if_they_save_two_requests_at_least(numbers: list[int]) -> None:
    cheapest = min(read + sum(number >= read for number in numbers) for read in range(max(numbers, default=0) + 2))
    assert worth_a_page(numbers, 0) == (cheapest <= len(numbers) - 2)


def test_a_batch_is_on_the_page_whose_end_is_older() -> None:
    pages = Pages()
    for number in range(3):
        pages.learn(number, a_page(range(number * PAGE, (number + 1) * PAGE)))
    assert [pages.number_of(created_at(number)) for number in range(35)] == [number // PAGE for number in range(35)]


def test_beyond_the_known_pages_the_time_they_cover_tells() -> None:
    pages = Pages()
    pages.learn(0, a_page(range(PAGE)))
    assert [pages.number_of(created_at(number)) for number in (10, 59, 60)] == [1, 5, 6]


def test_nothing_is_known_of_pages_before_one_was_read() -> None:
    assert Pages().number_of(NEWEST.timestamp()) == 0


@pytest.mark.parametrize("odd", [{}, {"created_at": None}, {"created_at": "yesterday"}])
@pytest.mark.parametrize("end", [0, -1])
def test_a_page_that_begins_or_ends_with_a_batch_whose_age_is_unknown_teaches_nothing(odd: Any, end: int) -> None:
    pages, page = Pages(), a_page(range(PAGE))
    page.data[end] = odd
    pages.learn(0, page)
    assert pages.number_of(created_at(PAGE + 1)) == 0


def test_an_empty_page_teaches_nothing() -> None:
    pages = Pages()
    pages.learn(0, BatchPage(data=[], has_more=False))
    assert pages.number_of(NEWEST.timestamp()) == 0
