"""Reports the files that a task reads and writes: to lineage, and to the asset aliases in its outlets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from airflow_provider_batches._compat import lineage_collector

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context


def report_input(task: BaseOperator, source: object) -> None:
    """Report a file or folder that a task reads. Only URIs and absolute paths are reported."""
    _report("add_input_asset", task, source)


def report_output(task: BaseOperator, target: object) -> None:
    """Report a file or folder that a task has written."""
    _report("add_output_asset", task, target)


def aliases_of(task: BaseOperator) -> list[AssetAlias]:
    """Return the asset aliases in the outlets of a task."""
    return [outlet for outlet in task.outlets if isinstance(outlet, AssetAlias)]


def announce(task: BaseOperator, context: Context, path: str, extra: Mapping[str, Any]) -> None:
    """Add an asset event for a file to each asset alias in the outlets of a task.

    :param extra: What the event says of it. Counts are merged with the rest, since Airflow 3.0 accepts no nested ones.
    """
    aliases = aliases_of(task)
    if aliases and (uri := _asset_uri(task, path)):
        flat: dict[str, Any] = {}
        for name, value in extra.items():
            flat.update(value if isinstance(value, Mapping) else {name: value})
        for alias in aliases:
            context["outlet_events"][alias].add(Asset(uri), extra=flat)


def _report(method: str, task: BaseOperator, place: object) -> None:
    if uri := _asset_uri(task, place):
        try:
            getattr(lineage_collector(), method)(context=task, uri=uri)
        except Exception as error:
            # A broken plugin must not fail a task that has done its work.
            task.log.warning("%s is missing in the lineage: %s", uri, type(error).__name__)


def _asset_uri(task: BaseOperator, place: object) -> str | None:
    """Return the URI of a file or folder as Airflow normalizes it, without the ID of a connection."""
    if not (isinstance(place, str) or hasattr(place, "as_uri")):
        return None
    scheme, separator, rest = str(place).strip().partition("://")
    if scheme.startswith("/"):
        scheme, separator, rest = "file", "://", str(place).strip()
    if not separator:
        return None
    netloc, slash, path = rest.partition("/")
    uri = f"{scheme}://{netloc.rpartition('@')[2]}{slash}{path}"
    try:
        return Asset(uri).uri
    except ValueError as error:
        # The file itself is all right.
        task.log.warning("%s is not reported as an asset: %s", uri, error)
        return None
