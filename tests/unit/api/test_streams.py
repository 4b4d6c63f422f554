from __future__ import annotations

import json
from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batches.api.errors import ResultsTruncatedError
from airflow_provider_batches.api.streams import ResultBytes, ResultLines


def lines(texts):
    for number, text in enumerate(texts):
        result = {"type": "succeeded", "message": {"text": text}}
        yield json.dumps({"custom_id": str(number), "result": result}, ensure_ascii=False).encode()


def cut_into_chunks(body, cuts):
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:stop] for start, stop in pairwise(places)]


def read(body, cuts, ended):
    reader, found = ResultLines(ended), []
    for chunk in cut_into_chunks(body, cuts):
        found.extend(reader.feed(chunk))
    found.extend(reader.end())
    return found


class TestResultLines:
    odd = st.text(st.characters(codec="utf-8") | st.sampled_from("\u2028\u2029\x85\x0b\x0c\x1c\r\n\t"))

    @given(
        texts=st.lists(odd, min_size=1, max_size=5),
        cuts=st.lists(st.integers(0)),
        newline=st.booleans(),
        blank=st.booleans(),
    )
    def test_are_the_same_wherever_the_stream_is_cut_into_chunks(self, texts, cuts, newline, blank, batch):
        body = (b"\n\r\n" if blank else b"\n").join(lines(texts)) + (b"\n" if newline else b"")
        found = read(body, cuts, batch(ended=True, request_counts={"succeeded": len(texts)}))
        assert [result.result.message["text"] for result in found] == texts

    @given(
        blanks=st.lists(
            st.sampled_from([b"\n", b"\n\n", b"\n\r\n", b"\n \t\n", b"\r\n", b"\n  "]), min_size=4, max_size=4
        ),
        cuts=st.lists(st.integers(0)),
    )
    def test_that_are_only_counted_are_as_many_regardless_of_what_is_between_them(self, blanks, cuts, batch):
        body = blanks[0] + b"".join(line + blank for line, blank in zip(lines("abc"), blanks[1:], strict=True))
        reader = ResultLines(batch(ended=True, request_counts={"succeeded": 3}))
        for chunk in cut_into_chunks(body, cuts):
            reader.skip(chunk)
        assert (list(reader.end()), reader.count) == ([], 3)

    @given(cut=st.integers(0), chunks=st.lists(st.integers(0)))
    def test_of_a_stream_that_ends_early_are_those_that_came_and_an_error(self, cut, chunks, batch):
        body = b"\n".join(lines(["one", "two\u2028", "three"]))
        body = body[: cut % len(body)]
        with pytest.raises(ResultsTruncatedError, match=r"received (0|1|2) of 3"):
            read(body, chunks, batch(ended=True, request_counts={"succeeded": 3}))

    def test_that_came_before_the_stream_ended_are_right(self, batch):
        reader = ResultLines(batch(ended=True, request_counts={"succeeded": 2}))
        assert [result.custom_id for result in reader.feed(b"\n".join(lines(["a", "b"])))] == ["0"]

    def test_of_which_there_are_too_many_are_an_error_too(self, batch):
        with pytest.raises(ResultsTruncatedError, match="received 2 of 1"):
            read(b"\n".join(lines(["a", "b"])), [], batch(ended=True, request_counts={"succeeded": 1}))

    @given(noise=st.binary(min_size=1).filter(lambda noise: noise.strip()))
    def test_that_are_none_are_an_error(self, noise, batch):
        with pytest.raises(ResultsTruncatedError):
            read(noise, [], batch(ended=True, request_counts={"succeeded": 1}))

    def test_that_are_broken_are_named_by_number_without_their_text(self, batch):
        body = next(lines(["a"])) + b'\n{"custom_id": "confidential"}\n'
        with pytest.raises(ResultsTruncatedError, match=r"received 1 of 2 \(result 2 is not a valid result") as caught:
            read(body, [], batch(ended=True, request_counts={"succeeded": 2}))
        assert "confidential" not in str(caught.value)

    def test_of_a_batch_whose_counts_say_nothing_are_not_taken_for_none(self, batch):
        with pytest.raises(ResultsTruncatedError, match="received 0 of 0"):
            read(b"", [], batch(ended=True, request_counts={}))

    def test_keep_no_more_than_one_line(self, batch):
        reader = ResultLines(batch(ended=True, request_counts={"succeeded": 1000}))
        body = b"".join(line + b"\n" for line in lines(["x" * 100] * 1000))
        for start in range(0, len(body), 50):
            for _ in reader.feed(body[start : start + 50]):
                pass
        assert sum(map(len, reader._rest)) < 200


#: What a text is on the wire, and what is read.
ODD = {
    "a lone surrogate": (rb'"half \ud99c of it"', "half \ufffd of it"),
    "a lone surrogate at the end": (rb'"\udc00"', "\ufffd"),
    "a pair": (rb'"\ud83d\ude00"', "\U0001f600"),
    "bytes that are not UTF-8": (b'"\xff"', "\ufffd"),
    "U+2028": ('"a\u2028b"'.encode(), "a\u2028b"),
    "a large number": (b"1" + b"0" * 400, 10**400),
    "a number of 5,000 digits": (b"7" * 5000, "7" * 5000),
    "a number of 5,000 digits beside a surrogate": (b'["\\ud800",' + b"7" * 5000 + b"]", ["\ufffd", "7" * 5000]),
    "infinity": (b"-Infinity", float("-inf")),
    "a line break that is not escaped": (b'"a\x1bb\tc"', "a\x1bb\tc"),
    "more levels than pydantic reads": (b"[" * 300 + b"]" * 300, json.loads("[" * 300 + "]" * 300)),
    "the key twice": (b'"a", "text": "b"', "b"),
}


class TestAnOddResult:
    """Python's and pydantic's JSON readers refuse some of these; all results must be read nevertheless."""

    @pytest.mark.parametrize(("raw", "text"), ODD.values(), ids=ODD)
    def test_comes_through_and_so_do_the_rest(self, raw, text, batch):
        odd = b'{"custom_id":"odd","result":{"type":"succeeded","message":{"text":%s}}}' % raw
        body = one(RESULT, odd, OTHER)
        ended = batch(ended=True, request_counts={"succeeded": 3})
        assert [line.result.message["text"] for line in read(body, [], ended) if line.custom_id == "odd"] == [text]
        assert b"".join(ResultBytes(ResultLines(ended), None, [body])) == body

    def test_may_be_the_first_after_a_byte_order_mark(self, batch):
        body, ended = b"\xef\xbb\xbf" + one(RESULT), batch(ended=True, request_counts={"succeeded": 1})
        assert [line.custom_id for line in read(body, [], ended)] == ["a"]
        assert b"".join(ResultBytes(ResultLines(ended), None, [body])) == body


def one(*lines):
    return b"".join(line + b"\n" for line in lines)


RESULT = b'{"custom_id":"a","result":{"type":"canceled"}}'
OTHER = RESULT.replace(b'"a"', b'"b"')


class TestResultBytes:
    def read(self, chunks, ended, total=2):
        return b"".join(ResultBytes(ResultLines(ended(ended=True, request_counts={"succeeded": total})), None, chunks))

    @given(cuts=st.lists(st.integers(0)), newline=st.booleans())
    def test_are_what_came(self, cuts, newline, batch):
        body = one(RESULT, b'{"result": {"type": "canceled"}, "custom_id": "b"}')
        body = body if newline else body[:-1]
        assert self.read(cut_into_chunks(body, cuts), batch) == body

    @pytest.mark.parametrize(
        "line",
        [
            b"<html>Please log in.</html>",
            b"[]",
            b'"custom_id"',
            b'{"custom_id":""}',
            b'{"custom_id":"b"}',
            b'{"custom_id":"b","result":null}',
            b'{"custom_id":"b","result":{"type":"canceled"}',
            b'{"custom_id":"b","result":{"type":"canc',
            b'{"custom_id": 5, "result": {"type": "canceled"}}',
            b'{"text": "the \\"custom_id\\" of another"}',
        ],
        ids=[
            "HTML",
            "list",
            "text",
            "no ID",
            "no result",
            "null",
            "no end",
            "half a line",
            "a number",
            "a text that names it",
        ],
    )
    @given(cuts=st.lists(st.integers(0)))
    def test_of_lines_that_are_no_results_are_refused(self, line, cuts, batch):
        """Or a proxy's page with the right number of lines would be saved, and the batch deleted."""
        with pytest.raises(ResultsTruncatedError, match=r"received 1 of 2 \(result 2 is not a valid result\)"):
            self.read(cut_into_chunks(one(RESULT, line), cuts), batch)

    @pytest.mark.parametrize(
        "body", [b"", RESULT, RESULT + b"\n", one(*(RESULT.replace(b'"a"', name) for name in (b'"a"', b'"b"', b'"c"')))]
    )
    def test_of_another_number_of_lines_are_refused(self, body, batch):
        with pytest.raises(ResultsTruncatedError, match=r"received . of 2"):
            self.read([body], batch)

    @pytest.mark.parametrize("cuts", [[], [7], [60, 61]])
    def test_with_an_error_among_them_show_what_the_api_said(self, cuts, batch):
        error = rb'{"type":"error","error":{"type":"overloaded_error","message":"Later, \ud800 not now."}}'
        said = "received 1 of 3 \\(result 2 is an error, overloaded_error: Later, \ufffd not now\\.\\)"
        with pytest.raises(ResultsTruncatedError, match=said):
            self.read(cut_into_chunks(one(RESULT, error), cuts), batch, 3)

    @pytest.mark.parametrize(
        "body",
        [
            b'{"custom_id":"a","error":{"type":"api_error","message":"Not now."}}',
            b'{"type":"api_error","message":"Not now."}',
            b'{"error":{"code":"api_error","message":"Not now."}}',
            json.dumps({"type": "error", "error": {"type": "api_error", "message": "Not now."}}, indent=2).encode(),
            '\ufeff{"type":"error","error":{"type":"api_error","message":"Not now."}}'.encode("utf-16-le"),
        ],
        ids=["with an ID", "flat", "OpenAI's shape", "in several lines", "UTF-16"],
    )
    def test_of_which_an_error_comes_instead_show_it_in_any_shape(self, body, batch):
        with pytest.raises(ResultsTruncatedError, match=r"received 0 of 2 \(result 1 is an error, api_error: Not now"):
            self.read([body], batch)

    def test_show_no_secret_that_an_error_among_them_echoes(self, batch):
        error = b'{"type":"error","error":{"type":"x","message":"No such key: sk-ant-canary"}}'
        lines = ResultLines(batch(ended=True), lambda text: text.replace("sk-ant-canary", "***"))
        with pytest.raises(ResultsTruncatedError, match=r"No such key: \*\*\*"):
            list(ResultBytes(lines, None, [one(error)]))

    @pytest.mark.parametrize(
        "again", [RESULT, b'{"result": {"type": "canceled"}, "custom_id": "a"}', RESULT.replace(b'"a"', b'"\\u0061"')]
    )
    def test_of_which_one_came_twice_are_refused(self, again, batch):
        with pytest.raises(ResultsTruncatedError, match="the result of 'a' appears twice"):
            self.read([one(RESULT, again)], batch)

    @pytest.mark.parametrize(
        "counts", [{"succeeded": 1, "refused": 1}, {"paused": 2}, {"succeeded": 2, "errored": None}]
    )
    def test_are_as_many_as_the_counts_say_those_included_that_nobody_knows(self, counts, batch):
        body = one(RESULT, OTHER)
        lines = ResultLines(batch(ended=True, request_counts=counts))
        assert b"".join(ResultBytes(lines, None, [body])) == body

    @pytest.mark.parametrize("counts", [{"succeeded": -1, "errored": 3}, {"succeeded": "2"}, {"succeeded": 2.0}])
    def test_are_not_taken_for_all_if_the_counts_cannot_be_read(self, counts, batch):
        lines = ResultLines(batch(ended=True, request_counts=counts))
        with pytest.raises(ResultsTruncatedError, match=r"received . of 0"):
            list(ResultBytes(lines, None, [one(RESULT, OTHER)]))

    def test_that_break_off_say_how_many_came_and_nothing_of_what_the_network_said(self, batch):
        def chunks():
            yield one(RESULT)
            raise httpx.RemoteProtocolError("illegal chunk header: confidential")

        with pytest.raises(ResultsTruncatedError, match=r"received 1 of 2 \(RemoteProtocolError\)") as caught:
            self.read(chunks(), batch)
        assert "confidential" not in str(caught.value)

    def test_are_counted_while_they_come(self, batch):
        lines = ResultLines(batch(ended=True, request_counts={"succeeded": 2}))
        results = ResultBytes(lines, "req_1", [one(RESULT), one(OTHER)])
        counts = [results.lines for _ in results]
        assert (counts, results.request_id) == ([1, 2], "req_1")
