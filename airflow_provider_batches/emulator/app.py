from __future__ import annotations

import asyncio
import json
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict
from email.utils import formatdate
from hmac import compare_digest
from typing import cast
from urllib.parse import parse_qsl, unquote

from airflow_provider_batches.emulator.asgi import Answer, Receive, Scope, Send, hang_up, read_body, send_answer
from airflow_provider_batches.emulator.behavior import Behavior
from airflow_provider_batches.emulator.faults import Fault, FaultQueue, error_type
from airflow_provider_batches.emulator.requestlog import LoggedRequest, RequestLog
from airflow_provider_batches.emulator.settings import Settings
from airflow_provider_batches.emulator.store import Batch, Store, new_batch_id, timestamp
from airflow_provider_batches.emulator.validation import Refusal, check_requests

VERSIONS = ("2023-01-01", "2023-06-01", "2026-10-21")
SECRET_HEADERS = ("x-api-key", "authorization")
HTML = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center><hr></body></html>\n"


class RateLimit:
    """A bucket that holds as many requests as are allowed a minute and fills up evenly."""

    def __init__(self, per_minute: int | None) -> None:
        self.limit = per_minute or 1_000_000
        self.left = float(self.limit)
        self._filled_at = 0.0

    def take(self, now: float) -> float:
        """Return 0 if the request may pass, otherwise the seconds until one may."""
        self.left = min(self.limit, self.left + (now - self._filled_at) * self.limit / 60)
        self._filled_at = now
        if self.left < 1:
            return (1 - self.left) * 60 / self.limit
        self.left -= 1
        return 0.0

    def headers(self, now: float) -> dict[str, str]:
        """Return the headers that tell a client how much is left."""
        full_at = now + (self.limit - self.left) * 60 / self.limit
        return {
            "anthropic-ratelimit-requests-limit": str(self.limit),
            "anthropic-ratelimit-requests-remaining": str(int(self.left)),
            "anthropic-ratelimit-requests-reset": timestamp(full_at, "seconds"),
        }


#: Answers a request to ``/_emulator/...``: app, method, path, query, body.
Control = Callable[["App", str, str, dict[str, str], bytearray], Answer]


class App:
    """The ASGI application: the six endpoints, the faults before them, the control endpoints beside them."""

    def __init__(self, store: Store, settings: Settings, behavior: Behavior, control: Control) -> None:
        self.store = store
        self.settings = settings
        self.behavior = behavior
        self._control = control
        self.faults = FaultQueue()
        self.log = RequestLog(settings.log_size)
        for entry in store.replayed_requests:
            self.log.add(LoggedRequest(**entry))
        self._rate_limit = RateLimit(settings.requests_per_minute)
        self._handlers = {
            "create": self._create,
            "retrieve": self._retrieve,
            "list": self._list,
            "cancel": self._cancel,
            "delete": self._delete,
            "results": self._results,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        body = await read_body(receive, self.settings.max_bytes)
        if body is None:
            return
        path = scope["raw_path"].decode("latin-1")
        if path.startswith("/_emulator/"):
            await send_answer(send, self._control(self, scope["method"], path, _query(scope), body))
            return
        entry = self._log(scope, path)
        fault = self.faults.take(entry.endpoint, entry.batch_id)
        entry.faulted = fault is not None
        try:
            await self._serve(scope, entry, fault or _NO_FAULT, body, receive, send)
        except asyncio.CancelledError:
            return  # the emulator stops and has closed the connection; uvicorn would log this as a crash

    def _log(self, scope: Scope, path: str) -> LoggedRequest:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        ways = [way for way, name in (("x-api-key", "x-api-key"), ("bearer", "authorization")) if name in headers]
        endpoint, batch_id = _route(scope["method"], path)
        entry = LoggedRequest(
            time=self.store.clock.now(),
            method=scope["method"],
            path=path,
            query=_query(scope),
            endpoint=endpoint,
            batch_id=batch_id,
            auth="both" if len(ways) == 2 else "".join(ways) or None,
            headers={name: value for name, value in headers.items() if name not in SECRET_HEADERS},
            request_id=f"req_01{secrets.token_hex(11)}",
        )
        self.log.add(entry)
        return entry

    async def _serve(
        self, scope: Scope, entry: LoggedRequest, fault: Fault, body: bytearray, receive: Receive, send: Send
    ) -> None:
        if fault.delay:
            await asyncio.sleep(fault.delay)
        answer = Answer() if fault.spares_work else self._answer(scope, entry, body)
        if fault.answer_status is not None:
            answer = _fault_answer(fault, scope, entry)
        entry.status = None if fault.silent else answer.status
        if entry.endpoint in ("create", "cancel", "delete"):
            self.store.record("request", {**asdict(entry), "headers": {}})
        if self.settings.on_request is not None:
            self.settings.on_request(entry)
        if not fault.silent:
            if self.behavior.request_id and not fault.html:
                answer.headers.setdefault("request-id", entry.request_id)
            answer.headers.update(fault.headers)
            if await send_answer(send, answer, fault.cut_after, fault.cut_cleanly):
                return
        if not fault.hang:
            hang_up(send, fault.reset)
        while (await receive())["type"] != "http.disconnect":
            pass  # pragma: no cover - the request was read to its end before

    def _answer(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        """Answer a request as the API would."""
        headers: dict[str, str] = {}
        try:
            self._check(scope, entry, headers)
            answer = self._handlers[entry.endpoint](scope, entry, body)
        except Refusal as e:
            answer = _refuse(entry, e.status, str(e))
            answer.headers.update(e.headers)
        answer.headers.update(headers)
        return answer

    def _check(self, scope: Scope, entry: LoggedRequest, headers: dict[str, str]) -> None:
        if entry.endpoint == "unknown":
            if methods := _methods(entry.path):
                raise Refusal(405, "Method Not Allowed", allow=", ".join(methods))
            raise Refusal(404, "Not found")
        sent = dict(scope["headers"])
        bearer = sent.get(b"authorization", b"")
        key = sent.get(b"x-api-key") or (bearer[7:] if bearer[:7].lower() == b"bearer " else b"")
        expected = self.settings.api_key
        if not key or (expected is not None and not compare_digest(key, expected.encode())):
            raise Refusal(401, "invalid x-api-key" if key else "x-api-key header is required")
        if b"anthropic-version" not in sent:
            raise Refusal(400, "anthropic-version: header is required")
        if sent[b"anthropic-version"].decode("latin-1") not in VERSIONS:
            raise Refusal(400, "anthropic-version: is not a valid version")
        now = self.store.clock.now()
        wait = self._rate_limit.take(now)
        headers.update(self._rate_limit.headers(now))
        if wait:
            raise Refusal(429, "This request would exceed your rate limit.", **self._retry_after(wait))

    def _retry_after(self, wait: float) -> dict[str, str]:
        seconds = math.ceil(wait)
        return {
            "seconds": {"retry_after": str(seconds)},
            "date": {"retry_after": formatdate(time.time() + seconds, usegmt=True)},
            "ms": {"retry_after_ms": str(math.ceil(wait * 1000))},
            "none": {},
        }[self.behavior.retry_after]

    def _create(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        if len(body) > self.settings.max_bytes:
            raise Refusal(413, f"Request exceeds the maximum size of {self.settings.max_bytes} bytes")
        custom_ids, model = check_requests(body, self.settings.max_requests)
        batch = Batch(
            id=new_batch_id(),
            created_at=self.store.clock.now(),
            total=len(custom_ids),
            batch_seconds=self.settings.batch_seconds,
            cancel_seconds=self.settings.cancel_seconds,
            errored=round(len(custom_ids) * self.settings.error_fraction),
            custom_ids=custom_ids,
            model=model,
        )
        entry.batch_id = batch.id
        return self._show(self.store.add(batch), scope)

    def _retrieve(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        batch = self._find(entry)
        if self.behavior.first_retrieve != 200 and not batch.looked_at:
            batch.looked_at = True
            raise Refusal(self.behavior.first_retrieve, _MISSING)
        return self._show(batch, scope)

    def _list(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        query = entry.query
        limit = query.get("limit", "20")
        if not re.fullmatch(r"\d{1,4}", limit) or not 1 <= int(limit) <= 1000:
            raise Refusal(400, "limit: must be an integer from 1 to 1000")
        after_id, before_id = query.get("after_id"), query.get("before_id")
        if after_id is not None and before_id is not None:
            raise Refusal(400, "after_id and before_id cannot be given together")
        cursor = self.store.get(after_id or before_id or "")
        if cursor is not None and cursor.deleted and self.behavior.list_deleted_cursor != 200:
            raise Refusal(self.behavior.list_deleted_cursor, _MISSING)
        try:
            batches, more = self.store.page(int(limit), after_id, before_id)
        except KeyError:
            raise Refusal(404, _MISSING) from None
        now, origin = self.store.clock.now(), _origin(scope)
        data = b",".join([batch.render(now, self.behavior, origin) for batch in batches])
        rest: dict[str, object] = {"has_more": more}
        if batches or self.behavior.optional_fields == "null":
            rest["first_id"] = batches[0].id if batches else None
            rest["last_id"] = batches[-1].id if batches else None
        return Answer(b'{"data":[%b],%b' % (data, json.dumps(rest).encode()[1:]))

    def _cancel(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        batch, behavior = self._find(entry), self.behavior
        phase = batch.phase(self.store.clock.now())
        if phase == "in_progress":
            self.store.cancel(batch, behavior.cancel_interrupts)
            if behavior.cancel_answer == "canceling":
                return self._show(batch, scope, "canceling")
        elif phase == "canceling":
            if behavior.cancel_canceling != 200:
                raise Refusal(behavior.cancel_canceling, f"Batch {batch.id} is already being canceled.")
        elif behavior.cancel_ended != 200:
            raise Refusal(behavior.cancel_ended, f"Batch {batch.id} has finished processing.")
        return self._show(batch, scope)

    def _delete(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        batch = self._find(entry, deleted_too=True)
        if batch.deleted:
            if self.behavior.delete_again >= 400:
                raise Refusal(self.behavior.delete_again, _MISSING)
            return _deleted(batch, self.behavior.delete_again)
        if batch.phase(self.store.clock.now()) in ("in_progress", "canceling"):
            raise Refusal(self.behavior.delete_unended, f"Batch {batch.id} is still being processed.")
        self.store.delete(batch)
        return _deleted(batch, self.behavior.delete_answer)

    def _results(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        batch = self._find(entry)
        phase = batch.phase(self.store.clock.now())
        if phase == "archived":
            raise Refusal(self.behavior.results_archived, f"The results of {batch.id} are archived.")
        if phase != "ended":
            raise Refusal(self.behavior.results_unended, f"Batch {batch.id} has no results yet.")
        lines = batch.results(self.behavior.results_last_newline)
        return Answer(lines, headers={"content-type": "application/x-jsonl"})

    def _find(self, entry: LoggedRequest, deleted_too: bool = False) -> Batch:
        batch = self.store.get(entry.batch_id or "")
        if batch is None:
            raise Refusal(404, _MISSING)
        if batch.foreign:
            raise Refusal(self.behavior.other_workspace, _MISSING)
        if batch.deleted and not deleted_too:
            raise Refusal(self.behavior.retrieve_deleted, _MISSING)
        return batch

    def _show(self, batch: Batch, scope: Scope, phase: str | None = None) -> Answer:
        return Answer(batch.render(self.store.clock.now(), self.behavior, _origin(scope), phase))


_NO_FAULT = Fault()
_MISSING = "The requested resource could not be found."


def _methods(path: str) -> dict[str, str]:
    """Return the endpoints that a path has, by method."""
    match path.split("/"):
        case ["", "v1", "messages", "batches"]:
            return {"POST": "create", "GET": "list"}
        case ["", "v1", "messages", "batches", _]:
            return {"GET": "retrieve", "DELETE": "delete"}
        case ["", "v1", "messages", "batches", _, "cancel"]:
            return {"POST": "cancel"}
        case ["", "v1", "messages", "batches", _, "results"]:
            return {"GET": "results"}
    return {}


def _route(method: str, path: str) -> tuple[str, str | None]:
    """Return the endpoint and the batch ID; split first, so that an ID may hold an escaped slash."""
    parts = path.split("/")
    batch_id = unquote(parts[4]) if len(parts) > 4 and _methods(path) else None
    return _methods(path).get(method, "unknown"), batch_id


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _origin(scope: Scope) -> str:
    return f"{scope['scheme']}://{dict(scope['headers']).get(b'host', b'').decode('latin-1')}"


def _refuse(
    entry: LoggedRequest, status: int, message: str, type_: str | None = None, code: str | None = None
) -> Answer:
    error: dict[str, object] = {"type": type_ or error_type(status), "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    envelope = {"type": "error", "error": error, "request_id": entry.request_id}
    return Answer(json.dumps(envelope).encode(), status)


def _fault_answer(fault: Fault, scope: Scope, entry: LoggedRequest) -> Answer:
    status = cast(int, fault.answer_status)
    if status in (204, 304):
        return Answer(b"", status, {})
    if fault.html:
        return Answer(HTML.format(f"{status} from a proxy").encode(), status, {"content-type": "text/html"})
    if fault.body is not None:
        return Answer(fault.body.encode() if isinstance(fault.body, str) else fault.body, status)
    answer = _refuse(entry, status, fault.message, fault.error_type, fault.error_code)
    if fault.redirect is not None:
        query = scope["query_string"].decode("latin-1")
        answer.headers["location"] = fault.redirect + entry.path + (f"?{query}" if query else "")
    return answer


def _deleted(batch: Batch, status: int) -> Answer:
    body = json.dumps({"id": batch.id, "type": "message_batch_deleted"}).encode()
    return Answer(b"", 204, {}) if status == 204 else Answer(body, status)
