"""A submission whose requests and ledger are on S3, as moto's server has it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from airflow_provider_batches._compat import AirflowFailException
from airflow_provider_batches.emulator import Emulator, Fault
from airflow_provider_batches.storage.folder import Folder, StorageError
from tests.integration.submission.test_operator import Submitting, api, brisk, once, requests, sent
from tests.integration.teardown.test_s3 import BUCKET, endpoint, exclusive, keys, s3

__all__ = ["api", "brisk", "endpoint", "exclusive", "s3"]

PLACE = f"s3://storage@{BUCKET}"


@pytest.fixture
def task(tmp_path: Any, s3: Any, api: Emulator) -> Submitting:
    lines = "\n".join(map(json.dumps, requests(7)))
    s3.put_object(Bucket=BUCKET, Key="in/rows.jsonl", Body=lines.encode())
    return Submitting(tmp_path, requests=f"{PLACE}/in", path=f"{PLACE}/submissions")


@pytest.mark.usefixtures("exclusive")
def test_a_lost_answer_and_a_refusal_are_recovered_from(task: Submitting, api: Emulator, s3: Any) -> None:
    api.fault(Fault("create", drop_after=True))
    api.fault(Fault("create", status=400, after=1))
    with pytest.raises(AirflowFailException):
        task.run()

    batch_ids = task.run()

    assert sent(api) == once(7)
    assert len(batch_ids) == 3
    kinds = Counter(key.rpartition("/")[2].split(".")[1] for key in keys(s3) if "/1-" in key)
    assert kinds == {"claim": 4, "void": 1, "batch": 3}


@pytest.mark.usefixtures("exclusive")
def test_a_second_file_of_the_same_name_is_refused_by_s3() -> None:
    folder = Folder(f"{PLACE}/claims")
    folder.probe(creates=True)
    folder.create("claim.json", b"1")

    with pytest.raises(FileExistsError):
        folder.create("claim.json", b"2")
    assert (folder.names(), folder.read("claim.json")) == (["claim.json"], b"1")


def test_a_bucket_that_is_not_there_is_named(tmp_path: Any, s3: Any, api: Emulator) -> None:
    with pytest.raises(Exception, match=r"could not .* s3://.*missing") as caught:
        Submitting(tmp_path, requests=requests(1), path="s3://storage@missing/submissions").run()
    assert isinstance(caught.value.__cause__, StorageError)
    assert api.requests == []
