from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.submission.located import Problem
from airflow_provider_batches.submission.requests import encode, read_requests

PARAMS = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
REQUEST = {"custom_id": "a", "params": PARAMS}


def read(source: Any, context: Any = None) -> list[Any]:
    return list(read_requests(source, context or {}))


class TestASource:
    def test_may_be_a_list_or_an_iterator(self) -> None:
        assert read([1, 2]) == read(iter([1, 2])) == [("requests[0]", 1), ("requests[1]", 2)]

    def test_may_be_a_callable(self) -> None:
        assert read(lambda: [1]) == [("requests[0]", 1)]
        assert read(lambda context: context["rows"], {"rows": [1]}) == [("requests[0]", 1)]

    def test_may_be_a_generator_function(self) -> None:
        def rows() -> Iterator[int]:
            yield 1

        assert read(rows) == [("requests[0]", 1)]

    def test_may_be_a_callable_that_returns_a_uri(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"x": 1}\n')

        assert read(lambda: f"file://{tmp_path}/a.jsonl") == [("a.jsonl:1", b'{"x": 1}')]

    def test_may_be_the_text_of_a_list(self) -> None:
        assert read("[{'custom_id': 'a'}]") == [("requests[0]", {"custom_id": "a"})]

    def test_may_be_a_file_whose_lines_are_counted_from_one(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(b'{"x": 1}\r\n\n{"x": "\xe2\x80\xa8"}')

        assert read(f"file://{tmp_path}/a.jsonl") == [
            ("a.jsonl:1", b'{"x": 1}\r'),
            ("a.jsonl:3", '{"x": "\u2028"}'.encode()),
        ]

    def test_may_be_a_folder_whose_files_are_read_by_name(self, tmp_path: Path) -> None:
        for name in ("b.jsonl", "a.jsonl", "notes.txt"):
            (tmp_path / name).write_text("1\n")

        assert [place for place, _ in read(f"file://{tmp_path}")] == ["a.jsonl:1", "b.jsonl:1"]

    def test_may_be_an_object_storage_path(self, tmp_path: Path) -> None:
        from airflow.sdk import ObjectStoragePath

        (tmp_path / "a.jsonl").write_text("1\n")

        assert read(ObjectStoragePath(f"file://{tmp_path}/a.jsonl")) == [("a.jsonl:1", b"1")]

    @pytest.mark.parametrize("source", [None, 5, b"x", {"custom_id": "a"}])
    def test_of_another_kind_is_refused(self, source: object) -> None:
        with pytest.raises(InvalidArgumentError, match=r"requests: expected a list of .* or the URI of a JSONL file"):
            read(source)

    def test_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match=r"requests: .*missing\.jsonl does not exist"):
            read(f"file://{tmp_path}/missing.jsonl")

    def test_without_a_jsonl_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match=r"is not a \.jsonl file, and has none"):
            read(f"file://{tmp_path}/rows.csv")

    def test_that_is_a_relative_path_is_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match=r"requests: got 'rows\.jsonl'"):
            read("rows.jsonl")


class TestARequest:
    def test_is_encoded_once_and_compactly(self) -> None:
        custom_id, params, parsed = encode({"custom_id": "a", "params": {**PARAMS, "system": "ä\u2028"}})

        assert (custom_id, parsed["model"]) == ("a", "m")
        assert params == json.dumps({**PARAMS, "system": "ä\u2028"}, ensure_ascii=False, separators=(",", ":")).encode()
        assert b"\n" not in params

    def test_may_be_a_line_with_a_byte_order_mark(self) -> None:
        assert encode(b"\xef\xbb\xbf" + json.dumps(REQUEST).encode())[0] == "a"

    @pytest.mark.parametrize(
        ("request_", "message"),
        [
            (b"{", "is not valid JSON"),
            (b'{"custom_id": "\xff"}', "is not valid JSON"),
            (None, "is not an object, but NoneType"),
            ([], "is not an object, but list"),
            ({"custom_id": "a"}, "lacks params"),
            ({}, "lacks custom_id, params"),
            ({**REQUEST, "priority": 1}, "has unknown keys: priority"),
            ({**REQUEST, "custom_id": "a b"}, "custom_id: got 'a b'; it must be 1 to 55 of"),
            ({**REQUEST, "custom_id": "a" * 56}, "1 to 55 of"),
            ({**REQUEST, "custom_id": "a\n"}, "1 to 55 of"),
            ({**REQUEST, "custom_id": 5}, "got 5"),
            ({**REQUEST, "params": None}, "params: got NoneType; it must be an object"),
        ],
    )
    def test_of_another_shape_is_refused(self, request_: Any, message: str) -> None:
        with pytest.raises(Problem) as caught:
            encode(request_)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("model", None, "params.model: got None"),
            ("model", "", "params.model: got ''"),
            ("max_tokens", 0, "params.max_tokens: got 0; it must be a whole number above 0"),
            ("max_tokens", True, "got True"),
            ("max_tokens", 1.5, "got 1.5"),
            ("messages", [], "params.messages: it must be a list of at least one message"),
            ("messages", "x", "params.messages"),
            ("stream", True, "params.stream: a batch cannot stream; remove it"),
            ("betas", ["x"], "set `anthropic_beta` of the connection"),
            ("top_p", float("nan"), "params: cannot be encoded as JSON"),
            ("system", {1, 2}, "params: cannot be encoded as JSON"),
            ("system", "\ud800", "params: cannot be encoded as JSON"),
        ],
    )
    def test_with_wrong_params_is_refused(self, name: str, value: Any, message: str) -> None:
        with pytest.raises(Problem) as caught:
            encode({"custom_id": "a", "params": {**PARAMS, name: value}})
        assert message in str(caught.value)

    def test_that_is_wrong_does_not_show_its_content(self) -> None:
        for wrong in (b'{"custom_id": "confidential', {**REQUEST, "params": "confidential"}):
            with pytest.raises(Problem) as caught:
                encode(wrong)
            assert "confidential" not in str(caught.value)
