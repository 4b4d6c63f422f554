"""Reads a source of requests once: checks them, tags them, and splits them into the files of a plan."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from hashlib import sha256
from typing import BinaryIO
from uuid import uuid4

from airflow_provider_batches.api.bodies import END, MAX_BYTES, MAX_REQUESTS, START
from airflow_provider_batches.api.errors import InvalidArgumentError
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.submission.cost import Samples
from airflow_provider_batches.submission.ledger import Chunk, Plan, Summary
from airflow_provider_batches.submission.located import Located, Problem
from airflow_provider_batches.submission.requests import encode
from airflow_provider_batches.submission.tags import TAG, make_tag

#: The folder of the request files, beside the ledger.
REQUESTS = "requests"
#: Problems that an error names.
_NAMED = 10
_BUFFER = 1024 * 1024
_BUCKETS = 1024


class Planner:
    """Splits requests into chunks, each of which becomes one batch.

    :param submission_id: What is submitted.
    :param folder: Where to write the request files. None: they are only checked and counted.
    :param requests_per_batch: The most requests of a chunk.
    :param bytes_per_batch: The most bytes of a chunk's request body.
    :param max_requests_total: The most requests of all chunks. Default: any number.
    """

    def __init__(
        self,
        submission_id: str,
        folder: Folder | None,
        requests_per_batch: int = MAX_REQUESTS,
        bytes_per_batch: int = MAX_BYTES,
        max_requests_total: int | None = None,
    ) -> None:
        self.id = uuid4().hex
        self.chunks: list[Chunk] = []
        self._submission_id = submission_id
        self._folder = folder
        self._most_requests = requests_per_batch
        self._most_bytes = bytes_per_batch
        self._most_in_all = max_requests_total
        self._problems: list[str] = []
        self._places = _Places()
        self.samples = Samples()
        self._file: _ChunkFile | None = None

    def read(self, requests: Iterable[Located]) -> Summary:
        """Write the request files, and return what they hold.

        :raises InvalidArgumentError: Requests are not valid; it names the first ten.
        """
        digest, models, max_tokens, count = sha256(), Counter[str](), Counter[str](), 0
        try:
            for place, request in requests:
                try:
                    custom_id, params, parsed = encode(request)
                    line = self._file_for(custom_id, params).add(custom_id, params)
                except Problem as problem:
                    self._report(place, problem)
                    continue
                count += 1
                if self._most_in_all is not None and count > self._most_in_all:
                    raise InvalidArgumentError(
                        "max_requests_total", f"there are more than {self._most_in_all:,} requests. Nothing was sent."
                    )
                self._places.add(custom_id, place)
                digest.update(line)
                self.samples.add(parsed, len(params))
                models[parsed["model"]] += 1
                max_tokens[parsed["model"]] += parsed["max_tokens"]
            for place, first in self._places.duplicates(_NAMED):
                self._report(place, f"has the custom_id of {first}; it must be unique")
            self._fail()
            self._finish_chunk()
        except BaseException:
            self.discard()
            raise
        size = sum(chunk.size for chunk in self.chunks)
        return Summary(count, size, dict(models), dict(max_tokens), digest.hexdigest())

    def plan(self, number: int, summary: Summary, base_url: str, workspace_id: str | None) -> Plan:
        """Return the plan of what has been read."""
        return Plan(number, self.id, self._submission_id, base_url, workspace_id, summary, self.chunks)

    def discard(self) -> None:
        """Remove the request files, which no plan names."""
        if self._file:
            self._file.close()
        for number in range(len(self.chunks) + 1) if self._folder else ():
            with suppress(Exception):
                self._folder.remove(self._name(number))  # type: ignore[union-attr]

    def _file_for(self, custom_id: str, params: bytes) -> _ChunkFile:
        file = self._file
        size = len(START) + len(END) + _line_size(custom_id, params)
        if size > self._most_bytes:
            raise Problem(f"is {size:,} bytes with its batch; a batch has at most {self._most_bytes:,}")
        if file is None or file.requests == self._most_requests or file.size + size > self._most_bytes:
            self._finish_chunk()
            number = len(self.chunks)
            tag = make_tag(self._submission_id, self.id, number)
            file = self._file = _ChunkFile(self._folder, self._name(number), tag)
        return file

    def _finish_chunk(self) -> None:
        if self._file:
            self._file.close()
            self.chunks.append(self._file.chunk())
            self._file = None

    def _name(self, number: int) -> str:
        return f"{REQUESTS}/{self.id}-{number:05}.jsonl"

    def _report(self, place: str, problem: object) -> None:
        self._problems.append(f"{place} {problem}")
        if len(self._problems) == _NAMED:
            self._fail()

    def _fail(self) -> None:
        if self._problems:
            more = " There may be more." if len(self._problems) == _NAMED else ""
            raise InvalidArgumentError("requests", f"{'; '.join(self._problems)}.{more} Nothing was sent.")


class _ChunkFile:
    """Writes the requests of one chunk, and hashes the request body that they become."""

    def __init__(self, folder: Folder | None, name: str, tag: str) -> None:
        self.requests = 0
        #: The bytes of the lines.
        self.size = 0
        self._name, self._tag = name, tag
        self._digest, self._between = sha256(START), b""
        self._buffer = bytearray()
        self._stack = ExitStack()
        self._out: BinaryIO | None = self._stack.enter_context(folder.writing(name, whole=False)) if folder else None

    def add(self, custom_id: str, params: bytes) -> bytes:
        """Add a request, and return it without its tag."""
        self._buffer += b'{"custom_id":"%b-%b","params":%b}\n' % (self._tag.encode(), custom_id.encode(), params)
        self.requests += 1
        self.size += _line_size(custom_id, params)
        if len(self._buffer) > _BUFFER:
            self._flush()
        return b"%b %b\n" % (custom_id.encode(), params)

    def close(self) -> None:
        self._flush()
        self._digest.update(END)
        self._stack.close()

    def chunk(self) -> Chunk:
        size = len(START) + self.size - 1 + len(END)
        return Chunk(self._name, self.requests, size, self._digest.hexdigest(), self._tag)

    def _flush(self) -> None:
        if not self._buffer:
            return
        if self._out:
            self._out.write(bytes(self._buffer))
        # A comma stands between lines, and not after the last one.
        self._digest.update(self._between + as_body(self._buffer)[:-1])
        self._between = b","
        self._buffer.clear()


class _Places:
    """Finds a `custom_id` that is used twice, in 16 bytes for each request."""

    def __init__(self) -> None:
        self._hashes = [array("q") for _ in range(_BUCKETS)]
        self._numbers = [array("I") for _ in range(_BUCKETS)]
        self._count = 0
        #: The number of the first request of each source, and the source.
        self._lines = array("I")
        self._sources: list[tuple[int, str]] = []

    def add(self, custom_id: str, place: str) -> None:
        key = hash(custom_id)
        bucket = key % _BUCKETS
        self._hashes[bucket].append(key)
        self._numbers[bucket].append(self._count)
        self._count += 1
        source, mark, number = place.rpartition(":" if ":" in place else "[")
        self._lines.append(int(number.rstrip("]")))
        if not self._sources or self._sources[-1][1] != source + mark:
            self._sources.append((self._count - 1, source + mark))

    def duplicates(self, most: int) -> list[tuple[str, str]]:
        """Return the places of requests whose `custom_id` stands earlier, and the earlier places."""
        found = []
        for hashes, numbers in zip(self._hashes, self._numbers, strict=True):
            if len(set(hashes)) == len(hashes):
                continue
            first: dict[int, int] = {}
            for key, number in zip(hashes, numbers, strict=True):
                if first.setdefault(key, number) != number:
                    found.append((number, first[key]))
        return [(self._place(number), self._place(earlier)) for number, earlier in sorted(found)[:most]]

    def _place(self, number: int) -> str:
        source = next(source for start, source in reversed(self._sources) if start <= number)
        return f"{source}{self._lines[number]}{']' if source.endswith('[') else ''}"


def as_body(lines: bytes | bytearray) -> bytes:
    """Return lines as they stand in a request body. JSON has no line breaks inside a value."""
    return bytes(lines).replace(b"\n", b",")


def _line_size(custom_id: str, params: bytes) -> int:
    return len('{"custom_id":"-","params":}\n') + TAG + len(custom_id) + len(params)
