"""Writes a table as JSONL, CSV or Parquet, by the ending of its file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any, BinaryIO

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.results.lookup import InvalidResultsError

ENDINGS = (".jsonl", ".csv", ".parquet")
#: Rows that are written at once.
_BATCH = 5_000


def check_target(uri: str) -> str:
    """Return the ending of a table's file.

    :raises InvalidArgumentError: There is no such table, or its package is not installed.
    """
    ending = next((ending for ending in ENDINGS if uri.endswith(ending)), None)
    if ending is None:
        raise InvalidArgumentError("path", f"got {uri!r}; it must end in {', '.join(ENDINGS)}.")
    if ending == ".parquet" and not find_spec("pyarrow"):
        raise InvalidArgumentError("path", "Parquet requires pip install 'airflow-provider-batches[parquet]'.")
    return ending


class Table:
    """Writes rows to a file. All rows have the columns of the first.

    :param file: The file.
    :param ending: `.jsonl`, `.csv` or `.parquet`.
    :param types: The Arrow types of columns whose values do not show them, by name.
    """

    def __init__(self, file: BinaryIO, ending: str, types: Mapping[str, str]) -> None:
        self._file = file
        self._ending = ending
        self._types = types
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = []
        self._parquet: Any = None

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        if self._parquet is not None:
            self._parquet.close()

    def write(self, place: str, row: dict[str, Any]) -> None:
        """Add a row.

        :param place: Where it comes from, for errors.
        :raises InvalidResultsError: It has other columns than the first row.
        """
        if not self._columns:
            self._columns = list(row)
        elif self._ending != ".jsonl" and row.keys() != set(self._columns):
            differs = ", ".join(sorted(map(str, row.keys() ^ set(self._columns))))
            raise InvalidResultsError(f"{place} has other columns than the first row: {differs}. Write .jsonl instead.")
        self._rows.append(row)
        if len(self._rows) == _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._ending == ".jsonl":
            lines = [json.dumps(row, ensure_ascii=False, default=str) for row in self._rows]
            self._file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
        elif self._ending == ".csv":
            self._flush_csv()
        else:
            self._flush_parquet()
        self._rows.clear()

    def _flush_csv(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        if self._columns and not self._file.tell():
            writer.writeheader()
        writer.writerows({name: _flat(value) for name, value in row.items()} for row in self._rows)
        self._file.write(text.getvalue().encode("utf-8", "replace"))

    def _flush_parquet(self) -> None:
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        rows = [
            {name: _flat(value) if self._types.get(name) == "string" else value for name, value in row.items()}
            for row in self._rows
        ]
        try:
            if self._parquet is None:
                found = pyarrow.Table.from_pylist(rows).schema
                fields = [pyarrow.field(name, self._type(found.field(name).type, name)) for name in self._columns]
                self._parquet = ParquetWriter(self._file, pyarrow.schema(fields))
            if rows:
                self._parquet.write_table(pyarrow.Table.from_pylist(rows, self._parquet.schema))
        except pyarrow.ArrowException as error:
            raise InvalidResultsError(
                f"The rows do not fit one Parquet schema ({error}). Give a column values of one type, or write .jsonl."
            ) from None

    def _type(self, found: Any, name: str) -> Any:
        import pyarrow

        if name in self._types:
            return getattr(pyarrow, self._types[name])()
        return pyarrow.string() if pyarrow.types.is_null(found) else found


def _flat(value: Any) -> Any:
    """Return a value for a cell: JSON text of what is nested."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
