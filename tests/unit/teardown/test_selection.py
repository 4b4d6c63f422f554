from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_batches.api import InvalidArgumentError, MessageBatch
from airflow_provider_batches.teardown.selection import Selection, read_selection

NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def batch(age_hours: float = 0, status: str = "ended", name: str = "b") -> MessageBatch:
    created = NOW - age_hours * HOUR
    return MessageBatch(
        id=f"msgbatch_{name}",
        processing_status=status,
        request_counts={},
        created_at=created,
        expires_at=created,
    )


def read(**fields: Any) -> Selection:
    return read_selection(started=NOW, **fields)


@pytest.mark.parametrize(
    ("fields", "before"),
    [
        ({"older_than": timedelta(days=7)}, NOW - timedelta(days=7)),
        ({"older_than": "7 days"}, NOW - timedelta(days=7)),
        ({"older_than": "P7D"}, NOW - timedelta(days=7)),
        ({"older_than": str(timedelta(days=7, hours=1))}, NOW - timedelta(days=7, hours=1)),
        ({"created_before": NOW - HOUR}, NOW - HOUR),
        ({"created_before": "2026-01-31T11:00:00Z"}, NOW - HOUR),
        ({"created_before": "2026-01-31 12:00:00+01:00"}, NOW - HOUR),
        # No newer batch than the run is ever selected.
        ({"created_before": NOW + HOUR}, NOW),
        ({"statuses": ["ended"]}, NOW),
    ],
)
def test_the_cutoff(fields: dict[str, Any], before: datetime) -> None:
    assert read(**fields).before == before


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "none is given, which would select every batch"),
        ({"limit": 5}, "none is given"),
        ({"batch_ids": ["a"], "older_than": HOUR}, "batch_ids: given together with older_than"),
        ({"batch_ids": ["a"], "limit": 1}, "batch_ids: given together with limit"),
        ({"older_than": HOUR, "created_before": NOW}, "older_than, created_before: both are given"),
        ({"batch_ids": ["a/b"]}, "batch_ids: 'a/b' contains '/'"),
        ({"batch_ids": "None"}, "batch_ids: got 'None'"),
        ({"batch_ids": 5}, "batch_ids: expected"),
        ({"older_than": timedelta()}, "older_than: got datetime.timedelta"),
        ({"older_than": -HOUR}, "older_than"),
        ({"older_than": "soon"}, "older_than: got 'soon'; it must be a timedelta above 0, or a text"),
        ({"older_than": 7}, "older_than: got 7"),
        ({"older_than": True}, "older_than: got True"),
        ({"older_than": "None"}, "older_than: got 'None'"),
        ({"created_before": "yesterday"}, "created_before: got 'yesterday'"),
        ({"created_before": "1700000000"}, "created_before: got '1700000000'"),
        ({"created_before": NOW.replace(tzinfo=None)}, "has no time zone"),
        ({"created_before": "2026-01-31"}, "has no time zone"),
        ({"created_before": 5}, "created_before: got 5"),
        ({"statuses": ["canceled"]}, "There is no 'canceled' and no 'expired'"),
        ({"statuses": []}, "statuses: got []"),
        ({"statuses": "[oops"}, "statuses: got '[oops'"),
        ({"statuses": 5}, "statuses: got 5"),
        ({"older_than": HOUR, "limit": 0}, "limit: got 0; it must be a whole number above 0"),
        ({"older_than": HOUR, "limit": True}, "limit: got True"),
        ({"older_than": HOUR, "limit": "many"}, "limit: got 'many'"),
        ({"older_than": HOUR, "limit": 1.5}, "limit: got 1.5"),
    ],
)
@pytest.mark.parametrize("started", [NOW, None], ids=["run", "parse"])
def test_a_wrong_argument_is_named(fields: dict[str, Any], says: str, started: datetime | None) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_selection(started=started, **fields)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"batch_ids": "{{ params.ids }}"},
        {"batch_ids": ["{{ params.id }}"]},
        {"batch_ids": SimpleNamespace(iter_references=None)},
        {"older_than": "{{ params.days }}", "limit": "{{ params.limit }}"},
        {"created_before": "{{ ds }}", "statuses": "{% if x %}ended{% endif %}"},
    ],
)
def test_a_template_is_judged_once_it_is_rendered(fields: dict[str, Any]) -> None:
    read_selection(**fields)

    with pytest.raises(InvalidArgumentError):
        read(**fields)


@pytest.mark.parametrize(
    ("statuses", "found"),
    [("ended", {"ended"}), ("['ended', 'canceling']", {"ended", "canceling"}), (("in_progress",), {"in_progress"})],
)
def test_states_may_come_from_a_template(statuses: Any, found: set[str]) -> None:
    assert read(statuses=statuses).statuses == found


def test_the_oldest_come_first() -> None:
    batches = [batch(age, name=str(age)) for age in (3, 9, 5, 7)]

    assert [found.id for found in read(older_than=4 * HOUR).choose(batches)] == [
        "msgbatch_9",
        "msgbatch_7",
        "msgbatch_5",
    ]
    assert [found.id for found in read(older_than=HOUR, limit="2").choose(batches)] == ["msgbatch_9", "msgbatch_7"]


def test_a_batch_exactly_as_old_as_the_cutoff_stays() -> None:
    assert read(older_than=HOUR).choose([batch(1)]) == []


def test_an_unknown_state_is_selected_only_if_no_state_is_asked_for() -> None:
    odd = batch(5, "paused")

    assert read(older_than=HOUR).choose([odd]) == [odd]
    assert read(older_than=HOUR, statuses=["ended"]).choose([odd]) == []


def test_a_batch_whose_age_is_unknown_is_never_selected_by_age() -> None:
    odd = batch(5).model_copy(update={"created_at": None})

    assert read(older_than=HOUR).choose([odd]) == read(statuses=["ended"]).choose([odd]) == []


def test_a_batch_with_ended_at_is_selected_as_ended_regardless_of_its_status() -> None:
    odd = batch(5, "completed").model_copy(update={"ended_at": NOW})

    assert read(older_than=HOUR, statuses=["ended"]).choose([odd]) == [odd]
    assert read(older_than=HOUR, statuses=["in_progress"]).choose([odd]) == []


def test_without_a_cutoff_all_are_old_enough() -> None:
    assert Selection().takes(batch())
