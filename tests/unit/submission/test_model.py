"""The protocol holds in every order of its steps, and none of its rules could be left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_batches.submission.ledger import ChunkState, Records
from tests.unit.submission.model import Rules, explore, ledger_state


def test_the_protocol_holds() -> None:
    moments, failures = explore(Rules(), tasks=3)

    assert failures == {}
    assert moments > 5_000


def void_first(names: frozenset[str]) -> ChunkState:
    """What a ledger would say in which a void counts more than a batch."""
    state = ledger_state(names)
    without = Records.read(name for name in names if ".batch." not in name).state(1, 0)
    attempt = next((int(name.split("-")[2].split(".")[0]) for name in names if ".batch." in name), None)
    return without if attempt and attempt < without.attempt else state


@pytest.mark.parametrize(
    ("rule", "failure"),
    [
        ({"tags": False}, "foreign batch"),
        ({"tags_name_the_chunk": False}, "foreign batch"),
        ({"claims_are_exclusive": False}, "paid twice"),
        ({"settles": False}, "paid twice"),
        ({"deadline": False}, "paid twice"),
        ({"withholds": False}, "paid twice"),
        ({"http_retries": True}, "paid twice"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_no_rule_can_be_left_out(rule: dict[str, bool], failure: str) -> None:
    _, failures = explore(replace(Rules(), **rule), tasks=2)  # type: ignore[arg-type]

    assert failure in failures


def test_a_known_batch_counts_more_than_a_void() -> None:
    names = frozenset({"1-00000-1.claim.json", "1-00000-1.void.json", "1-00000-1.batch.own.json"})

    assert ledger_state(names) == ChunkState("sent", 2, ["own"])
    assert void_first(names).status == "unsent"
