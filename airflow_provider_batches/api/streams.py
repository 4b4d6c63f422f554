"""The results of a batch as they come: bytes, counted or read line by line, and whether all have come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import httpx
from pydantic import ValidationError

from airflow_provider_batches.api.errors import ResultsTruncatedError
from airflow_provider_batches.api.models import BatchResult, MessageBatch


class ResultLines:
    """Turns the bytes of an ended batch's results into results, and checks that all have come."""

    def __init__(self, batch: MessageBatch) -> None:
        self.batch = batch
        self.count = 0
        self._rest: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[BatchResult]:
        """Yield the results that are complete with this chunk. Lines end at LF only: U+2028 is JSON text."""
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            line = b"".join((*self._rest, line))
            self._rest.clear()
            if line.strip():
                yield self._read(line)
        self._rest.append(rest)

    def skip(self, chunk: bytes) -> None:
        """Count the results that are complete with this chunk, without reading them."""
        # Searching from line to line is ten times as fast as splitting, which looks at each byte and copies it.
        start, end = 0, chunk.find(b"\n")
        while end >= 0:
            if not self._rest and chunk.startswith(b'{"custom_id"', start):
                self.count += 1
            elif line := b"".join((*self._rest, chunk[start:end])).strip():
                # Without a key of this name it is a page of a proxy, or an error. In a text, the quotes are escaped.
                if line[:1] != b"{" or b'"custom_id"' not in line:
                    raise self._not_a_result()
                self.count += 1
            self._rest.clear()
            start, end = end + 1, chunk.find(b"\n", end + 1)
        self._rest.append(chunk[start:])

    def end(self) -> Iterator[BatchResult]:
        """Yield the last result if its line had no end; missing results are a ResultsTruncatedError."""
        yield from self.feed(b"\n")
        # A batch has one request at least: counts of 0 say nothing.
        if not self.count or self.count != self.batch.request_counts.total:
            raise self.cut_short("the stream ended")

    def cut_short(self, why: object) -> ResultsTruncatedError:
        """Return the error for a stream that broke off."""
        # Not what the network's error says, which may hold anything.
        name = type(why).__name__ if isinstance(why, Exception) else why
        return ResultsTruncatedError(
            f"The results of batch {self.batch.id} were cut short: {self.count} of "
            f"{self.batch.request_counts.total} came ({name}). Read them again."
        )

    def _read(self, line: bytes) -> BatchResult:
        try:
            result = BatchResult.model_validate_json(line)
        except ValidationError:
            raise self._not_a_result() from None
        self.count += 1
        return result

    def _not_a_result(self) -> ResultsTruncatedError:
        return self.cut_short(f"result {self.count + 1} is no whole result of the API")


class ResultBytes:
    """The bytes of a batch's results, counted while they come.

    :param batch: The ended batch, whose `request_counts` say how many results there are.
    :param request_id: The `request-id` of the answer.
    :param chunks: What the API sends.
    """

    def __init__(self, batch: MessageBatch, request_id: str | None, chunks: Iterable[bytes]) -> None:
        self.batch = batch
        self.request_id = request_id
        self._lines = ResultLines(batch)
        self._chunks = chunks

    @property
    def lines(self) -> int:
        """How many results have come so far."""
        return self._lines.count

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the bytes, once; a stream that ends early is a ResultsTruncatedError."""
        try:
            for chunk in self._chunks:
                self._lines.skip(chunk)
                yield chunk
        except httpx.HTTPError as error:
            raise self._lines.cut_short(error) from None
        for _ in self._lines.end():
            pass
