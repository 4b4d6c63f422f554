from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_batches.storage.folder import Folder, StorageError
from airflow_provider_batches.submission.ledger import Chunk, ChunkState, Ledger, Plan, Records, Summary

PLAN = Plan(
    number=1,
    id="p",
    submission_id="mine",
    base_url="https://api.anthropic.com",
    workspace_id=None,
    summary=Summary(2, 300, {"m": 2}, {"m": 10}, "abc"),
    chunks=[Chunk("requests/p-00000.jsonl", 2, 300, "def", "0123abcd")],
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Folder(f"file://{tmp_path}"))


@pytest.mark.parametrize(
    ("names", "state"),
    [
        ([], ChunkState("unsent", 1, [])),
        (["claim"], ChunkState("doubt", 1, [])),
        (["claim", "void"], ChunkState("unsent", 2, [])),
        (["claim", "batch.b"], ChunkState("sent", 1, ["b"])),
        (["void", "batch.b"], ChunkState("sent", 2, ["b"])),
        (["batch.a%2Fb"], ChunkState("sent", 1, ["a/b"])),
        (["batch.a", "batch.b"], ChunkState("sent", 1, ["a", "b"])),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) else None,
)
def test_names_alone_hold_the_state_of_a_chunk(names: list[str], state: ChunkState) -> None:
    records = Records.read(f"1-00000-1.{name}.json" for name in names)

    assert records.state(1, 0) == state
    assert records.state(1, 1) == records.state(2, 0) == ChunkState("unsent", 1, [])


def test_later_attempts_count_once_the_earlier_ones_are_void() -> None:
    names = ["1-00000-1.claim.json", "1-00000-1.void.json", "1-00000-2.claim.json"]

    assert Records.read(names).state(1, 0) == ChunkState("doubt", 2, [])


def test_other_files_are_ignored() -> None:
    records = Records.read(["notes.txt", ".probe", "plan-1.json.part", "1-00000-1.claim", "requests", "plan-2.json"])

    assert (records.plan, records.batch_ids) == (2, set())


def test_the_newest_plan_counts_by_number_not_by_name() -> None:
    assert Records.read(f"plan-{number}.json" for number in (9, 10, 2)).plan == 10


def test_a_plan_is_read_as_it_was_written(ledger: Ledger) -> None:
    assert ledger.create_plan(PLAN)
    assert ledger.plan(1) == PLAN


def test_one_of_two_claims_wins(ledger: Ledger) -> None:
    other = Ledger(ledger.folder)

    assert [ledger.claim(1, 0, 1, {"at": 1}), other.claim(1, 0, 1, {"at": 2})] == [True, False]
    assert ledger.claims(1, 0, 1)[0]["at"] == 1


def test_a_claim_whose_answer_the_store_lost_is_known_as_its_own(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Folder.create

    def twice(self: Folder, name: str, data: bytes) -> None:
        create(self, name, data)
        create(self, name, data)

    monkeypatch.setattr(Folder, "create", twice)

    assert ledger.claim(1, 0, 1, {})


def test_a_batch_is_recorded_any_number_of_times(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.record_batch(1, 0, 1, "msgbatch_1", {})

    assert ledger.records().batch_ids == {"msgbatch_1"}


@pytest.mark.parametrize(
    ("content", "message"), [(b'{"number": 1', "is not whole"), (b"{}", "is not a plan of this version")]
)
def test_a_file_that_cannot_be_read_is_named(content: bytes, message: str, ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "plan-1.json").write_bytes(content)

    with pytest.raises(StorageError, match=f"plan-1.json {message}"):
        ledger.plan(1)
