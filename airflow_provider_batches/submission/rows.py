"""Rows of a table, and the requests that they become."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from airflow_provider_batches.api.errors import InvalidArgumentError, shown
from airflow_provider_batches.storage.folder import Folder
from airflow_provider_batches.storage.uris import check_uri
from airflow_provider_batches.submission.located import Located, Problem

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

Row = dict[str, Any]

#: Rows of a Parquet file that are read at once.
_BATCH = 10_000
_ENDINGS = (".csv", ".jsonl", ".parquet")


class _Unreadable(Exception):
    """A file is not what its ending says."""


class Rows:
    """The rows of a table, each of which becomes a request.

    :param source: The URI of a `.csv`, `.jsonl` or `.parquet` file, or of a folder of them, which are read by name
        (templated). A CSV file has a header, and is UTF-8. Parquet requires `pip install
        'airflow-provider-batches[parquet]'`.
    :param params: The `params` of a request. Its strings are Jinja templates over the `row`, such as `{{ row.text }}`,
        rendered in a sandbox; what a row holds is data, never a template. Or a callable that returns the `params` of a
        row. Keys come in the order in which they are given, so put what all requests share first, for a prompt cache.
    :param custom_id: The column with the `custom_id`. Default: `row-` and the number of the row, from 0.
    """

    #: What Airflow renders.
    template_fields: Sequence[str] = ("source",)

    def __init__(
        self,
        source: str | ObjectStoragePath,
        params: Mapping[str, Any] | Callable[[Row], Mapping[str, Any]],
        custom_id: str | None = None,
    ) -> None:
        self.source: Any = source
        self.custom_id = custom_id
        if not callable(params) and not isinstance(params, Mapping):
            raise InvalidArgumentError("params", f"got {shown(params)}; it must be a dict, or a callable.")
        self._params = params
        self._render: Callable[[Row], Any] | None = None

    def __repr__(self) -> str:
        # Airflow stores it with the DAG, so it must not change from one parse to the next.
        return f"Rows({str(self.source)!r}, custom_id={self.custom_id!r})"

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """Iterate over the rows, and where each stands."""
        uri = check_uri("requests.source", self.source)
        parent, slash, name = uri.rstrip("/").rpartition("/")
        is_file = name.endswith(_ENDINGS)
        folder = Folder(parent + slash if is_file else uri, "requests.source")
        names = [name] if is_file else [each for each in folder.names() if each.endswith(_ENDINGS)]
        if not names:
            raise InvalidArgumentError(
                "requests.source", f"{uri} is not a .csv, .jsonl or .parquet file, and has none. Pass one of them."
            )
        for each in names:
            try:
                with folder.reading(each) as file:
                    read = {".csv": _csv, ".jsonl": _jsonl}.get(each[each.rindex(".") :], _parquet)
                    for number, row in read(file):
                        yield f"{each}:{number}", row
            except _Unreadable as error:
                raise InvalidArgumentError("requests.source", f"{each}: {error}") from None
            except FileNotFoundError:
                raise InvalidArgumentError("requests.source", f"{folder.uri(each)} does not exist.") from None

    def requests(self) -> Iterator[Located]:
        """Iterate over the requests, and where each row stands."""
        for number, (place, row) in enumerate(self):
            yield place, self.request(number, row)

    def id_of(self, number: int, row: Row) -> Any:
        """Return the `custom_id` of a row."""
        if self.custom_id is None:
            return f"row-{number}"
        if self.custom_id not in row:
            raise Problem(f"has no column {self.custom_id!r} for its custom_id. Columns: {', '.join(map(str, row))}")
        value = row[self.custom_id]
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def request(self, number: int, row: Row) -> object:
        """Return the request of a row, or a Problem."""
        try:
            if self._render is None:
                self._render = self._params if callable(self._params) else compile_params(self._params)
            return {"custom_id": self.id_of(number, row), "params": self._render(row)}
        except Problem as problem:
            return problem
        except Exception as error:
            # Not its text, which may quote the row, except for the name of what is missing.
            kind = type(error).__name__
            text = f"{kind}: {error}" if kind in ("UndefinedError", "KeyError") else kind
            return Problem(f"params could not be made of the row ({text})")


def compile_params(params: Mapping[str, Any]) -> Callable[[Row], Any]:
    """Return a function that renders the strings of `params` with a row.

    :raises InvalidArgumentError: A string is not a valid template.
    """
    from jinja2 import StrictUndefined, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)

    def compile_(value: Any, place: str) -> Callable[[Row], Any]:
        if isinstance(value, str) and ("{{" in value or "{%" in value):
            try:
                render = environment.from_string(value).render
            except TemplateSyntaxError as error:
                raise InvalidArgumentError(place, f"is not a valid template: {error}.") from None
            return lambda row: render(row=row)
        if isinstance(value, Mapping):
            parts = [(name, compile_(each, f"{place}.{name}")) for name, each in value.items()]
            return lambda row: {name: part(row) for name, part in parts}
        if isinstance(value, (list, tuple)):
            items = [compile_(each, f"{place}[{index}]") for index, each in enumerate(value)]
            return lambda row: [item(row) for item in items]
        return lambda row: value

    return compile_(params, "requests.params")


def _csv(file: Any) -> Iterator[tuple[int, Row]]:
    # By default, a field has at most 131,072 characters.
    csv.field_size_limit(2**31 - 1)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text, restkey="", strict=True)
    try:
        for row in reader:
            if "" in row or None in row.values():
                raise _Unreadable(f"line {reader.line_num} has another number of fields than the header.")
            yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        line = reader.line_num + 1
        raise _Unreadable(f"line {line} is not valid CSV in UTF-8 ({type(error).__name__}).") from None
    finally:
        text.detach()


def _jsonl(file: Any) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            row = type(error).__name__
        if not isinstance(row, dict):
            raise _Unreadable(f"line {number} is not a JSON object.")
        yield number, row


def _parquet(file: Any) -> Iterator[tuple[int, Row]]:
    if not find_spec("pyarrow"):
        raise _Unreadable("Parquet requires pip install 'airflow-provider-batches[parquet]'.")
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        for batch in ParquetFile(file).iter_batches(_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except ArrowException as error:
        raise _Unreadable(f"not a valid Parquet file ({type(error).__name__}).") from None
