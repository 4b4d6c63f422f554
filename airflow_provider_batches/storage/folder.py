"""Files in a folder of an object storage: whole under their name, or not there at all."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import BinaryIO
from uuid import uuid4

from airflow_provider_batches._arguments import is_template
from airflow_provider_batches.api.errors import InvalidArgumentError, shown

log = logging.getLogger(__name__)

#: Bytes that a store buffers before it sends them; a multipart upload has at most 10,000 such blocks.
_BLOCK = 8 * 1024 * 1024
_PIECE = 1024 * 1024
#: Pieces that may wait to be written, so that a short delay on one side does not stop the other.
_AHEAD = 8
_PART = re.compile(r"\..+\.jsonl?\.[0-9a-f]{32}\.part")
#: Seconds after which no worker can still be writing a half-written file.
_ABANDONED = 24 * 3600.0


class Folder:
    """A folder in one of Airflow's object storages, local or remote.

    :param uri: `file:///...`, `s3://connection@bucket/...` and so on.
    """

    def __init__(self, uri: object) -> None:
        from airflow.sdk import ObjectStoragePath
        from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

        self._path = ObjectStoragePath(check_uri("path", uri))
        self._fs = self._path.fs
        self._local = isinstance(self._fs, LocalFileSystem)
        if not self._local:
            # One call before any thread starts: some versions of s3fs lose the credentials if several threads make
            # the first call together. If the store is unusable, the first read or write reports it.
            with suppress(Exception):
                self._fs.exists(str(self._path.path))

    def uri(self, name: str) -> str:
        """Return the address of a file, for people and for ObjectStoragePath."""
        return str(self._path / name)

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, None if there is none."""
        try:
            return b"".join(self.pieces(name))
        except FileNotFoundError:
            return None

    def pieces(self, name: str) -> Iterator[bytes]:
        """Iterate over the content of a file, regardless of what is cached about it."""
        path = self._in(name)
        self._fs.invalidate_cache(path)
        with self._fs.open(path, "rb", block_size=_BLOCK) as file:
            while piece := file.read(_PIECE):
                yield piece

    def settle(self, name: str) -> None:
        """Flush a local file and its name to the disk, so that they survive a power cut."""
        path = self._in(name)
        for each in (path, os.path.dirname(path)) if self._local else ():
            handle = os.open(each, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Write a file that appears under its name once it is whole, and not at all after an error."""
        folder, slash, last = name.rpartition("/")
        part = self._in(f"{folder}{slash}.{last}.{uuid4().hex}.part")
        try:
            with self._open(part) as file:
                yield file
            self._move(part, self._in(name))
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(part)
            raise

    def write(self, name: str, data: bytes, *, new: bool = False) -> None:
        """Write a small file.

        :param new: Whether the file must not exist yet. Only local folders can tell; others replace it. Default False.
        :raises FileExistsError: It exists already.
        """
        with self._open(self._in(name), "xb") if new and self._local else self.writing(name) as file:
            file.write(data)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._fs.rm_file(self._in(name))

    def sweep(self) -> None:
        """Remove the files that killed workers left half written in a local folder: nothing else ever would."""
        if not self._local:
            return
        try:
            with os.scandir(str(self._path.path)) as entries:
                parts = [entry for entry in entries if _PART.fullmatch(entry.name)]
        except FileNotFoundError:  # the folder is new
            return
        except OSError as error:
            log.warning("Could not look for files that killed tasks left half written (%s)", error)
            return
        for part in parts:
            try:
                if part.is_file(follow_symlinks=False) and part.stat().st_mtime < time.time() - _ABANDONED:
                    os.unlink(part.path)
                    log.info("Removed %s, which a killed task left half written", part.path)
            except OSError as error:
                log.warning("Could not remove a file that a killed task left half written (%s)", error)

    def _in(self, name: str) -> str:
        return f"{str(self._path.path).rstrip('/')}/{name}"

    def _open(self, path: str, mode: str = "wb") -> BinaryIO:
        try:
            return self._fs.open(path, mode, block_size=_BLOCK)  # type: ignore[no-any-return]
        except FileNotFoundError:
            # Only now: a bucket needs no folders, and `makedirs` would create the bucket if its name is misspelled.
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            return self._fs.open(path, mode, block_size=_BLOCK)  # type: ignore[no-any-return]

    def _move(self, part: str, path: str) -> None:
        (os.replace if self._local else self._fs.mv)(part, path)


def digest(chunks: Iterable[bytes], write: Callable[[bytearray], object] = lambda _: None) -> tuple[int, str]:
    """Return the size and the SHA-256 of a stream. A thread hashes and writes it while the next chunks arrive.

    :param write: Called with the stream, piece by piece. Default: the stream is only read.
    """
    size, sha256, piece = 0, hashlib.sha256(), bytearray()
    writing: deque[Future[None]] = deque()
    thread = ThreadPoolExecutor(1)

    def process(piece: bytearray) -> None:
        sha256.update(piece)
        write(piece)

    try:
        for chunk in chunks:
            size += len(chunk)
            piece += chunk
            if len(piece) >= _PIECE:
                writing.append(thread.submit(process, piece))
                piece = bytearray()
            while len(writing) > _AHEAD:
                writing.popleft().result()
        writing.append(thread.submit(process, piece))
        for each in writing:
            each.result()
    finally:
        thread.shutdown(cancel_futures=True)
    return size, sha256.hexdigest()


def check_uri(name: str, uri: object, *, rendered: bool = True) -> str:
    """Return the address of a folder or file.

    :param name: The argument, for the error.
    :param rendered: Whether Airflow has rendered the argument. If not, what a template hides is not checked.
    :raises InvalidArgumentError: It is not a URI or an absolute path, or does not lead where it seems to lead.
    """
    text = str(uri).strip()
    if _is_relative(text, rendered):
        rule = "be absolute, or it depends on where the worker was started: file:///data/results has three slashes"
    elif not rendered and (is_template(uri) or is_template(text)):
        return text
    elif text in ("", "None") or not ("://" in text or text.startswith("/")):
        rule = "be a URI like file:///data/results or s3://conn_id@bucket/results, or an absolute path"
    elif ".." in text.split("/") or not text.isprintable():
        # A Param that names a folder must not lead out of the folder above it.
        rule = "have no '..' between slashes, and no line breaks or other characters that cannot be printed"
    else:
        return text
    raise InvalidArgumentError(name, f"got {shown(uri)}; it must {rule}.")


def _is_relative(text: str, rendered: bool) -> bool:
    scheme, _, place = text.partition("://")
    conn, slash, path = place.partition("/")
    if scheme.lower() not in ("file", "local") or (not rendered and is_template(conn)):
        return False
    # ObjectStoragePath reads four slashes as a relative path, too.
    return bool(conn.rpartition("@")[2]) or not slash or path.startswith("/")
