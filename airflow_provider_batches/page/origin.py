"""Finds the tasks that created batches, and the batches of a task, in Airflow's database."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

#: XComs in which a task leaves the IDs of the batches that it has created: ours, and the official provider's.
CREATED = ("created_batch_ids", "batch_id")
#: XComs in which our tasks leave the IDs of their batches.
RELATED = (*CREATED, "return_value")
#: Operators whose task instances have batches, and the rendered field that names them.
OPERATORS = {
    "SubmitBatchesOperator": None,
    "CancelBatchOperator": "batch_id",
    "BatchEndedSensor": "batch_id",
    "SaveBatchResultsOperator": "batch_id",
    "DeleteBatchOperator": "batch_id",
    "TeardownBatchesOperator": "batch_ids",
}
#: The most XComs that are looked through.
MAX_XCOMS = 5000
#: A task may have left the ID before the API's clock says that it was created.
_SKEW = timedelta(minutes=5)


def creators(batch_ids: Collection[str], since: datetime, readable: set[str]) -> dict[str, dict[str, Any]]:
    """Return the task that created each batch, as far as it is known.

    :param since: When the oldest of the batches was created.
    :param readable: The DAGs that may be named.
    """
    columns = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index, XComModel.value)
    query = (
        select(*columns)
        .where(XComModel.key.in_(CREATED), XComModel.timestamp >= since - _SKEW)
        .order_by(XComModel.timestamp.desc())
        .limit(MAX_XCOMS)
    )
    wanted, found = set(batch_ids), {}
    with create_session() as session:
        for row in session.execute(query):
            for batch_id in wanted.intersection(_ids(row.value)):
                if row.dag_id in readable:
                    names = ("dag_id", "run_id", "task_id", "map_index")
                    found[batch_id] = {name: getattr(row, name) for name in names}
    return found


def batches_of_task(dag_id: str, run_id: str, task_id: str, map_index: int) -> tuple[list[str], str | None]:
    """Return the IDs of a task instance's batches, and its connection."""
    with create_session() as session:
        key = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
        operator = session.scalar(select(TaskInstance.operator).filter_by(**key))
        if operator not in OPERATORS:
            return [], None
        fields = session.scalar(select(RenderedTaskInstanceFields.rendered_fields).filter_by(**key)) or {}
        xcoms = select(XComModel.value).where(XComModel.key.in_(RELATED)).filter_by(**key)
        values = [*session.scalars(xcoms), fields.get(OPERATORS[operator] or "")]
    found = [batch_id for value in values for batch_id in _ids(value)]
    conn_id = fields.get("conn_id")
    return list(dict.fromkeys(found)), conn_id if isinstance(conn_id, str) else None


def _ids(value: Any) -> list[str]:
    """Return the batch IDs in the value of an XCom or a rendered field: a text, or a list of texts."""
    if isinstance(value, str):
        try:
            value = json.loads(value.replace("'", '"'))
        except ValueError:
            value = [value]
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str) and each and each.isprintable() and len(each) <= 256]
