from __future__ import annotations

import asyncio
import contextvars
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from airflow_provider_batches.waiting import thread as module
from airflow_provider_batches.waiting.thread import run_in_thread

owner: contextvars.ContextVar[str] = contextvars.ContextVar("owner", default="nobody")


class Alarm(BaseException):
    """Like Airflow's AirflowTaskTimeout, not a subclass of Exception."""


def raise_alarm(*_: Any) -> None:
    raise Alarm


@contextmanager
def alarm(seconds: float = 0.0) -> Iterator[None]:
    """Raise Alarm in the main thread after so many seconds, or at the signal."""
    former = signal.signal(signal.SIGALRM, raise_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 5
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < until, left
        time.sleep(0.01)


class Work:
    """A coroutine that takes its time, and notes how it ends."""

    def __init__(self) -> None:
        self.ended = "not begun"

    async def __call__(self, seconds: float = 60.0, sends: signal.Signals | None = None) -> str:
        self.ended = "running"
        # A second task, as the poller is one.
        helper = asyncio.create_task(asyncio.sleep(600))
        try:
            if sends:
                os.kill(os.getpid(), sends)
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.ended = "canceled"
            raise
        finally:
            helper.cancel()
        self.ended = "done"
        return "value"


@pytest.fixture
def work() -> Work:
    return Work()


def test_a_coroutine_returns_its_value(work: Work) -> None:
    assert run_in_thread(work(0.01)) == "value"


def test_it_runs_outside_of_the_main_thread() -> None:
    async def ident() -> int:
        return threading.get_ident()

    assert run_in_thread(ident()) != threading.get_ident()


async def test_it_works_inside_a_running_event_loop(work: Work) -> None:
    assert run_in_thread(work(0.01)) == "value"


def test_it_keeps_the_context() -> None:
    async def read() -> str:
        return owner.get()

    owner.set("me")
    assert run_in_thread(read()) == "me"


@pytest.mark.parametrize("kind", [ValueError, Alarm, KeyboardInterrupt, SystemExit])
def test_it_raises_what_the_coroutine_raises(kind: type[BaseException]) -> None:
    async def fail() -> None:
        raise kind("x")

    with pytest.raises(kind, match="x"):
        run_in_thread(fail())


def test_an_alarm_ends_the_wait_and_cancels_the_coroutine(work: Work) -> None:
    begun = time.monotonic()
    with pytest.raises(Alarm), alarm():
        run_in_thread(work(sends=signal.SIGALRM))
    assert time.monotonic() - begun < 2
    assert work.ended == "canceled"


def test_so_does_ctrl_c(work: Work) -> None:
    # A program that a shell runs in the background ignores the signal.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_in_thread(work(sends=signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, former)
    assert work.ended == "canceled"


def test_an_alarm_ends_the_wait_for_a_coroutine_that_blocks_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.2)

    async def block() -> None:
        os.kill(os.getpid(), signal.SIGALRM)
        time.sleep(1.5)  # noqa: ASYNC251

    begun = time.monotonic()
    with pytest.raises(Alarm), alarm():
        run_in_thread(block())
    assert time.monotonic() - begun < 1


def test_an_alarm_waits_for_the_coroutine_to_clean_up() -> None:
    cleaned = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGALRM)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            cleaned.append(True)

    with pytest.raises(Alarm), alarm():
        run_in_thread(work())
    assert cleaned


def test_it_may_take_so_many_seconds_only(work: Work) -> None:
    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        run_in_thread(work(), seconds=0.05)
    assert work.ended == "canceled"


def test_it_may_take_less(work: Work) -> None:
    assert run_in_thread(work(0.01), seconds=30) == "value"


def test_an_alarm_at_any_moment_leaves_nothing_running(work: Work) -> None:
    chance = random.Random(1)

    async def some_time_later() -> str:
        # Not sooner: `Thread.start` itself cannot be interrupted everywhere.
        threading.Timer(chance.uniform(0.002, 0.02), os.kill, [os.getpid(), signal.SIGALRM]).start()
        return await work()

    for _ in range(50):
        with pytest.raises(Alarm), alarm():
            run_in_thread(some_time_later())
        assert work.ended == "canceled"


# Python ignores what a signal raises while it frees an object.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_alarm_as_the_coroutine_ends_hangs_nothing(work: Work) -> None:
    chance = random.Random(2)

    async def at_last() -> str:
        value = await work(0.001)
        threading.Timer(chance.uniform(0.0, 0.002), os.kill, [os.getpid(), signal.SIGALRM]).start()
        return value

    begun = time.monotonic()
    for _ in range(50):
        with suppress(Alarm), alarm():
            assert run_in_thread(at_last()) == "value"
            time.sleep(0.02)
    assert time.monotonic() - begun < 30
