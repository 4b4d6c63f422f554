from __future__ import annotations

import json
from hashlib import sha256
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batches.api import bodies, endpoints
from airflow_provider_batches.api.endpoints import check_batch_id
from airflow_provider_batches.api.errors import InvalidArgumentError
from airflow_provider_batches.api.models import BatchPage, BatchRequest, DeletedBatch, MessageBatch

REQUEST = {"custom_id": "a", "params": {"model": "m"}}


@pytest.mark.parametrize(
    ("call", "method", "path", "model"),
    [
        (endpoints.create([REQUEST]), "POST", "/v1/messages/batches", MessageBatch),
        (endpoints.retrieve("b_1"), "GET", "/v1/messages/batches/b_1", MessageBatch),
        (endpoints.page(), "GET", "/v1/messages/batches", BatchPage),
        (endpoints.cancel("b_1"), "POST", "/v1/messages/batches/b_1/cancel", MessageBatch),
        (endpoints.delete("b_1"), "DELETE", "/v1/messages/batches/b_1", DeletedBatch),
        (endpoints.results("b_1"), "GET", "/v1/messages/batches/b_1/results", None),
    ],
    ids=["create", "retrieve", "list", "cancel", "delete", "results"],
)
def test_each_endpoint_is_what_the_reference_says(call, method, path, model):
    assert (call.method, call.path, call.model) == (method, path, model)


CALLS = {
    "create": endpoints.create([REQUEST]),
    "retrieve": endpoints.retrieve("b"),
    "list": endpoints.page(),
    "cancel": endpoints.cancel("b"),
    "delete": endpoints.delete("b"),
    "results": endpoints.results("b"),
}


def test_only_a_create_makes_something_that_costs_money():
    assert [name for name, call in CALLS.items() if call.creates] == ["create"]


def test_the_batchs_state_explains_a_refused_change_or_read():
    assert [name for name, call in CALLS.items() if call.depends_on_state] == ["cancel", "delete", "results"]


@pytest.mark.parametrize("call", [endpoints.create([REQUEST]), endpoints.retrieve("b")], ids=["body", "none"])
def test_a_call_has_the_size_and_the_hash_of_its_body(call):
    body = call.body.read() if call.body else b""

    assert call.body_sha256 == sha256(body).hexdigest()
    assert call.body is None or call.body.size == len(body)


def test_a_large_body_is_kept_in_a_file(monkeypatch):
    monkeypatch.setattr(bodies, "_IN_MEMORY", 100)
    monkeypatch.setattr(bodies, "_PIECE", 64)
    requests = [{"custom_id": str(i), "params": {"x": "y" * 50}} for i in range(5)]
    body = endpoints.create(requests).body

    for _ in range(2):  # each attempt has its own pieces
        assert json.loads(body.read()) == {"requests": requests}
    assert max(map(len, body.pieces())) == 64


class TestABatchID:
    @pytest.mark.parametrize("batch_id", ["msgbatch_01Example", "a", "A-b_c.d~e", "a:b@c!$&'()*+;=", "x" * 256])
    def test_of_ordinary_characters_is_taken(self, batch_id):
        assert check_batch_id(batch_id) == batch_id

    @pytest.mark.parametrize(
        ("batch_id", "culprit"),
        [
            ("", "is not a batch ID"),
            ("  ", "is not a batch ID"),
            ("None", "is not a batch ID"),
            (" None\n", "is not a batch ID"),
            ("a/b", "'/'"),
            ("a\\b", r"'\\\\'"),
            ("a?b", "'?'"),
            ("a#b", "'#'"),
            ("a%2Fb", "'%'"),
            ("..", "'..'"),
            ("a..b", "'..'"),
            (".", "'..'"),
            ("a b", "' '"),
            ("a,b", "','"),
            ("a, b", "','"),
            ("a\n", r"'\\n'"),
            ("a\x00", r"'\\x00'"),
            ("a\x7f", r"'\\x7f'"),
            ("a\u200bb", r"'\\u200b'"),
            ("ä", "non-ASCII"),
            ("x" * 257, "257 characters"),
        ],
    )
    def test_that_cannot_be_one_is_refused_with_the_culprit(self, batch_id, culprit):
        with pytest.raises(InvalidArgumentError) as caught:
            check_batch_id(batch_id)
        assert culprit.replace("\\\\", "\\") in str(caught.value)

    @pytest.mark.parametrize("batch_id", [None, 5, b"a", ["a"], {"id": "a"}])
    def test_that_is_not_a_string_is_refused_with_its_type(self, batch_id):
        with pytest.raises(InvalidArgumentError, match=type(batch_id).__name__):
            check_batch_id(batch_id)

    def test_in_a_long_list_is_not_shown_in_full(self):
        with pytest.raises(InvalidArgumentError) as caught:
            check_batch_id(["msgbatch"] * 1000)
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize("endpoint", [endpoints.retrieve, endpoints.cancel, endpoints.delete, endpoints.results])
    def test_is_checked_by_every_endpoint(self, endpoint):
        with pytest.raises(InvalidArgumentError):
            endpoint("a/../../models")

    @pytest.mark.parametrize("cursor", ["after_id", "before_id"])
    def test_is_checked_if_a_list_continues_from_it(self, cursor):
        with pytest.raises(InvalidArgumentError):
            endpoints.page(**{cursor: "a b"})

    @given(batch_id=st.text(st.characters(max_codepoint=0x250)) | st.text())
    def test_never_changes_the_url_around_it(self, batch_id):
        try:
            call = endpoints.cancel(batch_id)
        except InvalidArgumentError:
            return
        url = httpx.URL("https://api.anthropic.com/prefix").join("/prefix" + call.path)
        head, last, cancel = url.raw_path.decode().rsplit("/", 2)
        found = (url.host, head, unquote(last), cancel)
        assert found == ("api.anthropic.com", "/prefix/v1/messages/batches", batch_id, "cancel")


class TestAPage:
    @pytest.mark.parametrize("limit", [1, 20, 1000])
    def test_has_a_size(self, limit):
        assert endpoints.page(limit).params == {"limit": str(limit)}

    @pytest.mark.parametrize("limit", [0, -1, 1001, True, "20", 2.0, None])
    def test_has_no_other_size(self, limit):
        with pytest.raises(InvalidArgumentError, match="page_size: got"):
            endpoints.page(limit)

    @pytest.mark.parametrize("cursor", ["after_id", "before_id"])
    def test_continues_from_a_batch(self, cursor):
        assert endpoints.page(5, **{cursor: "b_1"}).params == {"limit": "5", cursor: "b_1"}

    def test_goes_in_one_direction_only(self):
        with pytest.raises(InvalidArgumentError, match="one of them"):
            endpoints.page(after_id="a", before_id="b")


class TestCreate:
    @given(
        requests=st.lists(
            st.fixed_dictionaries(
                {
                    "custom_id": st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True),
                    "params": st.dictionaries(st.text(), st.text() | st.integers() | st.booleans() | st.none()),
                }
            ),
            min_size=1,
            max_size=5,
            unique_by=lambda request: request["custom_id"],
        )
    )
    def test_sends_the_requests_unchanged(self, requests):
        assert json.loads(endpoints.create(requests).body.read()) == {"requests": requests}

    def test_takes_models_too(self):
        assert json.loads(endpoints.create([BatchRequest(**REQUEST)]).body.read()) == {"requests": [REQUEST]}

    def test_takes_a_generator(self):
        body = endpoints.create({"custom_id": str(i), "params": {}} for i in range(3)).body.read()
        assert [request["custom_id"] for request in json.loads(body)["requests"]] == ["0", "1", "2"]

    def test_keeps_fields_it_does_not_know(self):
        assert json.loads(endpoints.create([{**REQUEST, "priority": 1}]).body.read())["requests"][0]["priority"] == 1

    @pytest.mark.parametrize("requests", ["text", b"bytes", REQUEST, None, 5])
    def test_of_something_that_is_not_a_list_is_refused_with_its_type(self, requests):
        with pytest.raises(InvalidArgumentError, match=f"expected a list .* got {type(requests).__name__}"):
            endpoints.create(requests)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x", "\ud800"])
    def test_of_what_is_not_json_is_refused_with_the_custom_id(self, value):
        with pytest.raises(InvalidArgumentError, match=r"requests\[0\]\.params: cannot be encoded as JSON: .*'a'"):
            endpoints.create([{"custom_id": "a", "params": {"x": value}}])

    def test_of_a_request_that_is_nested_too_deeply_is_refused(self):
        params: dict[str, object] = {}
        for _ in range(100_000):
            params = {"x": params}
        with pytest.raises(InvalidArgumentError, match=r"requests\[0\]\.params: cannot be encoded as JSON: .*'a'"):
            endpoints.create([{"custom_id": "a", "params": params}])

    def test_of_a_request_that_holds_itself_is_refused(self):
        params: dict[str, object] = {}
        params["self"] = params
        with pytest.raises(InvalidArgumentError, match="cannot be encoded as JSON"):
            endpoints.create([{"custom_id": "a", "params": params}])

    @pytest.mark.parametrize("wrong", [{}, {"custom_id": "a"}, {"custom_id": "a b", "params": {}}, None, [], "a"])
    def test_of_a_wrong_request_names_which_one(self, wrong):
        with pytest.raises(InvalidArgumentError, match=r"requests\[1\]"):
            endpoints.create([REQUEST, wrong])

    def test_of_a_wrong_request_does_not_show_its_params(self):
        with pytest.raises(InvalidArgumentError) as caught:
            endpoints.create([{"custom_id": "a b", "params": {"prompt": "confidential"}}])
        assert "confidential" not in str(caught.value)

    def test_of_the_same_custom_id_twice_is_refused(self):
        with pytest.raises(InvalidArgumentError, match=r"requests\[1\].custom_id: 'a' is used twice"):
            endpoints.create([REQUEST, REQUEST])

    def test_of_nothing_is_refused(self):
        with pytest.raises(InvalidArgumentError, match="got 0"):
            endpoints.create([])

    def test_of_as_many_requests_as_a_batch_holds_is_taken(self, monkeypatch):
        monkeypatch.setattr(bodies, "MAX_REQUESTS", 3)
        requests = [{"custom_id": str(i), "params": {}} for i in range(3)]
        assert len(json.loads(endpoints.create(requests).body.read())["requests"]) == 3

    def test_of_one_request_more_is_refused(self, monkeypatch):
        monkeypatch.setattr(bodies, "MAX_REQUESTS", 3)
        with pytest.raises(InvalidArgumentError, match="got more than 3"):
            endpoints.create({"custom_id": str(i), "params": {}} for i in range(4))

    def test_of_far_too_many_is_refused_before_all_are_read(self, monkeypatch):
        monkeypatch.setattr(bodies, "MAX_REQUESTS", 3)
        requests = ({"custom_id": str(i), "params": {}} for i in range(100))
        with pytest.raises(InvalidArgumentError):
            endpoints.create(requests)
        assert next(requests)["custom_id"] == "4"

    def test_of_as_many_bytes_as_a_batch_holds_is_taken(self, monkeypatch):
        size = len(endpoints.create([REQUEST]).body.read())
        monkeypatch.setattr(bodies, "MAX_BYTES", size)
        assert len(endpoints.create([REQUEST]).body.read()) == size

    def test_of_one_byte_more_is_refused(self, monkeypatch):
        size = len(endpoints.create([REQUEST]).body.read())
        monkeypatch.setattr(bodies, "MAX_BYTES", size - 1)
        with pytest.raises(InvalidArgumentError, match=f"more than {size - 1} bytes"):
            endpoints.create([REQUEST])

    def test_has_the_limits_of_the_reference(self):
        assert (bodies.MAX_REQUESTS, bodies.MAX_BYTES) == (100_000, 256_000_000)
