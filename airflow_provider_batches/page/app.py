"""The page's server side, in Airflow's API server. It only reads; the browser asks Airflow's REST API for changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from airflow.models import Connection
from airflow.utils.session import create_session
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from sqlalchemy import select

from airflow_provider_batches._compat import AirflowException
from airflow_provider_batches.api import BatchesError, MessageBatch
from airflow_provider_batches.api.flows import KEPT
from airflow_provider_batches.hooks.batches import BatchesHook
from airflow_provider_batches.hooks.connection import CONN_TYPES
from airflow_provider_batches.page.access import (
    PermittedConnection,
    may_read_connection,
    may_read_xcoms,
    may_trigger,
    readable_dags,
)
from airflow_provider_batches.page.origin import batches_of_task, creators
from airflow_provider_batches.page.reader import BusyError, Reader

SECTION = "message_batches"
STATIC = Path(__file__).parent / "static"
FILES = {path.name: path for path in STATIC.iterdir()}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src "
    "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Text = Annotated[str, Query(max_length=250)]

app = FastAPI(title="Message Batches", docs_url=None, redoc_url=None, openapi_url=None)
reader = Reader()


@app.middleware("http")
async def add_headers(request: Request, call_next: Any) -> Response:
    """Allow scripts of this page only, frames of this host only, and no caches."""
    answer: Response = await call_next(request)
    answer.headers.update(HEADERS)
    return answer


@app.exception_handler(BatchesError)
def on_error(_: Request, error: BatchesError) -> JSONResponse:
    """Answer with the client's text, which has no secrets."""
    return JSONResponse({"detail": str(error)}, 503 if isinstance(error, BusyError) else 502)


@app.exception_handler(AirflowException)
def on_missing(_: Request, error: AirflowException) -> JSONResponse:
    """Answer for a connection that does not exist."""
    return JSONResponse({"detail": str(error)}, 404)


@app.get("/")
def page(user: GetUserDep) -> FileResponse:
    """Return the page."""
    return FileResponse(FILES["index.html"])


@app.get("/static/{name}")
def static(name: str, user: GetUserDep) -> FileResponse:
    """Return a file of the page."""
    if name not in FILES:
        raise HTTPException(404, "There is no such file.")
    return FileResponse(FILES[name])


@app.get("/api/connections")
def connections(user: GetUserDep) -> dict[str, Any]:
    """Return the connections that the user may read, and the DAG that acts."""
    with create_session() as session:
        stored = set(session.scalars(select(Connection.conn_id).where(Connection.conn_type.in_(CONN_TYPES))))
    # A database does not have those of the environment or a secrets backend.
    named = conf.getlist(SECTION, "conn_ids", fallback=BatchesHook.default_conn_name) or []
    dag_id = conf.get(SECTION, "teardown_dag_id", fallback="teardown_selected")
    return {
        "conn_ids": sorted(conn_id for conn_id in stored.union(named) if may_read_connection(conn_id, user)),
        "teardown": {"dag_id": dag_id, "may_trigger": may_trigger(dag_id, user)},
    }


@app.get("/api/batches")
def batches(
    conn_id: PermittedConnection,
    user: GetUserDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after_id: Annotated[str | None, Query(max_length=256)] = None,
) -> dict[str, Any]:
    """Return batches of a connection, newest first."""
    found, has_more = reader.batches(conn_id, limit, after_id)
    return {"batches": _shown(found, readable_dags(user)), "has_more": has_more}


@app.get("/api/task")
def task(user: GetUserDep, dag_id: Text, run_id: Text, task_id: Text, map_index: int = -1) -> dict[str, Any]:
    """Return the batches of one task instance, for those who may read the DAG's XComs."""
    if not may_read_xcoms(dag_id, user):
        raise HTTPException(403, f"You may not read the XComs of the DAG {dag_id!r}.")
    named = batches_of_task(dag_id, run_id, task_id, map_index)
    if not (named.batch_ids and named.conn_id):
        return {"batches": [], "missing": [], "partial": named.cut}
    found = reader.find(named.conn_id, named.batch_ids)
    return {
        "batches": _shown(found.batches, {dag_id}),
        "missing": found.missing,
        "partial": named.cut or found.partial,
    }


def _shown(found: list[MessageBatch], readable: set[str]) -> list[dict[str, Any]]:
    """Return named fields only, so that nothing that the API adds reaches a browser unseen."""
    names = ("id", "processing_status", "request_counts", "created_at", "expires_at", "ended_at", "archived_at")
    known = [batch.created_at for batch in found if batch.created_at]
    by = creators([batch.id for batch in found], min(known), readable) if known else {}
    return [
        {
            **{name: value for name, value in batch.snapshot().items() if name in names},
            "results_until": (batch.created_at + KEPT).isoformat() if batch.created_at and batch.results_url else None,
            "created_by": by.get(batch.id),
        }
        for batch in found
    ]
