"""Write docs/reference.md from the docstrings, so that it can be read in the repository: `make reference`."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
PACKAGE = "airflow_provider_batches"
CLASSES = (
    "operators.submit.SubmitBatchesOperator",
    "submission.rows.Rows",
    "operators.batches.CancelBatchOperator",
    "sensors.batches.BatchEndedSensor",
    "operators.results.SaveBatchResultsOperator",
    "operators.batches.DeleteBatchOperator",
    "operators.teardown.TeardownBatchesOperator",
    "operators.batches.ListBatchesOperator",
    "hooks.batches.BatchesHook",
    "triggers.batches.BatchEndedTrigger",
)
METHODS = (
    "create_batch",
    "get_batch",
    "list_batches",
    "cancel_batch",
    "delete_batch",
    "stream_batch_results",
    "wait_for_batch",
)
INTRODUCTION = """<!-- Made by `make reference` from the docstrings: change them there. -->

# Parameters

Every operator, the sensor, the hook and the trigger with their parameters. A *templated* parameter may be a Jinja
template, or the output of an upstream task. All operators also accept the arguments of Airflow's `BaseOperator`, such
as `retries`. What a retry, a clear or a mark does is on [Operators and sensor](operators.md).
"""


def page() -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for path in CLASSES:
        module, _, name = path.rpartition(".")
        cls = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
        text, parameters = _parse(cls)
        parts.append(f"## {name}\n\n```text\nfrom {PACKAGE}.{module} import {name}\n```\n\n{text}\n")
        parts.append(_table(parameters, cls.__init__))
        parts += [_method(cls, method) for method in METHODS if name == "BatchesHook"]
    return "\n".join(parts)


def _method(cls: type, name: str) -> str:
    text, parameters = _parse(getattr(cls, name))
    return f"### {name}\n\n{text}\n\n{_table(parameters, getattr(cls, name))}"


def _parse(documented: Any) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring, and the texts of its parameters."""
    text, *fields = re.split(r"\n:(?=param |raises )", inspect.getdoc(documented) or "")
    parameters, errors = {}, []
    for field in fields:
        kind, name, about = re.match(r"(\w+) (\w+): (.*)", " ".join(field.split())).groups()  # type: ignore[union-attr]
        if kind == "param":
            parameters[name] = about
        else:
            errors.append(f"Raises `{name}`: {about}")
    return "\n\n".join([text.strip(), *errors]), parameters


def _table(parameters: dict[str, str], function: Any) -> str:
    if not parameters:
        return ""
    signature = inspect.signature(function).parameters
    rows = ["| parameter | meaning |", "|---|---|"]
    for name, about in parameters.items():
        parameter = signature.get(name)
        required = "**Required.** " if parameter and parameter.default is parameter.empty else ""
        rows.append(f"| `{name}` | {required}{about.replace('|', '&#124;')} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
