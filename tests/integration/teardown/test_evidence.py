"""What an answer proves: one that proves nothing deletes nothing unsaved, and counts nothing as gone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches.emulator import Emulator, Fault
from tests.integration.teardown.harness import Task, assert_whole

HOUR = 3600
MakeTask = Callable[..., Task]
EMPTY_PAGE = json.dumps({"data": [], "has_more": False, "first_id": None, "last_id": None})
ENVELOPE = json.dumps({"type": "error", "error": {"type": "not_found_error", "message": "Not found."}})
#: Answers that somebody before the API has made up.
FOREIGN: dict[str, dict[str, Any]] = {
    "text 404": {"status": 404, "body": "404 page not found\n"},
    "html 404": {"status": 404, "html": True},
    "404 without a request ID": {"status": 404, "body": ENVELOPE, "headers": {"request-id": ""}},
    "html 403": {"status": 403, "html": True},
    "text 401": {"status": 401, "body": "Unauthorized"},
    "html 200": {"status": 200, "html": True},
}
foreign = pytest.mark.parametrize("answer", FOREIGN.values(), ids=FOREIGN)
endpoints = pytest.mark.parametrize("endpoint", ["retrieve", "list", "cancel", "results", "delete"])


def older_than_others(api: Emulator, cancel_seconds: float = 0.0) -> str:
    """Return a running batch that is on the second page of the list."""
    batch_id = api.add_batch(2, status="in_progress", age_seconds=2 * HOUR, cancel_seconds=cancel_seconds)
    for _ in range(1000):
        api.add_batch(1)
    return batch_id


class TestAnAnswerOfAProxy:
    @foreign
    @endpoints
    def test_that_passes_is_waited_out_and_the_job_finishes(
        self, api: Emulator, task: MakeTask, folder: Path, endpoint: str, answer: dict[str, Any]
    ) -> None:
        batch_ids = [api.add_batch(2, status="in_progress") for _ in range(4)]
        api.fault(Fault("delete", batch_id=batch_ids[0], status=409, after=1))
        # Results that are not valid are read five times a batch.
        times = 4 if endpoint == "results" and answer["status"] == 200 else 25
        fault = api.fault(Fault(endpoint, times=times, after=int(endpoint == "list"), **answer))

        summary = task(batch_ids=[*batch_ids, "msgbatch_gone"], save_results_to=str(folder)).run()

        assert (summary["deleted"], summary["already_gone"], summary["saved"]) == (4, 1, 4)
        assert fault.hits == times
        for batch_id in batch_ids:
            assert_whole(folder, batch_id)

    @foreign
    @endpoints
    def test_that_lasts_counts_nothing_as_gone_and_deletes_nothing(
        self,
        api: Emulator,
        task: MakeTask,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        endpoint: str,
        answer: dict[str, Any],
    ) -> None:
        monkeypatch.setattr("airflow_provider_batches.api.throttle.OUTAGE_SECONDS", 0.2)
        batch_ids = [api.add_batch(2, status="in_progress") for _ in range(4)]
        # A retrieval is needed if the list does not have the batches.
        if endpoint == "retrieve":
            api.fault(Fault("list", body=EMPTY_PAGE, times=None))
        api.fault(Fault(endpoint, times=None, after=int(endpoint == "list"), **answer))
        made = task(batch_ids=batch_ids, save_results_to=str(folder), timeout=0.5)

        if endpoint == "list":
            # Each batch is retrieved instead.
            assert made.run()["deleted"] == 4
            return
        with pytest.raises(AirflowException, match=r"0 deleted, 0 already gone, 4 failed") as caught:
            made.run()
        assert not isinstance(caught.value, AirflowFailException)
        assert set(api.ids()) == set(batch_ids)

        api.clear_faults()
        assert made.run()["deleted"] == 4

    @pytest.mark.parametrize("count", [2, 5])
    @foreign
    def test_before_any_right_answer_ends_the_try_for_all_batches(
        self, api: Emulator, task: MakeTask, count: int, answer: dict[str, Any]
    ) -> None:
        batch_ids = [api.add_batch(2, status="in_progress") for _ in range(count)]
        api.fault(Fault(times=None, **answer))

        with pytest.raises(AirflowException, match="0 already gone") as caught:
            task(batch_ids=batch_ids, max_in_flight=1).run()

        assert not isinstance(caught.value, AirflowFailException)
        assert len({request.batch_id for request in api.requests}) == 1
        assert api.count() <= 6

    def test_is_an_outage_for_a_task_that_resumes(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(2, status="in_progress", cancel_seconds=1) for _ in range(4)]
        made = task(batch_ids=batch_ids)
        made.before_resuming = lambda: api.fault(Fault(times=25, **FOREIGN["text 404"]))

        assert made.run()["deleted"] == 4


class TestABatchIsGone:
    def test_only_once_the_list_has_answered(self, api: Emulator, task: MakeTask) -> None:
        api.fault(Fault("list", status=500, times=None))
        made = task(batch_ids=["msgbatch_gone"])
        with pytest.raises(AirflowException, match=r"0 already gone.*\n.*Could not list batches"):
            made.run()

        api.clear_faults()
        assert made.run()["already_gone"] == 1

    @pytest.mark.parametrize("seen", ["when it was selected", "by the try before", "before the task was deferred"])
    def test_only_if_the_list_does_not_have_it_once_it_was_seen(
        self, api: Emulator, task: MakeTask, monkeypatch: pytest.MonkeyPatch, seen: str
    ) -> None:
        batch_id = older_than_others(api, 0.5 if "deferred" in seen else 0.0)

        def vanish() -> None:
            for endpoint in ("retrieve", "cancel", "delete"):
                api.fault(Fault(endpoint, batch_id=batch_id, status=404, times=None))

        if seen == "when it was selected":
            made = task(older_than="PT1H")
            vanish()
        elif seen == "by the try before":
            made = task(older_than="PT1H", limit=1)
            api.fault(Fault("cancel", status=402, times=None))
            with pytest.raises(AirflowFailException):
                made.run()
            api.clear_faults()
            vanish()
        else:
            made = task(batch_ids=[batch_id])
            made.before_resuming = vanish

        with pytest.raises(AirflowException, match=r"0 already gone, 1 failed"):
            made.run()
        assert batch_id in api.ids()

        api.clear_faults()
        assert made.run()["deleted"] == 1

    def test_not_because_one_reading_of_the_list_lacks_a_batch_that_was_seen(
        self, api: Emulator, task: MakeTask
    ) -> None:
        batch_ids = [api.add_batch(2, status="in_progress", cancel_seconds=0.5) for _ in range(4)]
        made = task(batch_ids=batch_ids)

        def vanish() -> None:
            api.fault(Fault("list", body=EMPTY_PAGE))
            for endpoint in ("retrieve", "cancel", "delete"):
                api.fault(Fault(endpoint, batch_id=batch_ids[0], status=404, times=None))

        made.before_resuming = vanish
        with pytest.raises(AirflowException, match=r"3 deleted, 0 already gone, 1 failed"):
            made.run()

    def test_if_the_list_does_not_have_it_either(self, api: Emulator, task: MakeTask) -> None:
        batch_id = older_than_others(api, 0.5)
        made = task(batch_ids=[batch_id])
        made.before_resuming = lambda: api._store.delete(api._store.get(batch_id))

        assert made.run()["already_gone"] == 1
        assert api.count("list") == 1

    def test_deferred_batches_that_were_seen_say_so_to_the_trigger(self, api: Emulator, task: MakeTask) -> None:
        ages = (3, 2)
        batch_ids = [api.add_batch(2, status="in_progress", cancel_seconds=1, age_seconds=age * HOUR) for age in ages]
        made = task(batch_ids=batch_ids)

        made.run()

        assert made.deferrals[0]["seen_since"] == pytest.approx(time.time() - 3 * HOUR, abs=60)


class TestACancel:
    def test_that_is_accepted_without_effect_is_no_cancel(self, api: Emulator, task: MakeTask) -> None:
        batch_id = api.add_batch(2, status="in_progress")
        running = json.dumps(api.batch(batch_id))
        fault = api.fault(Fault("cancel", body=running, times=4))
        made = task(batch_ids=[batch_id], timeout=0.1)

        with pytest.raises(AirflowException, match="accepted the cancel, but the batch is still in_progress") as caught:
            made.run()

        assert not isinstance(caught.value, AirflowFailException)
        assert fault.hits == 4
        summary = made.run()
        assert (summary["canceled"], summary["deleted"]) == (1, 1)


class TestTheKey:
    def test_refused_once_is_asked_again(self, api: Emulator, task: MakeTask, folder: Path) -> None:
        batch_ids = [api.add_batch(2, status="in_progress") for _ in range(5)]
        faults = [api.fault(Fault(endpoint, status=401)) for endpoint in ("list", "cancel", "results", "delete")]

        assert task(batch_ids=batch_ids, save_results_to=str(folder)).run()["deleted"] == 5
        assert [fault.hits for fault in faults] == [1, 1, 1, 1]

    @pytest.mark.parametrize(("worked", "attempts"), [(True, 6), (False, 4)])
    def test_refused_for_a_while_ends_the_job_with_an_error_that_airflow_retries(
        self, api: Emulator, task: MakeTask, monkeypatch: pytest.MonkeyPatch, worked: bool, attempts: int
    ) -> None:
        """Four attempts take 10 s, six take 60 s."""
        monkeypatch.setattr("airflow_provider_batches.api.flows.WORKING_KEY_PAUSES", (0.001,) * 5)
        batch_ids = [api.add_batch(2, status="in_progress") for _ in range(50)]
        api.fault(Fault("cancel" if worked else "any", status=401, times=None, after=3 if worked else 0))
        made = task(batch_ids=batch_ids, max_in_flight=2)

        with pytest.raises(AirflowException, match=r"(?s)401.*50 failed.*It was not tried") as caught:
            made.run()

        assert not isinstance(caught.value, AirflowFailException)
        tried = [request.batch_id for request in api.requests if request.status == 401]
        assert tried.count(tried[0]) == attempts
        assert len(set(tried)) <= 2
        api.clear_faults()
        assert made.run()["deleted"] == 50

    def test_refused_for_one_batch_stops_none_of_the_others(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(2) for _ in range(5)]
        api.fault(Fault("list", body=EMPTY_PAGE, times=None))
        api.fault(Fault("retrieve", batch_id=batch_ids[0], status=403, times=None))

        with pytest.raises(AirflowException, match=f"4 deleted.*1 failed.*\n.*{batch_ids[0]}.*403"):
            task(batch_ids=batch_ids, max_in_flight=1).run()


class TestAListThatAloneIsBroken:
    @pytest.mark.parametrize(
        "trouble",
        [{"status": 500}, {"status": 400}, {"body": '{"data": [{"id": "?"}], "has_more": true}'}, {"html": True}],
        ids=str,
    )
    def test_has_each_batch_retrieved(
        self, api: Emulator, task: MakeTask, monkeypatch: pytest.MonkeyPatch, trouble: dict[str, Any]
    ) -> None:
        monkeypatch.setattr("airflow_provider_batches.api.throttle.OUTAGE_SECONDS", 0.2)
        batch_ids = [api.add_batch(2, status=status) for status in ("in_progress", "ended", "in_progress", "ended")]
        made = task(batch_ids=batch_ids)
        api.fault(Fault("list", times=None, after=1, **trouble))

        assert made.run()["deleted"] == 4

    def test_and_has_one_batch_that_cannot_be_read_has_the_others_done(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(2) for _ in range(4)]
        page = {"data": [{"id": batch_ids[0], "processing_status": 5}], "has_more": False}
        api.fault(Fault("list", body=json.dumps(page), times=None))

        assert task(batch_ids=batch_ids).run()["deleted"] == 4


class TestTheOutagePause:
    """30 s between the attempts of a call in an outage; here 0.5 s."""

    @pytest.fixture(autouse=True)
    def _pause(self, brisk: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("airflow_provider_batches.api.throttle.OUTAGE_PAUSE", 0.5)

    def took(self, made: Task) -> float:
        began = time.monotonic()
        assert made.run()["deleted"] == 1
        return time.monotonic() - began

    def test_comes_at_the_attempt_that_would_give_up(self, api: Emulator, task: MakeTask) -> None:
        fault = api.fault(Fault("delete", status=503, times=5))
        assert self.took(task(batch_ids=[api.add_batch()])) < 0.4

        fault = api.fault(Fault("delete", status=503, times=7))
        assert 1.0 <= self.took(task(batch_ids=[api.add_batch()])) < 1.5
        assert fault.hits == 7

    def test_does_not_come_for_a_later_500(self, api: Emulator, task: MakeTask) -> None:
        batch_id = api.add_batch()
        api.fault(Fault("delete", status=503, times=6))
        api.fault(Fault("delete", status=500, times=4))

        assert 0.5 <= self.took(task(batch_ids=[batch_id])) < 0.9
