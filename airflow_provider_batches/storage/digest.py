"""Hashes a stream while it is written."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

_PIECE = 1024 * 1024
#: Pieces that may wait to be written, so that a short delay on one side does not stop the other.
_AHEAD = 8


def digest(chunks: Iterable[bytes], write: Callable[[bytearray], object] = lambda _: None) -> tuple[int, str]:
    """Return the size and the SHA-256 of a stream. A thread hashes and writes it while the next chunks arrive.

    :param write: Called with the stream, piece by piece. Default: the stream is only read.
    """
    size, sha256, piece = 0, hashlib.sha256(), bytearray()
    writing: deque[Future[None]] = deque()
    thread = ThreadPoolExecutor(1)

    def process(piece: bytearray) -> None:
        sha256.update(piece)
        write(piece)

    try:
        for chunk in chunks:
            size += len(chunk)
            piece += chunk
            if len(piece) >= _PIECE:
                writing.append(thread.submit(process, piece))
                piece = bytearray()
            while len(writing) > _AHEAD:
                writing.popleft().result()
        writing.append(thread.submit(process, piece))
        for each in writing:
            each.result()
    finally:
        thread.shutdown(cancel_futures=True)
    return size, sha256.hexdigest()
