"""The same on a remote storage: S3, as moto's server has it."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowException, AirflowFailException
from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.operators.results import SaveBatchResultsOperator
from airflow_provider_batches.results.saving import Saver
from airflow_provider_batches.storage.folder import Folder, StorageError
from tests.integration.teardown.harness import Task, expected_results

moto_server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")
pytest.importorskip("airflow.providers.amazon.aws.fs.s3")

HOUR = 3600
BUCKET = "results"
MakeTask = Callable[..., Task]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Any]:
    import boto3
    from airflow.sdk.io import store

    connection = {
        "conn_type": "aws",
        "login": "id",
        "password": "secret",
        "extra": {"endpoint_url": endpoint, "region_name": "us-east-1"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_STORAGE", json.dumps(connection))
    monkeypatch.setattr(store, "_STORE_CACHE", {})
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket=BUCKET)
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def s3_task(task: MakeTask, watch: Any) -> MakeTask:
    def make(**kwargs: Any) -> Task:
        made = task(save_results_to=f"s3://storage@{BUCKET}/nightly", **kwargs)
        watch.active = False  # it looks at local files
        return made

    return make


def keys(s3: Any) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def content(s3: Any, key: str) -> bytes:
    data: bytes = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return data


def test_results_are_saved_and_batches_deleted(api: Emulator, s3: Any, s3_task: MakeTask) -> None:
    batch_ids = [api.add_batch(20, age_seconds=2 * HOUR) for _ in range(3)]
    results = {batch_id: expected_results(api, batch_id) for batch_id in batch_ids}

    summary = s3_task(batch_ids=batch_ids).run()

    assert summary["saved"] == summary["deleted"] == 3
    for batch_id, data in results.items():
        assert content(s3, f"nightly/{batch_id}.jsonl") == data
        assert json.loads(content(s3, f"nightly/{batch_id}.json"))["size"] == len(data)
    assert len([key for key in keys(s3) if key.startswith("nightly/_teardown/")]) == 1
    assert not [key for key in keys(s3) if key.endswith(".part")]


def test_results_of_several_parts(api: Emulator, s3: Any, s3_task: MakeTask) -> None:
    batch_id = api.add_batch(2000, age_seconds=2 * HOUR, result_bytes=20_000_000)
    results = expected_results(api, batch_id)

    s3_task(batch_ids=[batch_id]).run()

    assert content(s3, f"nightly/{batch_id}.jsonl") == results


def test_a_stream_that_is_cut_short_leaves_nothing(api: Emulator, s3: Any, s3_task: MakeTask) -> None:
    batch_id = api.add_batch(20, age_seconds=2 * HOUR)
    api.fault(Fault("results", cut_after=3000, times=None))
    with pytest.raises(AirflowException, match="are incomplete"):
        s3_task(batch_ids=[batch_id]).run()

    assert [key for key in keys(s3) if "_teardown" not in key] == []
    assert api.ids() == [batch_id]


def test_a_saved_file_is_not_fetched_again_and_a_damaged_one_is(api: Emulator, s3: Any, s3_task: MakeTask) -> None:
    batch_ids = [api.add_batch(5, age_seconds=2 * HOUR) for _ in range(2)]
    api.fault(Fault("delete", status=500, times=None))
    made = s3_task(batch_ids=batch_ids)
    with pytest.raises(AirflowException):
        made.run()
    api.clear_faults()
    api.clear_requests()
    s3.put_object(Bucket=BUCKET, Key=f"nightly/{batch_ids[0]}.jsonl", Body=b"half")
    results = expected_results(api, batch_ids[0])

    made.run()

    assert api.count("results") == 1
    assert content(s3, f"nightly/{batch_ids[0]}.jsonl") == results
    assert api.ids() == []


def test_a_bucket_that_is_not_there_deletes_nothing(api: Emulator, s3: Any, task: MakeTask, watch: Any) -> None:
    batch_id = api.add_batch(5, age_seconds=2 * HOUR)

    with pytest.raises(AirflowException, match=r"could not write s3://storage@misspelled/nightly/.*does not exist"):
        task(batch_ids=[batch_id], save_results_to="s3://storage@misspelled/nightly").run()

    assert api.ids() == [batch_id]
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == [BUCKET]


@pytest.fixture
def exclusive(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An s3fs that refuses to create a file that exists. With an older one, what needs that fails before it begins."""
    reason = ""
    with monkeypatch.context() as patch:
        # An older one leaves a file that cannot be closed.
        patch.setattr(sys, "unraisablehook", lambda unraisable: None)
        try:
            Folder(f"s3://storage@{BUCKET}/probe").probe(creates=True)
        except StorageError as error:
            reason = str(error)
        gc.collect()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def save_to_one_file(watch: Any, exclusive: None) -> Callable[[str], Any]:
    path = f"s3://storage@{BUCKET}/nightly/all.jsonl"
    seen: list[str] = []

    def save(batch_id: str) -> Any:
        task = Task(SaveBatchResultsOperator, batch_id=batch_id, path=path)
        seen.extend({batch_id} - set(seen))
        task.map_index = seen.index(batch_id)
        return task.run()

    return save


def test_a_second_batch_does_not_replace_the_file_of_a_first(
    api: Emulator, s3: Any, save_to_one_file: Callable[[str], Any]
) -> None:
    first, second = [api.add_batch(5, age_seconds=2 * HOUR) for _ in range(2)]
    save_to_one_file(first)

    with pytest.raises(AirflowFailException, match=f"/all.jsonl, which is the file of batch {first} in this run"):
        save_to_one_file(second)

    assert content(s3, "nightly/all.jsonl") == expected_results(api, first)
    assert set(keys(s3)) == {"nightly/all.jsonl", "nightly/all.json"}


def test_of_two_batches_that_both_found_the_name_free_one_fails(
    api: Emulator, s3: Any, save_to_one_file: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [api.add_batch(5, age_seconds=2 * HOUR) for _ in range(2)]
    fetch, record = Saver._fetch, Saver._record

    def after_another(saver: Saver, client: Any, batch: Any) -> Any:
        # The other one has looked before this one's claim was there.
        monkeypatch.setattr(Saver, "_record", lambda *_: None)
        monkeypatch.setattr(Saver, "_fetch", with_true_record)
        save_to_one_file(second)
        return fetch(saver, client, batch)

    def with_true_record(saver: Saver, client: Any, batch: Any) -> Any:
        monkeypatch.setattr(Saver, "_record", record)
        return fetch(saver, client, batch)

    monkeypatch.setattr(Saver, "_fetch", after_another)

    with pytest.raises(AirflowFailException, match=f"the file of batch {second} in this run; batch {first} would"):
        save_to_one_file(first)

    assert content(s3, "nightly/all.jsonl") == expected_results(api, second)
    assert json.loads(content(s3, "nightly/all.json"))["batch"]["id"] == second
    assert set(keys(s3)) == {"nightly/all.jsonl", "nightly/all.json"}


def test_a_fetch_that_fails_gives_the_name_back(api: Emulator, s3: Any, save_to_one_file: Callable[[str], Any]) -> None:
    batch_id = api.add_batch(5, age_seconds=2 * HOUR)
    api.fault(Fault("results", cut_after=300, times=None))

    with pytest.raises(AirflowException, match="are incomplete"):
        save_to_one_file(batch_id)

    assert keys(s3) == []
