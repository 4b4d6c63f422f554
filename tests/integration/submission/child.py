"""A task that submits, in a process of its own that is killed or suspended at a chosen step."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from airflow_provider_batches.api import BatchesClient, BatchesError, ClientSettings
from airflow_provider_batches.api import retry as retrying
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.submission import doubt, sending
from airflow_provider_batches.submission.job import Submission
from airflow_provider_batches.submission.ledger import Ledger
from airflow_provider_batches.submission.planning import Planner
from airflow_provider_batches.submission.requests import read_requests
from airflow_provider_batches.submission.starting import Start

#: Seconds; in the product 30, 900 and 300.
DEADLINE, SETTLE, MARGIN = 0.4, 0.8, 1.5
REQUESTS, PER_BATCH = 6, 2


def run(url: str, folder: str, answer: str, at: int | None, sign: int, retried: bool) -> None:
    """Submit, and write the batch IDs to the file `answer`.

    :param at: The step at which the process sends itself a signal. None: never.
    :param sign: The signal.
    :param retried: Whether this is a retry, which does not read the requests again.
    """
    logging.disable(logging.CRITICAL)
    _count_steps(at, sign)
    sending.DEADLINE, doubt.MARGIN = DEADLINE, MARGIN  # type: ignore[misc]
    retrying.FIRST_BACKOFF = 0.01  # type: ignore[misc]
    requests = [
        {
            "custom_id": f"r{n}",
            "params": {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
        }
        for n in range(REQUESTS)
    ]
    client = BatchesClient(ClientSettings.parse(api_key="k", base_url=url, timeout=2))
    ledger = Ledger(Folder(f"file://{folder}"))
    start = Start(client, ledger, Planner("attack", ledger.folder, PER_BATCH))
    try:
        plan = start.existing() if retried else None
        plan = plan or start.plan(read_requests(requests, {}), lambda summary: summary)
        submission = Submission(client, ledger, plan, SETTLE)
        while pending := submission.advance():
            time.sleep(pending.seconds or 0.05)
    except BatchesError as error:
        Path(answer).write_text(json.dumps({"error": str(error)}))
        os._exit(3)
    Path(answer).write_text(json.dumps(submission.batch_ids()))


def _count_steps(at: int | None, sign: int) -> None:
    steps = 0

    def step() -> None:
        nonlocal steps
        if steps == at:
            os.kill(os.getpid(), sign)
        steps += 1

    def between(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            step()
            found = original(*args, **kwargs)
            step()
            return found

        setattr(owner, name, watched)

    for owner, name in (
        *((Folder, name) for name in ("create", "names", "read", "remove")),
        (BatchesClient, "_send"),
        (os, "link"),
    ):
        between(owner, name)
    body = sending._Attempt._body

    def pieces(self: Any) -> Iterator[bytes]:
        # No step between the last check and the last bytes: a process that is suspended there cannot know it.
        for piece in body(self):
            yield piece
            step()

    sending._Attempt._body = pieces  # type: ignore[method-assign]
