"""Finds the tasks that created batches, and the batches of a task, in Airflow's database."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

#: XComs in which a task leaves the IDs of the batches that it has created: ours, and the official provider's.
CREATED = ("created_batch_ids", "batch_id")
#: Rendered fields in which a task names its batches.
FIELDS = ("batch_id", "batch_ids")
#: How Airflow begins the text of a field that is longer than `[core] max_templated_field_length`.
CUT = "Truncated. "
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


@dataclass(frozen=True)
class TaskBatches:
    """The batches of a task instance, and its connection; `cut` if there are more than Airflow has stored."""

    batch_ids: list[str]
    conn_id: str | None
    cut: bool = False


def batches_of_task(dag_id: str, run_id: str, task_id: str, map_index: int) -> TaskBatches:
    """Return the batches that a task instance has created, or that its fields name."""
    key = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    with create_session() as session:
        fields = session.scalar(select(RenderedTaskInstanceFields.rendered_fields).filter_by(**key)) or {}
        created = session.scalars(select(XComModel.value).where(XComModel.key.in_(CREATED)).filter_by(**key))
        values = [*created, *(fields.get(name) for name in FIELDS)]
    conn_id = fields.get("conn_id")
    # Tasks of others have such fields, too, but no connection of this name.
    if not isinstance(conn_id, str):
        return TaskBatches([], None)
    found = dict.fromkeys(batch_id for value in values for batch_id in _ids(value))
    return TaskBatches(list(found), conn_id, any(map(_is_cut, values)))


def _is_cut(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(CUT)


def _ids(value: Any) -> list[str]:
    """Return the batch IDs in the value of an XCom or a rendered field: a text, or a list of texts."""
    if _is_cut(value):
        # The text shows the beginning of the list; its last ID may be incomplete, and has no closing quote.
        value = re.findall(r"'([^'\"\\\s]+)'", value)
    elif isinstance(value, str):
        try:
            value = json.loads(value.replace("'", '"'))
        except ValueError:
            value = [value]
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str) and each and each.isprintable() and len(each) <= 256]
