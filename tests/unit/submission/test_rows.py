from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches.api import InvalidArgumentError
from airflow_provider_batches.submission import rows as module
from airflow_provider_batches.submission.located import Problem
from airflow_provider_batches.submission.requests import encode, read_requests
from airflow_provider_batches.submission.rows import Rows, compile_params

PARAMS = {
    "model": "m",
    "max_tokens": 5,
    "system": "Shared.",
    "messages": [{"role": "user", "content": "{{ row.name }}: {{ row['the text'] }}"}],
}
TABLE = [{"id": "a", "name": "Ann", "the text": 'x, "y"\nz'}, {"id": "b", "name": "Bob", "the text": "{{ 6 * 7 }}"}]


def write_csv(path: Path) -> None:
    path.write_text('\ufeffid,name,the text\r\na,Ann,"x, ""y""\nz"\r\nb,Bob,{{ 6 * 7 }}\r\n', newline="")


def write_jsonl(path: Path) -> None:
    path.write_text("\n\n".join(map(json.dumps, TABLE)) + "\n")


def write_parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TABLE), path)


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


@pytest.fixture(params=WRITERS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    path = tmp_path / f"table.{request.param}"
    WRITERS[request.param](path)
    return path.as_uri()


def requests(rows: Rows) -> list[Any]:
    return [request for _, request in read_requests(rows, {})]


def test_a_row_becomes_a_request(file: str) -> None:
    assert requests(Rows(file, PARAMS, "id")) == [
        {
            "custom_id": row["id"],
            "params": {**PARAMS, "messages": [{"role": "user", "content": f"{row['name']}: {row['the text']}"}]},
        }
        for row in TABLE
    ]


def test_what_a_row_holds_is_never_a_template(file: str) -> None:
    assert "{{ 6 * 7 }}" in requests(Rows(file, PARAMS, "id"))[1]["params"]["messages"][0]["content"]


def test_without_a_column_the_number_of_the_row_is_its_id(file: str) -> None:
    assert [request["custom_id"] for request in requests(Rows(file, PARAMS))] == ["row-0", "row-1"]


def test_a_callable_makes_the_params(file: str) -> None:
    made = Rows(file, lambda row: {**PARAMS, "system": row["name"]})

    assert [request["params"]["system"] for request in requests(made)] == ["Ann", "Bob"]


def test_keys_keep_their_order_so_that_what_is_shared_comes_first(file: str) -> None:
    _, params, _ = encode(requests(Rows(file, PARAMS))[0])

    assert list(json.loads(params)) == ["model", "max_tokens", "system", "messages"]


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl")
    write_csv(tmp_path / "a.csv")
    (tmp_path / "notes.txt").write_text("x")

    assert [place for place, _ in Rows(tmp_path.as_uri(), PARAMS)] == ["a.csv:3", "a.csv:4", "b.jsonl:1", "b.jsonl:3"]


def test_a_whole_number_may_be_an_id(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 7, "name": "", "the text": ""}')

    assert requests(Rows((tmp_path / "a.jsonl").as_uri(), PARAMS, "id"))[0]["custom_id"] == "7"


class TestAProblem:
    @pytest.mark.parametrize(
        ("params", "custom_id", "message"),
        [
            ({**PARAMS, "system": "{{ row.nam }}"}, None, "UndefinedError: 'dict object' has no attribute 'nam'"),
            (PARAMS, "ID", "has no column 'ID' for its custom_id. Columns: id, name, the text"),
            (lambda row: row["missing"], None, "KeyError: 'missing'"),
            ({**PARAMS, "system": "{{ row.__class__.__mro__ }}"}, None, "SecurityError"),
            (lambda row: 1 / 0, None, "params could not be made of the row (ZeroDivisionError)"),
            (PARAMS, "the text", "custom_id: got 'x, "),
            ({**PARAMS, "max_tokens": "{{ row.id }}"}, None, "params.max_tokens: got 'a'"),
        ],
    )
    def test_names_what_is_wrong_with_the_row(self, params: Any, custom_id: Any, message: str, file: str) -> None:
        with pytest.raises(Problem) as caught:
            encode(requests(Rows(file, params, custom_id))[0])
        assert message in str(caught.value)

    def test_of_a_template_names_its_place(self) -> None:
        with pytest.raises(InvalidArgumentError, match=r"requests\.params\.messages\[0\]: is not a valid template"):
            compile_params({"messages": ["{{ row. }}"]})

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.csv", b"a,b\n1,2,3\n", "a.csv: line 2 has another number of fields"),
            ("a.csv", b"a,b\n1\n", "a.csv: line 2 has another number of fields"),
            ("a.csv", b"a\n\xff\n", "is not valid CSV in UTF-8"),
            ("a.csv", b'a\n"x', "is not valid CSV in UTF-8"),
            ("a.jsonl", b"{}\n[]\n", "a.jsonl: line 2 is not a JSON object"),
            ("a.jsonl", b"{", "a.jsonl: line 1 is not a JSON object"),
            ("a.parquet", b"PAR", "a.parquet: not a valid Parquet file"),
            ("a.txt", b"", "is not a .csv, .jsonl or .parquet file, and has none"),
        ],
    )
    def test_of_a_file_names_the_file(self, name: str, content: bytes, message: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(content)

        with pytest.raises(InvalidArgumentError) as caught:
            requests(Rows((tmp_path / name).as_uri(), {"model": "m"}))
        assert message in str(caught.value)

    def test_of_a_file_that_is_not_there_names_it(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match=r"requests\.source: .*a\.csv does not exist"):
            requests(Rows(f"{tmp_path.as_uri()}/a.csv", PARAMS))

    def test_of_parquet_without_its_package_names_the_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_parquet(tmp_path / "a.parquet")
        monkeypatch.setattr(module, "find_spec", lambda name: None)

        with pytest.raises(InvalidArgumentError, match=r"airflow-provider-batches\[parquet\]"):
            requests(Rows((tmp_path / "a.parquet").as_uri(), PARAMS))

    def test_of_params_of_another_kind_is_one_when_the_dag_is_parsed(self) -> None:
        with pytest.raises(InvalidArgumentError, match="params: got 'x'; it must be a dict, or a callable"):
            Rows("file:///a.csv", "x")  # type: ignore[arg-type]


def test_a_long_field_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"text\n{'x' * 1_000_000}\n")

    assert len(next(iter(Rows((tmp_path / "a.csv").as_uri(), PARAMS)))[1]["text"]) == 1_000_000


class TestAirflow:
    def test_renders_the_source_and_nothing_else(self) -> None:
        from airflow_provider_batches.operators.submit import SubmitBatchesOperator

        rows = Rows("file:///data/{{ day }}.csv", PARAMS)
        task = SubmitBatchesOperator(task_id="t", requests=rows, path="file:///data")
        task.render_template_fields({"day": "monday"})  # type: ignore[typeddict-unknown-key]

        assert task.requests.source == "file:///data/monday.csv"
        assert task.requests._params == PARAMS

    def test_stores_a_text_that_does_not_change_from_parse_to_parse(self) -> None:
        assert repr(Rows("file:///a.csv", PARAMS, "id")) == "Rows('file:///a.csv', custom_id='id')"
