"""What `make e2e-distributed` takes for explained by a kill, and what it finds wrong."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from scripts.distributed.ledger import Kill, account, unrecorded, unsaved


def request(call, batch_id, time, status=200):
    return {"endpoint": call, "batch_id": batch_id, "time": time, "status": status}


def test_one_call_for_each_batch_is_as_it_should_be():
    found = account("delete", [request("delete", "a", 1.0), request("delete", "b", 2.0)], {"a", "b"}, [])

    assert (found.expected, found.made, found.problems) == (2, 2, [])


def test_other_calls_are_not_counted():
    found = account("delete", [request("cancel", "b", 1.0), request("delete", "a", 2.0)], {"a"}, [])

    assert (found.made, found.problems) == (1, [])


def test_a_call_for_a_batch_that_was_to_be_left_alone_is_a_problem():
    found = account("delete", [request("delete", "a", 1.0), request("delete", "x", 2.0)], {"a"}, [])

    assert found.problems == ["unexpected delete of x"]


def test_a_call_that_was_never_made_is_a_problem():
    assert account("delete", [], {"a"}, []).problems == ["no delete of a"]


def test_a_call_that_is_made_again_without_a_kill_is_a_problem():
    found = account("cancel", [request("cancel", "a", 1.0), request("cancel", "a", 3.0)], {"a"}, [])

    assert found.problems == ["cancel of a was repeated after 2.0 s, and no kill explains it"]


def test_a_call_whose_answer_died_with_the_worker_may_be_made_again():
    requests = [request("cancel", "a", 90.0), request("cancel", "a", 150.0)]

    found = account("cancel", requests, {"a"}, [Kill("worker-1", 100.0)])

    assert (found.explained, found.problems) == ({"worker-1": 1}, [])


@pytest.mark.parametrize(
    ("what", "at"),
    [
        ("worker-1", 200.0),  # after both
        ("worker-1", 80.0),  # before both
        ("emulator", 100.0),  # long answered by then
        ("scheduler", 91.0),  # asks for nothing
        ("triggerer-2", 91.0),
    ],
)
def test_a_kill_explains_only_what_it_can_have_caused(what, at):
    requests = [request("cancel", "a", 90.0), request("cancel", "a", 150.0)]

    assert account("cancel", requests, {"a"}, [Kill(what, at)]).problems


def test_one_kill_explains_one_repetition():
    requests = [request("cancel", "a", time) for time in (99.0, 150.0, 160.0)]

    found = account("cancel", requests, {"a"}, [Kill("emulator", 100.0)])

    assert found.explained == {"emulator": 1}
    assert len(found.problems) == 1


def test_a_refusal_for_too_many_requests_changes_nothing():
    requests = [request("delete", "a", 1.0, status=429), request("delete", "a", 2.0)]

    found = account("delete", requests, {"a"}, [])

    assert (found.made, found.refused, found.problems) == (1, 1, [])


@pytest.fixture
def save(tmp_path):
    def save(batch_id, data=b"one\ntwo\n", at=10.0, sha256=None):
        record = {"sha256": sha256 or hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, content in ((f"{batch_id}.jsonl", data), (f"{batch_id}.json", json.dumps(record).encode())):
            (tmp_path / name).write_bytes(content)
            os.utime(tmp_path / name, (at, at))
        return tmp_path

    return save


def test_results_that_were_whole_before_the_delete_are_saved(save):
    assert unsaved(save("a"), [request("delete", "a", 11.0)], {"a"}, lines=2) == []


def test_results_that_came_after_the_delete_are_a_problem(save):
    (problem,) = unsaved(save("a", at=12.0), [request("delete", "a", 11.0)], {"a"}, lines=2)

    assert problem == "a was saved 1.000 s after its first delete"


def test_missing_damaged_and_short_results_are_problems(save):
    save("damaged", sha256="0")
    folder = save("short", data=b"one\n")

    problems = "\n".join(unsaved(folder, [], {"damaged", "short", "missing"}, lines=2))

    assert "missing is not saved" in problems
    assert "damaged.jsonl does not match its record" in problems
    assert "short.jsonl has 1 lines instead of 2" in problems
    assert problems.count("\n") == 2


@pytest.fixture
def record(tmp_path):
    def record(**outcomes):
        (tmp_path / "_teardown").mkdir()
        lines = [json.dumps({"batch_id": batch_id, "outcome": outcome}) for batch_id, outcome in outcomes.items()]
        (tmp_path / "_teardown" / "1.jsonl").write_text("\n".join(lines))
        return tmp_path

    return record


def test_a_batch_whose_delete_is_in_the_full_record_is_recorded(record):
    assert unrecorded(record(a="deleted"), [request("delete", "a", 10.0)], {"a"}, []) == []


def test_a_batch_that_is_not_in_the_full_record_is_a_problem(record):
    assert unrecorded(record(), [request("delete", "a", 10.0)], {"a"}, [Kill("worker-1", 12.0)])


@pytest.mark.parametrize(("killed_at", "explained"), [(12.0, True), (9.0, False), (100.0, False)])
def test_a_batch_that_a_later_try_found_gone_was_deleted_shortly_before_a_kill(record, killed_at, explained):
    folder = record(a="already_gone")

    problems = unrecorded(folder, [request("delete", "a", 10.0)], {"a"}, [Kill("worker-1", killed_at)])

    assert problems == ([] if explained else ["the full record does not list a as deleted"])
