"""Walks through the list of batches, page by page. Pure: a client makes the calls."""

from __future__ import annotations

from contextlib import suppress

from airflow_provider_batches.api import endpoints
from airflow_provider_batches.api.endpoints import Call
from airflow_provider_batches.api.errors import APIStatusError, InvalidArgumentError, InvalidResponseError
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.models import BatchPage, MessageBatch

#: How often a walk that brings nothing new begins anew because the batch that a page ended with may be gone.
RESTARTS = 3


class Pager:
    """Says which page comes next, until there is none.

    :param page_size: Batches a page, 1 to 1000 (default).
    :param after_id: Begin behind this batch and continue to the oldest.
    :param before_id: Begin before this batch and continue to the newest.
    """

    def __init__(
        self, page_size: int = endpoints.MAX_PAGE, after_id: str | None = None, before_id: str | None = None
    ) -> None:
        self.call: Call[BatchPage] = endpoints.page(page_size, after_id, before_id)
        self._first = self.call
        self._page_size = page_size
        self._cursor = "before_id" if before_id is not None else "after_id"
        self._restarts = 0
        #: How many pages have been taken.
        self.number = 0
        #: Whether the last page has been taken.
        self.ended = False

    def take(self, page: BatchPage) -> None:
        """Continue behind a page; one that has more but does not say where is an InvalidResponseError."""
        following = self.call
        if page.has_more:
            named, end = (page.first_id, 0) if self._cursor == "before_id" else (page.last_id, -1)
            cursor = named or (page.data[end].get("id") if page.data else None)
            with suppress(InvalidArgumentError):
                following = endpoints.page(self._page_size, **{self._cursor: endpoints.check_batch_id(cursor)})
        if page.has_more and following.params == self.call.params:
            raise InvalidResponseError(
                "Could not list batches: the API says there are more, but not behind which "
                f"(request-id {page.request_id}).",
                request_id=page.request_id,
            )
        self.number += 1
        self.ended = not page.has_more
        self.call = following

    def restart(self, error: APIStatusError) -> bool:
        """Begin anew if a refusal can mean that the batch a page ended with is gone; return whether it can."""
        if self.call is self._first or self._restarts == RESTARTS or error.evidence.proof is not Proof.REFUSED:
            return False
        self.call, self.number, self._restarts = self._first, 0, self._restarts + 1
        return True


class Walk(Pager):
    """Brings each batch of the list once, up to a limit."""

    def __init__(self, limit: int | None, page_size: int, after_id: str | None, before_id: str | None) -> None:
        if limit is not None and (type(limit) is not int or limit < 1):
            raise InvalidArgumentError("limit", f"got {limit!r}; it must be a whole number above 0, or None.")
        super().__init__(page_size, after_id, before_id)
        if limit is not None and limit < page_size:
            super().__init__(limit, after_id, before_id)
        self._left = limit
        self._passed: set[str] = set()

    def new(self, page: BatchPage) -> list[MessageBatch]:
        """Return the batches of a page that have not come before."""
        found = [batch for batch in page.batches() if batch.id not in self._passed][: self._left]
        self._passed.update(batch.id for batch in found)
        self._restarts = 0 if found else self._restarts
        if self._left is not None:
            self._left -= len(found)
            self.ended = self.ended or not self._left
        return found
