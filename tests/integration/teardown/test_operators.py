from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from airflow.sdk import AssetAlias

from airflow_provider_batches._compat import AirflowException, AirflowFailException, AirflowSkipException
from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.operators.batches import ListBatchesOperator
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.operators.teardown import TeardownBatchesOperator
from airflow_provider_batches.results.saving import Saver
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.teardown.record import FullRecord
from tests.integration.teardown.harness import (
    KilledError,
    Task,
    TaskDeferred,
    assert_whole,
    expected_results,
    kills,
)

HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture
def save(folder: Path) -> Callable[..., Any]:
    return lambda batch_id, **kwargs: Task(
        SaveBatchResultsOperator, **{"batch_id": batch_id, "path": f"file://{folder}", **kwargs}
    ).run()


class TestSaveBatchResults:
    def test_it_returns_where_they_are_and_how_many(
        self, api: Emulator, save: Callable[..., Any], folder: Path
    ) -> None:
        batch_id = api.add_batch(10, age_seconds=2 * HOUR, outcomes={"succeeded": 9, "expired": 1})
        data = expected_results(api, batch_id)

        found = save(batch_id)

        record = assert_whole(folder, batch_id)
        assert (folder / f"{batch_id}.jsonl").read_bytes() == data
        assert found == {
            "batch_id": batch_id,
            "path": f"file://{folder}/{batch_id}.jsonl",
            "request_counts": {"processing": 0, "succeeded": 9, "errored": 0, "canceled": 0, "expired": 1},
            "lines": 10,
            "size": len(data),
            "sha256": record["sha256"],
            "missing": None,
        }
        assert api.batch(batch_id)

    def test_the_file_can_be_named(self, api: Emulator, save: Callable[..., Any], folder: Path) -> None:
        batch_id = api.add_batch(10, age_seconds=2 * HOUR)

        assert save(batch_id, path=f"{folder}/mine.jsonl")["path"] == f"{folder}/mine.jsonl"
        assert {path.name for path in folder.iterdir()} == {"mine.jsonl", "mine.json"}

    def test_what_a_killed_worker_has_left_is_removed_from_the_folder_of_the_file(
        self, api: Emulator, save: Callable[..., Any], folder: Path
    ) -> None:
        folder.mkdir()
        part = folder / f".mine.jsonl.{'0' * 32}.part"
        part.touch()
        os.utime(part, (0, 0))

        save(api.add_batch(10, age_seconds=2 * HOUR), path=f"{folder}/mine.jsonl")

        assert {path.name for path in folder.iterdir()} == {"mine.jsonl", "mine.json"}

    @pytest.mark.parametrize("root", ["/", "file:///"])
    def test_a_file_in_the_root_of_the_disk_can_be_named(
        self, save: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, root: str
    ) -> None:
        monkeypatch.setattr(Saver, "existing", lambda saver, batch_id: pytest.fail(saver.folder.uri("mine.jsonl")))

        with pytest.raises(pytest.fail.Exception, match=f"^{root}mine.jsonl$"):
            save("a", path=f"{root}mine.jsonl")

    def test_a_second_time_nothing_is_fetched(self, api: Emulator, save: Callable[..., Any]) -> None:
        batch_id = api.add_batch(10, age_seconds=2 * HOUR)
        first = save(batch_id)
        api.clear_requests()

        assert save(batch_id) == first
        assert api.count() == 0

    def test_a_batch_that_runs_is_left_to_a_retry(self, api: Emulator, save: Callable[..., Any]) -> None:
        with pytest.raises(AirflowException, match="has results only after it has ended") as caught:
            save(api.add_batch(10))

        assert not isinstance(caught.value, AirflowFailException)

    @pytest.mark.parametrize(
        ("choice", "error"), [("fail", AirflowFailException), ("skip", AirflowSkipException), ("ignore", None)]
    )
    def test_archived_results(
        self, api: Emulator, save: Callable[..., Any], choice: str, error: type[Exception] | None
    ) -> None:
        batch_id = api.add_batch(10, age_seconds=30 * DAY)

        if error:
            with pytest.raises(error, match="archived them permanently"):
                save(batch_id, on_missing_results=choice)
        else:
            found = save(batch_id, on_missing_results=choice)
            assert (found["path"], found["missing"]) == (None, "archived")

    def test_a_batch_in_which_nothing_was_answered(self, api: Emulator, save: Callable[..., Any]) -> None:
        batch_id = api.add_batch(3, status="ended", age_seconds=HOUR, outcomes={"canceled": 3})
        shown = api.batch(batch_id) or {}
        api.fault(Fault("retrieve", body=json.dumps({**shown, "results_url": None}), times=None))
        api.fault(Fault("results", status=404, times=None))

        with pytest.raises(AirflowFailException, match="no request was answered"):
            save(batch_id)

    def test_results_that_are_refused_although_they_exist_are_a_failure(
        self, api: Emulator, save: Callable[..., Any], folder: Path
    ) -> None:
        batch_id = api.add_batch(3, age_seconds=2 * HOUR)
        api.fault(Fault("results", status=404, times=None))

        with pytest.raises(AirflowException, match="Could not read the results"):
            save(batch_id)

        assert not list(folder.glob("*.json*")) if folder.exists() else True

    def test_an_unknown_batch_fails_permanently(self, api: Emulator, save: Callable[..., Any]) -> None:
        with pytest.raises(AirflowFailException, match="was not found"):
            save("msgbatch_unknown")

    def test_on_kill_leaves_no_partial_file(self, api: Emulator, folder: Path) -> None:
        task = SaveBatchResultsOperator(task_id="t", batch_id=api.add_batch(9, age_seconds=DAY), path=str(folder))
        task.on_kill()

        with pytest.raises(AirflowException, match="was stopped"):
            task.execute({"ti": None})  # type: ignore[typeddict-item]

        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"path": "results"}, "path: got 'results'; it must be a URI"),
            ({"path": ""}, "path: got ''"),
            ({"path": "file://data/all.jsonl"}, "path: got 'file://data/all.jsonl'.*three slashes"),
            ({"on_missing_results": "maybe"}, "on_missing_results: got 'maybe'; it must be one of fail, skip, ignore"),
        ],
    )
    def test_a_wrong_argument_is_named_at_once(self, fields: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            SaveBatchResultsOperator(task_id="t", **{"batch_id": "a", "path": "/data", **fields})

    def test_the_folder_of_the_deployment_is_the_default(
        self, api: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__MESSAGE_BATCHES__STORAGE_FOLDER", f"file://{folder}")
        task = SaveBatchResultsOperator(task_id="t", batch_id=api.add_batch(9, age_seconds=DAY))

        saved = task.execute({"ti": None})  # type: ignore[typeddict-item]

        assert saved["path"] == f"file://{folder}/results/{saved['batch_id']}.jsonl"

    def test_a_template_is_checked_when_it_is_rendered(self, api: Emulator, save: Callable[..., Any]) -> None:
        with pytest.raises(AirflowFailException, match="path: got 'None'"):
            save("a", path="{{ params.get('x') }}")


class TestOneFileForTwoBatches:
    """A task that is mapped over batches, with one file name for all."""

    @pytest.fixture
    def two(self, api: Emulator) -> list[str]:
        return [api.add_batch(3, age_seconds=2 * HOUR) for _ in range(2)]

    @pytest.fixture
    def save_one(self, two: list[str], folder: Path) -> Callable[..., Any]:
        def save_one(batch_id: str, run_id: str = "run") -> Any:
            task = Task(SaveBatchResultsOperator, batch_id=batch_id, path=f"{folder}/all.jsonl")
            task.map_index, task.run_id = two.index(batch_id) if batch_id in two else -1, run_id
            return task.run()

        return save_one

    def test_another_run_replaces_the_file(
        self, api: Emulator, two: list[str], save_one: Callable[..., Any], folder: Path
    ) -> None:
        save_one(two[0])

        assert save_one(two[1], run_id="next")["lines"] == 3
        assert (folder / "all.jsonl").read_bytes() == expected_results(api, two[1])

    def test_a_task_that_is_run_again_with_a_new_batch_replaces_its_file(
        self, api: Emulator, two: list[str], save_one: Callable[..., Any], folder: Path
    ) -> None:
        save_one(two[0])
        two[0] = api.add_batch(5, age_seconds=2 * HOUR)

        assert save_one(two[0])["lines"] == 5

    def test_a_fetch_that_fails_leaves_the_file_of_another_run_unchanged(
        self, api: Emulator, two: list[str], save_one: Callable[..., Any], folder: Path
    ) -> None:
        save_one(two[0])
        api.fault(Fault("results", status=402))
        with pytest.raises(AirflowFailException, match="402"):
            save_one(two[1], run_id="next")
        api.clear_requests()

        save_one(two[0])

        assert api.count() == 0

    def test_the_second_fails_permanently_and_fetches_nothing(
        self, api: Emulator, two: list[str], save_one: Callable[..., Any], folder: Path
    ) -> None:
        data = expected_results(api, two[0])
        save_one(two[0])
        api.clear_requests()

        with pytest.raises(AirflowFailException) as caught:
            save_one(two[1])

        says = f"path: got {folder}/all.jsonl, which is the file of batch {two[0]} in this run; batch {two[1]} would"
        assert says in str(caught.value)
        assert "Give a folder, or put the batch's ID or {{ ti.map_index }} into the file's name." in str(caught.value)
        assert (folder / "all.jsonl").read_bytes() == data
        assert api.count() == 0
        assert save_one(two[0])["path"] == f"{folder}/all.jsonl"

    def test_the_second_fails_while_the_first_still_fetches(
        self,
        api: Emulator,
        two: list[str],
        save_one: Callable[..., Any],
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        data = expected_results(api, two[0])
        fetch = Saver._fetch

        def with_another_meanwhile(saver: Saver, client: Any, batch: Any) -> Any:
            assert batch.id == two[0]
            with pytest.raises(AirflowFailException, match=f"the file of batch {two[0]}"):
                save_one(two[1])
            return fetch(saver, client, batch)

        monkeypatch.setattr(Saver, "_fetch", with_another_meanwhile)

        save_one(two[0])

        assert (folder / "all.jsonl").read_bytes() == data

    def test_of_two_that_both_found_the_name_free_one_fails(
        self,
        api: Emulator,
        two: list[str],
        save_one: Callable[..., Any],
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        claim = Saver._claim

        def after_another(saver: Saver, batch: Any) -> Any:
            monkeypatch.setattr(Saver, "_claim", claim)
            save_one(two[1])
            # What this task has read of the record before.
            known = saver._record
            monkeypatch.setattr(saver, "_record", lambda _: monkeypatch.setattr(saver, "_record", known))
            return claim(saver, batch)

        monkeypatch.setattr(Saver, "_claim", after_another)

        with pytest.raises(AirflowFailException, match=f"the file of batch {two[1]} in this run; batch {two[0]} would"):
            save_one(two[0])

        assert (folder / "all.jsonl").read_bytes() == expected_results(api, two[1])

    def test_if_one_takes_the_name_from_another_the_other_replaces_nothing(
        self,
        api: Emulator,
        two: list[str],
        save_one: Callable[..., Any],
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        fetch = Saver._fetch

        def after_another(saver: Saver, client: Any, batch: Any) -> Any:
            # As in a store that does not report that a file exists already.
            (folder / "all.json").unlink()
            monkeypatch.setattr(Saver, "_fetch", fetch)
            save_one(two[1])
            return fetch(saver, client, batch)

        monkeypatch.setattr(Saver, "_fetch", after_another)

        with pytest.raises(AirflowFailException, match=f"the file of batch {two[1]} in this run; batch {two[0]} would"):
            save_one(two[0])

        assert (folder / "all.jsonl").read_bytes() == expected_results(api, two[1])
        assert json.loads((folder / "all.json").read_text())["batch"]["id"] == two[1]
        assert not list(folder.glob(".*"))

    def test_a_fetch_that_fails_gives_the_name_back(
        self, api: Emulator, two: list[str], save_one: Callable[..., Any], folder: Path
    ) -> None:
        api.fault(Fault("results", status=402))
        with pytest.raises(AirflowFailException, match="402"):
            save_one(two[0])
        assert list(folder.iterdir()) == []

        assert save_one(two[1])["lines"] == 3

    def test_after_a_kill_at_any_moment_the_same_batch_continues_and_another_gets_no_part_of_it(
        self,
        api: Emulator,
        two: list[str],
        save_one: Callable[..., Any],
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        data = expected_results(api, two[0])
        # A killed worker gives nothing back.
        monkeypatch.setattr(Folder, "remove", lambda *_: None)
        for at in range(100):
            for path in folder.glob("*"):
                path.unlink()
            with kills(monkeypatch, at) as moments, suppress(KilledError):
                save_one(two[0])
            with suppress(AirflowFailException):
                assert save_one(two[1])["batch_id"] == two[1]
                assert not (folder / "all.json").read_text().count(two[0])
                continue
            assert save_one(two[0])["lines"] == 3
            assert (folder / "all.jsonl").read_bytes() == data
            if len(moments) <= at:
                break
        assert 10 < at < 99

    @pytest.mark.parametrize("record", [None, "", "{", "null", "[1]", "{}", '{"batch": 1}'])
    def test_results_whose_record_cannot_be_read_belong_to_no_batch(
        self, two: list[str], save_one: Callable[..., Any], folder: Path, record: str | None
    ) -> None:
        folder.mkdir()
        (folder / "all.jsonl").write_text("half")
        if record is not None:
            (folder / "all.json").write_text(record)

        assert save_one(two[0])["lines"] == 3
        assert json.loads((folder / "all.json").read_text())["batch"]["id"] == two[0]

    def test_a_record_alone_is_not_a_saved_batch(
        self, api: Emulator, save_one: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        empty = api.add_batch(1, age_seconds=2 * HOUR)
        seen: list[Any] = []
        fetch = Saver._fetch

        def look(saver: Saver, client: Any, batch: Any) -> Any:
            (folder / "all.jsonl").touch()
            seen.append(saver.existing(empty))
            return fetch(saver, client, batch)

        monkeypatch.setattr(Saver, "_fetch", look)
        save_one(empty)

        assert seen == [None]


class TestListBatches:
    def test_it_returns_ids_oldest_first(self, api: Emulator) -> None:
        ids = [api.add_batch(age_seconds=age * HOUR) for age in (2, 5, 3, 0.5)]

        assert Task(ListBatchesOperator, older_than=timedelta(hours=1)).run() == [ids[1], ids[2], ids[0]]
        assert Task(ListBatchesOperator, older_than="PT1H", limit=1).run() == [ids[1]]

    def test_by_time_and_state(self, api: Emulator) -> None:
        running = api.add_batch(age_seconds=60)
        api.add_batch(age_seconds=2 * HOUR)
        now = datetime.now(timezone.utc)

        assert Task(ListBatchesOperator, created_before=now, statuses=["in_progress"]).run() == [running]

    def test_a_page_whose_cursor_is_refused_is_read_again(self, api: Emulator) -> None:
        ids = {api.add_batch(1, age_seconds=2 * HOUR) for _ in range(1100)}
        api.fault(Fault("list", status=404, after=1))

        assert set(Task(ListBatchesOperator, older_than="PT1H").run()) == ids

    def test_everything_by_omission_is_refused(self) -> None:
        with pytest.raises(ValueError, match="would select every batch"):
            ListBatchesOperator(task_id="t", limit=5)


class TestAnArgumentThatBecomesNone:
    """As by a native template, or the output of a task that has returned nothing."""

    @pytest.mark.parametrize("operator", [TeardownBatchesOperator, ListBatchesOperator])
    @pytest.mark.parametrize("name", ["older_than", "created_before", "statuses", "limit"])
    def test_does_not_widen_the_selection(self, api: Emulator, operator: Any, name: str) -> None:
        batch_id = api.add_batch(age_seconds=2 * HOUR)
        others: dict[str, Any] = {} if name in ("older_than", "created_before") else {"older_than": "PT1H"}
        if operator is TeardownBatchesOperator:
            others["discard_results"] = True
        task = operator(task_id="t", **others, **{name: "{{ x }}"})
        setattr(task, name, None)

        with pytest.raises(AirflowFailException, match=f"{name}: its template or upstream task gave None"):
            task.execute({"ti": None})

        assert api.ids() == [batch_id]

    def test_is_not_taken_for_a_selection_that_was_never_given(self, api: Emulator) -> None:
        """As by a skipped upstream task."""
        task = TeardownBatchesOperator(task_id="t", batch_ids="{{ x }}", discard_results=True)
        task.batch_ids = None

        with pytest.raises(AirflowFailException, match="batch_ids: its template or upstream task gave None"):
            task.execute({"ti": None})

        assert api.count() == 0

    @pytest.mark.parametrize("resumed", [False, True])
    def test_does_not_delete_results_unsaved(self, api: Emulator, resumed: bool) -> None:
        batch_id = api.add_batch(age_seconds=2 * HOUR)
        task = TeardownBatchesOperator(task_id="t", batch_ids=[batch_id], save_results_to="{{ x }}")
        task.save_results_to = None
        left = {"event": {"message": ""}, "left": [{"batch_id": batch_id}], "tally": {"selected": 1}}
        work: Any = partial(task.execute_complete, **left) if resumed else task.execute

        with pytest.raises(AirflowFailException, match="save_results_to: its template or upstream task gave None"):
            work({"ti": None})

        assert api.ids() == [batch_id]


class TestTeardownArguments:
    def test_a_ceiling_may_be_a_text(self) -> None:
        ceiling: Any = "50"
        task = TeardownBatchesOperator(task_id="t", batch_ids=[], discard_results=True, requests_per_minute=ceiling)
        assert task.requests_per_minute == 50

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({}, "would select every batch"),
            ({"limit": 5}, "would select every batch"),
            ({"batch_ids": ["a"], "save_results_to": "results"}, "save_results_to: got 'results'"),
            ({"batch_ids": ["a"], "save_results_to": ""}, "save_results_to: got ''"),
            (
                {"batch_ids": ["a"], "save_results_to": "file://data"},
                "save_results_to: got 'file://data'.*three slashes",
            ),
            ({"batch_ids": ["a"], "report_only": "maybe"}, "report_only: got 'maybe'; it must be True or False"),
            ({"batch_ids": ["a"], "requests_per_minute": 0}, "requests_per_minute: got 0"),
            ({"batch_ids": ["a"], "requests_per_minute": "many"}, "requests_per_minute: got 'many'"),
            ({"batch_ids": ["a"], "max_in_flight": 0}, "max_in_flight: got 0"),
            ({"batch_ids": ["a"], "poll_interval": 0}, "poll_interval: got 0"),
            ({"batch_ids": ["a"], "timeout": -1}, "timeout: got -1"),
        ],
    )
    def test_a_wrong_argument_is_named_at_once(self, fields: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            TeardownBatchesOperator(task_id="t", **fields)

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"batch_ids": "{{ params.get('x') }}", "discard_results": True}, "batch_ids: got 'None'"),
            ({"older_than": "{{ params.get('x') }}", "discard_results": True}, "older_than: got 'None'"),
            (
                {"batch_ids": ["a"], "discard_results": True, "report_only": "{{ params.get('x') }}"},
                "report_only: got 'None'",
            ),
            ({"batch_ids": ["a"], "discard_results": "{{ params.get('x') }}"}, "discard_results: got 'None'"),
            ({"batch_ids": ["a"], "discard_results": "{{ 'False' }}"}, "discard_results: neither is given"),
            (
                {"batch_ids": ["a"], "save_results_to": "/data", "discard_results": "{{ 'true' }}"},
                "discard_results: both are given",
            ),
            ({"batch_ids": ["a"], "save_results_to": "{{ params.get('x') }}"}, "save_results_to: got 'None'"),
            ({"batch_ids": ["a"], "save_results_to": "file://{{ 'data' }}"}, "save_results_to: got 'file://data'"),
        ],
    )
    def test_a_template_is_checked_when_it_is_rendered(self, api: Emulator, fields: dict[str, Any], says: str) -> None:
        with pytest.raises(AirflowFailException, match=says):
            Task(**fields).run()

        assert api.count() == 0

    def test_a_record_that_cannot_be_written_goes_to_the_log(
        self, api: Emulator, folder: Path, task: Callable[..., Task]
    ) -> None:
        folder.mkdir()
        (folder / "_teardown").write_text("in the way")
        batch_id = api.add_batch(2, age_seconds=2 * HOUR)

        assert task(batch_ids=[batch_id], save_results_to=str(folder)).run()["deleted"] == 1

    def test_a_folder_that_does_not_exist_is_created(self, api: Emulator, folder: Path) -> None:
        batch_id = api.add_batch(2, age_seconds=2 * HOUR)

        Task(batch_ids=[batch_id], save_results_to=f"{folder}/a/b/c").run()

        assert_whole(folder / "a/b/c", batch_id)


def test_a_task_that_resumes_without_what_it_has_stored_finishes(api: Emulator, task: Callable[..., Task]) -> None:
    """As in `dag.test`, which drops it."""
    batch_ids = [api.add_batch(2, status="in_progress", cancel_seconds=0.5) for _ in range(3)]
    made = task(batch_ids=batch_ids)
    with pytest.raises(TaskDeferred):
        made._process().execute(made._context())
    sleep(0.6)

    summary = made._process().execute_complete(made._context(), {"message": "3 of 3 batches have ended."})

    assert (summary["selected"], summary["deleted"]) == (3, 3)
    assert api.count("cancel") == 3


def test_before_airflow_3_3_the_selection_is_stored_in_a_variable(
    api: Emulator, monkeypatch: pytest.MonkeyPatch, task: Callable[..., Task]
) -> None:
    from airflow_provider_batches import _compat

    kept: dict[str, Any] = {}

    class Variable:
        @staticmethod
        def get(key: str, default: Any, deserialize_json: bool) -> Any:
            return kept.get(key, default)

        @staticmethod
        def set(key: str, value: Any, serialize_json: bool) -> None:
            kept[key] = value

        @staticmethod
        def delete(key: str) -> None:
            kept.pop(key, None)

    monkeypatch.setattr(_compat, "Variable", Variable)
    batch_ids = [api.add_batch(age_seconds=(9 - number) * HOUR) for number in range(3)]
    api.fault(Fault("delete", batch_id=batch_ids[0], status=500, times=None))
    made = task(older_than="PT1H", limit=2)
    made.store = None  # type: ignore[assignment]
    with pytest.raises(AirflowException):
        made.run()
    assert list(kept) == ["dag.run.teardown.-1.chosen"]
    assert kept["dag.run.teardown.-1.chosen"]["batch_ids"] == batch_ids[:2]
    api.clear_faults()

    made.run()

    assert api.ids() == [batch_ids[2]]
    assert kept == {}


class TestAnnouncing:
    """A task with an asset alias announces each file once it succeeds, regardless of which process has saved it."""

    @pytest.fixture
    def announcing(self, folder: Path, task: Callable[..., Task]) -> Callable[..., Task]:
        return lambda **options: task(
            **{"save_results_to": folder.as_uri(), "outlets": [AssetAlias("saved")], "retries": 2, **options}
        )

    @staticmethod
    def announced(task: Task) -> set[str]:
        return {uri.rpartition("/")[2].removesuffix(".jsonl") for uri, _ in task.outlets.events}

    def test_those_of_before_a_deferral(self, api: Emulator, announcing: Callable[..., Task]) -> None:
        ids = [api.add_batch(status="ended"), api.add_batch(status="in_progress", cancel_seconds=1)]
        task = announcing(batch_ids=ids)

        task.run()

        assert len(task.deferrals) == 1
        assert self.announced(task) == set(ids)
        assert all(extra["sha256"] and extra["lines"] == 100 for _, extra in task.outlets.events)

    def test_those_of_an_earlier_try(self, api: Emulator, announcing: Callable[..., Task]) -> None:
        ids = [api.add_batch(status="ended", age_seconds=7200) for _ in range(3)]
        task = announcing(older_than=timedelta(hours=1))
        api.fault(Fault("delete", batch_id=ids[1], times=6, status=500))
        with pytest.raises(AirflowException):
            task.run()
        assert api.ids() == [ids[1]]

        task.run()

        assert self.announced(task) == set(ids)

    def test_those_of_a_try_that_was_killed_before_it_wrote_its_record(
        self, api: Emulator, announcing: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [api.add_batch(status="ended") for _ in range(2)]
        task = announcing(batch_ids=ids)
        with monkeypatch.context() as patch:
            patch.setattr(FullRecord, "write", lambda *_: (_ for _ in ()).throw(KilledError))
            with pytest.raises(KilledError):
                task.run()
        assert api.ids() == []

        assert task.run()["already_gone"] == 2
        assert self.announced(task) == set(ids)

    def test_a_batch_without_results_has_no_file(self, api: Emulator, announcing: Callable[..., Task]) -> None:
        archived = api.add_batch(status="ended", age_seconds=30 * 24 * 3600)
        task = announcing(batch_ids=[archived])

        assert task.run()["deleted"] == 1
        assert task.outlets.events == []

    def test_another_task_s_files_in_the_folder_are_not_announced(
        self, api: Emulator, announcing: Callable[..., Task]
    ) -> None:
        other = announcing(batch_ids=[api.add_batch(status="ended")])
        other.run_id = "other"
        other.run()
        batch_id = api.add_batch(status="ended")
        task = announcing(batch_ids=[batch_id])
        task.run()

        assert self.announced(task) == {batch_id}
