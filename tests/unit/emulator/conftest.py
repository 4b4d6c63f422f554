from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from airflow_provider_batches.emulator import Emulator

BATCHES = "/v1/messages/batches"


def a_request(custom_id: str = "a", **params: Any) -> dict[str, Any]:
    message = {"role": "user", "content": "Hello"}
    return {"custom_id": custom_id, "params": {"model": "m", "max_tokens": 8, "messages": [message], **params}}


def connect(api: Emulator, **options: Any) -> httpx.Client:
    headers = {"x-api-key": api.api_key or "any", "anthropic-version": "2023-06-01", **options.pop("headers", {})}
    # Without the CA bundle a client is made in no time; all of this is plain HTTP.
    return httpx.Client(base_url=api.url, headers=headers, trust_env=False, verify=False, **options)


@pytest.fixture
def emulate() -> Iterator[Callable[..., Emulator]]:
    """Start emulators with options; all stop when the test ends."""
    running: list[Emulator] = []

    def start(**options: Any) -> Emulator:
        running.append(Emulator(**options))
        running[-1].start()
        return running[-1]

    yield start
    for api in running:
        api.close()


@pytest.fixture
def api(emulate: Callable[..., Emulator]) -> Emulator:
    """An emulator whose clock only the test moves."""
    api = emulate(batch_seconds=1000)
    api.clock.freeze()
    return api


@pytest.fixture
def http(api: Emulator) -> Iterator[httpx.Client]:
    with connect(api) as client:
        yield client
