"""Write docs/reference.md, which can be read in the repository, from the docstrings: `make reference`."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from airflow_provider_batches.api import BatchesClient

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
PACKAGE = "airflow_provider_batches"
CLASSES = (
    "operators.submit.SubmitBatchesOperator",
    "submission.rows.Rows",
    "operators.batches.CancelBatchOperator",
    "sensors.batches.BatchEndedSensor",
    "operators.results.SaveBatchResultsOperator",
    "operators.results.MergeBatchResultsOperator",
    "task_groups.enrich",
    "operators.batches.DeleteBatchOperator",
    "operators.teardown.TeardownBatchesOperator",
    "operators.batches.ListBatchesOperator",
    "hooks.batches.BatchesHook",
    "triggers.batches.BatchEndedTrigger",
    "triggers.events.BatchesEndedTrigger",
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
template, or the output of an upstream task. All operators accept their parameters by keyword only, and those of
Airflow's `BaseOperator`, such as `retries`, as well. What a retry, a clear, a skip or a mark does is on
[a page of its own](operators.md).
"""


def page() -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for path in CLASSES:
        module, _, name = path.rpartition(".")
        cls = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
        parts.append(_section("##", cls, f"from {PACKAGE}.{module} import {name}\n\n"))
        parts += [_section("###", getattr(cls, method)) for method in METHODS if name == "BatchesHook"]
    return "\n".join(parts)


def parameters(documented: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a method, or those of a class and its bases."""
    classes: tuple[Any, ...] = getattr(documented, "__mro__", ())
    owners = [cls.__init__ for cls in reversed(classes)] or [documented]
    return {name: found for owner in owners for name, found in inspect.signature(owner).parameters.items()}


def parse(documented: Any) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring, and the texts of its parameters."""
    text, *fields = re.split(r"\n:(?=param |raises )", inspect.getdoc(documented) or "")
    about, errors = {}, []
    for field in fields:
        kind, name, meaning = re.match(r"(\w+) (\w+): (.*)", " ".join(field.split())).groups()  # type: ignore[union-attr]
        if kind == "param":
            about[name] = meaning
        else:
            errors.append(f"Raises `{name}`: {meaning}")
    if same := re.search(r" See BatchesClient\.(\w+)\.", text):
        inherited, others = parse(getattr(BatchesClient, same[1]))
        about = {name: meaning for name, meaning in others.items() if name in parameters(documented)} | about
        text = text.replace(same[0], "")
        errors += re.findall("^Raises .*", inherited, re.MULTILINE)
    text = re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", text)
    return "\n\n".join([text.strip(), *errors]), about


def _section(mark: str, documented: Any, imported: str = "") -> str:
    text, about = parse(documented)
    known = parameters(documented)
    name = documented.__name__
    shown = about if imported else [name for name in known if name != "self"]
    returned = "" if imported else f" -> {inspect.signature(documented).return_annotation}"
    signature = "\n".join([f"{imported}{name}(", *(_line(known[name]) for name in shown), f"){returned}"])
    rows = [f"| `{name}` | {_required(known[name])}{text.replace('|', '&#124;')} |" for name, text in about.items()]
    table = "\n".join(["| parameter | meaning |", "|---|---|", *rows]) if rows else ""
    parts = (f"{mark} {name}", f"```py\n{signature}\n```", text, table)
    return "\n\n".join(part for part in parts if part) + "\n"


def _line(parameter: inspect.Parameter) -> str:
    value = parameter.default
    default = "" if value is parameter.empty else f" = {getattr(value, '__name__', repr(value))}"
    return f"    {parameter.name}: {parameter.annotation}{default},".replace("'", '"')


def _required(parameter: inspect.Parameter) -> str:
    return "**Required.** " if parameter.default is parameter.empty else ""


if __name__ == "__main__":
    PAGE.write_text(page())
