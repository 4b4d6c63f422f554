from __future__ import annotations

from airflow_provider_batches.teardown.job import Record, Tally
from airflow_provider_batches.teardown.progress import Progress


def test_a_line_now_and_then_and_one_at_the_end() -> None:
    now, said = [0.0], []
    progress = Progress("Deleting", 1000, said.append, lambda: now[0])

    for _ in range(1000):
        now[0] += 0.1
        progress.advance()

    assert len(said) == 4
    assert said[0] == "Deleting: 300 of 1,000 batches in 30.0 s (10.0/s, about 70 s left)"
    assert said[-1] == "Deleting: 1,000 of 1,000 batches in 100.0 s (10.0/s)"


def test_a_summary_reads_as_a_sentence() -> None:
    assert str(Tally(selected=1200, deleted=1199, failed=1)) == (
        "Batches selected: 1,200; 0 canceled, 0 ended, 0 saved, 1,199 deleted, 0 already gone, 1 failed; 0 bytes saved"
    )


def test_a_record_is_plain_json() -> None:
    assert Record("a").line().keys() == {
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
