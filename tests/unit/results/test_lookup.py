from __future__ import annotations

import json
import random

import pytest

from airflow_provider_batches.results.lookup import InvalidResultsError, Lookup

TAG = "0123abcd-"


def line(custom_id: str, kind: str = "succeeded", text: str = "") -> bytes:
    return json.dumps({"custom_id": f"{TAG}{custom_id}", "result": {"type": kind, "text": text}}).encode()


def found(*files: list[bytes]) -> Lookup:
    lookup = Lookup(len(TAG))
    for number, lines in enumerate(files):
        lookup.add(f"{number}.jsonl", [b"\n".join(lines)])
    lookup.prepare()
    return lookup


def test_each_result_is_found_in_any_order() -> None:
    ids = [f"row-{number}" for number in range(500)]
    lines = [line(custom_id, text=custom_id) for custom_id in ids]
    random.shuffle(lines)
    lookup = found(lines[:200], lines[200:])

    for custom_id in ids:
        result = lookup.find(custom_id)
        assert result is not None
        assert result["result"]["text"] == custom_id
    assert lookup.find("row-500") is None
    assert lookup.unused(5) == []


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_lines_may_be_cut_anywhere(size: int) -> None:
    data = b"\n".join([line("a", text="\u2028" * 30), b"", line("b")]) + b"\n"
    lookup = Lookup(len(TAG))

    assert lookup.add("x", [data[start : start + size] for start in range(0, len(data), size)]) == 2
    lookup.prepare()
    assert lookup.find("b") is not None


def test_a_line_may_be_very_long() -> None:
    text = "x" * 12_000_000
    result = found([line("a", text=text), line("b")]).find("a")

    assert result is not None
    assert result["result"]["text"] == text


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ("errored", "succeeded", "succeeded"),
        ("succeeded", "errored", "succeeded"),
        ("errored", "expired", "expired"),
        ("succeeded", "succeeded", "succeeded"),
    ],
)
def test_of_several_rounds_the_last_success_counts_or_else_the_last(first: str, second: str, chosen: str) -> None:
    result = found([line("a", first, "1")], [line("a", second, "2")]).find("a")

    assert result is not None
    assert result["result"]["type"] == chosen
    assert result["result"]["text"] == ("1" if (first, second) == ("succeeded", "errored") else "2")


def test_a_result_that_comes_twice_in_a_batch_is_named() -> None:
    with pytest.raises(
        InvalidResultsError, match=r"0\.jsonl:2 has a result for '0123abcd-a', which an earlier line has"
    ):
        found([line("a"), line("a")])


@pytest.mark.parametrize(
    "wrong", [b"{", b"[]", b'{"custom_id": 5}', b'{"result": {"type": "x"}}', b'{"type": "error"}', b"\xff"]
)
def test_a_line_that_is_not_a_result_is_named(wrong: bytes) -> None:
    with pytest.raises(InvalidResultsError, match=r"0\.jsonl:2 is not a result of a batch"):
        found([line("a"), wrong])


def test_results_that_nobody_asked_for_are_named() -> None:
    lookup = found([line("a"), line("b"), line("c")])
    lookup.find("b")

    assert lookup.unused(1) == ["a"]
    assert lookup.unused(5) == ["a", "c"]
