from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from airflow_provider_batches.api import NotFoundError
from airflow_provider_batches.api.flows import log
from scripts.demo import _prove_deletion


def _get_batch(batch_id: str) -> None:
    log.info("Batch %s was not found; retrying in 1 s", batch_id)
    raise NotFoundError("not found", status=404, error_type="not_found_error", request_id="req_1")


def test_the_proof_of_the_deletion_begins_with_no_line_that_looks_like_trouble(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "airflow_provider_batches")

    assert _prove_deletion(SimpleNamespace(get_batch=_get_batch), "msgbatch_1") == 0

    assert capsys.readouterr().out.startswith("\nProof:\n  GET /v1/messages/batches/msgbatch_1\n")
    assert caplog.text == ""
