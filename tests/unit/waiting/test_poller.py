"""How waits come to a poller and leave it, on the real clock."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_batches.api import (
    AccessDeniedError,
    InvalidArgumentError,
    MessageBatch,
    NotFoundError,
    RateLimitError,
    SpendLimitError,
)
from airflow_provider_batches.waiting import poller as module
from airflow_provider_batches.waiting.outcome import Outcome
from airflow_provider_batches.waiting.pending import PendingWait
from airflow_provider_batches.waiting.poller import Poller
from airflow_provider_batches.waiting.wait import Wait
from tests.unit.waiting.fakes import FakeClient, a_batch, wrong_address

NEVER = float("inf")


def a_wait(number: int, poll_interval: float = 0.02, timeout: float = 30.0, **options: Any) -> Wait:
    now = time.time()
    return Wait(f"b{number}", poll_interval=poll_interval, start_time=now, end_time=now + timeout, **options)


class Life:
    """A poller that runs by itself."""

    def __init__(self, client: FakeClient | None = None) -> None:
        self.client = client or FakeClient(20)
        self.opened = 0
        self.lines: list[str] = []
        self.poller = Poller(self.open)

    async def open(self) -> Any:
        self.opened += 1
        await asyncio.sleep(0)
        self.client.closed = False
        return self.client

    def wait(self, *numbers: int, first_poll: float = 0.0, leave_at: float = NEVER, **options: Any) -> Any:
        def gives_up(outcome: Outcome) -> bool:
            return outcome.status != "ended"

        waits = [a_wait(number, **options) for number in numbers]
        first_poll += time.time()
        return asyncio.create_task(self.poller.wait(waits, first_poll, self.lines.append, gives_up, leave_at))

    def retrieve_by(self, retrieve: Callable[[str], Any]) -> None:
        async def answer(batch_id: str, *, retries: int) -> MessageBatch:
            self.client.asked.append(batch_id)
            found: MessageBatch = await retrieve(batch_id)
            return found

        self.client.retrieve = answer  # type: ignore[method-assign]

    @property
    def idle(self) -> bool:
        return self.poller._task is None and not self.poller.busy and self.client.closed


@pytest.fixture
def life() -> Life:
    return Life()


async def until(condition: Any) -> None:
    async def poll() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), 10)


class TestComingAndGoing:
    async def test_leaves_nothing_behind_after_the_last_wait(self, life: Life) -> None:
        before = asyncio.all_tasks()
        first, second = life.wait(0), life.wait(1)
        await until(lambda: len(life.client.asked) >= 4)
        life.client.end(0)
        assert (await first)[0].status == "ended"
        assert not life.idle
        life.client.end(1)
        await second
        assert life.idle
        assert asyncio.all_tasks() == before

    async def test_shares_one_client(self, life: Life) -> None:
        life.client.end(*range(20))
        await asyncio.gather(*(life.wait(number) for number in range(20)))
        assert life.opened == 1

    async def test_goes_on_for_the_others_if_the_first_wait_is_canceled(self, life: Life) -> None:
        first, second = life.wait(0), life.wait(1)
        await until(lambda: "b1" in life.client.asked)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        life.client.end(1)
        assert (await second)[0].status == "ended"

    async def test_survives_a_wait_that_is_canceled_while_the_client_opens(self, life: Life) -> None:
        first = life.wait(0)
        await asyncio.sleep(0)
        second = life.wait(1)
        first.cancel()
        life.client.end(1)
        assert (await second)[0].status == "ended"

    async def test_begins_anew_after_it_was_idle(self, life: Life) -> None:
        life.client.end(0, 1)
        await life.wait(0)
        assert life.idle
        await life.wait(1)
        assert life.opened == 2

    @pytest.mark.parametrize("turns", range(12))
    async def test_takes_a_wait_that_comes_as_the_last_one_leaves(self, turns: int, life: Life) -> None:
        life.client.end(0, 1)
        first = life.wait(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        assert (await asyncio.wait_for(life.wait(1), 5))[0].status == "ended"
        await first
        assert life.idle

    async def test_reports_each_cycle_and_its_end(self) -> None:
        cycles: list[tuple[int, int, int]] = []
        client = FakeClient(20)
        page = client.page

        async def counted(*args: Any, **options: Any) -> Any:
            client.throttle.attempts += 1
            client.throttle.refusals += 1
            return await page(*args, **options)

        client.page = counted  # type: ignore[method-assign]
        life = Life(client)
        life.poller = Poller(life.open, on_cycle=lambda *cycle: cycles.append(cycle))
        client.end(*range(20))
        await life.wait(*range(20))

        # Two pages.
        assert cycles[0] == (20, 2, 2)
        assert cycles[-1] == (0, 0, 0)

    async def test_raises_what_opening_the_client_raises(self) -> None:
        async def open_client() -> Any:
            raise InvalidArgumentError("connection", "no key")

        poller = Poller(open_client)
        with pytest.raises(InvalidArgumentError, match="no key"):
            await poller.wait([a_wait(0)], time.time(), print)
        assert not poller.busy

    @pytest.mark.parametrize("numbers", [(0,), (0, 1)])
    async def test_hangs_no_wait_if_there_is_a_mistake_in_it(
        self, numbers: tuple[int, ...], life: Life, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def broken(batch_id: str) -> Any:
            raise ZeroDivisionError

        life.retrieve_by(broken)
        with pytest.raises(ZeroDivisionError):
            await life.wait(*numbers)
        assert life.idle
        gc.collect()
        assert "never retrieved" not in caplog.text

    async def test_begins_anew_for_a_wait_that_comes_as_a_mistake_ends_it(self, life: Life) -> None:
        later: list[Any] = []

        async def broken_once(batch_id: str) -> Any:
            if later:
                return life.client.batches[batch_id]
            await asyncio.sleep(0.01)
            raise ZeroDivisionError

        life.retrieve_by(broken_once)
        life.client.end(2)
        first = life.wait(0, 1)
        await until(lambda: life.client.asked)
        assert life.poller._task is not None
        life.poller._task.add_done_callback(lambda _: later.append(life.wait(2)))
        with pytest.raises(ZeroDivisionError):
            await first
        assert [outcome.status for outcome in await asyncio.wait_for(later[0], 5)] == ["ended"]
        assert (life.opened, life.idle) == (2, True)

    async def test_hangs_no_wait_if_a_signal_raises_in_it(self, life: Life) -> None:
        class Alarm(BaseException):
            pass

        async def interrupted(batch_id: str) -> Any:
            raise Alarm

        life.retrieve_by(interrupted)
        with pytest.raises(Alarm):
            await asyncio.wait_for(life.wait(0), 10)
        assert life.idle

    @pytest.mark.parametrize("turns", range(6))
    async def test_leaves_nothing_behind_if_waits_end_as_another_wakes_it(self, turns: int, life: Life) -> None:
        late = life.wait(0, first_poll=50, timeout=100)
        await asyncio.sleep(0.02)
        sooner = life.wait(1, first_poll=5, timeout=100)
        for _ in range(turns):
            await asyncio.sleep(0)
        late.cancel()
        sooner.cancel()
        _, left = await asyncio.wait([late, sooner], timeout=5)
        assert (left, life.idle) == (set(), True)

    async def test_is_woken_by_a_wait_that_is_due_earlier(self, life: Life) -> None:
        sleeper = life.wait(0, first_poll=60, timeout=100)
        await asyncio.sleep(0.02)
        life.client.end(1)
        assert (await asyncio.wait_for(life.wait(1), 5))[0].status == "ended"
        sleeper.cancel()
        await asyncio.gather(sleeper, return_exceptions=True)

    @pytest.mark.parametrize(("seconds", "ends"), [(0.05, True), (60.0, False)])
    async def test_lets_calls_in_flight_end_before_it_closes_the_client(
        self, seconds: float, ends: bool, life: Life, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Canceled while its connection was being made, a call would leave that open."""
        monkeypatch.setattr(module, "GRACE", 0.2)
        ended: list[bool] = []

        async def retrieve(batch_id: str) -> MessageBatch:
            await asyncio.sleep(seconds)
            ended.append(life.client.closed)
            return a_batch(0)

        life.retrieve_by(retrieve)
        task = life.wait(0)
        await until(lambda: life.client.asked)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert ended == ([False] if ends else [])
        assert life.idle

    def test_serves_one_event_loop_after_the_other(self) -> None:
        client = FakeClient(2)
        client.end(0)

        async def one() -> str:
            outcome: Outcome = (await Life(client).wait(0))[0]
            return outcome.status

        assert [asyncio.run(one()) for _ in range(2)] == ["ended", "ended"]


async def test_lines_go_into_the_context_of_their_own_wait(life: Life) -> None:
    owner: contextvars.ContextVar[str] = contextvars.ContextVar("owner")
    lines: list[tuple[str, str]] = []

    async def watch(name: str, number: int) -> None:
        owner.set(name)
        wait = a_wait(number, timeout=0.1)
        await life.poller.wait([wait], time.time(), lambda line: lines.append((owner.get(), line)))

    await asyncio.gather(watch("first", 0), watch("second", 1))
    assert {(name, line.split()[1]) for name, line in lines} == {("first", "b0"), ("second", "b1")}


class TestASecretsBackendThatIsDown:
    @pytest.fixture(autouse=True)
    def _pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("airflow_provider_batches.api.retry.FIRST_BACKOFF", 0.02)
        monkeypatch.setattr("airflow_provider_batches.api.retry.LAST_BACKOFF", 0.1)
        monkeypatch.setattr(module, "SHARED_FAILURE", 0.01)

    def fail(self, life: Life, times: int, error: Exception) -> None:
        opened, life.opened = life.open, 0

        async def open_client() -> Any:
            if life.opened < times:
                life.opened += 1
                raise error
            return await opened()

        life.poller._open_client = open_client

    async def test_for_a_moment_does_not_end_a_wait(self, life: Life) -> None:
        self.fail(life, 3, RuntimeError("canary"))
        life.client.end(0)
        (outcome,) = await life.wait(0)
        assert outcome.status == "ended"
        assert "The connection cannot be used (RuntimeError). Retrying in" in life.lines[0]
        assert [line for line in life.lines if "connection" in line] == life.lines[:1]
        assert "canary" not in "".join(life.lines)

    async def test_is_asked_once_for_all_waits(self, life: Life) -> None:
        self.fail(life, 1, RuntimeError())
        life.client.end(*range(20))
        await asyncio.gather(*(life.wait(number) for number in range(20)))
        assert life.opened == 2

    @pytest.mark.parametrize("seen", [True, False])
    async def test_until_the_end_of_the_wait_or_for_a_minute_before_it_has_seen_its_batch_ends_it(
        self, seen: bool, life: Life, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "UNSEEN_SECONDS", 0.1)
        self.fail(life, 10**6, RuntimeError("down"))
        began = time.time()
        with pytest.raises(RuntimeError, match="down"):
            await life.wait(0, timeout=0.5 if seen else 30, **({"seen_since": 0.0} if seen else {}))
        assert (time.time() - began > 0.3) is seen

    async def test_is_not_waited_for_if_the_connection_is_wrong(self, life: Life) -> None:
        self.fail(life, 10**6, InvalidArgumentError("password", "is missing"))
        with pytest.raises(InvalidArgumentError):
            await life.wait(0, seen_since=0.0)
        assert life.opened == 1


class TestAServerThatNeverFinishesItsAnswer:
    @pytest.mark.parametrize("numbers", [(0,), (0, 1, 2)])
    async def test_holds_no_wait_beyond_its_end(
        self, numbers: tuple[int, ...], life: Life, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def retrieve(batch_id: str) -> MessageBatch:
            await asyncio.sleep(3600)
            raise AssertionError

        monkeypatch.setattr(module, "LATE", 0.1)
        life.retrieve_by(retrieve)
        outcomes = await asyncio.wait_for(life.wait(*numbers, timeout=0.1), 5)
        assert [outcome.status for outcome in outcomes] == ["timeout"] * len(numbers)


class TestSeveralBatches:
    async def test_are_one_wait_that_ends_with_the_last(self, life: Life) -> None:
        task = life.wait(0, 1, 2)
        life.client.end(0, 1)
        await until(lambda: len(life.client.asked) > 4)
        assert not task.done()
        life.client.end(2)
        assert [outcome.status for outcome in await task] == ["ended"] * 3
        assert life.lines[-1] == "3 of 3 batches have ended."

    async def test_log_now_and_then_how_many_have_ended(self, life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "PROGRESS", 0.05)
        life.client.end(0)
        task = life.wait(0, 1)
        await until(lambda: "1 of 2 batches have ended." in life.lines)
        life.client.end(1)
        await task

    async def test_end_with_an_outcome_that_fails_them_all(self, life: Life) -> None:
        async def retrieve(batch_id: str) -> MessageBatch:
            if batch_id == "b0":
                raise InvalidArgumentError("batch_id", "wrong")
            return a_batch(1)

        life.retrieve_by(retrieve)
        assert [outcome.status for outcome in await life.wait(0, 1)] == ["refused"]

    async def test_that_end_while_the_client_is_opened_for_others_are_noticed(self, life: Life) -> None:
        life.client.end(0, 1)
        first = life.wait(5)
        await until(lambda: life.client.asked)
        await life.poller._lock.acquire()
        second = life.wait(0, 1)
        await asyncio.sleep(0)
        life.poller._wake.set()
        await until(lambda: {"b0", "b1"} <= set(life.client.asked))
        await asyncio.sleep(0.02)
        life.poller._lock.release()
        assert [outcome.status for outcome in await asyncio.wait_for(second, 5)] == ["ended"] * 2
        life.client.end(5)
        await first

    async def test_that_are_none_are_no_wait(self, life: Life) -> None:
        assert await life.wait() == []
        assert life.idle


class TestAWaitThatMayLeave:
    async def test_stays_until_its_next_poll_would_come_too_late(self, life: Life) -> None:
        began = time.time()
        assert await life.wait(0, poll_interval=0.2, leave_at=began + 0.5) == []
        assert (len(life.client.asked), time.time() - began < 0.6) == (3, True)

    async def test_leaves_after_its_first_poll_if_that_is_all_there_is_time_for(self, life: Life) -> None:
        assert await life.wait(0, poll_interval=60, leave_at=time.time()) == []
        assert life.client.asked == ["b0"]

    async def test_hands_over_what_has_ended(self, life: Life) -> None:
        life.client.end(1)
        outcomes = await life.wait(0, 1, poll_interval=60, leave_at=time.time())
        assert [outcome.batch_id for outcome in outcomes] == ["b1"]

    async def test_leaves_only_once_each_wait_was_answered(self, life: Life) -> None:
        answered = asyncio.Event()

        async def retrieve(batch_id: str) -> MessageBatch:
            if batch_id == "b1":
                await answered.wait()
            return a_batch(int(batch_id[1:]))

        life.retrieve_by(retrieve)
        task = life.wait(0, 1, poll_interval=60, leave_at=time.time())
        await asyncio.sleep(0.05)
        assert not task.done()
        answered.set()
        assert await asyncio.wait_for(task, 5) == []

    @pytest.mark.parametrize("error", [NotFoundError("x", status=404), wrong_address()], ids=["404", "wrong address"])
    async def test_never_leaves_in_the_middle_of_a_doubt(
        self, error: Any, life: Life, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_batches.waiting.wait._DOUBTS", {error.evidence.proof: (0.05, 0.05, 0.05)})
        life.client.error = error
        (outcome,) = await life.wait(0, poll_interval=60, leave_at=time.time())
        assert (outcome.status in ("missing", "refused"), len(life.client.asked)) == (True, 4)

    async def test_stays_if_an_answer_for_all_makes_it_doubt_again(self) -> None:
        first, second = (PendingWait(a_wait(number, poll_interval=60), 0.0, None) for number in range(2))
        leaving = asyncio.create_task(module._until_over([first, second], print, lambda _: False, time.time()))
        await asyncio.sleep(0)
        for each, answer in ((first, a_batch(0)), (first, SpendLimitError("x", status=402)), (second, a_batch(1))):
            each.deliver(answer)
        await asyncio.sleep(0.01)
        assert not leaving.done()
        first.deliver(a_batch(0))
        await asyncio.wait_for(leaving, 5)

    async def test_leaves_once_a_rate_limit_holds_it_for_longer(self, life: Life) -> None:
        life.client.error = RateLimitError("slow", status=429, retry_after=30.0)
        assert await asyncio.wait_for(life.wait(0, leave_at=time.time() + 1), 5) == []

    async def test_ends_like_any_other(self, life: Life) -> None:
        life.client.error = AccessDeniedError("no", status=401)
        assert {outcome.status for outcome in await life.wait(0, 1, leave_at=time.time())} == {"refused"}


@pytest.mark.parametrize("seen", [True, False])
async def test_a_wait_that_was_seen_makes_a_wrong_address_an_outage(seen: bool, life: Life) -> None:
    life.client.error = RateLimitError("slow", status=429, retry_after=30.0)
    task = life.wait(0, seen_since=1.0 if seen else None)
    await until(lambda: life.client.asked)
    assert life.client.throttle.has_answered is seen
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_wait_takes_two_kilobytes_at_most() -> None:
    """Without the trigger and the task around it."""
    waits = [a_wait(number) for number in range(2)]
    pending = PendingWait(waits[0], 0.0, print)
    pending.deliver(a_batch(0))
    size = sum(map(sys.getsizeof, (pending, pending.wait, pending.outcome, pending._context, pending.wait._seen)))
    assert size < 2048
    assert not hasattr(pending, "__dict__")
    assert not hasattr(pending.wait, "__dict__")


async def test_a_canceled_wait_does_not_interrupt_the_opening_of_the_client() -> None:
    life, opened = Life(), asyncio.Event()

    async def open_slowly() -> Any:
        await asyncio.sleep(0.05)
        opened.set()
        return await life.open()

    life.poller._open_client = open_slowly
    waiting = life.wait(1)
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    await asyncio.wait_for(opened.wait(), 5)
    await asyncio.sleep(0.05)

    assert life.client.closed
    assert not life.poller.busy
