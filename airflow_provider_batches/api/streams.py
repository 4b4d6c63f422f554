"""Reads or counts the results of a batch while they arrive, and checks that none is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import httpx
from pydantic import ValidationError

from airflow_provider_batches.api.errors import ResultsTruncatedError
from airflow_provider_batches.api.models import BatchResult, MessageBatch, read_model
from airflow_provider_batches.api.responses import error_in

#: The start of each line, as the API sends it.
_RESULT = re.compile(rb'\s*\{\s*"custom_id"\s*:\s*"([\w-]+)"\s*,\s*"result"\s*:\s*\{')


class ResultLines:
    """Parses the results of an ended batch, and checks that each arrives exactly once.

    :param batch: The batch, for its number of requests.
    :param redact: Removes secrets from a text. Default: there are none.
    """

    def __init__(self, batch: MessageBatch, redact: Callable[[str], str] = str) -> None:
        self.batch = batch
        self.redact = redact
        self._custom_ids: set[bytes] = set()
        self._rest: list[bytes] = []

    @property
    def count(self) -> int:
        """The number of results received so far."""
        return len(self._custom_ids)

    def feed(self, chunk: bytes) -> Iterator[BatchResult]:
        """Yield the results that this chunk completes. Lines end at LF only, since JSON may contain U+2028."""
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            if self._rest:
                line = b"".join((*self._rest, line))
                self._rest.clear()
            if line and not line.isspace():
                yield self._read(line, chunk)
        self._rest.append(rest)

    def skip(self, chunk: bytes) -> None:
        """Check the first and last bytes of the results that this chunk completes, without parsing them."""
        # Ten times as fast as splitting, which copies every byte.
        start, end = 0, chunk.find(b"\n")
        while end >= 0:
            if self._rest:
                line = b"".join((*self._rest, chunk[start:end]))
                self._rest.clear()
                self._skip_line(line, 0, len(line))
            else:
                self._skip_line(chunk, start, end)
            start, end = end + 1, chunk.find(b"\n", end + 1)
        if start < len(chunk):
            self._rest.append(chunk[start:])

    def end(self) -> Iterator[BatchResult]:
        """Yield the last result if its line has no LF. Raises ResultsTruncatedError if results are missing."""
        yield from self.feed(b"\n")
        # A batch has at least one request, so a total of 0 means unknown.
        total = self.batch.request_counts.total
        if not self.count or self.count != total:
            raise self.cut_short("the stream ended" if total else "the batch's request_counts cannot be read")

    def cut_short(self, why: object) -> ResultsTruncatedError:
        """Return the error for incomplete results."""
        # Not the text of a network error, which may contain secrets.
        name = type(why).__name__ if isinstance(why, Exception) else why
        return ResultsTruncatedError(
            f"The results of batch {self.batch.id} are incomplete: received {self.count} of "
            f"{self.batch.request_counts.total} ({name}). Read them again."
        )

    def _skip_line(self, chunk: bytes, start: int, end: int) -> None:
        found = _RESULT.match(chunk, start, end)
        if found and chunk.endswith(b"}}", start, end):
            self._take(found[1])
        elif line := chunk[start:end].strip():
            self._read(line, chunk)

    def _take(self, custom_id: bytes) -> None:
        if custom_id in self._custom_ids:
            raise self.cut_short(f"the result of {self.redact(custom_id.decode())[:100]!r} appears twice")
        self._custom_ids.add(custom_id)

    def _read(self, line: bytes, chunk: bytes) -> BatchResult:
        try:
            result = read_model(BatchResult, line)
        except ValidationError:
            # The API may send an error of several lines instead of the first result.
            reported = error_in(line, self.redact) or (None if self.count else error_in(chunk, self.redact))
            what = f"an error, {reported}" if reported else "not a valid result"
            raise self.cut_short(f"result {self.count + 1} is {what}") from None
        self._take(result.custom_id.encode())
        return result


class ResultBytes:
    """The bytes of a batch's results, checked and counted while they arrive.

    :param lines: Checks the results.
    :param request_id: The `request-id` of the answer.
    :param chunks: The bytes of the answer.
    """

    def __init__(self, lines: ResultLines, request_id: str | None, chunks: Iterable[bytes]) -> None:
        self.batch = lines.batch
        self.request_id = request_id
        self._lines = lines
        self._chunks = chunks

    @property
    def lines(self) -> int:
        """The number of results received so far."""
        return self._lines.count

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the bytes, once. Raises ResultsTruncatedError if the stream ends early."""
        try:
            for chunk in self._chunks:
                self._lines.skip(chunk)
                yield chunk
        except httpx.HTTPError as error:
            raise self._lines.cut_short(error) from None
        for _ in self._lines.end():
            pass
