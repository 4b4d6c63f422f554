"""The connection form, as the API server of each Airflow describes it to the UI."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from airflow_provider_batches.hooks.form import PLACEHOLDERS, RELABELING, conn_fields

# In a process of its own: Airflow 3.0 and 3.1 put stand-ins for WTForms in place, and keep what they have read.
SCRIPT = """
import json
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
[form] = [form for form in HookMetaService.hook_meta_data() if form.connection_type == "anthropic_batches"]
print(json.dumps(form.model_dump(mode="json")))
"""


@pytest.mark.feature("form")
def test_the_ui_is_told_the_fields_of_the_form() -> None:
    answer = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    form = json.loads(answer.stdout.splitlines()[-1])

    assert form["hook_name"] == "Anthropic Message Batches"
    for name, field in conn_fields().items():
        shown = form["extra_fields"][name]
        assert (shown["schema"]["title"], shown["description"]) == (field["label"], field["description"])
        assert {key: shown["schema"].get(key) for key in ("enum", "format")} == {
            key: field["schema"].get(key) for key in ("enum", "format")
        }
    assert list(form["extra_fields"]) == list(conn_fields())
    standard = {name: each or {} for name, each in form["standard_fields"].items()}
    assert {name for name, each in standard.items() if each.get("hidden")} == {"login", "url_schema"}
    assert {name: standard[name]["title"] for name in RELABELING} == RELABELING
    assert {name: standard[name]["placeholder"] for name in PLACEHOLDERS} == PLACEHOLDERS
