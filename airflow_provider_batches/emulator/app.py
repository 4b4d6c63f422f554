from __future__ import annotations

import asyncio
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict
from email.utils import formatdate
from typing import Any

from airflow_provider_batches.emulator import catalog
from airflow_provider_batches.emulator.access import TOKEN_BETA, Access, OAuthRefusal
from airflow_provider_batches.emulator.answering import fault_answer, page, refuse
from airflow_provider_batches.emulator.asgi import (
    Answer,
    Receive,
    Scope,
    Send,
    hang_up,
    headers_of,
    origin_of,
    query_of,
    read_body,
    send_answer,
)
from airflow_provider_batches.emulator.batch import Batch
from airflow_provider_batches.emulator.behavior import Behavior
from airflow_provider_batches.emulator.faults import Fault, FaultQueue
from airflow_provider_batches.emulator.messages import compact
from airflow_provider_batches.emulator.ratelimit import RateLimit
from airflow_provider_batches.emulator.requestlog import LoggedRequest, RequestLog
from airflow_provider_batches.emulator.routes import GOOGLE_TOKEN, methods_of, route, split_platform
from airflow_provider_batches.emulator.seeding import fill, spread
from airflow_provider_batches.emulator.settings import Settings
from airflow_provider_batches.emulator.store import Store, new_batch_id
from airflow_provider_batches.emulator.validation import Refusal, check_requests, read_json

VERSIONS = ("2023-01-01", "2023-06-01", "2026-10-21")
SECRET_HEADERS = ("x-api-key", "authorization", "x-amz-security-token")

#: Answers a request to ``/_emulator/...``: app, method, path, query, body.
Control = Callable[["App", str, str, dict[str, str], bytearray], Answer]


class App:
    """The ASGI application: the API's endpoints, the faults, and the control endpoints."""

    def __init__(self, store: Store, settings: Settings, behavior: Behavior, control: Control) -> None:
        self.store = store
        self.settings = settings
        self.behavior = behavior
        self._control = control
        self.access = Access(settings)
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
            "models": self._models,
            "model": self._model,
            "count_tokens": self._count_tokens,
            "exchange": self._exchange,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the ASGI entry point."""
        try:
            body = await read_body(receive, self.settings.max_bytes, self.settings.body_seconds)
        except asyncio.TimeoutError:
            await send_answer(send, page(408))
            hang_up(send, reset=False)
            return
        if body is None:
            return
        scope["root_path"], path = split_platform(scope["raw_path"].decode("latin-1"))
        if path.startswith("/_emulator/"):
            await send_answer(send, self._control(self, scope["method"], path, query_of(scope), body))
            return
        entry = self._log(scope, path)
        fault = self.faults.take(entry.endpoint, entry.batch_id)
        entry.faulted = fault is not None
        try:
            await self._serve(scope, entry, fault or _NO_FAULT, body, receive, send)
        except asyncio.CancelledError:
            return  # the emulator is stopping; uvicorn would log this as a crash

    def _log(self, scope: Scope, path: str) -> LoggedRequest:
        headers = headers_of(scope)
        signed = "aws" if headers.get("authorization", "").startswith("AWS4-") else "bearer"
        ways = [way for way, name in (("x-api-key", "x-api-key"), (signed, "authorization")) if name in headers]
        endpoint, batch_id = route(scope["method"], path)
        entry = LoggedRequest(
            time=self.store.clock.now(),
            method=scope["method"],
            path=path,
            query=query_of(scope),
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
        answer = Answer() if fault.prevents_request else self._answer(scope, entry, body)
        if fault.answer_status is not None:
            answer = fault_answer(fault, scope, entry)
        entry.status = None if fault.silent else answer.status
        if entry.endpoint in ("create", "cancel", "delete"):
            self.store.record("request", {**asdict(entry), "headers": {}})
        if self.settings.on_request is not None:
            self.settings.on_request(entry)
        if not fault.silent:
            answer.headers.setdefault("date", formatdate(usegmt=True))
            if self.behavior.request_id and not (fault.html or fault.gateway):
                answer.headers.setdefault("request-id", entry.request_id)
            answer.headers.update(fault.headers)
            if await send_answer(send, answer, fault.cut_after, fault.cut_cleanly):
                return
        if not fault.hang:
            hang_up(send, fault.reset)
        while (await receive())["type"] != "http.disconnect":
            pass  # pragma: no cover - the request has been read completely

    def _answer(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        """Answer a request as the API would."""
        headers: dict[str, str] = {}
        try:
            self._check(scope, entry, body, headers)
            answer = self._handlers[entry.endpoint](scope, entry, body)
        except OAuthRefusal as e:
            answer = _json({"error": e.error, "error_description": str(e)}, e.status)
        except Refusal as e:
            answer = refuse(entry, e.status, str(e))
            answer.headers.update(e.headers)
        answer.headers.update(headers)
        return answer

    def _check(self, scope: Scope, entry: LoggedRequest, body: bytearray, headers: dict[str, str]) -> None:
        if entry.endpoint == "unknown":
            if methods := methods_of(entry.path):
                raise Refusal(405, "Method Not Allowed", allow=", ".join(methods))
            raise Refusal(404, "Not found")
        if entry.endpoint == "exchange":
            return
        sent = headers_of(scope)
        self.access.check(scope, sent, body)
        version = sent.get("anthropic-version")
        if version is None:
            raise Refusal(400, "anthropic-version: header is required")
        if version not in VERSIONS:
            raise Refusal(400, f'anthropic-version: "{version}" is not a valid version')
        flags = [flag.strip() for flag in sent.get("anthropic-beta", "").split(",") if flag.strip()]
        unknown = ", ".join(f"`{flag}`" for flag in flags if flag not in (*catalog.BETAS, TOKEN_BETA))
        if unknown and self.behavior.unknown_beta != 200:
            raise Refusal(self.behavior.unknown_beta, f"Unexpected value(s) {unknown} for the `anthropic-beta` header.")
        own = self.settings.workspace_id
        if sent.get("anthropic-workspace-id", own) != own and self.behavior.foreign_workspace != 200:
            raise Refusal(self.behavior.foreign_workspace, f"anthropic-workspace-id: this key's workspace is {own}")
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
        settings = self.settings
        requests, problems = check_requests(body, settings.max_requests, headers_of(scope)["anthropic-version"])
        if problems and self.behavior.invalid_params != 200:
            i, problem = next(iter(problems.items()))
            raise Refusal(self.behavior.invalid_params, f"requests.{i}.params.{problem}")
        batch = Batch(
            id=new_batch_id(),
            created_at=self.store.clock.now(),
            total=len(requests),
            batch_seconds=settings.batch_seconds,
            cancel_seconds=settings.cancel_seconds,
            ends=spread(len(requests), errored=round(len(requests) * settings.error_fraction)),
            custom_ids=[request["custom_id"] for request in requests],
        )
        try:
            fill(batch, requests, settings.answers, settings.outcomes, problems)
        except Exception as e:
            why = f"The emulator's answers or outcomes failed: {type(e).__name__}: {e}"
            raise Refusal(500, why, x_should_retry="false") from e
        entry.batch_id = batch.id
        return self._show(self.store.add(batch), scope)

    def _retrieve(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        batch = self._find(entry)
        if self.behavior.first_retrieve != 200 and not batch.retrieved:
            batch.retrieved = True
            raise Refusal(self.behavior.first_retrieve, _MISSING)
        return self._show(batch, scope)

    def _list(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        query = entry.query
        limit, behavior = _limit(query), self.behavior
        after_id, before_id = query.get("after_id"), query.get("before_id")
        if after_id is not None and before_id is not None:
            if behavior.both_cursors != 200:
                raise Refusal(behavior.both_cursors, "after_id and before_id cannot be given together")
            before_id = None
        cursor = self.store.get(after_id or before_id or "")
        if cursor is not None and cursor.deleted and behavior.list_deleted_cursor != 200:
            raise Refusal(behavior.list_deleted_cursor, _MISSING)
        try:
            batches, more = self.store.page(limit, after_id, before_id, behavior.list_lag)
        except KeyError:
            raise Refusal(404, _MISSING) from None
        now, origin = self.store.clock.now(), origin_of(scope)
        data = b",".join([batch.render(now, behavior, origin) for batch in batches])
        rest: dict[str, object] = {"has_more": more}
        if batches or behavior.optional_fields == "null":
            rest["first_id"] = batches[0].id if batches else None
            rest["last_id"] = batches[-1].id if batches else None
        return Answer(b'{"data":[%b],%b' % (data, compact(rest).encode()[1:]))

    def _exchange(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        return _json(self.access.exchange(headers_of(scope), body, google=entry.path == GOOGLE_TOKEN))

    def _models(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        return _json(catalog.models(entry.query, _limit(entry.query)))

    def _model(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        return _json(catalog.model(entry.batch_id or ""))

    def _count_tokens(self, scope: Scope, entry: LoggedRequest, body: bytearray) -> Answer:
        return _json(catalog.count_tokens(read_json(body)))

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
        if batch is None or self.store.clock.now() < batch.created_at + self.behavior.retrieve_lag:
            raise Refusal(404, _MISSING)
        if batch.foreign:
            raise Refusal(self.behavior.other_workspace, _MISSING)
        if batch.deleted and not deleted_too:
            raise Refusal(self.behavior.retrieve_deleted, _MISSING)
        return batch

    def _show(self, batch: Batch, scope: Scope, phase: str | None = None) -> Answer:
        return Answer(batch.render(self.store.clock.now(), self.behavior, origin_of(scope), phase))


_NO_FAULT = Fault()
_MISSING = "The requested resource could not be found."


def _deleted(batch: Batch, status: int) -> Answer:
    return Answer(b"", 204, {}) if status == 204 else _json({"id": batch.id, "type": "message_batch_deleted"}, status)


def _json(content: dict[str, Any], status: int = 200) -> Answer:
    return Answer(compact(content).encode(), status)


def _limit(query: dict[str, str]) -> int:
    limit = query.get("limit", "20")
    if not re.fullmatch(r"\d{1,4}", limit) or not 1 <= int(limit) <= 1000:
        raise Refusal(400, "limit: must be an integer from 1 to 1000")
    return int(limit)
