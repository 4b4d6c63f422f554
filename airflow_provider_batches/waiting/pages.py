"""Decides which pages of the list are worth reading. No I/O."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from airflow_provider_batches.api import BatchPage
from airflow_provider_batches.api.endpoints import MAX_PAGE
from airflow_provider_batches.api.models import read_time

#: Pages are large, so they are read only if they save at least this many retrievals.
WORTH = 2


class Pages:
    """Predicts which page of the list has a batch, from the ages of the batches at the ends of the pages."""

    def __init__(self) -> None:
        self._newest = 0.0
        # Negative timestamps, because `bisect` needs ascending values and the list is newest first.
        self._ends: list[float] = []

    def learn(self, number: int, page: BatchPage) -> None:
        """Record page `number` of the list, counted from 0."""
        if not page.data:
            return
        first, last = (read_time(page.data[end].get("created_at")) for end in (0, -1))
        if not (first and last):
            return
        if number == 0:
            self._newest = -first.timestamp()
        self._ends[number:] = [-last.timestamp(), *(self._ends[number + 1 :] if page.has_more else [])]

    def number_of(self, created_at: float) -> int:
        """Return the number of the page that has a batch, extrapolated beyond the known pages."""
        age = -created_at
        number = bisect_left(self._ends, age)
        if 0 < number == len(self._ends) and self._ends[-1] > self._newest:
            between = (self._ends[-1] - self._newest) / (number * MAX_PAGE - 1)
            number += (round((age - self._ends[-1]) / between) - 1) // MAX_PAGE
        return number


def worth_a_page(numbers: Iterable[int], page: int) -> bool:
    """Whether reading from page `page` on saves enough retrievals of the batches on pages `numbers`."""
    answered = 0
    for number, count in sorted(Counter(numbers).items()):
        if number >= page:
            answered += count
            if answered - (number - page + 1) >= WORTH:
                return True
    return False
