from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches import api
from airflow_provider_batches.api import endpoints
from airflow_provider_batches.api.evidence import judge
from airflow_provider_batches.api.streams import ResultBytes, ResultLines
from airflow_provider_batches.results.saving import SavedFileError, Saver, StoppedError
from airflow_provider_batches.storage.folder import Folder

ID = "msgbatch_1"
LINES = b"".join(b'{"custom_id":"%s","result":{"type":"canceled"}}\n' % name for name in (b"a", b"b"))


class Client:
    """Raises these errors, one for each read of the results, then returns the results."""

    def __init__(self, *errors: Exception, body: bytes = LINES) -> None:
        self.errors = list(errors)
        self.body = body
        self.reads = 0

    @contextmanager
    def open_results(self, batch_id: str, known: Any) -> Iterator[ResultBytes]:
        assert known.id == batch_id
        self.reads += 1
        if self.errors:
            raise self.errors.pop(0)
        yield ResultBytes(ResultLines(known), "req_1", [self.body[:5], self.body[5:]])


def ended(results_url: str | None = "https://example.com", batch_id: str = ID, **counts: int) -> api.MessageBatch:
    return api.MessageBatch.model_validate(
        {
            "id": batch_id,
            "processing_status": "ended",
            "request_counts": counts or {"succeeded": 2},
            "created_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-02T00:00:00Z",
            "results_url": results_url,
        }
    )


def cut_short() -> Exception:
    return api.ResultsTruncatedError("They were incomplete.")


def refused(status: int) -> Exception:
    error = api.APIStatusError("It was refused.", status=status)
    error.evidence = judge(endpoints.results("msgbatch_1"), status, own=True)
    return error


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def saver(tmp_path: Path, pauses: list[float]) -> Saver:
    return Saver(Folder(str(tmp_path)), sleep=pauses.append)


class TestRetries:
    def test_a_stream_that_breaks_is_read_again(self, saver: Saver, pauses: list[float], tmp_path: Path) -> None:
        client: Any = Client(cut_short(), api.APIConnectionError("No answer."), cut_short(), cut_short())

        saved = saver.save(client, ended())

        assert (saved.path, saved.size, saved.missing) == (f"{tmp_path}/{ID}.jsonl", len(LINES), None)
        assert (tmp_path / f"{ID}.jsonl").read_bytes() == LINES
        assert client.reads == 5
        for pause, most in zip(pauses, (0.5, 1.0, 2.0, 4.0), strict=True):
            assert 0.75 * most <= pause <= most

    def test_a_stream_is_read_five_times_in_all(self, saver: Saver, pauses: list[float], tmp_path: Path) -> None:
        client: Any = Client(*(cut_short() for _ in range(9)))

        with pytest.raises(api.ResultsTruncatedError):
            saver.save(client, ended())

        assert (client.reads, len(pauses)) == (5, 4)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("error", [refused(403), api.ServerError("It failed.", status=500), OSError("full")])
    def test_any_other_error_is_raised_at_once(self, saver: Saver, error: Exception) -> None:
        client: Any = Client(error)

        with pytest.raises(type(error)):
            saver.save(client, ended())

        assert client.reads == 1


class TestOddResults:
    """The file has the bytes as they came."""

    odd = (
        b'\xef\xbb\xbf{ "custom_id" : "a", "result": {"type": "canceled"}}\n'
        b'{"custom_id":"b","result":{"type":"x","text":"half \\ud99c"}}\r\n'
    )

    def test_are_saved_as_they_came(self, saver: Saver, tmp_path: Path) -> None:
        client: Any = Client(body=self.odd)

        saved = saver.save(client, ended())

        assert (saved.record["lines"], (tmp_path / f"{ID}.jsonl").read_bytes()) == (2, self.odd)

    @pytest.mark.parametrize("counts", [{"succeeded": -2}, {"succeeded": 1.5}, {"succeeded": 1, "errored": "one"}])
    def test_of_a_batch_whose_counts_cannot_be_read_are_not_saved(
        self, saver: Saver, tmp_path: Path, counts: dict[str, Any]
    ) -> None:
        client: Any = Client()

        with pytest.raises(api.ResultsTruncatedError, match="received 2 of 0"):
            saver.save(client, ended(**counts))

        assert list(tmp_path.iterdir()) == []


class TestMissingResults:
    def test_are_recorded(self, saver: Saver, tmp_path: Path) -> None:
        client: Any = Client(refused(400))

        saved = saver.save(client, ended(results_url=None, canceled=3))

        assert (saved.path, saved.size, saved.missing) == (None, 0, "none")
        assert json.loads((tmp_path / f"{ID}.json").read_text())["missing"] == "none"
        assert not (tmp_path / f"{ID}.jsonl").exists()

    @pytest.mark.parametrize(
        ("batch", "status"),
        [
            (ended(canceled=3), 404),
            (ended(results_url=None, canceled=2, errored=1), 404),
            (ended(results_url=None), 400),
            *((ended(results_url=None, canceled=3), status) for status in (401, 402, 403, 404, 429, 500)),
        ],
        ids=["results URL", "an answer", "no counts", "401", "402", "403", "404", "429", "500"],
    )
    def test_are_not_assumed(self, saver: Saver, batch: api.MessageBatch, status: int) -> None:
        client: Any = Client(refused(status))

        with pytest.raises(api.APIStatusError):
            saver.save(client, batch)


class TestASavedFile:
    @pytest.fixture(autouse=True)
    def _saved(self, saver: Saver) -> None:
        client: Any = Client()
        self.saved = saver.save(client, ended())

    def test_is_not_fetched_again(self, saver: Saver) -> None:
        found = saver.existing(ID)

        assert found
        assert (found.path, found.size, found.record) == (self.saved.path, len(LINES), self.saved.record)
        assert (self.saved.fetched, found.fetched) == (True, False)

    @pytest.mark.parametrize(
        ("content", "says"),
        [(None, "does not exist"), (b"", "has 0 bytes instead of 94"), (LINES.upper(), "has another SHA-256")],
    )
    def test_that_differs_is_an_error(self, saver: Saver, tmp_path: Path, content: bytes | None, says: str) -> None:
        file = tmp_path / f"{ID}.jsonl"
        file.unlink()
        if content is not None:
            file.write_bytes(content)

        with pytest.raises(SavedFileError, match=f"{file} {says}"):
            saver.check(ID, self.saved)
        assert saver.existing(ID) is None

    @pytest.mark.parametrize("field", ["batch", "size", "sha256"])
    def test_whose_record_is_damaged_is_not_saved(self, saver: Saver, tmp_path: Path, field: str) -> None:
        record = self.saved.record
        for damaged in ({**record, field: "x"}, {name: record[name] for name in record if name != field}):
            (tmp_path / f"{ID}.json").write_text(json.dumps(damaged))
            assert saver.existing(ID) is None

    def test_is_flushed_to_the_disk_once_it_is_checked(self, saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
        flushed: list[str] = []
        monkeypatch.setattr(Folder, "settle", lambda _, name: flushed.append(name))

        saver.check(ID, self.saved)

        assert flushed == [f"{ID}.jsonl", f"{ID}.json"]

    def test_is_not_read_to_its_end_if_the_task_is_stopped(self, tmp_path: Path) -> None:
        saver = Saver(Folder(str(tmp_path)), stopped=lambda: True)

        with pytest.raises(StoppedError):
            saver.check(ID, self.saved)


def test_a_file_with_no_name_but_its_suffix_is_named_after_the_batch(tmp_path: Path) -> None:
    client: Any = Client()

    Saver(Folder(str(tmp_path)), "").save(client, ended())

    assert {path.name for path in tmp_path.iterdir()} == {f"{ID}.jsonl", f"{ID}.json"}


def test_a_saver_sweeps_its_folder(tmp_path: Path) -> None:
    part = tmp_path / f".{ID}.jsonl.{'0' * 32}.part"
    part.touch()
    os.utime(part, (0, 0))

    Saver(Folder(str(tmp_path)))

    assert not part.exists()
