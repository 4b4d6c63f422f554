from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass
class Answer:
    """An HTTP answer. A body that is an iterable is streamed."""

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers; the values of a repeated header are joined by commas."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1").strip()
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def query_of(scope: Scope) -> dict[str, str]:
    """Return the query parameters; of a repeated one, the last."""
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def origin_of(scope: Scope) -> str:
    """Return the base URL that the client addressed: `http://host:port`, and on Google Cloud a path."""
    return f"{scope['scheme']}://{dict(scope['headers']).get(b'host', b'').decode('latin-1')}{scope['root_path']}"


async def read_body(receive: Receive, max_bytes: int, seconds: float) -> bytearray | None:
    """Read the whole request but keep little more than ``max_bytes``; return None if the client disconnected.

    :raises asyncio.TimeoutError: If no bytes arrive for `seconds`.
    """
    body = bytearray()
    while True:
        message = await asyncio.wait_for(receive(), seconds)
        if message["type"] == "http.disconnect":
            return None
        if len(body) <= max_bytes:
            body += message["body"]
        if not message["more_body"]:
            return body


async def send_answer(send: Send, answer: Answer, cut_after: int | None = None, cut_cleanly: bool = False) -> bool:
    """Send an answer; return False if it is incomplete and the connection must be closed."""
    streamed = not isinstance(answer.body, bytes)
    headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
    if isinstance(answer.body, bytes) and answer.status not in (204, 304) and not cut_cleanly:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    for piece in [answer.body] if isinstance(answer.body, bytes) else answer.body:
        if cut_after is not None:
            kept, cut_after = piece[:cut_after], cut_after - len(piece)
            if cut_after < 0:
                await send({"type": "http.response.body", "body": kept, "more_body": not cut_cleanly})
                return cut_cleanly
        await send({"type": "http.response.body", "body": piece, "more_body": streamed})
        if streamed:
            if _transport(send).is_closing():
                return True
            await asyncio.sleep(0)
    if streamed:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    return True


def hang_up(send: Send, reset: bool) -> None:
    """Close the connection; with ``reset`` by RST instead of FIN."""
    transport = _transport(send)
    if reset:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    else:
        transport.close()


def _transport(send: Send) -> asyncio.Transport:
    """Return the connection's transport. `send` is a bound method of uvicorn's object that has it."""
    return cast(asyncio.Transport, send.__self__.transport)  # type: ignore[attr-defined]
