from __future__ import annotations

import random
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_batches.api import MessageBatch
from airflow_provider_batches.waiting.cursor import MAX_IDS, OVERLAP, Cursor, ended_at


def batch(number: int, ended: float | None, created: float = 0.0) -> MessageBatch:
    def moment(seconds: float | None) -> datetime | None:
        return None if seconds is None else datetime.fromtimestamp(1e9 + seconds, timezone.utc)

    return MessageBatch(
        id=f"b{number}",
        processing_status="ended",
        request_counts={},
        created_at=moment(created),
        ended_at=moment(ended),  # type: ignore[arg-type]
    )


def ids(batches: list[MessageBatch]) -> list[str]:
    return [each.id for each in batches]


def test_news_is_in_the_order_of_the_ends_and_only_once() -> None:
    cursor = Cursor(1e9)
    ended = [(batch(1, 30), False), (batch(2, 10), False), (batch(3, 20), True)]
    found = cursor.news(ended)
    assert ids(found) == ["b2", "b3", "b1"]

    assert cursor.after(found).news(ended) == []


def test_an_end_before_the_window_is_news_only_if_the_batch_was_seen_running() -> None:
    cursor = Cursor(1e9 + 1000)

    assert ids(cursor.news([(batch(1, 1000 - OVERLAP - 1), False), (batch(2, 5), True)])) == ["b2"]
    assert ids(cursor.news([(batch(3, 1000 - OVERLAP + 1), False)])) == ["b3"]


def test_what_is_remembered_is_the_window_and_a_thousand_ids_at_most() -> None:
    cursor = Cursor(1e9).after([batch(number, number) for number in range(2000)])
    assert len(cursor.ids) == min(MAX_IDS, int(OVERLAP))
    assert cursor.until == 1e9 + 1999
    burst = Cursor(1e9).after([batch(number, 5) for number in range(2000)])
    assert len(burst.ids) == MAX_IDS


def test_without_an_end_the_creation_counts() -> None:
    assert ended_at(batch(1, None, 7)) == 1e9 + 7


def test_a_cursor_survives_as_json() -> None:
    cursor = Cursor(1e9).after([batch(1, 5)])

    assert Cursor.load(cursor.dump()) == cursor


@pytest.mark.parametrize(
    "stored", [None, "", [], {}, {"until": "x", "ids": {}}, {"until": 1, "ids": [1]}, {"until": 1}]
)
def test_what_cannot_be_read_is_no_cursor(stored: Any) -> None:
    assert Cursor.load(stored) is None


@pytest.mark.parametrize("seed", range(30))
def test_restarts_lose_nothing(seed: int) -> None:
    """Batches end at random and are listed late; the cursor is stored after some looks only."""
    chance = random.Random(seed)
    ends = {number: chance.uniform(0, 3000) for number in range(100)}
    # Late by less than the window, so that a restart finds them.
    listed = {number: end + chance.uniform(0, OVERLAP / 2) for number, end in ends.items()}
    cursor = stored = Cursor(1e9)
    announced: list[str] = []
    for now in range(0, 3600, 60):
        if chance.random() < 0.2:
            cursor = stored
        ended = [(batch(number, end), False) for number, end in ends.items() if listed[number] <= now]
        found = cursor.news(ended)
        cursor = cursor.after(found)
        announced += ids(found)
        if chance.random() < 0.7:
            stored = cursor

    assert set(announced) == {f"b{number}" for number in ends}
