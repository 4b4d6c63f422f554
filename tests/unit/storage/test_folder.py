from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.storage import digest as digests
from airflow_provider_batches.storage.digest import digest
from airflow_provider_batches.storage.folder import Folder, StorageError
from airflow_provider_batches.storage.uris import check_uri


class FullDisk(io.BytesIO):
    """Takes three writes and refuses the fourth; those after it would succeed."""

    writes = 0

    def write(self, data: object) -> int:
        self.writes += 1
        if self.writes == 4:
            raise OSError(28, "No space left on device")
        return super().write(data)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_PIECE", 10)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 1000])
def test_a_digest_writes_all_bytes_in_their_order(count: int) -> None:
    sent = [bytes([number % 251]) for number in range(count)]
    file = io.BytesIO()
    assert digest(sent, file.write) == digest(sent) == (count, hashlib.sha256(b"".join(sent)).hexdigest())
    assert file.getvalue() == b"".join(sent)


@pytest.mark.parametrize("chunks", [40, 50, 10_000])
def test_a_write_that_fails_is_never_lost(chunks: int) -> None:
    with pytest.raises(OSError, match="No space left"):
        digest([b"x"] * chunks, FullDisk().write)


def test_what_waits_to_be_written_is_bounded() -> None:
    taken, most = 0, 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"x"

    file = io.BytesIO()

    def write(piece: bytes) -> None:
        nonlocal most
        time.sleep(0.001)
        most = max(most, taken - file.tell())
        file.write(piece)

    digest(chunks(), write)

    # One piece is filled and one is written, besides those that wait.
    assert 0 < most <= 10 * (digests._AHEAD + 2)


def test_a_stream_that_fails_writes_nothing_more() -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b"x"] * 50
        raise ConnectionError

    file = io.BytesIO()
    with pytest.raises(ConnectionError):
        digest(chunks(), file.write)
    written = file.tell()

    time.sleep(0.01)

    assert file.tell() == written


def test_a_file_appears_under_its_name_only_once_it_is_whole(tmp_path: Path) -> None:
    def write_half() -> None:
        with Folder(str(tmp_path)).writing("a.jsonl") as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=rf"path: could not write {tmp_path}/a.jsonl \(OSError: .*No space"):
        write_half()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rendered", [True, False])
@pytest.mark.parametrize(
    "uri",
    [
        "file://data/results",
        "file://data",
        "file://",
        "FILE://data/results",
        " file://data/results",
        "file://./results",
        "file://~/results",
        "file://conn@data/results",
        "file:////data/results",
        "local://data/results",
        "file://data/{{ ds }}",
    ],
)
def test_a_local_folder_that_depends_on_where_the_worker_was_started_is_refused(uri: str, rendered: bool) -> None:
    with pytest.raises(InvalidArgumentError, match=f"path: got {uri!r}; .*absolute.*: file:///data/results has three"):
        check_uri("path", uri, rendered=rendered)


@pytest.mark.parametrize(
    "uri", ["file:///data", "file:///", "file://conn@/data", "local:///data", "/data", "s3://data"]
)
@pytest.mark.parametrize("rendered", [True, False])
def test_a_folder_that_is_the_same_everywhere_is_taken(uri: str, rendered: bool) -> None:
    assert check_uri("path", uri, rendered=rendered) == uri


@pytest.mark.parametrize("uri", ["file://{{ a }}", "file://{{ a / b }}/c", "file://{% if a %}/b{% endif %}", "{{ a }}"])
def test_a_folder_that_a_template_hides_is_checked_once_it_is_rendered(uri: str) -> None:
    assert check_uri("path", uri, rendered=False) == uri


class TestWhatKilledWorkersHaveLeft:
    PART = ".msgbatch_1.jsonl.0123456789abcdef0123456789abcdef.part"

    @staticmethod
    def put(path: Path, hours: float) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text("an answer")
        os.utime(path, (time.time() - hours * 3600,) * 2)
        return path

    @pytest.mark.parametrize("name", [PART, ".all.json.00000000000000000000000000000000.part"])
    def test_is_removed_after_a_day_and_logged(
        self, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level("INFO")
        part = self.put(tmp_path / name, hours=25)

        Folder(f"file://{tmp_path}").sweep()

        assert not part.exists()
        assert f"Removed {part}" in caplog.text + capsys.readouterr().out

    def test_is_left_alone_for_a_day(self, tmp_path: Path) -> None:
        part = self.put(tmp_path / self.PART, hours=23)

        Folder(str(tmp_path)).sweep()

        assert part.exists()

    @pytest.mark.parametrize(
        "name",
        [
            "msgbatch_1.jsonl",
            "msgbatch_1.json",
            "msgbatch_1.jsonl.0123456789abcdef0123456789abcdef.part",
            ".msgbatch_1.jsonl.0123456789abcdef0123456789abcde.part",
            ".msgbatch_1.jsonl.0123456789ABCDEF0123456789ABCDEF.part",
            ".msgbatch_1.jsonl.0123456789abcdef0123456789abcdef.part.txt",
            ".film.mkv.0123456789abcdef0123456789abcdef.part",
            ".jsonl.0123456789abcdef0123456789abcdef.part",
            f"below/{PART}",
        ],
    )
    def test_what_has_another_name_stays(self, tmp_path: Path, name: str) -> None:
        file = self.put(tmp_path / name, hours=1000)

        Folder(str(tmp_path)).sweep()

        assert file.exists()

    def test_no_folder_and_no_link_is_taken_for_it(self, tmp_path: Path) -> None:
        target = self.put(tmp_path / "mine", hours=1000)
        (tmp_path / self.PART).symlink_to(target)
        folder = tmp_path / self.PART.replace("_1", "_2")
        folder.mkdir()
        os.utime(folder, (0, 0))

        Folder(str(tmp_path)).sweep()

        assert (tmp_path / self.PART).is_symlink()
        assert target.exists()
        assert folder.is_dir()

    def test_one_that_cannot_be_removed_stops_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        parts = [self.put(tmp_path / self.PART.replace("_1", f"_{number}"), hours=25) for number in range(3)]
        remove = os.remove

        def gone_or_denied(path: str) -> None:
            if path == str(parts[1]):
                raise PermissionError(13, "Permission denied", path)
            remove(path)

        monkeypatch.setattr(os, "remove", gone_or_denied)

        Folder(str(tmp_path)).sweep()

        assert [part.exists() for part in parts] == [False, True, False]

    @pytest.mark.parametrize("name", ["new", "file"])
    def test_a_folder_that_cannot_be_looked_into_is_for_the_save_to_complain_about(
        self, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "file").touch()

        Folder(str(tmp_path / name)).sweep()
