"""Answers that no endpoint gives: refusals, and the answers of faults."""

from __future__ import annotations

from http import HTTPStatus
from typing import cast

from airflow_provider_batches.emulator.asgi import Answer, Scope
from airflow_provider_batches.emulator.faults import Fault, error_type
from airflow_provider_batches.emulator.messages import compact
from airflow_provider_batches.emulator.requestlog import LoggedRequest

HTML = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center><hr></body></html>\n"


def refuse(
    entry: LoggedRequest, status: int, message: str, type_: str | None = None, code: str | None = None
) -> Answer:
    """Return an answer with the API's error envelope."""
    error: dict[str, object] = {"type": type_ or error_type(status), "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    envelope = {"type": "error", "error": error, "request_id": entry.request_id}
    return Answer(compact(envelope).encode(), status)


def page(status: int) -> Answer:
    """Return a proxy's HTML page."""
    return Answer(HTML.format(f"{status} from a proxy").encode(), status, {"content-type": "text/html"})


def fault_answer(fault: Fault, scope: Scope, entry: LoggedRequest) -> Answer:
    """Return the answer of a fault, which replaces the API's."""
    status = cast(int, fault.answer_status)
    if status in (204, 304):
        return Answer(b"", status, {})
    if fault.html:
        return page(status)
    if fault.body is not None:
        return Answer(fault.body.encode() if isinstance(fault.body, str) else fault.body, status)
    type_ = fault.error_type or error_type(status)
    if fault.gateway == "openai":
        error = {"message": fault.message, "type": type_, "param": None, "code": fault.error_code}
        return Answer(compact({"error": error}).encode(), status)
    if fault.gateway == "text":
        text = f"{status} {'page not found' if status == 404 else HTTPStatus(status).phrase}\n"
        return Answer(text.encode(), status, {"content-type": "text/plain; charset=utf-8"})
    if fault.gateway == "envelope":
        return Answer(compact({"type": "error", "error": {"type": type_, "message": fault.message}}).encode(), status)
    answer = refuse(entry, status, fault.message, type_, fault.error_code)
    if fault.redirect is not None:
        query = scope["query_string"].decode("latin-1")
        answer.headers["location"] = fault.redirect + entry.path + (f"?{query}" if query else "")
    return answer
