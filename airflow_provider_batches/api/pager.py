"""Decides which page of the list of batches to request next. No I/O."""

from __future__ import annotations

from contextlib import suppress

from airflow_provider_batches.api import endpoints
from airflow_provider_batches.api.endpoints import Call
from airflow_provider_batches.api.errors import APIStatusError, InvalidArgumentError, InvalidResponseError
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.models import BatchPage, MessageBatch

#: How often to restart from the first page, without progress, because the cursor's batch may have been deleted.
RESTARTS = 3


class Pager:
    """Holds the position in the list, and the call for the next page.

    :param page_size: Batches per page, 1 to 1000 (default).
    :param after_id: Start after this batch and continue to the oldest.
    :param before_id: Start before this batch and continue to the newest.
    """

    def __init__(
        self, page_size: int = endpoints.MAX_PAGE, after_id: str | None = None, before_id: str | None = None
    ) -> None:
        self.call: Call[BatchPage] = endpoints.page(page_size, after_id, before_id)
        self._first = self.call
        self._page_size = page_size
        self._cursor = "before_id" if before_id is not None else "after_id"
        self._restarts = 0
        #: The number of pages received.
        self.number = 0
        #: Whether the last page has been received.
        self.ended = False

    def take(self, page: BatchPage) -> None:
        """Advance past a page. Raises InvalidResponseError if it has no usable cursor to the next one."""
        following = self.call
        if page.has_more:
            named, end = (page.first_id, 0) if self._cursor == "before_id" else (page.last_id, -1)
            cursor = named or (page.data[end].get("id") if page.data else None)
            with suppress(InvalidArgumentError):
                following = endpoints.page(self._page_size, **{self._cursor: endpoints.check_batch_id(cursor)})
        if page.has_more and following.params == self.call.params:
            raise InvalidResponseError(
                "Could not list batches: the API reports more batches, but no cursor for the next page "
                f"(request-id {page.request_id}). Try again later.",
                request_id=page.request_id,
            )
        self.number += 1
        self.ended = not page.has_more
        self.call = following

    def restart(self, error: APIStatusError) -> bool:
        """Restart if a refusal may mean that the cursor's batch was deleted; return whether it was restarted."""
        if self.call is self._first or self._restarts == RESTARTS or error.evidence.proof is not Proof.REFUSED:
            return False
        self.call, self.number, self._restarts = self._first, 0, self._restarts + 1
        return True


class Walk(Pager):
    """Yields each batch of the list once, up to a limit."""

    def __init__(self, limit: int | None, page_size: int, after_id: str | None, before_id: str | None) -> None:
        if limit is not None and (type(limit) is not int or limit < 1):
            raise InvalidArgumentError("limit", f"got {limit!r}; it must be a whole number above 0, or None.")
        super().__init__(page_size, after_id, before_id)
        if limit is not None and limit < page_size:
            super().__init__(limit, after_id, before_id)
        self._left = limit
        self._seen: set[str] = set()

    def new(self, page: BatchPage) -> list[MessageBatch]:
        """Return the batches of a page that were not returned before."""
        found = [batch for batch in page.batches() if batch.id not in self._seen][: self._left]
        self._seen.update(batch.id for batch in found)
        self._restarts = 0 if found else self._restarts
        if self._left is not None:
            self._left -= len(found)
            self.ended = self.ended or not self._left
        return found
