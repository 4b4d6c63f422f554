from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.teardown import saving
from airflow_provider_batches.teardown.saving import Digest, Folder, check_uri


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
    monkeypatch.setattr(saving, "_PIECE", 10)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 1000])
def test_a_digest_writes_all_bytes_in_their_order(count: int) -> None:
    sent = [bytes([number % 251]) for number in range(count)]
    file = io.BytesIO()
    with Digest(file) as digest:
        for chunk in sent:
            digest.add(chunk)
        found = digest.end()
    assert file.getvalue() == b"".join(sent)
    assert (digest.size, found) == (count, hashlib.sha256(b"".join(sent)).hexdigest())


@pytest.mark.parametrize("chunks", [40, 50, 10_000])
def test_a_write_that_fails_is_never_lost(chunks: int) -> None:
    def write_all() -> None:
        with Digest(FullDisk()) as digest:
            for _ in range(chunks):
                digest.add(b"x")
            digest.end()

    with pytest.raises(OSError, match="No space left"):
        write_all()


def test_what_waits_to_be_written_is_bounded() -> None:
    class Slow(io.BytesIO):
        def write(self, data: object) -> int:
            most.append(len(digest._writing))
            return super().write(data)  # type: ignore[arg-type]

    most: list[int] = []
    with Digest(Slow()) as digest:
        for _ in range(1000):
            digest.add(b"x")
        digest.end()
    assert 0 < max(most) <= saving._AHEAD + 1


def test_a_file_appears_under_its_name_only_once_it_is_whole(tmp_path: Path) -> None:
    def write_half() -> None:
        with Folder(str(tmp_path)).writing("a.jsonl") as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
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
    with pytest.raises(InvalidArgumentError, match=f"path: got {uri!r}, .*absolute: file:///data/results has three"):
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
