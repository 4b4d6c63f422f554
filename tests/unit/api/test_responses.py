from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_batches.api import endpoints
from airflow_provider_batches.api.errors import (
    AccessDeniedError,
    APIStatusError,
    BatchesError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    SpendLimitError,
)
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.models import BatchPage, MessageBatch
from airflow_provider_batches.api.responses import read_response, read_retry_after
from airflow_provider_batches.api.settings import ClientSettings

KEY = "0123456789"
SETTINGS = ClientSettings.parse(api_key=KEY, labels={"base_url": "the host", "api_key": "the password"})
GATEWAY = ClientSettings.parse(api_key=KEY, base_url="https://gateway.example")
RETRIEVE = endpoints.retrieve("msgbatch_1")
DELETE = endpoints.delete("msgbatch_1")
CANCEL = endpoints.cancel("msgbatch_1")
CREATE = endpoints.create([{"custom_id": "a", "params": {}}])
LIST = endpoints.page()
CALLS = [RETRIEVE, DELETE, CANCEL, LIST]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
URL = "https://api.anthropic.com/v1/messages/batches/msgbatch_1"
FOREIGN = "The answer is not from the API: a proxy or firewall answered."
HTML = b"""<html><head><title>502 Bad Gateway</title><style>h1 {color: red}</style><script>alert("x")</script></head>
<body><h1>502&nbsp;Bad Gateway</h1><hr>nginx &amp; friends</body></html>"""


def envelope(type_="api_error", message="It broke.", details=None, request_id="req_body"):
    error = {"type": type_, "message": message} | ({} if details is None else {"details": details})
    return json.dumps({"type": "error", "error": error, "request_id": request_id}).encode()


def read(call, status, body=b"", headers=None, settings=SETTINGS, **options):
    # Header values as the wire has them, which may be any text.
    raw = [(name, value.encode("utf-8", "surrogatepass")) for name, value in (headers or {}).items()]
    return read_response(call, httpx.Response(status, headers=raw, content=body), settings, **options)


def error_of(call, status, body=b"", headers=None, settings=SETTINGS, **options):
    """Return the error that a response is read as."""
    with pytest.raises(BatchesError) as caught:
        read(call, status, body, headers, settings, **options)
    return caught.value


def read_or_error(call, status, body):
    try:
        return read(call, status, body)
    except InvalidResponseError as error:
        return error


class TestARightAnswer:
    def test_is_read_as_the_call_says(self, batch_json):
        assert isinstance(read(RETRIEVE, 200, json.dumps(batch_json()).encode()), MessageBatch)

    def test_has_the_request_id_of_its_header(self, batch_json):
        answer = read(RETRIEVE, 200, json.dumps(batch_json()).encode(), {"request-id": "req_1"})
        assert answer.request_id == "req_1"

    @pytest.mark.parametrize("body", [b"", b" \n"])
    def test_to_delete_may_be_a_204_without_a_body(self, body):
        answer = read(DELETE, 204, body, {"request-id": "req_1"})
        assert (answer.id, answer.request_id) == ("msgbatch_1", "req_1")

    def test_to_list_holds_the_batches_as_they_came(self):
        page = read(LIST, 200, b'{"data": [{"id": 5}], "has_more": false}')
        assert page == BatchPage(data=[{"id": 5}], has_more=False)


class TestAnOddRightAnswer:
    """Which a strict reader of JSON refuses: the batch would be unreadable permanently."""

    @pytest.mark.parametrize(
        ("before", "note"),
        [(b"\xef\xbb\xbf", b'"x"'), (b"", rb'"half \ud99c"'), (b"", b'"\xff"'), (b"", b"9" * 5000), (b"", b'"a\tb"')],
        ids=["BOM", "surrogate", "no UTF-8", "large number", "control character"],
    )
    def test_is_read_all_the_same(self, before, note, batch_json):
        body = before + json.dumps(batch_json(note="NOTE")).encode().replace(b'"NOTE"', note)
        assert read(RETRIEVE, 200, body).processing_status == "in_progress"
        page = read(LIST, 200, b'%b{"data": [%b], "has_more": false}' % (before, body.removeprefix(before)))
        assert page.batches()[0].processing_status == "in_progress"

    def test_may_be_utf_16(self, batch_json):
        assert read(RETRIEVE, 200, json.dumps(batch_json()).encode("utf-16")).id == "msgbatch_1"


class TestA2xxOfAnotherShape:
    @pytest.mark.parametrize(
        ("call", "body"),
        [
            (RETRIEVE, b""),
            (RETRIEVE, b"<html>Please log in.</html>"),
            (RETRIEVE, envelope()),
            (CANCEL, b'{"id": "msgbatch_1"}'),
            (DELETE, b""),
            (DELETE, b'{"id": "msgbatch_1"}'),
            (DELETE, b'{"id": "msgbatch_1", "type": "message_batch", "processing_status": "ended"}'),
            (LIST, b"[]"),
            (LIST, b'{"data": []}'),
            (LIST, b'{"data": [5], "has_more": false}'),
        ],
        ids=[
            "nothing",
            "HTML",
            "error",
            "part",
            "empty",
            "no type",
            "batch",
            "list",
            "no has_more",
            "no objects",
        ],
    )
    def test_proves_nothing(self, call, body):
        error = error_of(call, 200, body, has_answered=True)
        proof = error.evidence
        assert (type(error), proof.proof, proof.outage, proof.in_doubt) == (
            InvalidResponseError,
            Proof.NOTHING,
            True,
            True,
        )

    def test_names_field_excerpt_url_and_request_id(self, batch_json):
        body = json.dumps(batch_json(processing_status=7)).encode()
        text = str(error_of(RETRIEVE, 200, body, {"request-id": "req_1"}))
        assert text.startswith(
            "Could not retrieve batch msgbatch_1: status 200 with an unreadable body: processing_status: "
        )
        assert "it begins '{\"id" in text
        assert text.endswith(f"(GET {URL}, request-id req_1).")

    def test_has_the_request_id(self):
        assert error_of(RETRIEVE, 200, b"[]", {"request-id": "req_1"}).request_id == "req_1"

    @pytest.mark.parametrize("call", CALLS, ids=lambda call: call.method)
    def test_shows_the_error_that_came_with_it(self, call):
        text = str(error_of(call, 200, b"\xef\xbb\xbf" + envelope("overloaded_error", "Later."), {"request-id": "r"}))
        assert "status 200 with an error, overloaded_error: Later. (" in text

    def test_without_a_request_id_is_not_the_apis(self):
        assert str(error_of(RETRIEVE, 200, b"<html>Please log in.</html>")).endswith(FOREIGN)

    def test_does_not_show_secrets(self):
        assert "begins 'the key is ***'" in str(error_of(RETRIEVE, 200, f"the key is {KEY}".encode()))

    @pytest.mark.parametrize("call", [RETRIEVE, CANCEL])
    def test_may_be_about_another_batch(self, call, batch_json):
        error = error_of(call, 200, json.dumps(batch_json(id="msgbatch_2")).encode(), {"request-id": "req_1"})
        assert "the answer is about another batch, 'msgbatch_2'" in str(error)

    def test_to_delete_may_be_about_another_batch(self):
        body = b'{"id": "msgbatch_2", "type": "message_batch_deleted"}'
        assert "about another batch, 'msgbatch_2'" in str(error_of(DELETE, 200, body))

    @given(call=st.sampled_from(CALLS), status=st.integers(200, 299), body=st.binary())
    def test_of_any_bytes_is_an_invalid_response(self, call, status, body):
        assert isinstance(read_or_error(call, status, body), (call.model, InvalidResponseError))

    @given(call=st.sampled_from(CALLS), body=st.binary())
    def test_of_any_bytes_is_reported_in_one_line(self, call, body):
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
    def test_of_any_json_is_an_invalid_response(self, call, body):
        assert isinstance(read_or_error(call, 200, json.dumps(body).encode()), (call.model, InvalidResponseError))


class TestARefusalOfTheAPI:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
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
    @pytest.mark.parametrize("call", [RETRIEVE, CANCEL], ids=["retrieve", "cancel"])
    def test_has_a_class_for_what_a_caller_would_do(self, call, status, kind):
        assert type(error_of(call, status, envelope())) is kind

    def test_to_list_is_not_about_a_batch(self):
        assert type(error_of(LIST, 404, envelope())) is APIStatusError

    @pytest.mark.parametrize("code", ["enforced_spend_limit_reached", "contract_spend_limit_reached"])
    def test_for_a_spend_limit_is_not_a_rate_limit(self, code):
        assert (
            type(error_of(RETRIEVE, 429, envelope("rate_limit_error", details={"error_code": code}))) is SpendLimitError
        )

    @pytest.mark.parametrize("details", [{"error_code": "other"}, {"error_code": ["x"]}, {}, [1], "text", 5])
    def test_with_other_details_is_a_rate_limit(self, details):
        assert type(error_of(RETRIEVE, 429, envelope(details=details))) is RateLimitError

    @pytest.mark.parametrize("details", [{"a": 1}, [1], "text", 5])
    def test_has_its_type_and_message_whatever_its_details_are(self, details):
        error = error_of(RETRIEVE, 400, envelope("invalid_request_error", "Wrong.", details))
        assert (error.error_type, error.message) == ("invalid_request_error", "Wrong.")

    def test_says_in_one_line_what_happened_to_which_batch(self):
        error = error_of(RETRIEVE, 418, envelope("teapot_error", "Short and\nstout."), {"request-id": "req_1"})
        assert str(error) == (
            f"Could not retrieve batch msgbatch_1: 418 teapot_error: Short and stout. (GET {URL}, request-id req_1)."
        )

    @pytest.mark.parametrize(
        ("call", "status", "hint"),
        [
            (RETRIEVE, 401, "Check the password, and that it may use batches."),
            (RETRIEVE, 402, "Raise the spend limit or pay"),
            (RETRIEVE, 404, "the key belongs to the batch's workspace"),
            (RETRIEVE, 413, "This request is small, so a proxy may limit its size. Check proxy."),
            (CREATE, 413, "Split the batch."),
            (RETRIEVE, 429, "share one rate limit of requests a minute"),
            (LIST, 404, "Check the host: it does not serve the Message Batches API."),
        ],
    )
    def test_says_what_to_do(self, call, status, hint):
        assert hint in str(error_of(call, status, envelope()))

    @pytest.mark.parametrize(
        ("headers", "expected"), [({}, "req_body"), ({"request-id": "req_head"}, "req_head")], ids=["body", "header"]
    )
    def test_has_the_request_id_of_its_header_or_else_of_its_body(self, headers, expected):
        assert error_of(RETRIEVE, 500, envelope(), headers).request_id == expected

    @pytest.mark.parametrize(
        ("header", "expected"), [("true", True), ("TRUE", True), ("false", False), ("", None), ("1", None)]
    )
    def test_has_the_apis_word_on_retrying(self, header, expected):
        error = error_of(RETRIEVE, 500, envelope(), {"x-should-retry": header})
        assert (error.should_retry, error.retryable) == (expected, expected is not False)

    def test_has_the_seconds_after_which_to_retry(self):
        assert error_of(RETRIEVE, 429, envelope(), {"retry-after": "7"}).retry_after == 7.0

    def test_with_an_envelope_without_a_message_shows_the_body(self):
        assert '"type": "api_error"' in error_of(RETRIEVE, 500, envelope(message=None)).message

    def test_with_an_endless_message_is_cut(self):
        assert len(error_of(RETRIEVE, 400, envelope(message="x" * 1_000_000)).message) == 2003

    def test_of_a_create_at_the_apis_own_host_leaves_no_doubt(self):
        assert not error_of(CREATE, 400, envelope()).evidence.in_doubt

    def test_of_a_create_through_a_gateway_leaves_doubt(self):
        assert error_of(CREATE, 400, envelope(), settings=GATEWAY).evidence.in_doubt


class TestTheAPIsOwnAnswer:
    """It has the error envelope and a request ID."""

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            (envelope(), {}),
            (envelope(request_id=None), {"request-id": "req_1"}),
            (b"\xef\xbb\xbf" + envelope(), {}),
            (envelope(message="\ud800"), {}),
        ],
        ids=["request ID in the body", "request ID in the header", "BOM", "surrogate"],
    )
    def test_is_recognized(self, body, headers):
        error = error_of(RETRIEVE, 404, body, headers)
        assert (type(error), error.error_type) == (NotFoundError, "api_error")

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"404 page not found\n",
            HTML,
            envelope()[:40],
            envelope(request_id=None),
            envelope(request_id=5),
            b'{"error": {"type": "not_found_error", "message": "No."}, "request_id": "req_1"}',
            b'{"type": "not_found", "error": {"type": "x", "message": "No."}, "request_id": "req_1"}',
            b'{"type": "error", "error": {"message": "No."}, "request_id": "req_1"}',
            b'{"type": "error", "error": null, "request_id": "req_1"}',
            b'{"type": "error", "message": "No.", "request_id": "req_1"}',
            b'{"detail": "Not Found"}',
            b"[" * 100_000,
        ],
        ids=[
            *("nothing", "text", "HTML", "incomplete", "no request ID", "odd request ID", "OpenAI's shape"),
            *("another type", "no error type", "null", "flat", "FastAPI's shape", "nested deeply"),
        ],
    )
    @pytest.mark.parametrize("call", CALLS, ids=lambda call: call.method)
    def test_is_nothing_else(self, call, body):
        headers = {"request-id": "req_1"} if b"request_id" not in body else {}
        if body == envelope(request_id=None):
            headers = {}
        error = error_of(call, 404, body, headers)
        assert (type(error), error.evidence.proof) == (InvalidResponseError, Proof.WRONG_ADDRESS)


class TestAnAnswerOfSomebodyElse:
    @pytest.mark.parametrize("status", [301, 307, 400, 401, 402, 403, 404, 405, 409, 410, 422, 451])
    @pytest.mark.parametrize(("answered", "proof"), [(True, Proof.NOTHING), (False, Proof.WRONG_ADDRESS)])
    def test_is_an_invalid_response_that_proves_nothing(self, status, answered, proof):
        error = error_of(RETRIEVE, status, HTML, has_answered=answered)
        assert (type(error), error.evidence.proof, error.retryable) == (InvalidResponseError, proof, True)

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_is_every_redirect_even_in_the_apis_form(self, status):
        assert type(error_of(RETRIEVE, status, envelope())) is InvalidResponseError

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (408, ServerError),
            (413, RequestTooLargeError),
            (429, RateLimitError),
            (500, ServerError),
            (502, ServerError),
        ],
    )
    def test_may_mean_the_same_as_the_apis(self, status, kind):
        assert type(error_of(RETRIEVE, status, HTML)) is kind

    @pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 413, 429, 500, 502, 503])
    @pytest.mark.parametrize("body", [HTML, envelope(request_id=None)], ids=["HTML", "minted envelope"])
    def test_says_who_answered_and_names_the_url(self, status, body):
        text = str(error_of(RETRIEVE, status, body))
        assert (FOREIGN in text, f"(GET {URL}, request-id None)" in text) == (True, True)

    @pytest.mark.parametrize("status", [400, 404, 429, 500])
    def test_is_not_said_of_the_apis_own(self, status):
        assert "proxy or firewall" not in str(error_of(RETRIEVE, status, envelope()))

    @pytest.mark.parametrize(
        ("status", "hint"),
        [
            (302, "Redirects are not followed, so that no other host receives the key. Correct the host."),
            (403, "Check the host."),
        ],
    )
    def test_says_what_to_do(self, status, hint):
        assert str(error_of(RETRIEVE, status, HTML)).endswith(hint)

    def test_has_no_word_on_retrying(self):
        assert error_of(RETRIEVE, 503, HTML, {"x-should-retry": "false"}).should_retry is None

    def test_as_html_is_shown_without_tags_scripts_and_styles(self):
        assert error_of(RETRIEVE, 502, HTML).message == "502 Bad Gateway 502 Bad Gateway nginx & friends"

    def test_is_named_by_its_status(self):
        assert "502 Bad Gateway: 502 Bad Gateway" in str(error_of(RETRIEVE, 502, HTML))

    def test_with_an_unknown_status_and_no_body_is_named_unknown(self):
        assert "599 unknown: no text" in str(error_of(RETRIEVE, 599))

    def test_that_was_cut_short_shows_what_came(self):
        assert error_of(RETRIEVE, 500, envelope()[:20]).message == '{"type": "error", "e'

    @pytest.mark.parametrize(
        ("body", "type_", "message"),
        [
            (
                b'{"error": {"message": "No.", "type": "invalid_request_error", "code": null}}',
                "invalid_request_error",
                "No.",
            ),
            (b'{"type": "error", "message": "No."}', "error", "No."),
            (b'{"type": "error", "error": null}', "error", '{"type": "error", "error": null}'),
            (b'{"error": "No."}', None, "No."),
            (b'{"error": {"message": "No.", "type": null, "code": "x"}}', "x", "No."),
            (b'{"error": {"message": "No.", "code": 503}}', None, "No."),
            (b'\xef\xbb\xbf{"type": "x", "message": "No."}', "x", "No."),
            (rb'{"type": "x", "message": "No \ud800way."}', "x", "No \ufffdway."),
            (b'{"type": "x", "message": "No\xff."}', "x", "No\ufffd."),
            ('{"type": "x", "message": "Nö."}'.encode("utf-16"), "x", "Nö."),
            ('{"type": "x", "message": "Nö."}'.encode("utf-32-be"), "x", "Nö."),
            (b'{"type": "x", "message": "No\x07 way."}', "x", "No way."),
        ],
        ids=[
            *("OpenAI's shape", "flat", "null", "a text", "a code", "a number", "BOM", "surrogate", "no UTF-8"),
            *("UTF-16", "UTF-32", "control character"),
        ],
    )
    def test_is_read_as_far_as_it_can_be(self, body, type_, message):
        error = error_of(RETRIEVE, 500, body)
        assert (error.error_type, error.message) == (type_, message)

    @pytest.mark.parametrize(
        ("charset", "raw", "message"),
        [
            ("iso-8859-1", "Schlüssel".encode("latin-1"), "Schlüssel"),
            ("shift_jis", "鍵".encode("shift_jis"), "鍵"),
            *(
                (name, "Schlüssel".encode(), "Schlüssel")
                for name in ("utf-8", "unknown", "hex", "idna", "undefined", "")
            ),
        ],
    )
    def test_is_decoded_as_its_header_says_if_that_is_an_encoding(self, charset, raw, message):
        headers = {"content-type": f"application/json; charset={charset}"}
        error = error_of(RETRIEVE, 500, b'{"type": "x", "message": "%b"}' % raw, headers)
        assert (error.error_type, error.message) == ("x", message)

    @given(
        status=st.integers(300, 599),
        headers=st.dictionaries(
            st.sampled_from(["request-id", "retry-after", "retry-after-ms", "x-should-retry"]), st.text()
        ),
        body=st.binary() | st.text().map(str.encode),
    )
    def test_of_any_bytes_is_an_error_with_a_short_text(self, status, headers, body):
        assert len(str(error_of(RETRIEVE, status, body, headers))) <= 1200

    @given(body=st.binary(max_size=50).map(lambda noise: noise.replace(b"{", b"")))
    def test_of_any_bytes_is_shown_as_one_printable_line(self, body):
        assert error_of(RETRIEVE, 500, body).message.isprintable()


class TestRetryAfter:
    @given(seconds=st.floats(0, 1e9))
    def test_in_seconds(self, seconds):
        assert read_retry_after({"retry-after": repr(seconds)}, NOW) == seconds

    @given(milliseconds=st.integers(0, 10**9))
    def test_in_milliseconds(self, milliseconds):
        assert read_retry_after({"retry-after-ms": str(milliseconds)}, NOW) == pytest.approx(milliseconds / 1000)

    @given(seconds=st.integers(0, 10**6))
    def test_as_a_date(self, seconds):
        date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
        assert read_retry_after({"retry-after": date}, NOW) == seconds

    def test_as_a_date_without_a_zone_is_utc(self):
        assert read_retry_after({"retry-after": "Fri, 02 Jan 2026 03:04:15 -0000"}, NOW) == 10.0

    @given(seconds=st.integers(1, 10**6))
    def test_as_a_date_in_the_past_is_now(self, seconds):
        date = format_datetime(NOW - timedelta(seconds=seconds), usegmt=True)
        assert read_retry_after({"retry-after": date}, NOW) == 0.0

    def test_milliseconds_are_more_exact_than_seconds(self):
        assert read_retry_after({"retry-after": "2", "retry-after-ms": "1500"}, NOW) == 1.5

    @pytest.mark.parametrize("wrong", ["-1", "inf", "nan", "soon", ""])
    def test_seconds_count_if_milliseconds_make_no_sense(self, wrong):
        assert read_retry_after({"retry-after": "2", "retry-after-ms": wrong}, NOW) == 2.0

    @pytest.mark.parametrize("wrong", ["-1", "inf", "nan", "soon", "", "Fri, 99 Jan 2026 03:04:15 GMT"])
    def test_that_makes_no_sense_counts_as_none(self, wrong):
        assert read_retry_after({"retry-after": wrong}, NOW) is None

    def test_may_be_absent(self):
        assert read_retry_after({}, NOW) is None

    @given(text=st.text(), name=st.sampled_from(["retry-after", "retry-after-ms"]))
    @example(text="Mon, 01 Jan 0001 00:00:00 +2359", name="retry-after")
    @example(text="1e400", name="retry-after")
    def test_of_any_text_is_a_finite_number_or_none(self, text, name):
        seconds = read_retry_after({name: text}, NOW)
        assert seconds is None or 0 <= seconds < float("inf")


class TestWhatIsShownOfABody:
    def shown(self, body, **options):
        return error_of(RETRIEVE, 500, body, **options).message

    @given(body=st.binary(max_size=1000))
    def test_is_one_short_printable_line(self, body):
        text = self.shown(body)
        assert (text.isprintable(), len(text) <= 203) == (True, True)

    def test_ends_in_dots_if_the_body_is_long(self):
        assert self.shown(b"x" * 201) == "x" * 200 + "..."

    def test_is_all_of_a_body_that_just_fits(self):
        assert self.shown(b"x" * 200) == "x" * 200

    @given(before=st.integers(0, 220))
    def test_never_has_half_of_a_secret(self, before):
        assert not any(digit in self.shown(b"x" * before + KEY.encode()) for digit in KEY)

    def test_never_has_half_of_a_secret_behind_much_html(self):
        assert self.shown(b"<p>" * 1332 + KEY.encode()).strip("*") == ""

    @pytest.mark.parametrize(
        "body",
        [
            KEY.encode(),
            b"<p>" + KEY.encode() + b"</p>",
            b"<p>&#48;123456789</p>",
            envelope(message=f"bad key {KEY}"),
            envelope().replace(b"It broke.", b"bad key \\u003012345678\\u0039"),
            envelope(type_=KEY),
            envelope(request_id=KEY),
        ],
        ids=["text", "HTML", "HTML entity", "message", "escaped", "error type", "request ID"],
    )
    @pytest.mark.parametrize("status", [200, 302, 400, 403, 429, 500])
    def test_never_has_a_secret(self, status, body):
        error = error_of(RETRIEVE, status, body, {"request-id": f"req {KEY}"})
        assert KEY not in f"{error} {error!r} {vars(error)}"

    def test_never_has_a_secret_of_former_settings(self):
        redact = lambda text: text.replace("the former key", "***")  # noqa: E731
        assert self.shown(b"bad key: the former key", redact=redact) == "bad key: ***"

    @pytest.mark.timeout(5)
    def test_is_found_in_no_time_in_a_megabyte_of_open_tags(self):
        assert self.shown(b"<" * 1_000_000) == "<" * 200 + "..."
