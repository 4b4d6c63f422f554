"""Batches for all viewers of the page: shared answers, and never more than a few threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_batches.api import BatchesError, ClientSettings, NotFoundError
from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.page.reader import MAX_RETRIEVED, MAX_THREADS, BusyError, Reader


class Clock:
    """The time, which tests can move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def api() -> Iterator[Emulator]:
    with Emulator() as api:
        yield api


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reader(api: Emulator, clock: Clock) -> Reader:
    return Reader(lambda conn_id: ClientSettings(api_key="sk-ant-emulator", base_url=api.url), clock)


def add(api: Emulator, count: int) -> list[str]:
    """Add batches, and return their IDs, newest first."""
    for number in range(count):
        api.add_batch(1, status="ended", age_seconds=float(count - number) + 60)
    return api.ids()


def ids(found: tuple[list[object], bool]) -> list[str]:
    return [batch.id for batch in found[0]]  # type: ignore[attr-defined]


def test_many_viewers_cause_one_request(reader: Reader, api: Emulator, clock: Clock) -> None:
    expected = add(api, 3)
    with ThreadPoolExecutor(MAX_THREADS) as pool:
        found = list(pool.map(lambda _: ids(reader.batches("c", 100)), range(50)))

    assert found == [expected] * 50
    assert api.count("list") == 1
    clock.now += 6
    reader.batches("c", 100)
    assert api.count("list") == 2


def test_older_batches_come_from_pages_that_are_kept(reader: Reader, api: Emulator, clock: Clock) -> None:
    expected = add(api, 2300)
    found: list[str] = []
    more = True
    while more:
        batches, more = reader.batches("c", 100, found[-1] if found else None)
        found += [batch.id for batch in batches]
        clock.now += 1

    assert found == expected
    assert api.count("list") == 3


def test_each_connection_has_answers_of_its_own(reader: Reader, api: Emulator) -> None:
    add(api, 1)
    reader.batches("a", 10)
    reader.batches("b", 10)

    assert api.count("list") == 2


def test_a_failure_is_shared_and_not_retried(reader: Reader, api: Emulator, clock: Clock) -> None:
    api.fault(Fault("list", times=1, status=500))
    for _ in range(5):
        with pytest.raises(BatchesError, match="500"):
            reader.batches("c", 10)
    assert api.count("list") == 1
    clock.now += 6

    assert reader.batches("c", 10) == ([], False)


def test_a_slow_api_holds_a_few_threads_and_the_rest_is_refused(reader: Reader, api: Emulator) -> None:
    api.fault(Fault("list", times=None, delay=1.0))
    began, refused = time.monotonic(), 0
    barrier = threading.Barrier(12)

    def view(_: int) -> bool:
        barrier.wait()
        try:
            reader.batches("c", 10)
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        refused = list(pool.map(view, range(12))).count(False)

    assert refused == 12 - MAX_THREADS
    assert api.count("list") == 1
    assert time.monotonic() - began < 10


def test_a_rotated_key_is_used(api: Emulator, clock: Clock) -> None:
    keys = ["wrong", "sk-ant-emulator"]
    reader = Reader(lambda conn_id: ClientSettings(api_key=keys.pop(0), base_url=api.url), clock)
    with pytest.raises(BatchesError, match="401"):
        reader.batches("c", 10)
    clock.now += 6

    assert reader.batches("c", 10) == ([], False)


@pytest.mark.parametrize("count", [3, 1500])
def test_the_batches_of_a_task_are_found_in_the_list_or_one_by_one(count: int, reader: Reader, api: Emulator) -> None:
    listed = add(api, count)
    for _ in range(3):
        found = reader.find("c", [listed[-1], "msgbatch_gone", "no/id", listed[0]])

        assert [batch.id for batch in found.batches] == [listed[-1], listed[0]]
        assert (found.missing, found.partial) == (["msgbatch_gone", "no/id"], False)
    assert api.count("retrieve") == (0 if count == 3 else 2)


def test_old_batches_that_were_not_looked_up_do_not_count_as_missing(reader: Reader, api: Emulator) -> None:
    found = reader.find("c", add(api, 1050)[-50:])

    assert len(found.batches) == api.count("retrieve") == MAX_RETRIEVED
    assert (found.missing, found.partial) == ([], True)


def test_a_batch_that_cannot_be_read_does_not_count_as_missing(reader: Reader, api: Emulator) -> None:
    oldest = add(api, 1001)[-1]
    api.fault(Fault("retrieve", times=1, status=500))

    with pytest.raises(BatchesError, match="500"):
        reader.find("c", [oldest])


def test_a_read_is_limited_to_ten_seconds(api: Emulator, clock: Clock) -> None:
    reader = Reader(lambda conn_id: ClientSettings(api_key="sk-ant-emulator", base_url=api.url, timeout=600), clock)

    assert reader._client("c").settings.timeout == 10
    with pytest.raises(NotFoundError):
        reader._client("c").retrieve("msgbatch_1")
