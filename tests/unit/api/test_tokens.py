"""Access tokens: one fetch for everybody, renewed in time, and never a storm of fetches."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx
import pytest

from airflow_provider_batches.api import tokens
from airflow_provider_batches.api.errors import CredentialsError
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.tokens import Token, TokenAuth, TokenCache


@dataclass(eq=False)
class Source:
    """Issues numbered tokens, or raises what it is given."""

    life: float = 600.0
    errors: list[Exception] = field(default_factory=list)
    #: Seconds, or an event to wait for.
    delay: float | threading.Event = 0.0
    fetches: int = 0
    clock: ClassVar[Any] = time

    def fetch(self) -> Token:
        self.fetches += 1
        if isinstance(self.delay, threading.Event):
            self.delay.wait(10)
        else:
            time.sleep(self.delay)
        if self.errors:
            raise self.errors.pop(0)
        now = self.clock.time()
        return Token(f"token-{self.fetches}", now, now + self.life)


class Clock:
    """The time, which tests can move."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self) -> float:
        return time.time() + self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tokens, "time", clock)
    monkeypatch.setattr(Source, "clock", clock)
    return clock


def settle(cache: TokenCache) -> None:
    """Wait for a renewal in the background."""
    pending = cache._pending
    if pending:
        pending.exception(10)


@pytest.mark.parametrize(
    ("life", "renewed", "last"), [(3600.0, 120.0, 30.0), (600.0, 120.0, 30.0), (300.0, 60.0, 30.0), (60.0, 12.0, 6.0)]
)
def test_a_short_life_has_short_margins(life: float, renewed: float, last: float) -> None:
    token = Token("t", 1000.0, 1000.0 + life)

    assert token.expires_at - token.renew_at == pytest.approx(renewed)
    assert token.expires_at - token.usable_until == pytest.approx(last)


def test_a_token_and_its_assertion_are_in_no_repr() -> None:
    assert "secret" not in repr(Token("secret-1", 0, 0, "secret-2"))


class TestFetching:
    def test_happens_once_for_many_threads(self) -> None:
        source = Source(delay=0.1)
        cache = TokenCache(source)
        with ThreadPoolExecutor(20) as pool:
            values = set(pool.map(lambda _: cache.get().value, range(20)))

        assert (values, source.fetches) == ({"token-1"}, 1)

    async def test_happens_once_for_many_tasks_and_blocks_no_loop(self) -> None:
        answers = threading.Event()
        source = Source(delay=answers)
        cache = TokenCache(source)
        waiting = [asyncio.create_task(cache.aget()) for _ in range(200)]
        await asyncio.sleep(0.05)
        # A fetch on the loop would not have begun, or would have blocked it until it gave up.
        assert source.fetches == 1
        assert not any(task.done() for task in waiting)
        answers.set()

        assert ({token.value for token in await asyncio.gather(*waiting)}, source.fetches) == ({"token-1"}, 1)

    async def test_survives_the_caller_that_began_it(self) -> None:
        source = Source(delay=threading.Event())
        cache = TokenCache(source)
        first, second = asyncio.create_task(cache.aget()), asyncio.create_task(cache.aget())
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.sleep(0)
        assert isinstance(source.delay, threading.Event)
        source.delay.set()

        assert (await second).value == "token-1"
        assert first.cancelled()
        assert source.fetches == 1

    def test_is_given_up_after_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tokens, "WAIT_SECONDS", 0.05)
        stuck = threading.Event()
        cache = TokenCache(Source(delay=stuck))

        with pytest.raises(CredentialsError, match=r"no token was obtained within 0\.05 s"):
            cache.get()
        with pytest.raises(CredentialsError, match=r"within 0\.05 s"):
            asyncio.run(cache.aget())
        stuck.set()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork.")
    def test_in_a_forked_process_does_not_wait_for_the_parents_thread(self) -> None:
        source = Source(delay=threading.Event())
        auth = TokenAuth(source)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokens, "WAIT_SECONDS", 0.01)
            with pytest.raises(CredentialsError):
                auth._cache.get()
        assert isinstance(source.delay, threading.Event)
        source.delay.set()
        if (child := os.fork()) == 0:
            # In the child, which must not return to pytest.
            os._exit(0 if TokenAuth(source)._cache is not auth._cache else 1)

        assert os.waitpid(child, 0)[1] == 0


class TestRenewal:
    def test_happens_in_the_background_while_the_old_token_is_used(self, clock: Clock) -> None:
        source = Source()
        cache = TokenCache(source)
        assert cache.get().value == "token-1"
        clock.seconds = 500
        assert cache.get().value == "token-1"
        settle(cache)

        assert cache.get().value == "token-2"
        assert source.fetches == 2

    def test_that_fails_leaves_the_old_token_until_shortly_before_its_end(self, clock: Clock) -> None:
        source = Source()
        cache = TokenCache(source)
        cache.get()
        source.errors = [CredentialsError("away") for _ in range(9)]
        for seconds in (500, 510, 560):
            clock.seconds = seconds
            assert cache.get().value == "token-1"
            settle(cache)
        clock.seconds = 575

        with pytest.raises(CredentialsError, match="away"):
            cache.get()

    def test_of_a_token_that_has_expired_is_waited_for(self, clock: Clock) -> None:
        cache = TokenCache(Source())
        cache.get()
        clock.seconds = 601

        assert cache.get().value == "token-2"


class TestAFailure:
    def test_counts_for_everybody_for_a_while(self, clock: Clock) -> None:
        source = Source(errors=[CredentialsError("away")])
        cache = TokenCache(source)
        caught = []
        for _ in range(20):
            with pytest.raises(CredentialsError, match="away") as info:
                cache.get()
            caught.append(info.value)
        assert source.fetches == 1
        # Each has its own, because callers add to their texts.
        assert len({id(error) for error in caught}) == 20
        clock.seconds = tokens.FAILURE_SECONDS + 0.1

        assert cache.get().value == "token-2"

    def test_counts_as_long_as_the_server_asks_but_a_minute_at_most(self, clock: Clock) -> None:
        cache = TokenCache(
            Source(errors=[CredentialsError("busy", retry_after=20), CredentialsError("busy", retry_after=900)])
        )
        for seconds, expected in ((0, "busy"), (19, "busy"), (21, "busy"), (80, "busy")):
            clock.seconds = seconds
            with pytest.raises(CredentialsError, match=expected):
                cache.get()
        clock.seconds = 82

        assert cache.get().value == "token-3"

    def test_of_a_bug_does_not_show_its_text(self) -> None:
        cache = TokenCache(Source(errors=[RuntimeError("secret")]))

        with pytest.raises(CredentialsError, match=r"no token could be obtained \(RuntimeError\)") as caught:
            cache.get()
        assert "secret" not in f"{caught.value!r} {caught.value.__cause__}"

    def test_is_retried_unless_a_setting_is_wrong(self) -> None:
        passing, wrong = CredentialsError("away"), CredentialsError("no file", proof=Proof.REFUSED)

        assert (passing.retryable, passing.evidence.outage, passing.evidence.in_doubt) == (True, True, False)
        assert (wrong.retryable, wrong.evidence.outage) == (False, False)


class TestARefusal:
    def test_leads_to_one_other_token(self) -> None:
        source = Source()
        cache = TokenCache(source)
        token = cache.get()
        for _ in range(5):
            cache.on_status(token, 401)

        assert cache.get().value == "token-2"
        assert source.fetches == 2

    def test_of_the_other_token_as_well_leads_to_no_third_one(self, clock: Clock) -> None:
        source = Source()
        cache = TokenCache(source)
        for _ in range(5):
            cache.on_status(cache.get(), 401)
        assert source.fetches == 2
        clock.seconds = tokens.REFUSED_SECONDS + 1
        cache.on_status(cache.get(), 401)

        assert cache.get().value == "token-3"

    def test_after_an_answer_counts_again(self) -> None:
        source = Source()
        cache = TokenCache(source)
        cache.on_status(cache.get(), 401)
        cache.on_status(cache.get(), 200)
        cache.on_status(cache.get(), 401)

        assert cache.get().value == "token-3"

    def test_of_a_former_token_does_not_count(self) -> None:
        cache = TokenCache(Source())
        former = cache.get()
        cache.on_status(former, 401)
        current = cache.get()
        cache.on_status(current, 200)
        cache.on_status(former, 401)

        assert cache.get() is current


class TestSigning:
    def sign(self, auth: TokenAuth, **headers: str) -> httpx.Request:
        flow = auth.sync_auth_flow(httpx.Request("GET", "http://x", headers=headers))
        request = next(flow)
        flow.close()
        return request

    @pytest.mark.parametrize(("own", "sent"), [(None, "flag"), ("a,b", "a,b,flag"), ("flag", "flag")])
    def test_adds_the_flag_after_the_callers_own(self, own: str | None, sent: str) -> None:
        headers = {"anthropic-beta": own} if own else {}

        assert self.sign(TokenAuth(Source(), "flag"), **headers).headers["anthropic-beta"] == sent

    def test_reports_each_new_token_once(self) -> None:
        seen: list[str] = []
        auth = TokenAuth(Source(), on_token=seen.append)
        self.sign(auth)
        self.sign(auth)
        auth._cache.on_status(auth._cache.get(), 401)
        self.sign(auth)

        assert seen == ["token-1", "token-2"]

    def test_of_equal_sources_shares_a_token(self) -> None:
        source = Source()

        assert TokenAuth(source)._cache is TokenAuth(source)._cache
        assert TokenAuth(source)._cache is not TokenAuth(Source())._cache

    def test_knows_former_tokens_as_secrets(self) -> None:
        auth = TokenAuth(Source())
        auth._cache.on_status(auth._cache.get(), 401)
        auth._cache.get()

        assert list(auth.secrets()) == ["token-1", "token-2"]
