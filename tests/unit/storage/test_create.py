"""Files that are created once: the only step in which two tasks can agree on something."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.io import store
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_batches.storage.folder import Folder, StorageError


class Bucket(MemoryFileSystem):  # type: ignore[misc]
    """A store; `exclusive` is whether it refuses to create a file that exists, as `says` reports it."""

    store: dict[str, Any] = {}  # noqa: RUF012 - fsspec's own
    cachable = False

    def __init__(self, exclusive: bool = True, says: type[Exception] = FileExistsError) -> None:
        super().__init__()
        self.store, self.pseudo_dirs, self.exclusive, self.says = {}, [""], exclusive, says

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        options.pop("block_size", None)
        if mode == "xb" and self.exclusive and self.exists(path):
            raise self.says(path)
        return super().open(path, mode.replace("x", "w"), **options)


@pytest.fixture(params=["local", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(store, "_STORE_CACHE", {})
    store.attach("s3", fs=Bucket())
    return Folder(f"file://{tmp_path}/new" if request.param == "local" else "s3://bucket/new")


def test_the_first_one_wins_and_keeps_its_content(folder: Folder) -> None:
    folder.create("claim.json", b"first")

    with pytest.raises(FileExistsError):
        folder.create("claim.json", b"second")
    assert folder.read("claim.json") == b"first"
    assert folder.names() == ["claim.json"]


def test_one_of_many_threads_wins(tmp_path: Path) -> None:
    won: list[int] = []
    folder = Folder(f"file://{tmp_path}")

    def create(number: int) -> None:
        try:
            folder.create("claim", str(number).encode())
            won.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=create, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [str(number).encode() for number in won] == [folder.read("claim")]


def test_a_name_never_exists_without_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(f"file://{tmp_path}")

    def killed(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(SystemExit):
        folder.create("claim", b"x")

    assert folder.names() == []


def test_the_names_of_a_folder_that_is_not_there_are_none(folder: Folder) -> None:
    assert folder.names() == []
    assert folder.subfolder("deeper").names() == []


def test_a_store_that_does_not_say_why_it_refuses_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_STORE_CACHE", {})
    store.attach("s3", fs=Bucket(says=OSError))
    folder = Folder("s3://bucket/new")
    folder.create("a", b"x")

    with pytest.raises(FileExistsError):
        folder.create("a", b"y")


class TestTheProbe:
    def test_accepts_a_store_that_creates_exclusively(self, folder: Folder) -> None:
        folder.probe(creates=True)

        assert folder.names() == []

    def test_refuses_one_that_replaces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "_STORE_CACHE", {})
        store.attach("s3", fs=Bucket(exclusive=False))

        with pytest.raises(StorageError, match=r"replaces files that exist.* Use a local folder, S3"):
            Folder("s3://bucket/new").probe(creates=True)
