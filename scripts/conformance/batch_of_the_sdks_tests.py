"""A plugin for the SDK's own tests: before each, the batch that they all name exists and has ended."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

import pytest

BATCH = {"id": "message_batch_id", "requests": 1, "status": "ended", "age_seconds": 1}


@pytest.fixture(autouse=True)
def the_batch() -> None:
    """Add the batch unless it is there."""
    if "message_batch_id" not in _call("GET")["ids"]:
        _call("POST", BATCH)


def _call(method: str, data: dict[str, Any] | None = None) -> Any:
    url = f"{os.environ['TEST_API_BASE_URL']}/_emulator/batches"
    request = urllib.request.Request(url, json.dumps(data or {}).encode(), method=method)  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return json.load(answer)
