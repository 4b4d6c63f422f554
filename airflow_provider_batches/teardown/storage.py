"""Files in a folder of an object storage: whole under their name, or not there."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import BinaryIO
from uuid import uuid4

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.api.endpoints import shown
from airflow_provider_batches.teardown.selection import is_template

log = logging.getLogger(__name__)

#: Bytes that a store holds back until it sends them on; a multipart upload has at most 10,000 of these.
BLOCK = 8 * 1024 * 1024
#: Seconds after which a half-written file is taken for one that a killed worker has left.
LEFT = 24 * 3600.0
_PART = re.compile(r"\..+\.jsonl?\.[0-9a-f]{32}\.part")
_PIECE = 1024 * 1024
#: Pieces that may wait to be written, so that neither side stands still when the other falters for a moment.
_AHEAD = 8


class Folder:
    """A folder in an object storage of Airflow, local or remote.

    :param uri: `file:///...`, `s3://connection@bucket/...` and so on.
    """

    def __init__(self, uri: object) -> None:
        from airflow.sdk import ObjectStoragePath
        from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

        self._path = ObjectStoragePath(check_uri("path", uri))
        self._fs = self._path.fs
        self._local = isinstance(self._fs, LocalFileSystem)
        if not self._local:
            # Alone: some versions of s3fs lose the credentials where several threads make the first call together.
            # What is wrong with the store, if anything, is said where it is used.
            with suppress(Exception):
                self._fs.exists(str(self._path.path))

    def uri(self, name: str) -> str:
        """Return where a file of this folder is, for people and for ObjectStoragePath."""
        return str(self._path / name)

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, None where there is none."""
        path = self._in(name)
        self._fs.invalidate_cache(path)
        try:
            return int(self._fs.info(path)["size"])
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes | None:
        """Return what a small file holds, None where there is none."""
        self._fs.invalidate_cache(self._in(name))
        try:
            return b"".join(self.pieces(name))
        except FileNotFoundError:
            return None

    def pieces(self, name: str) -> Iterator[bytes]:
        """Iterate over a file."""
        with self._fs.open(self._in(name), "rb", block_size=BLOCK) as file:
            while piece := file.read(_PIECE):
                yield piece

    def settle(self, name: str) -> None:
        """Make sure that a power cut does not take a file away again, nor its name."""
        path = self._in(name)
        for each in (path, os.path.dirname(path)) if self._local else ():
            handle = os.open(each, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Write a file, which is there under its name once it is whole, and not at all after an error."""
        folder, slash, last = name.rpartition("/")
        part = self._in(f"{folder}{slash}.{last}.{uuid4().hex}.part")
        try:
            file = self._open(part)
            try:
                yield file
            finally:
                file.close()
            self._move(part, self._in(name))
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(part)
            raise

    def write(self, name: str, data: bytes) -> None:
        """Write a small file."""
        with self.writing(name) as file:
            file.write(data)

    def create(self, name: str, data: bytes) -> None:
        """Write a small file that is not there yet.

        :raises FileExistsError: It is there, in a local folder. Not every store can tell: elsewhere it is replaced.
        """
        with self._open(self._in(name), "xb" if self._local else "wb") as file:
            file.write(data)

    def sweep(self) -> None:
        """Remove what killed workers have left of files they were writing: model answers that nobody knows of."""
        if not self._local:
            return
        try:
            with os.scandir(str(self._path.path)) as entries:
                parts = [entry for entry in entries if _PART.fullmatch(entry.name)]
        except FileNotFoundError:  # the folder is new
            return
        except OSError as error:
            log.warning("Could not look for what killed tasks have left half written (%s)", error)
            return
        for part in parts:
            try:
                if part.is_file(follow_symlinks=False) and part.stat().st_mtime < time.time() - LEFT:
                    os.unlink(part.path)
                    log.info("Removed %s, which a killed task has left half written", part.path)
            except OSError as error:
                log.warning("Could not remove what a killed task has left half written (%s)", error)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._fs.rm_file(self._in(name))

    def _in(self, name: str) -> str:
        return f"{str(self._path.path).rstrip('/')}/{name}"

    def _open(self, path: str, mode: str = "wb") -> BinaryIO:
        try:
            return self._fs.open(path, mode, block_size=BLOCK)  # type: ignore[no-any-return]
        except FileNotFoundError:
            # Asked for only here: in a bucket there are no folders, and one would be made if its name is misspelled.
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            return self._fs.open(path, mode, block_size=BLOCK)  # type: ignore[no-any-return]

    def _move(self, part: str, path: str) -> None:
        if not self._local:
            self._fs.mv(part, path)
            return
        os.replace(part, path)


class Digest:
    """Writes a stream to a file and takes its SHA-256, in a thread of its own, while the next bytes come.

    :param file: Where to.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self._file = file
        self._hash = hashlib.sha256()
        self._chunks: list[bytes] = []
        self._held = 0
        self._writing: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Digest:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def add(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._chunks.append(chunk)
        self._held += len(chunk)
        if self._held >= _PIECE:
            self._hand_over()

    def end(self) -> str:
        """Return the SHA-256 once all is written."""
        self._hand_over()
        self._wait(0)
        return self._hash.hexdigest()

    def _hand_over(self) -> None:
        self._writing.append(self._thread.submit(self._write, b"".join(self._chunks)))
        self._chunks, self._held = [], 0
        self._wait(_AHEAD)

    def _wait(self, left: int) -> None:
        while len(self._writing) > left:
            self._writing.popleft().result()

    def _write(self, piece: bytes) -> None:
        self._hash.update(piece)
        self._file.write(piece)
        self.size += len(piece)


def check_uri(name: str, uri: object, *, rendered: bool = True) -> str:
    """Return a folder's address where it can be one.

    :param rendered: Whether it is what the task will use. False: a template in it is left alone.
    :raises InvalidArgumentError: It is no URI and no absolute path, or leads somewhere else than it seems to.
    """
    text = str(uri).strip()
    if _is_relative(text, rendered):
        raise InvalidArgumentError(
            f"{name}: got {shown(uri)}, which leads to wherever the worker was started; it must be absolute: "
            "file:///data/results has three slashes."
        )
    if not rendered and (is_template(uri) or is_template(text)):
        return text
    if text in ("", "None") or not ("://" in text or text.startswith("/")):
        raise InvalidArgumentError(
            f"{name}: got {shown(uri)}; it must be a URI like file:///data/results or s3://conn_id@bucket/results, or "
            "an absolute path."
        )
    if ".." in text.split("/") or not text.isprintable():
        # What a Param adds to a folder must not lead out of it.
        raise InvalidArgumentError(
            f"{name}: got {shown(uri)}; it must have no '..' between slashes, and no line breaks or other characters "
            "that cannot be printed."
        )
    return text


def _is_relative(text: str, rendered: bool) -> bool:
    scheme, _, place = text.partition("://")
    conn, slash, path = place.partition("/")
    if scheme.lower() not in ("file", "local") or (not rendered and is_template(conn)):
        return False
    # ObjectStoragePath takes four slashes for a path that is relative, too.
    return bool(conn.rpartition("@")[2]) or not slash or path.startswith("/")
