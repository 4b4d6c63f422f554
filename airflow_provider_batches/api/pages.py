"""Which pages of the list are worth reading, and what stands on them. Pure: the poller reads them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from airflow_provider_batches.api.endpoints import MAX_PAGE
from airflow_provider_batches.api.errors import BatchesError, InvalidResponseError
from airflow_provider_batches.api.models import MessageBatch, RawPage

#: Pages are read where they save at least this many requests over retrieving each batch: they are large.
WORTH = 2


class Pages:
    """Remembers how old the batches at the end of each page of the list are, to tell on which page a batch stands."""

    def __init__(self) -> None:
        self._newest = 0.0
        self._ends: list[float] = []

    def learn(self, number: int, page: RawPage) -> None:
        """Take in page `number` of the list, counted from 0."""
        # Times count backwards from here on, so that they grow from page to page.
        first, last = read_batch(page.data[0]), read_batch(page.data[-1])
        if isinstance(first, BatchesError) or isinstance(last, BatchesError):
            return
        if number == 0:
            self._newest = -first.created_at.timestamp()
        later = self._ends[number + 1 :] if page.has_more else []
        self._ends[number:] = [-last.created_at.timestamp(), *later]

    def number_of(self, created_at: float) -> int:
        """Return the page on which a batch stands; beyond the known pages, judged by the time that they cover."""
        age = -created_at
        number = bisect_left(self._ends, age)
        if 0 < number == len(self._ends) and self._ends[-1] > self._newest:
            between = (self._ends[-1] - self._newest) / (number * MAX_PAGE - 1)
            number += (round((age - self._ends[-1]) / between) - 1) // MAX_PAGE
        return number


def read_batch(raw: dict[str, Any]) -> MessageBatch | BatchesError:
    """Return a batch of a page, or what is wrong with it."""
    try:
        return MessageBatch.model_validate(raw)
    except ValidationError as error:
        return InvalidResponseError(f"Could not list batches: a batch cannot be read ({error.error_count()} problems).")


def worth_a_page(numbers: Iterable[int], page: int) -> bool:
    """Whether reading on from page `page` answers enough of the waits whose batches stand on pages `numbers`."""
    answered = 0
    for number, count in sorted(Counter(numbers).items()):
        if number >= page:
            answered += count
            if answered - (number - page + 1) >= WORTH:
                return True
    return False
