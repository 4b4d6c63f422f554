from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_batches.api import endpoints
from airflow_provider_batches.api.answers import excerpt, read_answer, refusal, retry_after
from airflow_provider_batches.api.errors import (
    AccessDeniedError,
    APIStatusError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    SpendLimitError,
)
from airflow_provider_batches.api.models import DeletedBatch, MessageBatch

RETRIEVE = endpoints.retrieve("msgbatch_1")
DELETE = endpoints.delete("msgbatch_1")
CALLS = [RETRIEVE, DELETE, endpoints.cancel("msgbatch_1"), endpoints.page()]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
HTML = b"""<html><head><title>502 Bad Gateway</title><style>h1 {color: red}</style><script>alert("x")</script></head>
<body><h1>502&nbsp;Bad Gateway</h1><hr>nginx &amp; friends</body></html>"""


def envelope(type_="api_error", message="It broke.", details=None, request_id="req_body"):
    error = {"type": type_, "message": message} | ({} if details is None else {"details": details})
    return json.dumps({"type": "error", "error": error, "request_id": request_id}).encode()


def read_or_error(call, status, body):
    try:
        return read_answer(call, status, {}, body)
    except InvalidResponseError as error:
        return error


class TestAnAgreement:
    def test_is_read_as_the_call_says(self, batch_json):
        assert isinstance(read_answer(RETRIEVE, 200, {}, json.dumps(batch_json()).encode()), MessageBatch)

    def test_carries_the_request_id_of_its_header(self, batch_json):
        answer = read_answer(RETRIEVE, 200, {"request-id": "req_1"}, json.dumps(batch_json()).encode())
        assert answer.request_id == "req_1"

    @pytest.mark.parametrize("status", [200, 204])
    @pytest.mark.parametrize("body", [b"", b" \n"])
    def test_to_delete_may_have_no_body(self, status, body):
        assert read_answer(DELETE, status, {}, body) == DeletedBatch(id="msgbatch_1")

    def test_to_anything_else_needs_a_body(self):
        with pytest.raises(InvalidResponseError, match="Could not retrieve batch msgbatch_1: status 200"):
            read_answer(RETRIEVE, 200, {}, b"")

    def test_that_is_unreadable_names_field_excerpt_and_request_id(self, batch_json):
        body = json.dumps(batch_json(processing_status=7)).encode()
        with pytest.raises(InvalidResponseError, match=r"processing_status: .*begins '\{\"id.*request-id req_1"):
            read_answer(RETRIEVE, 200, {"request-id": "req_1"}, body)

    def test_that_is_unreadable_hands_on_the_request_id(self):
        with pytest.raises(InvalidResponseError) as caught:
            read_answer(RETRIEVE, 200, {"request-id": "req_1"}, b"[]")
        assert caught.value.request_id == "req_1"

    def test_that_is_unreadable_does_not_show_what_is_to_be_hidden(self):
        with pytest.raises(InvalidResponseError, match="begins 'the key is XX'"):
            read_answer(RETRIEVE, 200, {}, b"the key is sk-1", lambda text: text.replace("sk-1", "XX"))

    @given(call=st.sampled_from(CALLS), status=st.integers(200, 299), body=st.binary())
    def test_of_any_bytes_is_read_or_an_invalid_response(self, call, status, body):
        assert isinstance(read_or_error(call, status, body), (call.model, InvalidResponseError))

    @given(call=st.sampled_from(CALLS), body=st.binary())
    def test_of_any_bytes_that_is_unreadable_is_told_in_one_line(self, call, body):
        assert str(read_or_error(call, 200, body)).isprintable()

    @given(
        call=st.sampled_from(CALLS),
        body=st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["data", "id", "request_counts", "has_more"]), inner, max_size=3)
            ),
            max_leaves=8,
        ),
    )
    def test_of_any_json_is_read_or_an_invalid_response(self, call, body):
        assert isinstance(read_or_error(call, 200, json.dumps(body).encode()), (call.model, InvalidResponseError))


class TestARefusal:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (301, APIStatusError),
            (307, APIStatusError),
            (400, APIStatusError),
            (401, AccessDeniedError),
            (402, SpendLimitError),
            (403, AccessDeniedError),
            (404, NotFoundError),
            (405, APIStatusError),
            (408, ServerError),
            (409, ServerError),
            (413, RequestTooLargeError),
            (422, APIStatusError),
            (429, RateLimitError),
            (500, ServerError),
            (502, ServerError),
            (503, ServerError),
            (504, ServerError),
            (529, ServerError),
            (599, ServerError),
        ],
    )
    def test_has_a_class_for_what_a_caller_would_do(self, status, kind):
        with pytest.raises(APIStatusError) as caught:
            read_answer(RETRIEVE, status, {}, envelope())
        assert type(caught.value) is kind

    def test_for_a_spend_limit_is_no_rate_limit(self):
        body = envelope("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"})
        assert type(refusal(RETRIEVE, 429, {}, body)) is SpendLimitError

    @pytest.mark.parametrize("details", [{"error_code": "other"}, {"error_code": ["x"]}, {}, [1], "text", 5])
    def test_with_other_details_is_a_rate_limit(self, details):
        assert type(refusal(RETRIEVE, 429, {}, envelope(details=details))) is RateLimitError

    @pytest.mark.parametrize("details", [{"a": 1}, [1], "text", 5])
    def test_keeps_its_type_and_message_whatever_its_details_are(self, details):
        error = refusal(RETRIEVE, 400, {}, envelope("invalid_request_error", "Wrong.", details))
        assert (error.error_type, error.message) == ("invalid_request_error", "Wrong.")

    def test_says_in_one_line_what_happened_to_which_batch(self):
        error = refusal(RETRIEVE, 418, {"request-id": "req_1"}, envelope("teapot_error", "Short and stout."))
        assert str(error) == (
            "Could not retrieve batch msgbatch_1: 418 teapot_error: Short and stout. (request-id req_1)."
        )

    @pytest.mark.parametrize(
        ("status", "hint"),
        [
            (307, "Redirects are not followed"),
            (401, "Check the API key in the connection's password"),
            (402, "raises the limit or pays"),
            (404, "the key belongs to the batch's workspace"),
            (413, "check the proxy on the way to the API"),
            (429, "share one limit of requests a minute"),
        ],
    )
    def test_says_what_to_do(self, status, hint):
        assert hint in str(refusal(RETRIEVE, status, {}, envelope()))

    def test_of_a_batch_that_is_too_large_says_to_split_it(self):
        create = endpoints.create([{"custom_id": "a", "params": {}}])
        assert "Split the batch" in str(refusal(create, 413, {}, envelope()))

    def test_for_a_list_that_is_not_there_says_to_check_the_host(self):
        assert "Check the connection's host" in str(refusal(endpoints.page(), 404, {}, envelope()))

    def test_has_the_request_id_of_its_body_where_no_header_has_one(self):
        assert refusal(RETRIEVE, 500, {}, envelope(request_id="req_body")).request_id == "req_body"

    def test_has_rather_the_request_id_of_its_header(self):
        assert refusal(RETRIEVE, 500, {"request-id": "req_head"}, envelope()).request_id == "req_head"

    @pytest.mark.parametrize(
        ("header", "expected"), [("true", True), ("TRUE", True), ("false", False), ("", None), ("1", None)]
    )
    def test_hands_on_the_apis_word_on_trying_again(self, header, expected):
        assert refusal(RETRIEVE, 500, {"x-should-retry": header}, b"").should_retry is expected

    def test_hands_on_when_to_come_again(self):
        assert refusal(RETRIEVE, 429, {"retry-after": "7"}, b"").retry_after == 7.0

    def test_of_html_shows_its_text_without_tags_scripts_and_styles(self):
        assert refusal(RETRIEVE, 502, {}, HTML).message == "502 Bad Gateway 502 Bad Gateway nginx & friends"

    def test_of_a_proxy_is_called_by_its_status(self):
        assert "502 Bad Gateway: 502 Bad Gateway" in str(refusal(RETRIEVE, 502, {}, HTML))

    def test_of_an_unknown_status_and_body_is_called_unknown(self):
        assert "599 unknown: no text" in str(refusal(RETRIEVE, 599, {}, b""))

    def test_with_an_envelope_without_a_message_shows_the_body(self):
        assert '"type": "api_error"' in refusal(RETRIEVE, 500, {}, envelope(message=None)).message

    def test_cut_in_the_middle_shows_what_came(self):
        assert refusal(RETRIEVE, 500, {}, envelope()[:20]).message == '{"type": "error", "e'

    @given(
        status=st.integers(300, 599),
        headers=st.dictionaries(
            st.sampled_from(["request-id", "retry-after", "retry-after-ms", "x-should-retry"]), st.text()
        ),
        body=st.binary() | st.text().map(str.encode),
    )
    def test_of_any_bytes_is_an_error_with_a_short_message(self, status, headers, body):
        error = refusal(RETRIEVE, status, headers, body)
        assert len(error.message) <= 203

    @given(body=st.binary(max_size=50).map(lambda noise: noise.replace(b"{", b"")))
    def test_of_any_bytes_is_one_printable_line(self, body):
        assert refusal(RETRIEVE, 500, {}, body).message.isprintable()


class TestRetryAfter:
    @given(seconds=st.floats(0, 1e9))
    def test_in_seconds(self, seconds):
        assert retry_after({"retry-after": repr(seconds)}, NOW) == seconds

    @given(milliseconds=st.integers(0, 10**9))
    def test_in_milliseconds(self, milliseconds):
        assert retry_after({"retry-after-ms": str(milliseconds)}, NOW) == pytest.approx(milliseconds / 1000)

    @given(seconds=st.integers(0, 10**6))
    def test_as_a_date(self, seconds):
        date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
        assert retry_after({"retry-after": date}, NOW) == seconds

    def test_as_a_date_without_a_zone_is_utc(self):
        assert retry_after({"retry-after": "Fri, 02 Jan 2026 03:04:15 -0000"}, NOW) == 10.0

    @given(seconds=st.integers(1, 10**6))
    def test_as_a_date_in_the_past_is_now(self, seconds):
        date = format_datetime(NOW - timedelta(seconds=seconds), usegmt=True)
        assert retry_after({"retry-after": date}, NOW) == 0.0

    def test_milliseconds_are_more_exact_than_seconds(self):
        assert retry_after({"retry-after": "2", "retry-after-ms": "1500"}, NOW) == 1.5

    @pytest.mark.parametrize("wrong", ["-1", "inf", "nan", "soon", ""])
    def test_seconds_count_where_milliseconds_make_no_sense(self, wrong):
        assert retry_after({"retry-after": "2", "retry-after-ms": wrong}, NOW) == 2.0

    @pytest.mark.parametrize("wrong", ["-1", "inf", "nan", "soon", "", "Fri, 99 Jan 2026 03:04:15 GMT"])
    def test_that_makes_no_sense_counts_as_none(self, wrong):
        assert retry_after({"retry-after": wrong}, NOW) is None

    def test_may_be_absent(self):
        assert retry_after({}, NOW) is None

    @given(text=st.text(), name=st.sampled_from(["retry-after", "retry-after-ms"]))
    @example(text="Mon, 01 Jan 0001 00:00:00 +2359", name="retry-after")
    @example(text="1e400", name="retry-after")
    def test_of_any_text_is_a_finite_number_or_none(self, text, name):
        seconds = retry_after({name: text}, NOW)
        assert seconds is None or 0 <= seconds < float("inf")


class TestExcerpt:
    @given(body=st.binary(max_size=1000))
    def test_of_any_bytes_is_one_short_printable_line(self, body):
        text = excerpt(body)
        assert text.isprintable()
        assert len(text) <= 203

    def test_of_a_long_body_ends_in_dots(self):
        assert excerpt(b"x" * 201) == "x" * 200 + "..."

    def test_of_a_body_that_just_fits_is_all_of_it(self):
        assert excerpt(b"x" * 200) == "x" * 200

    @given(before=st.integers(0, 220), key=st.text(st.sampled_from("0123456789"), min_size=20, max_size=20))
    def test_never_holds_half_of_what_is_to_be_hidden(self, before, key):
        text = excerpt(b"x" * before + key.encode(), lambda text: text.replace(key, "***"))
        assert not any(digit in text for digit in "0123456789")

    def test_behind_much_html_never_holds_half_of_what_is_to_be_hidden(self):
        body = b"<p>" * 1332 + b"0123456789"
        assert excerpt(body, lambda text: text.replace("0123456789", "***")).strip("*") == ""

    @pytest.mark.timeout(5)
    def test_of_a_megabyte_of_open_tags_is_made_in_no_time(self):
        assert excerpt(b"<" * 1_000_000) == "<" * 200 + "..."
