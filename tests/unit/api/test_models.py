from __future__ import annotations

import json
import pickle
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_provider_batches.api import (
    BatchPage,
    BatchRequest,
    BatchResult,
    DeletedBatch,
    ErrorEnvelope,
    InvalidResponseError,
    MessageBatch,
    RequestCounts,
    Result,
)

CANARY = "sk-ant-canary"
OPTIONAL = ("ended_at", "cancel_initiated_at", "archived_at", "results_url")
TIMES = ("created_at", "expires_at", "ended_at", "cancel_initiated_at", "archived_at")


def json_values(text=None):
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    leaves = leaves | (st.text() if text is None else text)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
    )


class TestMessageBatch:
    @given(extra=st.dictionaries(st.text(), json_values(), max_size=3))
    def test_unknown_fields_are_kept_as_they_came(self, extra, batch_json):
        extra = {name: value for name, value in extra.items() if name not in MessageBatch.model_fields}
        batch = MessageBatch.model_validate_json(json.dumps(batch_json(**extra)))
        assert {name: batch.snapshot()[name] for name in extra} == extra

    def test_a_field_with_the_name_of_a_method_does_not_replace_the_method(self, batch_json):
        batch = MessageBatch.model_validate_json(json.dumps(batch_json(snapshot=1, ended=True, request_id="x")))
        assert (batch.snapshot()["snapshot"], batch.ended, batch.request_id) == (1, False, None)

    @pytest.mark.parametrize("field", OPTIONAL)
    def test_an_absent_optional_field_is_none(self, field, batch_json):
        body = batch_json()
        del body[field]
        assert getattr(MessageBatch.model_validate_json(json.dumps(body)), field) is None

    @pytest.mark.parametrize("field", OPTIONAL)
    def test_an_optional_field_may_be_null(self, field, batch_json):
        assert getattr(MessageBatch.model_validate_json(json.dumps(batch_json(**{field: None}))), field) is None

    @pytest.mark.parametrize("field", ["id", "processing_status", "request_counts"])
    def test_a_batch_without_a_field_that_every_batch_has_is_a_validation_error(self, field, batch_json):
        body = batch_json()
        del body[field]
        with pytest.raises(ValidationError, match=field):
            MessageBatch.model_validate_json(json.dumps(body))

    @pytest.mark.parametrize("field", [*TIMES, "type", "results_url"])
    @pytest.mark.parametrize("value", [None, "", "yesterday", [], {"at": 1}])
    def test_a_field_that_only_informs_never_makes_a_batch_unreadable(self, field, value, batch_json):
        found = getattr(MessageBatch.model_validate_json(json.dumps(batch_json(**{field: value}))), field)
        assert found is None or found == value

    @pytest.mark.parametrize("text", ["2026-01-02T03:04:05.123456789Z", "2026-01-02 03:04:05Z", 1767323045])
    def test_a_time_in_another_form_is_read(self, text, batch):
        assert batch(created_at=text).created_at.replace(microsecond=0) == datetime(
            2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc
        )

    @pytest.mark.parametrize("status", ["in_progress", "canceling", "completed"])
    def test_one_with_ended_at_has_ended_regardless_of_its_status(self, status, batch):
        assert batch(processing_status=status, ended_at="2026-01-02T03:04:05Z").ended
        assert not batch(processing_status=status, ended_at="").ended

    @pytest.mark.parametrize("none", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00", 0, "0", "1970-01-01T00:00:00Z"])
    def test_a_time_that_is_another_languages_none_is_none(self, none, batch):
        found = batch(created_at=none, ended_at=none, archived_at=none)
        assert (found.created_at, found.ended, found.archived_at) == (None, False, None)

    def test_one_whose_age_is_unknown_is_looked_for_in_the_whole_list(self, batch):
        assert batch(created_at=None).listed_since.timestamp() == 0

    @given(status=st.text().filter(lambda text: text != "ended"))
    def test_any_status_but_ended_counts_as_not_ended(self, status, batch):
        assert not batch(processing_status=status).ended

    def test_ended_is_ended(self, batch):
        assert batch(processing_status="ended").ended

    @given(field=st.sampled_from(TIMES), naive=st.datetimes(datetime(1971, 1, 1)))
    def test_a_time_without_an_offset_is_utc(self, field, naive, batch):
        assert getattr(batch(**{field: naive.isoformat()}), field) == naive.replace(tzinfo=timezone.utc)

    @given(
        field=st.sampled_from(TIMES),
        naive=st.datetimes(datetime(1971, 1, 1), datetime(9999, 12, 29)),
        minutes=st.integers(-23 * 60, 23 * 60),
    )
    def test_a_time_with_an_offset_is_that_moment(self, field, naive, minutes, batch):
        moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
        assert getattr(batch(**{field: moment.isoformat()}), field) == moment

    @given(value=json_values())
    def test_whatever_a_time_is_read_from_it_is_aware(self, value, batch):
        read = batch(created_at=value).created_at
        assert read is None or read.utcoffset() is not None

    @given(
        status=st.text(),
        counts=st.fixed_dictionaries({}, optional=dict.fromkeys(RequestCounts.model_fields, st.integers(0, 10**6))),
        ended_at=st.none() | st.datetimes().map(datetime.isoformat),
        extra=json_values(),
    )
    def test_a_snapshot_is_plain_json_from_which_the_same_batch_can_be_made(
        self, status, counts, ended_at, extra, batch
    ):
        before = batch(processing_status=status, request_counts=counts, ended_at=ended_at, future=extra)
        assert MessageBatch.model_validate_json(json.dumps(before.snapshot())) == before

    def test_it_cannot_be_changed(self, batch):
        with pytest.raises(ValidationError, match="frozen"):
            batch().processing_status = "ended"

    def test_it_can_be_pickled_with_its_request_id(self, batch):
        answer = batch(future=1)
        answer._request_id = "req_1"
        made = pickle.loads(pickle.dumps(answer))
        assert (made, made.request_id, made.future) == (answer, "req_1", 1)

    def test_without_an_answer_it_has_no_request_id(self, batch):
        assert batch().request_id is None


@given(counts=st.fixed_dictionaries(dict.fromkeys(RequestCounts.model_fields, st.integers(0, 10**6))))
def test_the_total_of_the_counts_is_the_number_of_requests(counts):
    assert RequestCounts(**counts).total == sum(counts.values())


def test_absent_counts_are_zero():
    assert RequestCounts.model_validate_json("{}").total == 0


def test_an_unknown_count_is_kept_and_part_of_the_total():
    counts = RequestCounts.model_validate_json('{"succeeded": 1, "paused": 5, "future": {"nested": [1]}}')
    assert (counts.total, counts.model_dump()["paused"], counts.by_state["paused"]) == (6, 5, 5)


@pytest.mark.parametrize("count", [-1, 1.5, "3", True, [1]])
def test_counts_of_which_one_cannot_be_read_say_nothing(count):
    assert RequestCounts.model_validate({"succeeded": 1, "errored": count}).total == 0


class TestAPage:
    def test_may_lack_its_cursors(self):
        page = BatchPage.model_validate_json('{"data": [], "has_more": false}')
        assert (page.first_id, page.last_id) == (None, None)

    @pytest.mark.parametrize("body", ['{"data": []}', '{"has_more": false}', '{"data": [5], "has_more": false}', "[]"])
    def test_says_what_it_has_and_whether_there_is_more(self, body):
        """Or another server's list would prove that a batch is gone."""
        with pytest.raises(ValidationError):
            BatchPage.model_validate_json(body)

    def test_holds_batches_as_they_came_until_they_are_read(self, batch_json, batch):
        page = BatchPage(data=[batch_json(), batch_json(id="b", future=1)], has_more=False)
        assert page.data[1]["future"] == 1
        assert page.batches() == [batch(), batch(id="b", future=1)]

    def test_with_a_batch_that_cannot_be_read_says_so(self, batch_json):
        page = BatchPage(data=[batch_json(), {"id": "b"}], has_more=False)
        with pytest.raises(InvalidResponseError, match=r"a batch cannot be read \(2 problems\)"):
            page.batches()


@pytest.mark.parametrize("type_", ["message_batch", "error", None])
def test_another_object_is_no_proof_that_a_batch_was_deleted(type_):
    with pytest.raises(ValidationError):
        DeletedBatch.model_validate({"id": "b", "type": type_})


@pytest.mark.parametrize("custom_id", ["a", "A-Z_09", "x" * 64])
def test_a_custom_id_of_the_documented_form_is_taken(custom_id):
    assert BatchRequest(custom_id=custom_id, params={}).custom_id == custom_id


@pytest.mark.parametrize("custom_id", ["", "x" * 65, "a b", "a.b", "a\n", "\na", "ä", "a/b"])
def test_a_custom_id_of_another_form_is_refused(custom_id):
    with pytest.raises(ValidationError, match="custom_id"):
        BatchRequest(custom_id=custom_id, params={})


class TestBatchResult:
    @pytest.mark.parametrize(
        "result",
        [
            {"type": "succeeded", "message": {"id": "msg_1"}},
            {"type": "errored", "error": {"type": "error", "error": {"type": "x", "message": "m"}}},
            {"type": "canceled"},
            {"type": "expired"},
            {"type": "postponed", "until": 5},
        ],
        ids=lambda result: result["type"],
    )
    def test_loses_nothing(self, result):
        read = BatchResult.model_validate_json(json.dumps({"custom_id": "a", "result": result}))
        assert (read.result.type, read.model_dump(exclude_unset=True)["result"]) == (result["type"], result)

    @pytest.mark.parametrize(
        "result", [{"type": "succeeded"}, {"type": "errored"}, {"type": "succeeded", "message": None}]
    )
    def test_without_what_belongs_to_its_type_is_a_validation_error(self, result):
        with pytest.raises(ValidationError, match="has no message or error"):
            Result.model_validate(result)

    @given(type_=st.text(), extra=json_values())
    def test_an_unknown_type_is_passed_on(self, type_, extra):
        if type_ in ("succeeded", "errored", "canceled", "expired"):
            return
        line = {"custom_id": "a", "result": {"type": type_, "extra": extra}}
        assert BatchResult.model_validate_json(json.dumps(line)).model_dump(exclude_unset=True) == line

    @given(result=json_values())
    def test_a_result_that_is_not_one_is_a_validation_error(self, result):
        if isinstance(result, dict) and isinstance(result.get("type"), str):
            return
        with pytest.raises(ValidationError):
            BatchResult.model_validate_json(json.dumps({"custom_id": "a", "result": result}))

    @pytest.mark.parametrize("type_", [["succeeded"], {"succeeded": 1}, 5, None])
    def test_a_type_that_is_not_a_string_is_a_validation_error(self, type_):
        with pytest.raises(ValidationError):
            BatchResult.model_validate_json(json.dumps({"custom_id": "a", "result": {"type": type_}}))

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ([{"type": "text", "text": "Hello"}], "Hello"),
            (
                [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "A"}, {"type": "text", "text": "B"}],
                "AB",
            ),
            ([{"type": "tool_use", "input": {"text": "no"}}], ""),
            ([{"type": "text", "text": None}, {"type": "text"}, "text"], ""),
            ([], ""),
            (None, ""),
        ],
        ids=["one block", "blocks among others", "no text", "odd blocks", "no blocks", "null"],
    )
    def test_the_text_is_that_of_all_text_blocks(self, content, text):
        result = {"type": "succeeded", "message": {"role": "assistant", "content": content}}
        assert BatchResult.model_validate({"custom_id": "a", "result": result}).text == text

    @pytest.mark.parametrize(
        "result",
        [
            {"type": "errored", "error": {"type": "error", "error": {"type": "x", "message": "m"}}},
            {"type": "canceled"},
            {"type": "expired"},
            {"type": "postponed", "message": {"content": [{"type": "text", "text": "Hello"}]}},
        ],
        ids=lambda result: result["type"],
    )
    def test_of_a_request_that_did_not_succeed_there_is_no_text(self, result):
        assert BatchResult.model_validate({"custom_id": "a", "result": result}).text is None

    def test_it_can_be_made_from_objects_too(self):
        assert BatchResult(custom_id="a", result=Result(type="canceled")).result.type == "canceled"

    @given(details=json_values())
    def test_details_of_an_error_may_have_any_shape(self, details):
        error = {"type": "error", "error": {"type": "x", "message": "m", "details": details}}
        read = BatchResult.model_validate({"custom_id": "a", "result": {"type": "errored", "error": error}})
        assert read.result.error.error.details == details


FIELDS = ["id", "data", "result", "error", "custom_id", "params", "request_counts", "created_at", "results_url"]


@given(
    model=st.sampled_from([MessageBatch, BatchPage, DeletedBatch, BatchRequest, BatchResult, ErrorEnvelope]),
    body=json_values(text=st.just(CANARY))
    | st.dictionaries(st.sampled_from(FIELDS), json_values(text=st.just(CANARY)))
    | st.fixed_dictionaries({"data": st.lists(st.dictionaries(st.sampled_from(FIELDS), st.just(CANARY)))}),
)
def test_errors_never_show_what_was_read(model, body):
    text = ""
    try:
        model.model_validate_json(json.dumps(body))
    except ValidationError as error:
        text = f"{error} {error!r}"
    assert CANARY not in text
