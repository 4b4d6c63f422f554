from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.submission import planning
from airflow_provider_batches.submission.planning import Planner, as_body
from airflow_provider_batches.submission.requests import read_requests
from airflow_provider_batches.submission.tags import original_id


def requests(count: int, **params: Any) -> list[dict[str, Any]]:
    message = {"role": "user", "content": "x"}
    return [
        {"custom_id": f"r{number}", "params": {"model": "m", "max_tokens": 5, "messages": [message], **params}}
        for number in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(f"file://{tmp_path}")


def content(folder: Folder, name: str) -> bytes:
    data = folder.read(name)
    assert data is not None
    return data


def read(planner: Planner, source: Any) -> Any:
    return planner.read(read_requests(source, {}))


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1])])
@pytest.mark.parametrize("buffer", [1, 1 << 20])
def test_each_request_is_in_one_chunk_in_order(
    count: int, sizes: list[int], buffer: int, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_BUFFER", buffer)
    planner = Planner("mine", folder, 3)
    summary = read(planner, requests(count))
    found = []
    for chunk in planner.chunks:
        lines = content(folder, chunk.file)
        body = b'{"requests":[' + as_body(lines)[:-1] + b"]}"
        sent = json.loads(body)["requests"]
        assert (chunk.size, chunk.sha256) == (len(body), sha256(body).hexdigest())
        assert {each["custom_id"].partition("-")[0] for each in sent} == {chunk.tag}
        found += [{**each, "custom_id": original_id(each["custom_id"])} for each in sent]

    assert found == requests(count)
    assert [chunk.requests for chunk in planner.chunks] == sizes
    assert (summary.requests, summary.models, summary.max_tokens) == (count, {"m": count}, {"m": 5 * count})
    assert summary.size == sum(chunk.size for chunk in planner.chunks)


def test_a_chunk_has_at_most_so_many_bytes(folder: Folder) -> None:
    planner = Planner("mine", folder, bytes_per_batch=1000)
    read(planner, requests(50))

    assert len(planner.chunks) > 1
    assert all(chunk.size <= 1000 for chunk in planner.chunks)
    # Each is as full as it can be.
    assert all(chunk.size > 1000 - 120 for chunk in planner.chunks[:-1])


def test_tags_differ_between_chunks_plans_and_submissions(folder: Folder) -> None:
    planners = [Planner(name, folder, 1) for name in ("mine", "mine", "other")]
    for planner in planners:
        read(planner, requests(3))

    assert len({chunk.tag for planner in planners for chunk in planner.chunks}) == 9


def test_the_hash_of_the_source_does_not_depend_on_how_it_is_split(folder: Folder) -> None:
    hashes = {read(Planner("mine", into, size), requests(9)).sha256 for into, size in ((folder, 2), (None, 9))}

    assert len(hashes) == 1
    assert read(Planner("mine", None), requests(8)).sha256 not in hashes
    assert read(Planner("mine", None), requests(9, temperature=1)).sha256 not in hashes


def test_a_report_writes_nothing(tmp_path: Path) -> None:
    summary = read(Planner("mine", None), requests(4))

    assert summary.requests == 4
    assert list(tmp_path.iterdir()) == []


class TestProblems:
    def test_are_named_with_their_lines_and_nothing_is_left(self, tmp_path: Path, folder: Folder) -> None:
        lines = [json.dumps(request) for request in requests(5)]
        lines[1], lines[3] = "{", lines[0].replace('"max_tokens": 5', '"max_tokens": 0')
        (tmp_path / "in.jsonl").write_text("\n".join(lines))

        with pytest.raises(InvalidArgumentError) as caught:
            read(Planner("mine", folder, 1), f"file://{tmp_path}/in.jsonl")

        assert str(caught.value) == (
            "requests: in.jsonl:2 is not valid JSON (JSONDecodeError); in.jsonl:4 params.max_tokens: got 0; it must be "
            "a whole number above 0. Nothing was sent."
        )
        assert list((tmp_path / "requests").iterdir()) == []

    def test_are_named_up_to_ten(self, folder: Folder) -> None:
        with pytest.raises(InvalidArgumentError) as caught:
            read(Planner("mine", folder), [{}] * 50)

        assert str(caught.value).count("lacks") == 10
        assert "requests[9]" in str(caught.value)
        assert "There may be more." in str(caught.value)

    def test_include_a_custom_id_that_another_chunk_has(self, folder: Folder) -> None:
        twice = [*requests(5), *requests(2)]

        with pytest.raises(InvalidArgumentError) as caught:
            read(Planner("mine", folder, 2), twice)

        assert "requests[5] has the custom_id of requests[0]" in str(caught.value)
        assert "requests[6] has the custom_id of requests[1]" in str(caught.value)

    def test_include_a_custom_id_that_another_file_has(self, tmp_path: Path, folder: Folder) -> None:
        for name in ("a", "b"):
            (tmp_path / f"{name}.jsonl").write_text("\n" + json.dumps(requests(1)[0]))

        with pytest.raises(InvalidArgumentError, match=r"b\.jsonl:2 has the custom_id of a\.jsonl:2"):
            read(Planner("mine", None), f"file://{tmp_path}")

    def test_include_a_request_that_no_batch_can_hold(self, folder: Folder) -> None:
        with pytest.raises(InvalidArgumentError, match=r"requests\[0\] is [\d,]+ bytes with its batch; a batch has at"):
            read(Planner("mine", folder, bytes_per_batch=100), requests(1))

    def test_include_too_many_requests(self, folder: Folder) -> None:
        with pytest.raises(InvalidArgumentError, match="max_requests_total: there are more than 3 requests"):
            read(Planner("mine", folder, max_requests_total=3), requests(4))
        assert read(Planner("mine", folder, max_requests_total=4), requests(4)).requests == 4
