from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from airflow_provider_batches.emulator import Behavior

from .conftest import BATCHES

DOCS = Path(__file__).parents[3] / "docs" / "testing.md"


def test_variants_go_through_each_open_question_one_at_a_time():
    variants = list(Behavior.variants())
    names = [str(v) for v in variants]
    assert names[0] == "default"
    assert len(set(names)) == len(names)
    assert "cancel_ended=409" in names
    for variant in variants[1:]:
        assert sum(getattr(variant, f.name) != f.default for f in fields(Behavior)) == 1


def test_the_docs_have_a_row_for_each_open_question():
    rows = re.findall(r"^\| `(\w+)` \| .+ \| `(.+?)` \| .*\|$", DOCS.read_text(), re.MULTILINE)
    assert rows == [(f.name, repr(f.default)) for f in fields(Behavior)]


def test_the_docstring_says_where_each_open_question_comes_from():
    said = re.split(r":param (\w+): ", Behavior.__doc__ or "")
    questions = dict(zip(said[1::2], said[2::2], strict=True))
    assert list(questions) == [f.name for f in fields(Behavior)]
    for name, question in questions.items():
        assert re.search(r"reference|SDKs|users|\(none|: none", question), name


@pytest.mark.parametrize("wrong", [{"cancel_ended": "409"}, {"extra_fields": 1}, {"times": "unix"}])
def test_values_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Behavior(**wrong)


@pytest.mark.parametrize("status", [200, 400, 409])
def test_cancel_of_an_ended_batch(api, http, status):
    api.behavior = Behavior(cancel_ended=status)
    batch_id = api.add_batch(status="ended")
    before = api.batch(batch_id)
    assert http.post(f"{BATCHES}/{batch_id}/cancel").status_code == status
    assert api.batch(batch_id) == before


@pytest.mark.parametrize("status", [200, 400, 409])
def test_cancel_of_a_canceling_batch(api, http, status):
    api.behavior = Behavior(cancel_canceling=status)
    batch_id = api.add_batch(status="canceling")
    before = api.batch(batch_id)
    assert http.post(f"{BATCHES}/{batch_id}/cancel").status_code == status
    assert api.batch(batch_id) == before


@pytest.mark.parametrize(("answer", "status"), [("canceling", "canceling"), ("current", "ended")])
def test_the_answer_to_a_cancel_that_takes_no_time(api, http, answer, status):
    api.behavior = Behavior(cancel_answer=answer)
    batch_id = api.add_batch()
    assert http.post(f"{BATCHES}/{batch_id}/cancel").json()["processing_status"] == status
    assert http.get(f"{BATCHES}/{batch_id}").json()["processing_status"] == "ended"


@pytest.mark.parametrize("state", ["in_progress", "canceling"])
def test_delete_before_the_end(api, http, state):
    api.behavior = Behavior(delete_unended=422)
    batch_id = api.add_batch(status=state)
    assert http.delete(f"{BATCHES}/{batch_id}").status_code == 422
    assert api.batch(batch_id)["processing_status"] == state


@pytest.mark.parametrize(("first", "again"), [(200, 404), (204, 204), (204, 200)])
def test_delete_and_delete_again(api, http, first, again):
    api.behavior = Behavior(delete_answer=first, delete_again=again)
    batch_id = api.add_batch(status="ended")
    answers = [http.delete(f"{BATCHES}/{batch_id}") for _ in range(2)]
    assert [a.status_code for a in answers] == [first, again]
    assert bool(answers[0].content) is (first == 200)


@pytest.mark.parametrize(
    ("behavior", "options", "path", "status"),
    [
        ({"other_workspace": 403}, {"foreign": True}, "", 403),
        ({"results_unended": 409}, {}, "/results", 409),
        ({"results_archived": 410}, {"age_seconds": 30 * 24 * 3600}, "/results", 410),
    ],
)
def test_the_status_of_a_refusal_is_free(api, http, behavior, options, path, status):
    api.behavior = Behavior(**behavior)
    assert http.get(f"{BATCHES}/{api.add_batch(**options)}{path}").status_code == status


def test_the_status_of_a_deleted_batch_is_free(api, http):
    api.behavior = Behavior(retrieve_deleted=410)
    batch_id = api.add_batch(status="ended")
    http.delete(f"{BATCHES}/{batch_id}")
    assert http.get(f"{BATCHES}/{batch_id}").status_code == 410


def test_the_first_retrieve_may_find_nothing(api, http):
    api.behavior = Behavior(first_retrieve=404)
    url = f"{BATCHES}/{api.add_batch()}"
    assert [http.get(url).status_code for _ in range(3)] == [404, 200, 200]


def test_paging_on_from_a_deleted_batch_may_be_refused(api, http):
    api.behavior = Behavior(list_deleted_cursor=400)
    batch_id = api.add_batch(status="ended")
    http.delete(f"{BATCHES}/{batch_id}")
    assert http.get(BATCHES, params={"after_id": batch_id}).status_code == 400


def test_optional_fields_may_be_absent(api, http):
    api.behavior = Behavior(optional_fields="absent")
    assert http.get(BATCHES).json() == {"data": [], "has_more": False}
    running, ended = api.batch(api.add_batch()), api.batch(api.add_batch(status="ended"))
    assert not {"ended_at", "archived_at", "cancel_initiated_at", "results_url"} & running.keys()
    assert {"ended_at", "results_url"} <= ended.keys()


def test_objects_may_have_unknown_fields(api):
    api.behavior = Behavior(extra_fields=True)
    assert "emulated_field" in api.batch(api.add_batch())


def test_results_may_be_on_another_host(api):
    api.behavior = Behavior(results_host="https://results.invalid")
    assert api.batch(api.add_batch(status="ended"))["results_url"].startswith("https://results.invalid/v1/")


def test_the_last_line_of_the_results_may_have_no_end(api, http):
    url = f"{BATCHES}/{api.add_batch(3, status='ended')}/results"
    assert http.get(url).content.endswith(b"}\n")
    api.behavior = Behavior(results_last_newline=False)
    assert http.get(url).content.endswith(b"}")


@pytest.mark.parametrize(("times", "pattern"), [("Z", r"\.\d{6}Z$"), ("offset", r"\+00:00$"), ("seconds", r":\d\dZ$")])
def test_times_come_in_each_form(api, times, pattern):
    api.behavior = Behavior(times=times)
    assert re.search(pattern, api.batch(api.add_batch())["created_at"])


def test_answers_may_lack_a_request_id(api, http):
    api.behavior = Behavior(request_id=False)
    assert "request-id" not in http.get(BATCHES).headers
