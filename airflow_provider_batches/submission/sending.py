"""Sends one chunk at most once: its last bytes follow only once a claim is in the ledger."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

from airflow_provider_batches.api import BatchesClient, BatchesError, InvalidArgumentError, MessageBatch, Pager
from airflow_provider_batches.api.bodies import END, START, Body
from airflow_provider_batches.api.errors import StoppedError
from airflow_provider_batches.api.retry import Retry
from airflow_provider_batches.storage.folder import StorageError
from airflow_provider_batches.submission.ledger import ChunkState, Ledger, Plan
from airflow_provider_batches.submission.planning import as_body

log = logging.getLogger(__name__)

#: Seconds between a claim and the last bytes. A process that was suspended for longer must not send them.
DEADLINE = 30.0
#: Seconds after which the key is checked again before a body is sent.
CHECK_SECONDS = 60.0
#: Seconds between log lines about the progress of an upload.
PROGRESS_SECONDS = 30.0


class Withheld(Exception):
    """The last bytes of a request body were not sent, so no batch was created.

    :param error: The error that prevented it. An attribute, because httpcore removes the cause of an exception.
    """

    def __init__(self, reason: str, error: BatchesError | None = None) -> None:
        super().__init__(reason)
        self.error = error


def check_address(client: BatchesClient, plan: Plan) -> None:
    """Raise InvalidArgumentError if the client talks to another API, or another workspace, than a plan was made for."""
    settings = client.settings
    for name, now, then in (
        ("base_url", settings.base_url, plan.base_url),
        ("workspace_id", settings.workspace_id, plan.workspace_id),
    ):
        if now != then:
            raise InvalidArgumentError(
                settings.label(name),
                f"is {now!r}, but submission {plan.submission_id!r} began with {then!r}, where its batches may be. Use "
                "a connection to there, or another submission_id.",
            )


class Sender:
    """Sends the chunks of a plan.

    :param client: The client. It must not be shared with another plan.
    :param ledger: The ledger.
    :param plan: The plan.
    :param stopped: Returns whether Airflow has stopped the task.
    """

    def __init__(self, client: BatchesClient, ledger: Ledger, plan: Plan, stopped: Callable[[], bool]) -> None:
        self.client = client
        self.ledger = ledger
        self.plan = plan
        self.stopped = stopped
        self._checked = float("-inf")

    def check(self) -> None:
        """Check, before a body is sent, that the key works. Shows what the API's clock says, too."""
        if time.monotonic() - self._checked > CHECK_SECONDS:
            self.client.page(Pager(1))
            self._checked = time.monotonic()
        check_address(self.client, self.plan)

    def send(self, number: int) -> MessageBatch | None:
        """Send a chunk, and record its batch. Returns None if it may have been sent, or if another task is sending it.

        :raises BatchesError: The chunk was not sent.
        """
        retry = Retry(1 + self.client.settings.max_retries)
        while True:
            state = self.ledger.records().state(self.plan.number, number)
            if state.status != "unsent":
                return None
            try:
                return _Attempt(self, number, state).run()
            except Withheld as reason:
                log.info("%s was not sent: %s", self.label(number), reason)
                return None
            except BatchesError as error:
                pause = retry.pause(error)
                if pause is None:
                    raise
                log.warning("%s was not sent: %s Retrying in %.1f s", self.label(number), error, pause)
            time.sleep(pause)

    def label(self, number: int) -> str:
        """Return a chunk's name for people."""
        return f"Chunk {number + 1} of {len(self.plan.chunks)}"


class _Attempt:
    """Sends a chunk once."""

    def __init__(self, sender: Sender, number: int, state: ChunkState) -> None:
        self._sender = sender
        self._number = number
        self._attempt = state.attempt
        self._chunk = sender.plan.chunks[number]
        self._claimed = False

    def run(self) -> MessageBatch | None:
        sender, plan = self._sender, self._sender.plan
        sender.check()
        began = time.monotonic()
        try:
            batch = sender.client.create_once(Body(self._chunk.size, self._chunk.sha256, self._pieces))
        except Withheld as reason:
            self._void(str(reason))
            raise (reason.error or reason) from None
        except BatchesError as error:
            if not self._claimed:
                raise
            if error.evidence.in_doubt:
                log.warning("%s may have been created: %s", sender.label(self._number), error)
                return None
            self._void(str(error))
            raise
        seconds = time.monotonic() - began
        about = {"batch": batch.snapshot(), "request_id": batch.request_id, "found": False}
        sender.ledger.record_batch(plan.number, self._number, self._attempt, batch.id, about)
        log.info(
            "%s is batch %s: %d requests, %.1f MB in %.1f s; request-id %s",
            sender.label(self._number),
            batch.id,
            self._chunk.requests,
            self._chunk.size / 1e6,
            seconds,
            batch.request_id,
        )
        return batch

    def _pieces(self) -> Iterator[bytes]:
        try:
            yield from self._body()
        except BatchesError as error:
            # Not one of the API's, which the client counts.
            raise Withheld(str(error), error) from error

    def _body(self) -> Iterator[bytes]:
        """Yield the request body. The claim stands in the ledger before the last piece."""
        progress = _Progress(self._sender.label(self._number), self._chunk.size)
        body = _Checked(self._chunk.sha256)
        yield body.pass_on(START)
        lines = b""
        for piece in self._lines():
            if lines:
                yield body.pass_on(as_body(lines))
                progress.add(len(lines))
            lines = piece
            if self._sender.stopped():
                raise StoppedError("The task was stopped while it sent requests. A retry sends them.")
        yield body.pass_on(as_body(lines)[:-1])
        body.check(END, self._chunk.file)
        self._claim()
        yield END

    def _lines(self) -> Iterator[bytes]:
        try:
            yield from self._sender.ledger.folder.pieces(self._chunk.file)
        except FileNotFoundError:
            file = self._sender.ledger.folder.uri(self._chunk.file)
            raise StorageError(f"{file} does not exist, and its requests have not been sent.") from None

    def _claim(self) -> None:
        sender, plan = self._sender, self._sender.plan
        clock = _Clock()
        content: dict[str, Any] = {
            "claimed_at": sender.client.server_time(),
            "deadline": DEADLINE,
            "requests": self._chunk.requests,
            "sha256": self._chunk.sha256,
            "base_url": sender.client.settings.base_url,
            "workspace_id": sender.client.settings.workspace_id,
        }
        if not sender.ledger.claim(plan.number, self._number, self._attempt, content):
            raise Withheld("another task is sending it")
        self._claimed = True
        records = sender.ledger.records()
        if records.plan != plan.number:
            raise Withheld("there is a newer plan")
        state = records.state(plan.number, self._number)
        if (state.status, state.attempt) != ("doubt", self._attempt):
            raise Withheld("another task has decided about it")
        if clock.elapsed() > DEADLINE:
            raise Withheld(f"the process was suspended for {clock.elapsed():.0f} s")

    def _void(self, reason: str) -> None:
        if self._claimed:
            self._sender.ledger.void(self._sender.plan.number, self._number, self._attempt, reason)


class _Checked:
    """Compares what is sent with what was planned."""

    def __init__(self, expected: str) -> None:
        self._expected = expected
        self._digest = sha256()

    def pass_on(self, piece: bytes) -> bytes:
        self._digest.update(piece)
        return piece

    def check(self, end: bytes, name: str) -> None:
        self._digest.update(end)
        if self._digest.hexdigest() != self._expected:
            raise StorageError(f"{name} is not what was written: its SHA-256 differs. Nothing was sent.")


class _Clock:
    """Measures time that includes a suspension of the process, or of the machine."""

    def __init__(self) -> None:
        self._monotonic, self._wall = time.monotonic(), time.time()

    def elapsed(self) -> float:
        # The monotonic clock may stand still while a machine sleeps, and the wall clock may be set back.
        return max(time.monotonic() - self._monotonic, time.time() - self._wall)


class _Progress:
    """Logs how far an upload is."""

    def __init__(self, label: str, size: int) -> None:
        self._label, self._size, self._sent = label, size, 0
        self._began = self._logged = time.monotonic()

    def add(self, count: int) -> None:
        self._sent += count
        now = time.monotonic()
        if now - self._logged > PROGRESS_SECONDS:
            self._logged, seconds = now, now - self._began
            rate = self._sent / seconds / 1e6
            log.info("%s: %.1f of %.1f MB sent, %.1f MB/s", self._label, self._sent / 1e6, self._size / 1e6, rate)
