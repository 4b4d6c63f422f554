"""Files in a folder of an object storage: whole under their name, or not there at all."""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from threading import Thread
from typing import BinaryIO
from uuid import uuid4

from airflow_provider_batches.api.errors import BatchesError, InvalidArgumentError, shown
from airflow_provider_batches.storage.uris import check_uri

log = logging.getLogger(__name__)

#: The schemes that an error recommends, and the package that provides each.
_STORES = {
    "file": "",
    "s3": "apache-airflow-providers-amazon[s3fs]",
    "gs": "apache-airflow-providers-google",
    "abfs": "apache-airflow-providers-microsoft-azure",
    "sftp": "apache-airflow-providers-sftp[sshfs]",
}
#: Bytes that an object storage buffers before it sends them; a multipart upload has at most 10,000 such blocks.
_BLOCK = 8 * 1024 * 1024
_OBJECT_STORAGES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl"})
_PIECE = 1024 * 1024
_PART = re.compile(r"\..+\.jsonl?\.[0-9a-f]{32}\.part")
#: Seconds after which no worker can still be writing a half-written file.
_ABANDONED = 24 * 3600.0
#: Seconds that a store has to accept its first file.
_PROBE_SECONDS = 30.0
#: The errors of some stores if a folder is flushed.
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)


class StorageError(BatchesError):
    """A store could not read, write or remove a file."""

    retryable = True


class Folder:
    """A folder in one of Airflow's object storages, local or remote.

    :param uri: `file:///...`, `s3://connection@bucket/...` and so on.
    :param argument: The argument that it comes from, for errors.
    :raises InvalidArgumentError: It is not a URI of a folder, or the package for its store is not installed.
    """

    def __init__(self, uri: object, argument: str = "path") -> None:
        from airflow.sdk import ObjectStoragePath
        from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
        from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

        self._argument, text = argument, check_uri(argument, uri)
        scheme = text.partition("://")[0].lower() if "://" in text else "file"
        try:
            self._path = ObjectStoragePath(text)
            self._fs = self._path.fs
        except (ImportError, ValueError, KeyError, TypeError) as error:
            package = _STORES.get(scheme)
            remedy = f"pip install '{package}'" if package else f"use one of {', '.join(_STORES)}"
            raise InvalidArgumentError(
                argument, f"got {shown(uri)}; Airflow cannot open {scheme}:// ({error}). Remedy: {remedy}."
            ) from None
        place = text.partition("://")[2].partition("/")[2] if "://" in text else text
        if not str(self._path.path).rstrip("/").endswith(place.strip("/")):
            raise InvalidArgumentError(
                argument, f"got {shown(uri)}; a URI ends at '?' or '#', which no folder may have."
            )
        self._local = isinstance(self._fs, LocalFileSystem)
        self._keeps_parts = self._local or scheme in ("sftp", "ssh")
        # The generic `mv` expands patterns and lists the folder; a store's own `mv` is a rename.
        self._renames = type(self._fs).mv is not AbstractFileSystem.mv
        self._options = {"block_size": _BLOCK} if scheme in _OBJECT_STORAGES else {}
        if not self._local:
            # One call before any thread starts: some versions of s3fs lose the credentials if several threads make
            # the first call together. If the store is unusable, the first read or write reports it.
            with suppress(Exception):
                self._fs.exists(str(self._path.path))

    def uri(self, name: str) -> str:
        """Return the address of a file, for people and for ObjectStoragePath."""
        return str(self._path / name)

    def subfolder(self, name: str) -> Folder:
        """Return a folder inside this one."""
        return Folder(self.uri(name), self._argument)

    def probe(self, *, creates: bool = False) -> None:
        """Write a small file, read it back, and remove it.

        :param creates: Whether to check that `create` refuses a file that exists. Default False.
        :raises StorageError: The store did not do so within 30 s.
        """
        failed: list[BaseException] = [StorageError(f"{self._argument}: {self._path} did not answer within 30 s.")]

        def work() -> None:
            try:
                # One name, so that a store without permission to delete keeps one file.
                self.write(".probe", b"ok")
                # Another task may have removed it already.
                if self.read(".probe") not in (b"ok", None):
                    raise StorageError(f"{self._argument}: {self._path} does not return what was written.")
                self._remove(self._in(".probe"))
                if creates:
                    self._probe_create(f".probe-{uuid4().hex}")
                failed.clear()
            except BaseException as error:
                failed[:] = [error]

        thread = Thread(target=work, daemon=True)
        thread.start()
        thread.join(_PROBE_SECONDS)
        for error in failed:
            raise error

    def _probe_create(self, name: str) -> None:
        self.create(name, b"ok")
        try:
            self.create(name, b"ok")
        except FileExistsError:
            return
        finally:
            self._remove(self._in(name))
        raise StorageError(
            f"{self._argument}: {self._path} replaces files that exist, instead of refusing to create them. Use a "
            "local folder, S3, Google Cloud Storage or Azure, with a current version of its fsspec package."
        )

    def names(self) -> list[str]:
        """Return the names of the files in this folder, regardless of what is cached about it."""
        folder = self._in("").rstrip("/")
        with self._errors("list", ""):
            self._fs.invalidate_cache(folder)
            try:
                paths = self._fs.ls(folder, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def create(self, name: str, data: bytes) -> None:
        """Write a small file that must not exist yet. It appears whole.

        :raises FileExistsError: It exists already.
        """
        path = self._in(name)
        with self._errors("create", name, FileExistsError):
            if not self._local:
                try:
                    with self._open(path, "xb") as file:
                        file.write(data)
                except Exception as error:
                    # Not every store says why it refused.
                    if isinstance(error, FileExistsError) or not self._fs.exists(path):
                        raise
                    raise FileExistsError(path) from error
                return
            # Unlike a rename, a link fails if the file exists.
            part = self._in(f".{name}.{uuid4().hex}.part")
            try:
                with self._open(part) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(part, path)
            finally:
                self._remove(part)

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, None if there is none."""
        try:
            return b"".join(self.pieces(name))
        except FileNotFoundError:
            return None

    def pieces(self, name: str) -> Iterator[bytes]:
        """Iterate over the content of a file, regardless of what is cached about it."""
        with self.reading(name) as file, self._errors("read", name):
            while piece := file.read(_PIECE):
                yield piece

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """Open a file to read it, regardless of what is cached about it.

        :raises FileNotFoundError: There is none.
        """
        path = self._in(name)
        with self._errors("read", name, FileNotFoundError):
            self._fs.invalidate_cache(path)
            file = self._fs.open(path, "rb", **self._options)
        with file:
            yield file

    def settle(self, name: str) -> None:
        """Flush a local file and its name to the disk, so that they survive a power cut."""
        path = self._in(name)
        with self._errors("flush", name):
            for each in (path, os.path.dirname(path)) if self._local else ():
                handle = os.open(each, os.O_RDONLY)
                try:
                    os.fsync(handle)
                except OSError as error:
                    # Some network filesystems cannot flush folders.
                    if each == path or error.errno not in _NO_FLUSH:
                        raise
                finally:
                    os.close(handle)

    @contextmanager
    def writing(self, name: str, *, whole: bool = True) -> Iterator[BinaryIO]:
        """Write a file that appears under its name once it is whole, and not at all after an error.

        :param whole: False: the file may appear before it is whole, which saves some stores a copy. Default True.
        """
        if not whole:
            with self._errors("write", name), self._open(self._in(name)) as file:
                yield file
            return
        folder, slash, last = name.rpartition("/")
        part = self._in(f"{folder}{slash}.{last}.{uuid4().hex}.part")
        with self._errors("write", name):
            try:
                with self._open(part) as file:
                    yield file
                self._move(part, self._in(name))
            except BaseException:
                with suppress(Exception):
                    self._fs.rm_file(part)
                raise

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, and replace one that exists."""
        with self.writing(name) as file:
            file.write(data)

    def remove(self, name: str) -> None:
        """Remove a file."""
        with self._errors("remove", name):
            self._fs.rm_file(self._in(name))

    def sweep(self) -> None:
        """Remove the incomplete files of killed workers. In a bucket, a lifecycle rule must do that."""
        if not self._keeps_parts:
            return
        try:
            entries = self._fs.ls(self._in("").rstrip("/"), detail=True)
        except FileNotFoundError:  # the folder is new
            return
        except Exception as error:
            log.warning("Could not look for files that killed tasks left half written (%s)", error)
            return
        for entry in entries:
            path, time_ = entry["name"], entry.get("mtime", time.time())
            written = time_.timestamp() if isinstance(time_, datetime) else float(time_)
            is_file = entry.get("type") == "file" and not entry.get("islink")
            if is_file and _PART.fullmatch(path.rpartition("/")[2]) and written < time.time() - _ABANDONED:
                try:
                    self._fs.rm_file(path)
                    log.info("Removed %s, which a killed task left half written", path)
                except Exception as error:
                    log.warning("Could not remove a file that a killed task left half written (%s)", error)

    def _in(self, name: str) -> str:
        return f"{str(self._path.path).rstrip('/')}/{name}"

    def _open(self, path: str, mode: str = "wb") -> BinaryIO:
        try:
            return self._fs.open(path, mode, **self._options)  # type: ignore[no-any-return]
        except FileNotFoundError:
            # Only if needed: `makedirs` would create a bucket whose name is misspelled.
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            return self._fs.open(path, mode, **self._options)  # type: ignore[no-any-return]

    def _move(self, part: str, path: str) -> None:
        if self._local:
            os.replace(part, path)
        elif self._renames:
            self._fs.mv(part, path)
        else:
            self._fs.cp_file(part, path)
            self._remove(part)

    def _remove(self, path: str) -> None:
        try:
            self._fs.rm_file(path)
        except FileNotFoundError:  # another task has removed it
            pass
        except Exception as error:
            log.warning("Could not remove %s, which is not needed any more (%s)", path, type(error).__name__)

    @contextmanager
    def _errors(self, action: str, name: str, *handled: type[OSError]) -> Iterator[None]:
        """Name the file in the store's errors, except those that the caller handles."""
        try:
            yield
        except BatchesError:
            raise
        except handled:
            raise
        except Exception as error:
            says = " ".join(str(error).split())[:200]
            hint = (
                " The connection must be allowed to list, read and write." if isinstance(error, PermissionError) else ""
            )
            raise StorageError(
                f"{self._argument}: could not {action} {self.uri(name)} ({type(error).__name__}: {says}).{hint}"
            ) from error
