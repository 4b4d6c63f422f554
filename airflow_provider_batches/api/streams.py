"""The results of a batch as they come: bytes, counted or read line by line, and whether all have come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import httpx
from pydantic import ValidationError

from airflow_provider_batches.api.errors import ResultsTruncatedError
from airflow_provider_batches.api.models import BatchResult, MessageBatch


class ResultLines:
    """Turns the bytes of a result stream into results, and knows whether all have come.

    :param batch: The ended batch, whose `request_counts` say how many there are.
    """

    def __init__(self, batch: MessageBatch) -> None:
        self.batch = batch
        self.count = 0
        self._rest: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[BatchResult]:
        """Yield the results that are complete with this chunk. Lines end at LF only: U+2028 is JSON text."""
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest.clear()
        self._rest.append(rest)
        for line in lines:
            if line.strip():
                yield self._read(line)

    def skip(self, chunk: bytes) -> None:
        """Count the results that are complete with this chunk, without reading them."""
        # Searching from line to line is ten times as fast as `count`, which looks at each byte.
        start, end = 0, chunk.find(b"\n")
        while end >= 0:
            # The first byte says enough where it is no white space.
            if chunk[start] > 32 or chunk[start:end].strip() or (not start and b"".join(self._rest).strip()):
                self.count += 1
            start, end = end + 1, chunk.find(b"\n", end + 1)
        if start:
            self._rest.clear()
        self._rest.append(chunk[start:])

    def end(self) -> Iterator[BatchResult]:
        """Yield the last result where its line had no end.

        :raises ResultsTruncatedError: Results are missing.
        """
        line = b"".join(self._rest)
        if line.strip():
            yield self._read(line)
        if self.count != self.batch.request_counts.total:
            raise self.cut_short("the stream ended")

    def cut_short(self, why: object) -> ResultsTruncatedError:
        """Return the error for a stream that broke off."""
        name = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why
        return ResultsTruncatedError(
            f"The results of batch {self.batch.id} were cut short: {self.count} of "
            f"{self.batch.request_counts.total} came ({name}). Read them again."
        )

    def _read(self, line: bytes) -> BatchResult:
        try:
            result = BatchResult.model_validate_json(line)
        except ValidationError:
            raise self.cut_short(f"result {self.count + 1} is no whole result of the API") from None
        self.count += 1
        return result


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
        """Iterate over the bytes, once.

        :raises ResultsTruncatedError: The stream ended early; what came before is right.
        """
        try:
            for chunk in self._chunks:
                self._lines.skip(chunk)
                yield chunk
        except httpx.HTTPError as error:
            raise self._lines.cut_short(error) from None
        for _ in self._lines.end():
            pass
