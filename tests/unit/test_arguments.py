from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batches._arguments import (
    is_template,
    read_batch_id,
    read_batch_ids,
    read_count,
    read_flag,
    read_literal,
    read_seconds,
)
from airflow_provider_batches.api import InvalidArgumentError, MessageBatch, check_batch_id


class Fetched(Sequence[Any]):
    """Fetches its items one by one, as the output of a mapped task does."""

    def __init__(self, *items: Any, takes_slices: bool = True) -> None:
        self.items = items
        self.takes_slices = takes_slices

    def __len__(self) -> int:
        return 2

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) and not self.takes_slices:
            raise TypeError("slice is not implemented yet")
        return self.items[key]


class TestBatchIDs:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("a", ["a"]),
            (["a", "b"], ["a", "b"]),
            (("a", "b"), ["a", "b"]),
            ({"a"}, ["a"]),
            ([], []),
            (["b", "a", "b"], ["b", "a"]),
            (Fetched("a", "b"), ["a", "b"]),
            (Fetched("a", "b", takes_slices=False), ["a", "b"]),
            (deque(["a", "b"]), ["a", "b"]),
            ("['a', 'b']", ["a", "b"]),
            (' ["a"] ', ["a"]),
        ],
    )
    def test_are_read_from_what_holds_them(self, value: Any, expected: list[str]) -> None:
        assert read_batch_ids(value) == expected

    def test_are_complete_or_an_error(self) -> None:
        with pytest.raises(IndexError):
            read_batch_ids(Fetched("a", takes_slices=False))

    @pytest.mark.parametrize(
        "value",
        ["[a", "[a]", "['a'", "[1]", "a,b", ["a", "b/c"], ["a", None], [["a"]], None, 5, "", b"a", Fetched(1, 2)],
    )
    def test_are_each_checked(self, value: Any) -> None:
        with pytest.raises(InvalidArgumentError, match=r"^ids: "):
            read_batch_ids(value, "ids")

    @given(ids=st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True).filter(lambda i: i != "None")))
    def test_survive_a_template_that_renders_them_to_text(self, ids: list[str]) -> None:
        assert read_batch_ids(str(ids)) == list(dict.fromkeys(ids))

    @given(text=st.text().map("[{}".format) | st.text(st.sampled_from("[](){}'\",a1\\\0*-")).map("[{}".format))
    def test_of_any_text_are_ids_or_a_clear_error(self, text: str) -> None:
        try:
            ids = read_batch_ids(text)
        except InvalidArgumentError:
            return
        assert all(check_batch_id(each) for each in ids)


@pytest.mark.parametrize("value", [["a"], ("a",), {"a"}, "a,b"])
def test_one_batch_is_not_several(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^batch_id: expected one batch ID, .*\.expand"):
        read_batch_id(value)


@pytest.mark.parametrize("read", [read_batch_id, read_batch_ids])
@pytest.mark.parametrize("value", [None, "", " ", "None", "null"])
def test_an_id_that_a_skipped_upstream_task_did_not_give_says_so(read: Any, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^batch_id: .*; the upstream task or template returned no ID\.$"):
        read(value)


@pytest.mark.parametrize("value", [[None], ["a", None], "['a', None]"])
def test_a_list_in_which_an_id_is_missing_says_so(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="batch_ids: got None; the upstream task or template returned no ID"):
        read_batch_ids(value, "batch_ids")


@pytest.mark.parametrize("value", [{"id": "a"}, MessageBatch(id="a", processing_status="ended", request_counts={})])
def test_a_whole_batch_in_place_of_its_id_says_what_to_pass(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"got a batch, .*; pass its ID, batch\.id or batch\['id'\]"):
        read_batch_ids([value])


def test_a_nested_list_says_that_it_has_to_be_flat() -> None:
    with pytest.raises(InvalidArgumentError, match=r"got \['a'\] inside a list; pass one flat list of IDs"):
        read_batch_ids([["a"], ["b"]])


def test_one_batch_id_is_returned_unchanged() -> None:
    assert read_batch_id("msgbatch_1") == "msgbatch_1"


@pytest.mark.parametrize(("text", "literal"), [(" ['a'] ", ["a"]), ("[a]", None), ("[" * 100_000, None), ("1 +", None)])
def test_a_literal_is_read_or_there_is_none(text: str, literal: object) -> None:
    assert read_literal(text) == literal


@pytest.mark.parametrize(("value", "seconds"), [(1, 1.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (1e6, 1e6)])
def test_a_duration_is_seconds_or_a_timedelta(value: Any, seconds: float) -> None:
    assert read_seconds("timeout", value) == seconds


@pytest.mark.parametrize("value", [0, -1, "60", None, True, float("nan"), float("inf"), timedelta(0), [60]])
def test_anything_else_is_not_a_duration(value: Any) -> None:
    wrong = r"^timeout: got .*; it must be a timedelta or a number of seconds above 0\.$"
    with pytest.raises(InvalidArgumentError, match=wrong):
        read_seconds("timeout", value)


@pytest.mark.parametrize(("value", "count"), [(1, 1), (" 12 ", 12)])
def test_a_count_is_a_whole_number_or_a_text_of_one(value: Any, count: int) -> None:
    assert read_count("limit", value) == count


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, "", "1.0", "-1", "\u0663", "9" * 5000])
def test_anything_else_is_not_a_count(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^limit: got"):
        read_count("limit", value)


@pytest.mark.parametrize(("value", "flag"), [(True, True), (False, False), (" True ", True), ("false", False)])
def test_a_flag_is_a_bool_or_a_text_of_one(value: Any, flag: bool) -> None:
    assert read_flag("report_only", value) is flag


@pytest.mark.parametrize("value", ["", "yes", "0", 0, 1, None])
def test_anything_else_is_not_a_flag(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^report_only: got"):
        read_flag("report_only", value)


class Output:
    """The output of an upstream task."""

    def iter_references(self) -> list[Any]:
        return []


@pytest.mark.parametrize("value", ["{{ params.x }}", "{% if x %}", ["a", "{{ x }}"], [Output()], Output()])
def test_a_template_is_recognized(value: Any) -> None:
    assert is_template(value)


@pytest.mark.parametrize("value", [5, None, "text", ["a"], []])
def test_what_is_final_is_not_a_template(value: Any) -> None:
    assert not is_template(value)
