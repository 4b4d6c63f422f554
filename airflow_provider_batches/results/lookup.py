"""Finds the result of a request among the saved results of many batches, in little memory."""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from tempfile import TemporaryFile
from typing import Any

from airflow_provider_batches.api import BatchesError

#: The start of each line, as the API sends it.
_CUSTOM_ID = re.compile(rb'\s*\{\s*"custom_id"\s*:\s*"([\w-]+)"')


class InvalidResultsError(BatchesError):
    """Saved results are not whole, or do not belong to the rows."""


class Lookup:
    """The results of many batches, copied to a temporary file and found by `custom_id`.

    If a `custom_id` has several results, as after several rounds, the last one that succeeded counts, or else the last.

    :param prefix: The number of characters in front of each `custom_id` that are not part of it.
    """

    def __init__(self, prefix: int = 0) -> None:
        self._prefix = prefix
        self._file = TemporaryFile()  # noqa: SIM115 (closed in `close`)
        self._size = 0
        self._hashes, self._offsets, self._lengths = array("q"), array("q"), array("q")
        self._order: list[int] = []
        self._sorted = array("q")
        self._used = bytearray()

    def add(self, name: str, pieces: Iterable[bytes]) -> int:
        """Add the results of one batch, and return their number.

        :param name: The name of their file, for errors.
        :raises InvalidResultsError: A line is not a result, or a result comes twice.
        """
        seen, count = set[int](), 0
        for number, line in enumerate(_lines(pieces), 1):
            found = _CUSTOM_ID.match(line)
            custom_id = found[1].decode() if found else self._parse(name, number, line)
            key = hash(custom_id[self._prefix :])
            if key in seen:
                raise InvalidResultsError(f"{name}:{number} has a result for {custom_id!r}, which an earlier line has.")
            seen.add(key)
            self._hashes.append(key)
            self._offsets.append(self._size)
            self._lengths.append(len(line))
            self._file.write(line)
            self._size += len(line)
            count += 1
        return count

    def prepare(self) -> None:
        """Sort what was added, before the first call of `find`."""
        self._order = sorted(range(len(self._hashes)), key=self._hashes.__getitem__)
        self._sorted = array("q", (self._hashes[index] for index in self._order))
        self._used = bytearray(len(self._hashes))

    def find(self, custom_id: str) -> dict[str, Any] | None:
        """Return the result of a request; None if there is none."""
        key, chosen = hash(custom_id), None
        place = bisect_left(self._sorted, key)
        while place < len(self._sorted) and self._sorted[place] == key:
            index = self._order[place]
            result = self._read(index)
            if str(result["custom_id"])[self._prefix :] == custom_id:
                self._used[index] = 1
                if chosen is None or result["result"]["type"] == "succeeded" or not _succeeded(chosen):
                    chosen = result
            place += 1
        return chosen

    def unused(self, most: int) -> list[str]:
        """Return the `custom_id` of results that were not asked for."""
        found = list[str]()
        for index, used in enumerate(self._used):
            if not used and len(found) < most:
                found.append(str(self._read(index)["custom_id"])[self._prefix :])
        return found

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()

    def _read(self, index: int) -> dict[str, Any]:
        self._file.seek(self._offsets[index])
        result: dict[str, Any] = json.loads(self._file.read(self._lengths[index]))
        return result

    def _parse(self, name: str, number: int, line: bytes) -> str:
        try:
            found = json.loads(line)
            custom_id, _ = found["custom_id"], found["result"]["type"]
        except (ValueError, KeyError, TypeError, RecursionError):
            custom_id = None
        if not isinstance(custom_id, str):
            raise InvalidResultsError(f"{name}:{number} is not a result of a batch.")
        return custom_id


def _succeeded(result: dict[str, Any]) -> bool:
    return bool(result["result"]["type"] == "succeeded")


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest: list[bytes] = []
    for piece in pieces:
        *lines, last = piece.split(b"\n")
        for line in lines:
            whole = b"".join((*rest, line))
            rest.clear()
            if whole.strip():
                yield whole
        rest.append(last)
    if (whole := b"".join(rest)).strip():
        yield whole
