"""Joins the results of batches with the rows that their requests were made of."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.api.errors import shown
from airflow_provider_batches.results.columns import COLUMNS, USAGE, Check, columns_of, is_worth_another_try
from airflow_provider_batches.results.lookup import InvalidResultsError, Lookup
from airflow_provider_batches.results.tables import Table, check_target
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.storage.uris import check_uri
from airflow_provider_batches.submission.located import Problem
from airflow_provider_batches.submission.rows import Rows
from airflow_provider_batches.submission.tags import TAG

log = logging.getLogger(__name__)

#: Rows or results that an error names.
_NAMED = 10
#: Arrow types of the columns that are added.
_TYPES = {name: "int64" if name in USAGE else "string" for name in COLUMNS}


@dataclass
class Merged:
    """What a merge has found.

    :param statuses: The number of rows with each status.
    :param usage: For each model, the number of answers and the sum of each usage counter.
    :param failed: The number of requests in the file of those that are worth another try.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    usage: dict[str, Counter[str]] = field(default_factory=dict)
    failed: int = 0


class Merge:
    """Writes a table: each row with its result, in the order of the rows, whole or not at all.

    :param rows: The rows that were submitted.
    :param path: The URI of the table's file.
    :param fits: Whether a parsed answer fits the schema. None: there is no schema.
    :param prefix: What the added columns begin with.
    :param is_tagged: Whether each `custom_id` in the results has a tag, as those of SubmitBatchesOperator.
    :param retries: Decides which failed requests are worth another try, by the columns of their results.
    """

    def __init__(
        self,
        rows: Rows,
        path: object,
        fits: Check | None = None,
        prefix: str = "",
        is_tagged: bool = True,
        retries: Callable[[Mapping[str, Any]], bool] = is_worth_another_try,
    ) -> None:
        uri = check_uri("path", path)
        self._ending = check_target(uri)
        parent, slash, self._name = uri.rpartition("/")
        self._folder = Folder(parent + slash)
        self._rows = rows
        self._fits = fits
        self._prefix = prefix
        self._is_tagged = is_tagged
        self._retries = retries
        #: The URIs of the files of results, once merged.
        self.results: list[str] = []

    @property
    def path(self) -> str:
        """The URI of the table's file."""
        return self._folder.uri(self._name)

    @property
    def failed_path(self) -> str:
        """The URI of the file with the requests that are worth another try."""
        return self._folder.uri(self._failed_name)

    @property
    def _failed_name(self) -> str:
        return f"{self._name.removesuffix(self._ending)}.failed.jsonl"

    def run(self, results: object) -> Merged:
        """Merge.

        :param results: The URIs of files of results, or what SaveBatchResultsOperator returned for each.
        :raises InvalidResultsError: A row has no result, a result no row, or a file is not whole.
        """
        with closing(Lookup(TAG + 1 if self._is_tagged else 0)) as lookup:
            for uri, lines in _files(results):
                self.results.append(uri)
                parent, slash, name = uri.rpartition("/")
                try:
                    found = lookup.add(name, Folder(parent + slash, "results").pieces(name))
                except FileNotFoundError:
                    raise InvalidArgumentError("results", f"{uri} does not exist.") from None
                if lines is not None and found != lines:
                    raise InvalidResultsError(f"{uri} has {found} results instead of {lines}. Save them again.")
            lookup.prepare()
            merged = Merged()
            with (
                self._folder.writing(self._failed_name) as failed,
                self._folder.writing(self._name) as file,
                Table(file, self._ending, {f"{self._prefix}{name}": kind for name, kind in _TYPES.items()}) as table,
            ):
                for place, row in self._joined(lookup, merged, failed):
                    table.write(place, row)
                if unused := lookup.unused(_NAMED):
                    raise InvalidResultsError(f"These results belong to no row: {', '.join(unused)}.")
        return merged

    def _joined(self, lookup: Lookup, merged: Merged, failed: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        missing: list[str] = []
        for number, (place, row) in enumerate(self._rows):
            if number == 0 and (taken := [name for name in COLUMNS if f"{self._prefix}{name}" in row]):
                raise InvalidArgumentError(
                    "prefix",
                    f"the rows have columns of the same names: {', '.join(taken)}. Set it, for example, to answer_.",
                )
            try:
                custom_id = str(self._rows.id_of(number, row))
            except Problem as problem:
                raise InvalidArgumentError("rows", f"{place} {problem}.") from None
            found = lookup.find(custom_id)
            if found is None:
                missing.append(f"{place} ({custom_id})")
                if len(missing) == _NAMED:
                    break
                continue
            columns = columns_of(found["result"], self._fits)
            self._count(merged, found["result"], columns)
            if columns["status"] != "succeeded" and self._retries(columns):
                request = self._rows.request(number, row)
                if isinstance(request, Problem):
                    raise InvalidArgumentError("rows", f"{place} {request}.")
                failed.write(json.dumps(request, ensure_ascii=False).encode() + b"\n")
                merged.failed += 1
            yield place, {**row, **{f"{self._prefix}{name}": value for name, value in columns.items()}}
        if missing:
            raise InvalidResultsError(f"These rows have no result: {', '.join(missing)}.")

    def _count(self, merged: Merged, result: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
        merged.statuses[str(columns["status"])] += 1
        message = result.get("message")
        if isinstance(message, dict):
            counter = merged.usage.setdefault(str(message.get("model")), Counter())
            counter["answers"] += 1
            counter.update({name: columns[name] for name in USAGE if isinstance(columns[name], int)})


def _files(results: object) -> Iterator[tuple[str, int | None]]:
    """Yield the URI of each file of results, and how many it has. Lists may be nested, and tasks skipped."""
    if isinstance(results, Mapping):
        # A batch without results has no file.
        uri, lines = results.get("path"), results.get("lines")
        if uri is None and "path" in results:
            return
    else:
        uri, lines = results, None
    if results is None:
        return
    if isinstance(results, Sequence) and not isinstance(results, (str, bytes)):
        for each in results:
            yield from _files(each)
        return
    if not isinstance(uri, str) or not uri.endswith(".jsonl"):
        raise InvalidArgumentError(
            "results", f"got {shown(results)}; it must be the URI of a .jsonl file, or the output of a save."
        )
    yield check_uri("results", uri), lines
