"""A pytest plugin for the SDK's own tests: creates the batches that they name, all of which have ended."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

import pytest

IDS = ("message_batch_id", "after_id", "before_id")


@pytest.fixture(autouse=True)
def the_batches() -> None:
    """Add the batches that do not exist."""
    for id_ in set(IDS) - set(_call("GET")["ids"]):
        _call("POST", {"id": id_, "requests": 1, "status": "ended", "age_seconds": 1})


def _call(method: str, data: dict[str, Any] | None = None) -> Any:
    url = f"{os.environ['TEST_API_BASE_URL']}/_emulator/batches"
    request = urllib.request.Request(url, json.dumps(data or {}).encode(), method=method)  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return json.load(answer)
