from __future__ import annotations

import gc
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Timer
from time import monotonic, sleep
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowException, AirflowFailException, AirflowTaskTimeout
from airflow_provider_batches.api.streams import ResultBytes
from airflow_provider_batches.emulator import Behavior, Emulator, Fault
from tests.integration.teardown.harness import Task, assert_whole, expected_results

HOUR = 3600
DAY = 24 * HOUR
MakeTask = Callable[..., Task]
#: States by age in days, of batches that a report counts.
AGES = {9.0: "ended", 5.0: "ended", 0.5: "in_progress"}
PAGE = json.dumps({"data": [], "has_more": False, "first_id": None, "last_id": None})


def saved_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.jsonl")}


def parts_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


class TestSelecting:
    def test_by_age(self, api: Emulator, task: MakeTask) -> None:
        api.add_batch(age_seconds=2 * HOUR)
        young = api.add_batch(age_seconds=HOUR / 2)

        summary = task(older_than=timedelta(hours=1)).run()

        assert api.ids() == [young]
        assert summary == {
            "selected": 1,
            "canceled": 0,
            "ended": 1,
            "saved": 0,
            "deleted": 1,
            "already_gone": 0,
            "failed": 0,
            "bytes_saved": 0,
            "report_only": False,
        }

    def test_by_id(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(status="in_progress") for _ in range(5)]
        other = api.add_batch(status="in_progress")

        summary = task(batch_ids=batch_ids).run()

        assert api.ids() == [other]
        assert (summary["canceled"], summary["deleted"]) == (5, 5)

    @pytest.mark.parametrize("batch_ids", [[], "[]"])
    def test_an_empty_list_is_nothing_to_do(self, api: Emulator, task: MakeTask, batch_ids: Any) -> None:
        api.add_batch()

        assert task(batch_ids=batch_ids).run()["selected"] == 0
        assert api.count() == 0

    def test_by_state(self, api: Emulator, task: MakeTask) -> None:
        ended = api.add_batch(age_seconds=2 * HOUR)
        api.add_batch(age_seconds=60, status="in_progress")

        task(statuses=["in_progress", "canceling"]).run()

        assert api.ids() == [ended]

    def test_a_batch_created_after_the_start_of_the_run_is_never_selected(self, api: Emulator, task: MakeTask) -> None:
        made = task(statuses=["in_progress"])
        api.add_batch(age_seconds=-5, status="in_progress")

        assert made.run()["selected"] == 0

    def test_a_clear_of_a_finished_run_selects_no_batch_that_has_grown_old_meanwhile(
        self, api: Emulator, task: MakeTask
    ) -> None:
        made = task(older_than=timedelta(hours=1))
        made.started -= timedelta(hours=5)
        _, grown = (api.add_batch(age_seconds=age * HOUR) for age in (7, 5.5))
        assert made.run()["deleted"] == 1
        made.cleared = made.tries

        assert made.run()["selected"] == 0
        assert api.ids() == [grown]

    def test_the_oldest_first_up_to_a_limit(self, api: Emulator, task: MakeTask) -> None:
        ages = [5, 2, 4, 3]
        by_age = {age: api.add_batch(age_seconds=age * HOUR) for age in ages}

        task(older_than="PT1H", limit=2).run()

        assert set(api.ids()) == {by_age[2], by_age[3]}

    def test_thousands_over_several_pages(self, api: Emulator, task: MakeTask) -> None:
        for _ in range(1200):
            api.add_batch(1, age_seconds=2 * HOUR)
        made = task(older_than=timedelta(hours=1), report_only=True)

        assert made.run()["selected"] == 1200
        assert api.count("list") == 2

    def test_a_report_says_how_many_how_old_and_how_to_run_it_for_real(
        self,
        api: Emulator,
        task: MakeTask,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        batch_ids = [api.add_batch(age_seconds=days * DAY, status=status) for days, status in AGES.items()]
        created = [str(api.batch(batch_id)["created_at"])[:10] for batch_id in batch_ids]  # type: ignore[index]

        task(older_than="PT1H", report_only=True).run()

        log = capsys.readouterr().out + caplog.text
        assert "Batches that would be torn down: 3, 2 ended, 1 in_progress, created" in log
        assert re.search(rf"created {created[0]}.* to {created[-1]}", log)
        assert "To tear them down, set report_only=False, with save_results_to or discard_results=True" in log

    def test_a_report_only_changes_nothing(self, api: Emulator, task: MakeTask, folder: Path) -> None:
        batch_id = api.add_batch(status="in_progress")

        summary = task(batch_ids=[batch_id], save_results_to=f"file://{folder}", report_only="True").run()

        assert summary["report_only"]
        assert summary["selected"] == 1
        assert {request.method for request in api.requests} <= {"GET"}
        assert not folder.exists()

    def test_a_page_whose_cursor_is_refused_is_read_again(self, api: Emulator, task: MakeTask) -> None:
        for _ in range(1100):
            api.add_batch(1, age_seconds=2 * HOUR)
        api.fault(Fault("list", status=404, after=1))

        assert task(older_than=timedelta(hours=1), report_only=True).run()["selected"] == 1100


class TestTheSelectionSurvives:
    def test_a_retry_with_a_limit_takes_no_further_batches(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(age_seconds=(9 - number) * HOUR) for number in range(4)]
        api.fault(Fault("delete", batch_id=batch_ids[1], status=400, times=None))
        made = task(older_than=timedelta(hours=1), limit=2)
        with pytest.raises(AirflowException):
            made.run()
        api.clear_faults()

        made.run()

        assert api.ids() == batch_ids[:1:-1]

    def test_a_success_that_was_not_reported_is_retried_and_takes_no_further_batches(
        self, api: Emulator, task: MakeTask
    ) -> None:
        batch_ids = [api.add_batch(age_seconds=(9 - number) * HOUR) for number in range(4)]
        made = task(older_than=timedelta(hours=1), limit=2)
        made.run()

        assert made.run()["already_gone"] == 2
        assert api.ids() == batch_ids[:1:-1]

    def test_a_task_that_a_person_clears_after_its_success_selects_anew(self, api: Emulator, task: MakeTask) -> None:
        for number in range(4):
            api.add_batch(age_seconds=(9 - number) * HOUR)
        made = task(older_than=timedelta(hours=1), limit=2)
        made.run()
        made.cleared = made.tries

        assert made.run()["deleted"] == 2
        assert api.ids() == []

    def test_a_task_that_a_person_clears_after_its_failure_continues(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(age_seconds=(9 - number) * HOUR) for number in range(4)]
        api.fault(Fault("delete", batch_id=batch_ids[1], status=400, times=None))
        made = task(older_than=timedelta(hours=1), limit=2)
        with pytest.raises(AirflowException):
            made.run()
        api.clear_faults()
        made.cleared = made.tries

        made.run()

        assert api.ids() == batch_ids[:1:-1]

    def test_arguments_that_were_corrected_are_not_ignored(self, api: Emulator, task: MakeTask) -> None:
        old, young = (api.add_batch(age_seconds=days * DAY) for days in (9, 2))
        api.fault(Fault("delete", status=400, times=None))
        made = task(older_than="1 day", limit=5)
        with pytest.raises(AirflowException):
            made.run()
        api.clear_faults()
        made._kwargs["older_than"] = "7 days"

        with pytest.raises(AirflowFailException, match="they have changed since this task selected its batches"):
            made.run()
        assert set(api.ids()) == {old, young}

        made.cleared = made.tries
        assert made.run()["deleted"] == 1
        assert api.ids() == [young]

    def test_a_report_only_reports_what_a_failed_task_would_continue_with(self, api: Emulator, task: MakeTask) -> None:
        for number in range(4):
            api.add_batch(age_seconds=(9 - number) * HOUR)
        api.fault(Fault("delete", status=400, times=None))
        made = task(older_than=timedelta(hours=1), limit=2)
        with pytest.raises(AirflowException):
            made.run()
        made._kwargs["report_only"] = True
        api.clear_requests()

        assert made.run()["selected"] == 2
        assert api.count() == 0

    def test_a_retry_by_state_continues_with_what_it_has_canceled(self, api: Emulator, task: MakeTask) -> None:
        batch_id = api.add_batch(status="in_progress", age_seconds=HOUR)
        api.fault(Fault("delete", status=400, times=None))
        made = task(statuses=["in_progress"])
        with pytest.raises(AirflowException):
            made.run()
        api.clear_faults()

        assert made.run()["deleted"] == 1
        assert batch_id not in api.ids()

    def test_a_retry_by_age_needs_no_note(self, api: Emulator, task: MakeTask) -> None:
        api.add_batch(age_seconds=2 * HOUR)
        api.fault(Fault("delete", status=400, times=None))
        made = task(older_than=timedelta(hours=1))
        with pytest.raises(AirflowException):
            made.run()
        assert made.store.values == {}
        api.clear_faults()

        assert made.run()["deleted"] == 1

    @pytest.mark.parametrize("arguments", [{"limit": 2, "older_than": "PT1H"}, {"statuses": ["in_progress"]}])
    def test_a_try_that_airflow_has_given_up_does_not_select_anew(
        self, api: Emulator, task: MakeTask, arguments: dict[str, Any]
    ) -> None:
        """Airflow answers it as if nothing were stored, no matter what another try has stored."""
        batch_ids = [api.add_batch(status="in_progress", age_seconds=(9 - number) * HOUR) for number in range(4)]
        made = task(**arguments)
        made.store.get = lambda key: None  # type: ignore[method-assign]

        with pytest.raises(AirflowException, match="Airflow has given up this try"):
            made.run()

        assert set(api.ids()) == set(batch_ids)
        assert api.count("cancel") == 0

    def test_nothing_is_touched_before_the_selection_is_stored(self, api: Emulator, task: MakeTask) -> None:
        api.add_batch(status="in_progress", age_seconds=HOUR)
        made = task(statuses=["in_progress"])
        seen: list[int] = []
        keep = made.store.set
        made.store.set = lambda key, value: (seen.append(api.count("cancel")), keep(key, value))[1]  # type: ignore[method-assign]

        made.run()

        assert seen[0] == 0


class TestWaiting:
    def test_a_batch_that_takes_a_while_to_end_is_waited_for_in_the_triggerer(
        self, api: Emulator, task: MakeTask, folder: Path
    ) -> None:
        slow = [api.add_batch(5, status="in_progress", cancel_seconds=1) for _ in range(3)]
        quick = api.add_batch(5, status="ended")
        made = task(batch_ids=[*slow, quick], save_results_to=f"file://{folder}")

        summary = made.run()

        assert [deferral["batch_id"] for deferral in made.deferrals] == [slow]
        assert (summary["selected"], summary["canceled"], summary["ended"], summary["deleted"]) == (4, 3, 4, 4)
        assert saved_in(folder) == {*slow, quick}

    def test_what_does_not_end_in_time_fails_and_the_rest_is_done(self, api: Emulator, task: MakeTask) -> None:
        never = api.add_batch(5, status="in_progress", cancel_seconds=HOUR)
        ended = api.add_batch(5, status="ended")

        with pytest.raises(AirflowException, match=f"(?s)1 deleted.*1 failed.*{never}: It is canceling"):
            task(batch_ids=[never, ended], timeout=0.3).run()

        assert api.ids() == [never]

    def test_a_batch_deleted_by_somebody_else_while_deferred_is_no_error(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(5, status="in_progress", cancel_seconds=1) for _ in range(4)]
        made = task(batch_ids=batch_ids)
        made.before_resuming = lambda: api._store.delete(api._store.get(batch_ids[0]))

        summary = made.run()

        assert (summary["already_gone"], summary["deleted"]) == (1, 3)

    def test_a_shorter_execution_timeout_counts(self, api: Emulator, task: MakeTask) -> None:
        api.add_batch(5, status="in_progress", cancel_seconds=HOUR, age_seconds=60)
        made = task(statuses=["in_progress"], execution_timeout=timedelta(seconds=0.2))

        with pytest.raises(AirflowException):
            made.run()

        assert made.deferrals[0]["end_time"] - made.deferrals[0]["start_time"] == pytest.approx(0.2, abs=0.05)


class TestSaving:
    def test_results_are_saved_before_a_batch_is_deleted(self, api: Emulator, task: MakeTask, folder: Path) -> None:
        batch_id = api.add_batch(20, age_seconds=2 * HOUR, outcomes={"succeeded": 18, "errored": 2})
        results = expected_results(api, batch_id)

        summary = task(older_than="PT1H", save_results_to=f"file://{folder}").run()

        assert (folder / f"{batch_id}.jsonl").read_bytes() == results
        record = assert_whole(folder, batch_id)
        assert record["request_counts"]["errored"] == 2
        assert summary["bytes_saved"] == len(results)
        assert api.ids() == []

    def test_the_full_record_is_beside_the_results(self, api: Emulator, task: MakeTask, folder: Path) -> None:
        batch_id = api.add_batch(2, status="in_progress", age_seconds=60)

        task(batch_ids=[batch_id], save_results_to=str(folder)).run()

        (path,) = (folder / "_teardown").iterdir()
        line = json.loads(path.read_text())
        assert line["outcome"] == "deleted"
        ids = {request.endpoint: request.request_id for request in api.requests}
        assert line["cancel_request_id"] == ids["cancel"]
        assert line["delete_request_id"] == ids["delete"]
        assert line["results"]["request_id"] == ids["results"]

    def test_archived_results_are_no_failure(self, api: Emulator, task: MakeTask, folder: Path) -> None:
        batch_id = api.add_batch(2, age_seconds=30 * DAY)

        summary = task(batch_ids=[batch_id], save_results_to=str(folder)).run()

        assert (summary["saved"], summary["deleted"], summary["failed"]) == (0, 1, 0)
        assert json.loads((folder / f"{batch_id}.json").read_text())["missing"] == "archived"

    def test_a_file_that_is_there_and_whole_is_not_fetched_again(
        self, api: Emulator, task: MakeTask, folder: Path
    ) -> None:
        batch_id = api.add_batch(2, age_seconds=2 * HOUR)
        api.fault(Fault("delete", status=400, times=None))
        with pytest.raises(AirflowException):
            task(batch_ids=[batch_id], save_results_to=str(folder)).run()
        api.clear_faults()
        api.clear_requests()

        task(batch_ids=[batch_id], save_results_to=str(folder)).run()

        assert api.count("results") == 0
        assert api.ids() == []

    @pytest.mark.parametrize("damage", ["cut", "changed", "lost", "no record", "broken record", "other batch"])
    def test_a_file_that_is_not_whole_is_fetched_again(
        self, api: Emulator, task: MakeTask, folder: Path, damage: str
    ) -> None:
        batch_id = api.add_batch(2, age_seconds=2 * HOUR)
        api.fault(Fault("delete", status=400))
        with pytest.raises(AirflowException):
            task(batch_ids=[batch_id], save_results_to=str(folder)).run()
        results, record = folder / f"{batch_id}.jsonl", folder / f"{batch_id}.json"
        data = results.read_bytes()
        if damage == "cut":
            results.write_bytes(data[:-5])
        elif damage == "changed":
            results.write_bytes(data.replace(b"req-", b"REQ-"))
        elif damage == "lost":
            results.unlink()
        elif damage == "no record":
            record.unlink()
        elif damage == "broken record":
            record.write_text("{")
        else:
            record.write_text(record.read_text().replace(batch_id, "msgbatch_other"))

        task(batch_ids=[batch_id], save_results_to=str(folder)).run()

        assert results.read_bytes() == data
        assert_whole(folder, batch_id)
        assert api.ids() == []

    @pytest.mark.parametrize("cleanly", [False, True])
    @pytest.mark.parametrize("short_by", [1, 2, 40, 3000])
    def test_a_stream_that_is_cut_short_is_read_again(
        self, api: Emulator, task: MakeTask, folder: Path, cleanly: bool, short_by: int
    ) -> None:
        batch_id = api.add_batch(20, age_seconds=2 * HOUR)
        results = expected_results(api, batch_id)
        # Without its last line feed alone, the results are whole.
        fault = api.fault(Fault("results", cut_after=len(results) - short_by, cut_cleanly=cleanly, times=2))

        task(batch_ids=[batch_id], save_results_to=str(folder)).run()

        assert fault.hits == (1 if cleanly and short_by == 1 else 2)
        assert (folder / f"{batch_id}.jsonl").read_bytes() in (results, results[:-1])
        assert parts_in(folder) == []

    def test_a_stream_that_is_always_cut_short_fails_the_batch_alone(
        self, api: Emulator, task: MakeTask, folder: Path
    ) -> None:
        cut, whole = api.add_batch(20, age_seconds=2 * HOUR), api.add_batch(20, age_seconds=2 * HOUR)
        api.fault(Fault("results", batch_id=cut, cut_after=1000, times=None))

        with pytest.raises(AirflowException, match=f"{cut}: The results of batch {cut} are incomplete"):
            task(batch_ids=[cut, whole], save_results_to=str(folder)).run()

        assert api.ids() == [cut]
        assert saved_in(folder) == {whole}
        assert parts_in(folder) == []

    def test_the_log_warns_of_each_batch_that_could_not_be_saved(
        self,
        api: Emulator,
        task: MakeTask,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        batch_ids = [api.add_batch(2, age_seconds=2 * HOUR) for _ in range(3)]
        for batch_id in batch_ids[:2]:
            api.fault(Fault("results", batch_id=batch_id, status=400, times=None))

        with pytest.raises(AirflowException, match="1 saved, 1 deleted, 0 already gone, 2 failed"):
            task(batch_ids=batch_ids, save_results_to=str(folder)).run()

        warnings = [line for line in (capsys.readouterr().out + caplog.text).splitlines() if "warning" in line.lower()]
        assert [any(f"Batch {each}: " in line for line in warnings) for each in batch_ids] == [True, True, False]

    @pytest.mark.parametrize("arguments", [{"older_than": "PT1H"}, {"statuses": ["in_progress"]}, {}])
    def test_with_a_folder_that_cannot_be_written_no_batch_is_canceled(
        self, api: Emulator, task: MakeTask, folder: Path, arguments: dict[str, Any]
    ) -> None:
        folder.write_text("a file, as in file:///etc/passwd")
        batch_id = api.add_batch(2, status="in_progress", age_seconds=2 * HOUR)
        made = task(**arguments or {"batch_ids": [batch_id]}, save_results_to=f"file://{folder}", retries=1)

        with pytest.raises(AirflowException, match=f"save_results_to: could not write file://{folder}") as caught:
            made.run()

        assert not isinstance(caught.value, AirflowFailException)
        assert (api.count("cancel"), api.ids()) == (0, [batch_id])
        folder.unlink()
        assert made.run()["saved"] == 1

    def test_a_file_that_changes_before_it_is_read_back_keeps_its_batch(
        self, api: Emulator, task: MakeTask, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow_provider_batches.results.saving import Saver

        batch_id = api.add_batch(2, age_seconds=2 * HOUR)
        fetch = Saver._fetch

        def spoil(self: Saver, *args: Any) -> Any:
            saved = fetch(self, *args)
            path = folder / f"{batch_id}.jsonl"
            path.write_bytes(path.read_bytes().replace(b"req-", b"REQ-"))
            return saved

        monkeypatch.setattr(Saver, "_fetch", spoil)

        with pytest.raises(AirflowException, match="another SHA-256"):
            task(batch_ids=[batch_id], save_results_to=str(folder)).run()

        assert api.ids() == [batch_id]

    def test_odd_ids_stay_inside_the_folder(self, folder: Path) -> None:
        from airflow_provider_batches.results.saving import Saver
        from airflow_provider_batches.storage.folder import Folder

        assert Saver(Folder(str(folder))).name("msgbatch_*[1]") == "msgbatch_%2A%5B1%5D"


class TestFailing:
    def test_one_batch_fails_and_the_others_are_processed(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(age_seconds=2 * HOUR) for _ in range(5)]
        api.fault(Fault("delete", batch_id=batch_ids[2], status=500, message="Boom.", times=None))

        with pytest.raises(AirflowException) as caught:
            task(batch_ids=batch_ids).run()

        assert api.ids() == [batch_ids[2]]
        assert not isinstance(caught.value, AirflowFailException)
        text = str(caught.value)
        assert "4 deleted" in text
        assert "1 failed" in text
        assert f"{batch_ids[2]}: Could not delete batch {batch_ids[2]}: 500" in text
        assert "Boom." in text
        assert "request-id req_" in text
        assert "A retry does only what is left" in text

    def test_a_retry_makes_no_calls_for_what_is_done(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(age_seconds=2 * HOUR, status="in_progress") for _ in range(8)]
        api.fault(Fault("delete", batch_id=batch_ids[2], status=500, times=None))
        made = task(older_than="PT1H")
        with pytest.raises(AirflowException):
            made.run()
        api.clear_faults()
        api.clear_requests()

        summary = made.run()

        assert summary["selected"] == summary["deleted"] == 1
        assert [request.endpoint for request in api.requests] == ["list", "delete"]

    def test_a_refusal_that_no_retry_can_help_fails_permanently(self, api: Emulator, task: MakeTask) -> None:
        batch_id = api.add_batch(age_seconds=2 * HOUR)
        api.fault(Fault("delete", status=400, times=None))

        with pytest.raises(AirflowFailException, match=batch_id):
            task(batch_ids=[batch_id]).run()

    def test_a_spend_limit_that_lasts_ends_the_task_for_all_batches_and_permanently(
        self, api: Emulator, task: MakeTask
    ) -> None:
        batch_ids = [api.add_batch(status="in_progress") for _ in range(50)]
        api.fault(Fault("cancel", status=402, times=None, after=3))

        with pytest.raises(AirflowFailException, match=r"(?s)50 failed.*402.*It was not tried"):
            task(batch_ids=batch_ids, max_in_flight=4).run()

        assert api.count("cancel") <= 12
        assert api.count("list") == 1

    def test_a_spend_limit_that_is_raised_meanwhile_is_not_noticed(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(status="in_progress") for _ in range(5)]
        api.fault(Fault("cancel", status=402))

        assert task(batch_ids=batch_ids).run()["deleted"] == 5

    def test_a_cancel_that_fails_is_left_to_a_retry_and_not_to_a_wait_that_costs_money(
        self, api: Emulator, task: MakeTask
    ) -> None:
        stuck, slow = [api.add_batch(5, status="in_progress", cancel_seconds=seconds) for seconds in (0, 1)]
        api.fault(Fault("cancel", batch_id=stuck, status=500, times=None))
        made = task(batch_ids=[stuck, slow])

        with pytest.raises(AirflowException, match=f"(?s){stuck}: Could not cancel.*{slow}: It is canceling") as caught:
            made.run()
        api.clear_faults()

        assert made.deferrals == []
        assert not isinstance(caught.value, AirflowFailException)
        assert made.run()["deleted"] == 2

    def test_a_batch_whose_cancel_is_refused_permanently_is_waited_for(self, api: Emulator, task: MakeTask) -> None:
        batch_id = api.add_batch(5, status="in_progress", batch_seconds=1)
        api.fault(Fault("cancel", status=400, times=None))
        made = task(batch_ids=[batch_id])

        assert made.run()["deleted"] == 1
        assert len(made.deferrals) == 1

    def test_many_failures_are_not_all_named(
        self, api: Emulator, task: MakeTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_batches.operators.teardown.NAMED", 5)
        batch_ids = [api.add_batch(1, age_seconds=2 * HOUR) for _ in range(10)]
        api.fault(Fault("delete", status=400, times=None))

        with pytest.raises(AirflowException, match="and 5 more, in the full record"):
            task(batch_ids=batch_ids).run()

    def test_a_list_that_cannot_be_read_leaves_everything_to_the_retry(self, api: Emulator, task: MakeTask) -> None:
        api.add_batch(age_seconds=2 * HOUR)
        api.fault(Fault("list", status=500, times=None))

        with pytest.raises(AirflowException, match="Could not list batches"):
            task(older_than="PT1H").run()

    def test_a_list_that_is_refused_later_names_each_batch_and_keeps_what_was_done(
        self, api: Emulator, task: MakeTask, folder: Path
    ) -> None:
        batch_ids = [api.add_batch(status="in_progress", age_seconds=2 * HOUR) for _ in range(3)]
        api.fault(Fault("list", status=401, times=None, after=1))

        with pytest.raises(AirflowException, match=f"(?s)Could not list batches.*401.*{batch_ids[0]}"):
            task(older_than="PT1H", save_results_to=str(folder)).run()

        record = b"".join(path.read_bytes() for path in folder.glob("_teardown/*.jsonl"))
        lines = [json.loads(line) for line in record.splitlines()]
        assert {line["batch_id"] for line in lines if line["cancel_request_id"]} == set(batch_ids)

    def test_what_fails_again_is_counted_once(self, api: Emulator, task: MakeTask, folder: Path) -> None:
        stuck = api.add_batch(3, age_seconds=2 * HOUR)
        slow = api.add_batch(3, age_seconds=2 * HOUR, status="in_progress", cancel_seconds=1)
        api.fault(Fault("delete", batch_id=stuck, status=400, times=None))

        with pytest.raises(AirflowException, match="Batches selected: 2; 1 canceled, 2 ended, 2 saved, 1 deleted"):
            task(batch_ids=[stuck, slow], save_results_to=str(folder)).run()


class TestOthersMeanwhile:
    def test_unknown_batches_are_gone_already(self, api: Emulator, task: MakeTask) -> None:
        known = [api.add_batch(status="in_progress") for _ in range(5)]
        gone = [f"msgbatch_gone{number}" for number in range(5)]

        summary = task(batch_ids=[*known, *gone]).run()

        assert (summary["already_gone"], summary["deleted"]) == (5, 5)
        assert api.count("retrieve") == 5

    @pytest.mark.parametrize("count", [1, 5])
    def test_a_first_try_of_whose_batches_the_api_knows_none_fails_and_names_the_workspace(
        self, api: Emulator, task: MakeTask, count: int
    ) -> None:
        """Most likely the key belongs to another workspace, where all of them still run."""
        made = task(batch_ids=[f"msgbatch_gone{number}" for number in range(count)], retries=1)

        with pytest.raises(AirflowFailException, match="Check first that the key of connection 'anthropic_default' be"):
            made.run()

        # A retry cannot tell whether the first try has deleted them.
        assert made.run()["already_gone"] == count

    def test_that_none_is_known_is_success_if_requested(self, api: Emulator, task: MakeTask) -> None:
        assert task(batch_ids=["msgbatch_gone"], ignore_if_missing=True).run()["already_gone"] == 1

    def test_a_first_try_that_has_seen_a_batch_which_somebody_deletes_meanwhile_succeeds(
        self, api: Emulator, task: MakeTask
    ) -> None:
        batch_id = api.add_batch(status="in_progress", cancel_seconds=0.5)
        made = task(batch_ids=[batch_id])
        made.before_resuming = lambda: api._store.delete(api._store.get(batch_id))
        assert made.run()["already_gone"] == 1

    def test_a_batch_that_the_list_leaves_out_is_asked_for(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(status="ended") for _ in range(5)]
        api.fault(Fault("list", body=PAGE, times=None))

        assert task(batch_ids=batch_ids).run()["deleted"] == 5

    def test_batches_that_are_too_new_for_the_list_are_not_taken_for_gone(
        self, api: Emulator, task: MakeTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_batches.teardown.job.LIST_LAG", 0.5)
        batch_ids = [api.add_batch(status="in_progress") for _ in range(5)]
        api.fault(Fault("list", body=PAGE, times=None))
        api.fault(Fault("retrieve", status=404, times=None))
        Timer(0.2, api.clear_faults).start()

        assert task(batch_ids=batch_ids).run()["deleted"] == 5

    def test_a_batch_deleted_between_the_steps_is_gone_already(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(age_seconds=2 * HOUR) for _ in range(3)]
        api.fault(Fault("delete", batch_id=batch_ids[0], status=404, applied=True))

        summary = task(older_than="PT1H").run()

        assert (summary["already_gone"], summary["deleted"]) == (1, 2)

    @pytest.mark.parametrize(
        ("endpoint", "status"), [("cancel", "in_progress"), ("results", "ended"), ("delete", "ended")]
    )
    def test_a_batch_that_one_call_alone_does_not_find_is_not_gone(
        self, api: Emulator, task: MakeTask, folder: Path, endpoint: str, status: str
    ) -> None:
        batch_id = api.add_batch(3, status=status)
        api.fault(Fault(endpoint, status=404, times=None))

        with pytest.raises(AirflowException, match="the batch exists, but the API answers 404"):
            task(batch_ids=[batch_id], save_results_to=str(folder), timeout=0.1).run()

        assert api.ids() == [batch_id]

    @pytest.mark.parametrize("behavior", list(Behavior.variants()), ids=str)
    def test_undocumented_behavior_of_the_api_changes_nothing(
        self, api: Emulator, task: MakeTask, folder: Path, behavior: Behavior
    ) -> None:
        api.behavior = behavior
        batch_ids = [
            api.add_batch(3, status="in_progress"),
            api.add_batch(3, status="canceling", cancel_seconds=0.05),
            api.add_batch(3, age_seconds=2 * HOUR),
            api.add_batch(3, age_seconds=30 * DAY),
            "msgbatch_gone",
        ]

        summary = task(batch_ids=batch_ids, save_results_to=str(folder)).run()

        assert (summary["deleted"], summary["already_gone"], summary["saved"]) == (4, 1, 3)
        assert api.ids() == []


class TestThePace:
    @pytest.mark.parametrize("endpoint", ["list", "cancel", "delete", "retrieve"])
    def test_a_limit_of_requests_fails_nothing(self, api: Emulator, task: MakeTask, endpoint: str) -> None:
        batch_ids = [api.add_batch(1, status="in_progress") for _ in range(10)]
        api.behavior = Behavior(cancel_ended=409)
        fault = api.fault(Fault(endpoint, status=429, times=30))

        assert task(batch_ids=[*batch_ids, *(f"msgbatch_{number}" for number in range(5))]).run()["failed"] == 0

        assert fault.hits == 30
        assert api.ids() == []

    def test_a_ceiling_is_kept(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(1, status="ended") for _ in range(10)]

        task(batch_ids=batch_ids, requests_per_minute=1200).run()

        times = [request.time for request in api.requests if request.endpoint == "delete"]
        assert times[-1] - times[0] >= 0.9 * (len(times) - 1) * 60 / 1200

    def test_a_limit_met_while_reading_results_fails_nothing(self, api: Emulator, task: MakeTask, folder: Path) -> None:
        batch_id = api.add_batch(2, age_seconds=2 * HOUR)
        api.fault(Fault("results", status=429, times=8))

        assert task(batch_ids=[batch_id], save_results_to=str(folder)).run()["saved"] == 1

    def test_few_requests_a_batch(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch(1, status="in_progress") for _ in range(50)]

        task(batch_ids=batch_ids).run()

        assert api.count() <= 2.2 * 50


class TestBeingKilled:
    def test_on_kill_begins_nothing_new_and_the_next_try_ends_it(
        self, api: Emulator, task: MakeTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow_provider_batches.operators.teardown import TeardownBatchesOperator

        batch_ids = [api.add_batch(1, age_seconds=2 * HOUR) for _ in range(30)]
        operators = []
        made = task(batch_ids=batch_ids, max_in_flight=2)
        process = made._process

        def remembered() -> TeardownBatchesOperator:
            operators.append(process())
            return operators[-1]

        monkeypatch.setattr(made, "_process", remembered)
        from airflow_provider_batches.api import AsyncBatchesClient

        delete = AsyncBatchesClient.delete

        async def deletes(self: AsyncBatchesClient, *args: Any) -> Any:
            if api.count("delete") >= 10:
                operators[-1].on_kill()
            return await delete(self, *args)

        monkeypatch.setattr(AsyncBatchesClient, "delete", deletes)

        with pytest.raises(AirflowException, match="It was not tried"):
            made.run()

        assert 15 <= len(api.ids()) <= 22
        monkeypatch.setattr(AsyncBatchesClient, "delete", delete)
        made.run()
        assert api.ids() == []

    def test_on_kill_begins_no_further_file(
        self, api: Emulator, task: MakeTask, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = task(batch_ids=[api.add_batch(2, status="ended") for _ in range(16)], save_results_to=str(folder))
        operators: list[Any] = []
        process = made._process

        def remembered() -> Any:
            operators.append(process())
            return operators[-1]

        monkeypatch.setattr(made, "_process", remembered)
        read_slowly(monkeypatch, lambda: (sleep(0.3), operators[-1].on_kill()))

        with pytest.raises(AirflowException, match="The task ended before it was done"):
            made.run()

        assert api.count("results") <= 4
        assert api.count("delete") == 0

    def test_a_stop_in_the_middle_of_a_stream_leaves_no_partial_file(
        self, api: Emulator, task: MakeTask, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch_id = api.add_batch(2000, age_seconds=2 * HOUR, result_bytes=5_000_000)
        made = task(batch_ids=[batch_id], save_results_to=str(folder))
        operators: list[Any] = []
        process = made._process

        def remembered() -> Any:
            operators.append(process())
            return operators[-1]

        monkeypatch.setattr(made, "_process", remembered)
        read_slowly(monkeypatch, lambda: operators[-1].on_kill())

        with pytest.raises(AirflowException, match="was stopped"):
            made.run()

        assert [path for path in folder.iterdir() if path.is_file()] == []
        assert api.ids() == [batch_id]

    def test_a_task_whose_time_is_over_does_not_wait_for_a_file_to_be_whole(
        self, api: Emulator, task: MakeTask, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch_id = api.add_batch(2000, age_seconds=2 * HOUR, result_bytes=5_000_000)
        chunks = read_slowly(monkeypatch, lambda: sleep(0.1))

        with pytest.raises(AirflowTaskTimeout), alarm_after(0.5):
            task(batch_ids=[batch_id], save_results_to=str(folder)).run()

        assert 0 < sum(map(len, chunks)) < 2_500_000
        assert parts_in(folder) == []
        assert api.ids() == [batch_id]

    def test_an_alarm_at_any_moment_ends_a_busy_task(self, api: Emulator, task: MakeTask, folder: Path) -> None:
        def try_with_alarm_after(seconds: float) -> tuple[float, bool]:
            """Return how long the task took to end, from the alarm on, and whether the alarm ended it."""
            made = task(
                batch_ids=[api.add_batch(2, status="in_progress") for _ in range(40)], save_results_to=str(folder)
            )
            # Python drops what a signal raises while the main thread collects what other tests have left behind.
            gc.collect()
            gc.disable()
            try:
                with alarm_after(seconds) as struck:
                    made.run()
            except AirflowTaskTimeout:
                return monotonic() - struck[0], True
            finally:
                gc.enable()
            return monotonic() - (struck or [monotonic()])[0], False

        began = monotonic()
        try_with_alarm_after(60)
        length, chance = monotonic() - began, random.Random(1)

        ends: list[tuple[float, bool]] = []
        # On a machine that speeds up meanwhile, many tasks succeed before their alarm.
        while len(ends) < 30 and sum(ended for _, ended in ends) < 8:
            ends.append(try_with_alarm_after(chance.uniform(0.01, 0.9 * length)))

        assert max(seconds for seconds, _ in ends) < 5
        # Too late for a task that was just about to succeed.
        assert all(ended or seconds < 0.5 for seconds, ended in ends)
        # `make attack` strikes more often.
        assert sum(ended for _, ended in ends) > 5

    def test_a_thread_that_pauses_makes_no_call_once_the_time_is_over(
        self, api: Emulator, task: MakeTask, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_batches.api.throttle.backoff", lambda *_: 1.5)
        batch_id = api.add_batch(2, age_seconds=2 * HOUR)
        api.fault(Fault("results", status=503))

        with pytest.raises(AirflowTaskTimeout), alarm_after(0.5):
            task(batch_ids=[batch_id], save_results_to=str(folder)).run()
        sleep(1.5)

        assert api.count("results") == 1

    @pytest.mark.parametrize("endpoint", ["delete", "results"])
    def test_a_process_whose_time_is_over_does_not_wait_for_the_pauses_of_an_outage(
        self, api: Emulator, tmp_path: Path, endpoint: str
    ) -> None:
        """In a process of its own, with the real pauses: a thread that sleeps must not hold it."""
        batch_ids = [api.add_batch(2, age_seconds=2 * HOUR) for _ in range(4)]
        # As if the API asked for the pause of an outage, which otherwise comes after six attempts.
        api.fault(Fault(endpoint, status=503, times=None, headers={"retry-after": "30"}))
        script = f"""
            import signal
            from types import SimpleNamespace
            from airflow_provider_batches._compat import AirflowTaskTimeout
            from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
            def over(*_):
                raise AirflowTaskTimeout("over")
            task = TeardownBatchesOperator(task_id="t", batch_ids={batch_ids}, save_results_to="{tmp_path}/results")
            signal.signal(signal.SIGALRM, over)
            signal.setitimer(signal.ITIMER_REAL, 2)
            try:
                task.execute({{"ti": SimpleNamespace()}})
            except AirflowTaskTimeout:
                print("over", flush=True)
        """
        began = monotonic()
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)

        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "over"
        assert api.count(endpoint) == 4
        assert monotonic() - began < 15


def read_slowly(monkeypatch: pytest.MonkeyPatch, pause: Callable[[], Any]) -> list[bytes]:
    """Do something before each chunk of a stream of results; the chunks are in the list that is returned."""
    chunks: list[bytes] = []
    iterate = ResultBytes.__iter__

    def slow(self: ResultBytes) -> Iterator[bytes]:
        for chunk in iterate(self):
            chunks.append(chunk)
            pause()
            yield chunk

    monkeypatch.setattr(ResultBytes, "__iter__", slow)
    return chunks


@contextmanager
def alarm_after(seconds: float) -> Iterator[list[float]]:
    """Raise Airflow's timeout once, from a signal's handler, as `execution_timeout` does; the list holds when."""
    struck: list[float] = []

    def over(*_: Any) -> None:
        struck.append(monotonic())
        raise AirflowTaskTimeout("over")

    handler = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield struck
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def test_the_key_is_in_no_file(api: Emulator, task: MakeTask, folder: Path) -> None:
    api.add_batch(2, age_seconds=2 * HOUR)

    task(older_than="PT1H", save_results_to=str(folder)).run()

    for path in folder.rglob("*"):
        assert path.is_dir() or b"sk-ant" not in path.read_bytes()
    assert os.listdir(folder)


class TestAnOutage:
    """The API does not answer for a while."""

    AWAY = pytest.mark.parametrize(
        "trouble", [{"status": 503}, {"status": 529}, {"drop": True, "reset": True}], ids=str
    )

    @AWAY
    @pytest.mark.parametrize("after", [1, 2, 8, 15, 30])
    def test_in_the_middle_is_waited_out(
        self, api: Emulator, task: MakeTask, folder: Path, trouble: dict[str, Any], after: int
    ) -> None:
        batch_ids = [api.add_batch(2, status="in_progress") for _ in range(8)]
        api.fault(Fault("any", after=after, times=150, **trouble))

        summary = task(batch_ids=batch_ids, save_results_to=str(folder)).run()

        assert (summary["canceled"], summary["deleted"], summary["already_gone"]) == (8, 8, 0)
        assert saved_in(folder) == set(batch_ids)

    def test_that_began_after_a_delete_was_done_is_waited_out_too(self, api: Emulator, task: MakeTask) -> None:
        batch_id = api.add_batch()
        api.fault(Fault("delete", drop_after=True))
        api.fault(Fault("delete", status=503, after=1, times=20))

        assert task(batch_ids=[batch_id]).run()["deleted"] == 1

    def test_that_lasts_ends_the_try_for_all_batches_and_a_retry_does_the_rest(
        self, api: Emulator, task: MakeTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_batches.api.throttle.OUTAGE_SECONDS", 0.3)
        batch_ids = [api.add_batch() for _ in range(40)]
        api.fault(Fault("delete", status=503, after=4, times=None))
        made = task(batch_ids=batch_ids, max_in_flight=2)

        with pytest.raises(AirflowException, match=r"(?s)4 deleted.*36 failed.*503.*It was not tried") as caught:
            made.run()
        api.clear_faults()

        assert not isinstance(caught.value, AirflowFailException)
        assert len({request.batch_id for request in api.requests if request.endpoint == "delete"}) <= 6
        assert made.run()["deleted"] == 36

    def test_before_the_first_answer_is_not_waited_out(self, api: Emulator, task: MakeTask) -> None:
        batch_ids = [api.add_batch() for _ in range(2)]
        api.fault(Fault("any", status=503, times=None))

        with pytest.raises(AirflowException, match=r"(?s)2 failed.*503"):
            task(batch_ids=batch_ids, max_in_flight=1).run()

        assert {request.batch_id for request in api.requests} == set(batch_ids[:1])

    def test_of_one_batch_alone_is_no_outage(
        self, api: Emulator, task: MakeTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_batches.api.throttle.OUTAGE_SECONDS", 0.3)
        batch_ids = [api.add_batch() for _ in range(30)]
        api.fault(Fault("delete", batch_id=batch_ids[0], status=503, times=None))

        with pytest.raises(AirflowException, match=r"29 deleted.*1 failed"):
            task(batch_ids=batch_ids, max_in_flight=2).run()

        assert api.ids() == batch_ids[:1]
