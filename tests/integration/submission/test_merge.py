"""From rows to rows: a table is submitted, answered, and merged with its answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches.api import BatchesClient, ClientSettings
from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.operators.results import MergeBatchResultsOperator, SaveBatchResultsOperator
from airflow_provider_batches.submission.rows import Rows
from tests.integration.submission.test_operator import Submitting
from tests.integration.teardown.conftest import make_brisk

TICKETS = [{"id": f"t{number}", "body": f'Ticket {number}, "urgent"\n'} for number in range(7)]
PARAMS = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "{{ row.body }}"}]}
PRICES = {"m": {"input": 1.0, "output": 5.0}}
Merged = tuple[dict[str, Any], list[dict[str, Any]]]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    make_brisk(monkeypatch)
    with Emulator(batch_seconds=0) as api:
        monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", api.connection_json)
        api.answers = {f"t{number}": f'{{"label": {number}}}' for number in range(7)}
        yield api


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    with (tmp_path / "tickets.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "body"])
        writer.writeheader()
        writer.writerows(TICKETS)
    return Rows((tmp_path / "tickets.csv").as_uri(), PARAMS, "id")


@pytest.fixture
def save(api: Emulator, tmp_path: Path) -> Callable[..., list[Any]]:
    """Submit requests, and save the results of their batches."""

    def save(requests: Any, submission: str = "first") -> list[Any]:
        task = Submitting(tmp_path / "submissions", requests=requests, submission_id=submission)
        saved = []
        for batch_id in task.run():
            saver = SaveBatchResultsOperator(task_id="s", batch_id=batch_id, path=f"file://{tmp_path}/results")
            saved.append(saver.execute({"ti": None}))  # type: ignore[typeddict-item]
        return saved

    return save


@pytest.fixture
def merge(rows: Rows, tmp_path: Path) -> Callable[..., Merged]:
    def merge(results: Any, ending: str = "jsonl", **kwargs: Any) -> Merged:
        path = tmp_path / "out" / f"table.{ending}"
        task = MergeBatchResultsOperator(task_id="m", rows=rows, results=results, path=str(path), **kwargs)
        returned = task.execute({"ti": None})  # type: ignore[typeddict-item]
        return returned, read(path)

    return merge


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        import pyarrow.parquet

        found: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return found
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_rows_come_in_their_order_with_their_answers(
    ending: str, rows: Rows, save: Callable[..., list[Any]], merge: Callable[..., Merged]
) -> None:
    returned, table = merge(save(rows), ending, prices=PRICES)

    assert [{name: row[name] for name in ("id", "body")} for row in table] == TICKETS
    parsed = [row["parsed"] if ending == "jsonl" else json.loads(row["parsed"]) for row in table]
    assert parsed == [{"label": number} for number in range(7)]
    assert {row["status"] for row in table} == {"succeeded"}
    assert (returned["statuses"], returned["failed"]) == ({"succeeded": 7}, 0)
    usage = returned["usage"]["m"]
    assert usage["answers"] == 7
    assert usage["input_tokens"] == sum(int(row["input_tokens"]) for row in table)
    assert returned["cost"] == pytest.approx((usage["input_tokens"] + 5 * usage["output_tokens"]) / 2e6)


def test_what_failed_can_be_submitted_again_and_merged(
    rows: Rows, api: Emulator, save: Callable[..., list[Any]], merge: Callable[..., Merged]
) -> None:
    answers = api.answers
    overloaded = {"error": {"type": "overloaded_error", "message": "Overloaded"}}
    api.outcomes, api.answers = {"t1": "expired"}, {**answers, "t4": overloaded}  # type: ignore[dict-item]
    first = save(rows)
    returned, table = merge(first)
    assert [row["status"] for row in table] == [
        *("succeeded", "expired", "succeeded", "succeeded", "errored", "succeeded", "succeeded")
    ]
    assert (returned["failed"], returned["statuses"]) == (2, {"succeeded": 5, "expired": 1, "errored": 1})

    api.outcomes, api.answers = None, answers
    second = save(returned["failed_path"], "second")
    returned, table = merge([*first, *second])

    assert (returned["failed"], returned["statuses"]) == (0, {"succeeded": 7})
    assert [row["parsed"]["label"] for row in table] == list(range(7))


def test_an_answer_that_does_not_fit_the_schema_is_unusable(
    rows: Rows, save: Callable[..., list[Any]], merge: Callable[..., Merged]
) -> None:
    schema = {"type": "object", "properties": {"label": {"type": "integer", "maximum": 3}}}

    assert merge(save(rows), schema=schema)[0]["statuses"] == {"succeeded": 4, "unusable": 3}


def test_batches_of_other_tools_have_no_tags(
    api: Emulator, rows: Rows, tmp_path: Path, merge: Callable[..., Merged]
) -> None:
    connection = json.loads(api.connection_json)
    with BatchesClient(ClientSettings.parse(api_key=connection["password"], base_url=api.url)) as client:
        batch = client.create([request for _, request in rows.requests()])  # type: ignore[misc]
    saver = SaveBatchResultsOperator(task_id="s", batch_id=batch.id, path=f"file://{tmp_path}/results")
    saved = saver.execute({"ti": None})  # type: ignore[typeddict-item]

    assert merge(saved["path"], is_tagged=False)[0]["statuses"] == {"succeeded": 7}


class TestAnError:
    def test_names_the_rows_that_have_no_result(
        self, rows: Rows, save: Callable[..., list[Any]], merge: Callable[..., Merged], tmp_path: Path
    ) -> None:
        saved = save(rows)

        with pytest.raises(AirflowFailException, match=r"These rows have no result: tickets\.csv:\d+ \(t3\)"):
            merge(saved[:1] + saved[2:])
        assert list((tmp_path / "out").iterdir()) == []

    def test_names_results_without_a_row(
        self, rows: Rows, save: Callable[..., list[Any]], merge: Callable[..., Merged], tmp_path: Path
    ) -> None:
        saved = save(rows)
        foreign = tmp_path / "foreign.jsonl"
        foreign.write_text('{"custom_id": "0123abcd-x9", "result": {"type": "expired"}}')

        with pytest.raises(AirflowFailException, match="These results belong to no row: x9"):
            merge([*saved, foreign.as_uri()])

    def test_names_a_file_that_is_not_whole(
        self, rows: Rows, save: Callable[..., list[Any]], merge: Callable[..., Merged], tmp_path: Path
    ) -> None:
        saved = save(rows)
        (path,) = (tmp_path / "results").glob(f"{saved[0]['batch_id']}.jsonl")
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))

        with pytest.raises(AirflowFailException, match=r"has 2 results instead of 3\. Save them again"):
            merge(saved)

    def test_names_a_file_that_is_not_there(self, merge: Callable[..., Merged], tmp_path: Path) -> None:
        with pytest.raises(AirflowException, match=r"results: .*none\.jsonl does not exist"):
            merge(f"file://{tmp_path}/none.jsonl")

    def test_names_a_column_that_is_taken(
        self, rows: Rows, save: Callable[..., list[Any]], merge: Callable[..., Merged], tmp_path: Path
    ) -> None:
        saved = save(rows)
        path = tmp_path / "tickets.csv"
        path.write_text(path.read_text().replace("id,body", "id,text"))
        with pytest.raises(AirflowFailException, match="prefix: the rows have columns of the same names: text"):
            merge(saved)

        rows._params = {**PARAMS, "messages": [{"role": "user", "content": "{{ row.text }}"}]}
        assert "answer_text" in merge(saved, prefix="answer_")[1][0]

    @pytest.mark.parametrize("results", [5, "file:///a.txt", [{}], [{"path": 5}]])
    def test_names_results_of_another_kind(self, results: Any, merge: Callable[..., Merged]) -> None:
        with pytest.raises(AirflowFailException, match=r"results: got .* it must be the URI of a \.jsonl file"):
            merge(results)

    def test_names_an_ending_that_is_not_a_table(self, merge: Callable[..., Merged]) -> None:
        with pytest.raises(AirflowFailException, match=r"path: got .* it must end in \.jsonl, \.csv, \.parquet"):
            merge([], "xlsx")

    def test_names_rows_with_different_columns(
        self, api: Emulator, save: Callable[..., list[Any]], tmp_path: Path
    ) -> None:
        lines = [{"id": "t0", "body": "x"}, {"id": "t1", "body": "y", "note": "z"}]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
        rows = Rows((tmp_path / "rows.jsonl").as_uri(), PARAMS, "id")
        saved = save(rows)

        for ending in ("csv", "parquet"):
            task = MergeBatchResultsOperator(
                task_id="m", rows=rows, results=saved, path=f"file://{tmp_path}/t.{ending}"
            )
            with pytest.raises(AirflowFailException, match="other columns than the first row: note"):
                task.execute({"ti": None})  # type: ignore[typeddict-item]
        task = MergeBatchResultsOperator(task_id="m", rows=rows, results=saved, path=f"file://{tmp_path}/t.jsonl")
        assert task.execute({"ti": None})["statuses"] == {"succeeded": 2}  # type: ignore[typeddict-item]
