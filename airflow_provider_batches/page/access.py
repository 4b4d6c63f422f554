"""Who may see what: decided by Airflow's auth manager, for each request."""

from __future__ import annotations

from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from airflow.models import Connection
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException, Query


def may_read_connection(conn_id: str, user: Any) -> bool:
    """Return whether a user may read a connection, existing or not."""
    details = ConnectionDetails(conn_id=conn_id, **_team(Connection, conn_id))
    return bool(get_auth_manager().is_authorized_connection(method="GET", details=details, user=user))


def may_trigger(dag_id: str, user: Any) -> bool:
    """Return whether a user may trigger a DAG. Airflow's REST API decides again when it is triggered."""
    return _may("POST", dag_id, DagAccessEntity.RUN, user)


def may_read_xcoms(dag_id: str, user: Any) -> bool:
    """Return whether a user may read the XComs of a DAG."""
    return _may("GET", dag_id, DagAccessEntity.XCOM, user)


def readable_dags(user: Any) -> set[str]:
    """Return the IDs of the DAGs that a user may read."""
    return set(get_auth_manager().get_authorized_dag_ids(user=user, method="GET"))


def _may(method: Any, dag_id: str, entity: DagAccessEntity, user: Any) -> bool:
    details = DagDetails(id=dag_id, **_team(DagModel, dag_id))
    manager = get_auth_manager()
    return bool(manager.is_authorized_dag(method=method, access_entity=entity, details=details, user=user))


def _team(model: Any, name: str) -> dict[str, str]:
    """Return the team of a connection or a DAG, if Airflow has teams."""
    if not conf.getboolean("core", "multi_team", fallback=False):
        return {}
    team = model.get_team_name(name)
    return {"team_name": team} if team else {}


def _permitted(user: GetUserDep, conn_id: Annotated[str, Query(max_length=250)]) -> str:
    if not may_read_connection(conn_id, user):
        raise HTTPException(403, f"You may not read the connection {conn_id!r}.")
    return conn_id


#: The connection of a request, which the user may read: otherwise 403, or 401 without a login.
PermittedConnection = Annotated[str, Depends(_permitted)]
