"""What stores do that a local disk does not, as filesystems in memory that behave like them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.io import store
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.storage import folder as module
from airflow_provider_batches.storage.folder import Folder, StorageError

FOLDER = "s3://bucket/re*sults [1]"


class Bucket(MemoryFileSystem):  # type: ignore[misc]
    """An object storage: its `mv` copies, expands patterns and lists."""

    store: dict[str, Any] = {}  # noqa: RUF012 - fsspec's own
    pseudo_dirs = [""]  # noqa: RUF012
    cachable = False
    denied: tuple[str, ...] = ()

    def __init__(self, *denied: str) -> None:
        super().__init__()
        self.store, self.pseudo_dirs, self.denied, self.opened = {}, [""], denied, []

    def _allow(self, action: str) -> None:
        if action in self.denied:
            raise PermissionError("Forbidden")

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        self._allow("write" if "w" in mode else "read")
        self.opened.append({name: value for name, value in options.items() if name == "block_size"})
        options.pop("block_size", None)
        return super().open(path, mode, **options)

    def rm_file(self, path: str) -> None:
        self._allow("delete")
        super().rm_file(path)

    def expand_path(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("A name is not a pattern.")


@pytest.fixture
def attach(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bucket]:
    monkeypatch.setattr(store, "_STORE_CACHE", {})

    def attach(*denied: str, protocol: str = "s3", kind: type[Bucket] = Bucket) -> Bucket:
        made = kind(*denied)
        store.attach(protocol, fs=made)
        return made

    return attach


def names(bucket: Bucket) -> list[str]:
    return sorted(path.rpartition("/")[2] for path in bucket.store)


def test_a_folder_whose_name_looks_like_a_pattern_is_taken_as_it_is(attach: Callable[..., Bucket]) -> None:
    bucket = attach()
    Folder(FOLDER).write("a.json", b"1")
    assert (names(bucket), Folder(FOLDER).read("a.json")) == (["a.json"], b"1")


def test_a_bucket_without_delete_permission_has_the_file_and_a_warning(
    attach: Callable[..., Bucket], caplog: pytest.LogCaptureFixture
) -> None:
    bucket = attach("delete")
    Folder(FOLDER).write("a.json", b"1")
    assert Folder(FOLDER).read("a.json") == b"1"
    assert [name.endswith(".part") for name in names(bucket)] == [True, False]
    assert "Could not remove" in caplog.text


@pytest.mark.parametrize(("denied", "action"), [("write", "write"), ("read", "read")])
def test_a_bucket_without_a_permission_is_named_with_the_file(
    denied: str, action: str, attach: Callable[..., Bucket]
) -> None:
    attach(denied)
    folder = Folder(FOLDER, "save_results_to")
    expected = rf"save_results_to: could not {action} s3://.*a.json \(PermissionError: Forbidden\)"
    with pytest.raises(StorageError, match=expected) as caught:
        folder.write("a.json", b"1") if action == "write" else folder.read("a.json")
    assert "must be allowed to list, read and write" in str(caught.value)
    assert caught.value.retryable


@pytest.mark.parametrize(("protocol", "options"), [("s3", {"block_size": 8 * 1024 * 1024}), ("sftp", {})])
def test_only_an_object_storage_is_given_a_block_size(
    protocol: str, options: dict[str, int], attach: Callable[..., Bucket]
) -> None:
    bucket = attach(protocol=protocol)
    Folder(f"{protocol}://host/data").write("a.json", b"1")
    assert bucket.opened == [options]


class Server(Bucket):
    """An SFTP server: it renames."""

    def mv(self, old: str, new: str, **_: Any) -> None:
        self.store[new] = self.store.pop(old)

    def cp_file(self, *_: Any, **__: Any) -> None:
        raise AssertionError("It renames.")


@pytest.mark.parametrize("days", [0, 2])
def test_what_killed_workers_have_left_on_a_server_is_removed_after_a_day(
    days: int, attach: Callable[..., Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = attach(protocol="sftp", kind=Server)
    folder = Folder("sftp://host/data")
    folder.write("a.json", b"1")
    part = f".a.json.{'0' * 32}.part"
    server.store[f"{next(iter(server.store)).rpartition('/')[0]}/{part}"] = server.store[next(iter(server.store))]
    written = datetime.now(timezone.utc) - timedelta(days=days)
    listed = MemoryFileSystem.ls(server, "/data", detail=True)
    monkeypatch.setattr(server, "ls", lambda path, detail: [{**each, "mtime": written} for each in listed])
    folder.sweep()
    assert (part in names(server)) is (days == 0)


class TestAProbe:
    def test_leaves_nothing(self, tmp_path: Path, attach: Callable[..., Bucket]) -> None:
        bucket = attach()
        Folder(FOLDER).probe()
        Folder(str(tmp_path / "new")).probe()
        assert (names(bucket), list((tmp_path / "new").iterdir())) == ([], [])

    def test_leaves_one_file_at_most_if_it_may_not_delete(self, attach: Callable[..., Bucket]) -> None:
        bucket = attach("delete")
        for _ in range(3):
            Folder(FOLDER).probe()
        assert names(bucket).count(".probe") == 1

    @pytest.mark.parametrize("uri", ["file:///etc/passwd", "/proc/results", "/dev/null"])
    def test_refuses_a_place_that_is_no_folder(self, uri: str) -> None:
        with pytest.raises(StorageError, match=f"save_results_to: could not write {uri}/.probe"):
            Folder(uri, "save_results_to").probe()

    def test_refuses_a_store_that_returns_something_else(self, attach: Callable[..., Bucket]) -> None:
        bucket = attach()
        bucket.cp_file = lambda part, path: bucket.pipe_file(path, b"?")
        with pytest.raises(StorageError, match="does not return what was written"):
            Folder(FOLDER).probe()

    def test_does_not_wait_long_for_a_store_out_of_reach(
        self, attach: Callable[..., Bucket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_PROBE_SECONDS", 0.1)
        bucket = attach()
        bucket.open = lambda *_, **__: time.sleep(1)
        with pytest.raises(StorageError, match=r"s3://bucket/.* did not answer within"):
            Folder(FOLDER).probe()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_filesystem_that_flushes_no_folders_is_no_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, fsync = [], os.fsync

    def only_files(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve().is_dir():
            raise OSError(number, os.strerror(number))
        flushed.append(handle)
        fsync(handle)

    Folder(tmp_path).write("a.json", b"1")
    monkeypatch.setattr(os, "fsync", only_files)
    Folder(tmp_path).settle("a.json")
    assert len(flushed) == 1


def test_a_file_that_cannot_be_flushed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    Folder(tmp_path).write("a.json", b"1")
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageError, match=f"could not flush {tmp_path}/a.json"):
        Folder(tmp_path).settle("a.json")


def test_a_folder_in_place_of_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(StorageError, match=f"could not write {tmp_path}/a.jsonl"):
        Folder(tmp_path).write("a.jsonl", b"1")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("abfs://conn@results/a", "pip install 'apache-airflow-providers-microsoft-azure'"),
        ("sftp://conn@host/a", r"pip install 'apache-airflow-providers-sftp\[sshfs\]'"),
        ("wasb://results/a", "use one of file, s3, gs, abfs, sftp"),
        ("smb://host/a", "use one of"),
    ],
)
def test_a_store_that_is_not_installed_is_named_with_its_package(uri: str, expected: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"save_results_to: got '{uri}'; Airflow cannot open .*{expected}"):
        Folder(uri, "save_results_to")


def test_a_store_in_memory_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"memory://results.*outlast this process"):
        Folder("memory://results")


@pytest.mark.parametrize("uri", ["sftp://host/what?/results", "sftp://host/data?x=1"])
def test_a_folder_that_a_uri_would_cut_is_refused(uri: str, attach: Callable[..., Bucket]) -> None:
    attach(protocol="sftp")
    with pytest.raises(InvalidArgumentError, match=r"a URI ends at '\?' or '#'"):
        Folder(uri)


@pytest.mark.parametrize("name", ["a b", "ä", "50%", "a%20b", "~", "a+b"])
def test_a_folder_may_have_any_other_name(name: str, tmp_path: Path) -> None:
    Folder(f"file://{tmp_path}/{name}").write("a.json", b"1")
    assert (tmp_path / name / "a.json").read_bytes() == b"1"
