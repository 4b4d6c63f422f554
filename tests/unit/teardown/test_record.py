from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from airflow_provider_batches.teardown.record import FullRecord, Record, Tally

RESULTS = {"path": "a.jsonl", "missing": None, "size": 20}


def test_a_summary_reads_as_a_sentence() -> None:
    assert str(Tally(selected=1200, deleted=1199, failed=1)) == (
        "Batches selected: 1,200; 0 canceled, 0 ended, 0 saved, 1,199 deleted, 0 already gone, 1 failed; 0 bytes saved"
    )


def test_a_summary_counts_what_happened_to_each_batch() -> None:
    before = Tally(selected=5, deleted=1, saved=1, ended=1, bytes_saved=5)
    records = [
        Record("deleted", "deleted", canceled=True, ended=True, results=RESULTS),
        Record("gone", "already_gone", canceled=True),
        Record("archived", ended=True, results={"path": None, "missing": "archived", "size": None}),
        Record("running", canceled=True, error="It is canceling."),
    ]

    after = before.plus(records)

    assert after == Tally(selected=5, canceled=3, ended=3, saved=2, deleted=2, already_gone=1, bytes_saved=25)
    assert before == Tally(selected=5, deleted=1, saved=1, ended=1, bytes_saved=5)


class TestTheFullRecord:
    def test_has_a_line_of_plain_json_for_each_batch_once(self) -> None:
        lines: list[str] = []
        log = SimpleNamespace(info=lambda text, line: lines.append(text % line))
        full_record = FullRecord(None, "task", log)

        full_record.write([Record("a", "deleted", results=RESULTS)])
        full_record.write([Record("a", "deleted"), Record("b", error="No.", seen_since=5.0)])

        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        assert [line["batch_id"] for line in found] == ["a", "b"]
        assert found[0]["results"] == RESULTS
        assert found[1].keys() == {
            "batch_id",
            "outcome",
            "canceled",
            "cancel_request_id",
            "ended",
            "results",
            "deleted_at",
            "delete_request_id",
            "error",
        }

    def test_of_nothing_is_not_written(self, tmp_path: Any) -> None:
        from airflow_provider_batches.storage.folder import Folder

        FullRecord(Folder(str(tmp_path)), "task", print).write([])

        assert list(tmp_path.iterdir()) == []

    def test_returns_the_results_of_each_try_of_the_task(self, tmp_path: Any) -> None:
        from airflow_provider_batches.storage.folder import Folder

        log = SimpleNamespace(info=lambda *_: None)
        for name, records in {
            "dag.task": [Record("a", "deleted", results=RESULTS), Record("b", "already_gone")],
            "dag.task_2": [Record("c", "deleted", results=RESULTS)],
        }.items():
            FullRecord(Folder(str(tmp_path)), name, log).write(records)
        FullRecord(Folder(str(tmp_path)), "dag.task", log).write([Record("d", results=RESULTS)])
        (tmp_path / "_teardown" / "dag.task.damaged.jsonl").write_text('{"batch_id": "e"}\n[1]\n{"batch')

        assert FullRecord(Folder(str(tmp_path)), "dag.task", log).results() == {"a": RESULTS, "d": RESULTS}
        assert FullRecord(None, "dag.task", log).results() == {}
