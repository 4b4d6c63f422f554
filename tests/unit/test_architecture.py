"""Holds the arrows between the rooms of the package: each knows only the rooms below it."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import airflow_provider_batches

NAME = "airflow_provider_batches"
ROOT = Path(airflow_provider_batches.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py"))

#: What each room may import besides the standard library and itself; `version` is the package's own `__init__`.
ALLOWED = {
    "__init__": set(),
    "api": {"httpx", "pydantic", "tenacity"},
    "emulator": {"starlette", "uvicorn"},
    "_compat": {"airflow"},
    "hooks": {"version", "api", "_compat", "asgiref"},
    "links": {"airflow"},
    "triggers": {"airflow", "api", "_compat", "hooks"},
    "teardown": {"pydantic", "api"},
    "_task": {"airflow", "api", "_compat", "hooks", "triggers", "links"},
    "operators": {"airflow", "api", "_compat", "hooks", "triggers", "links", "teardown", "_task"},
    "sensors": {"airflow", "api", "_compat", "hooks", "triggers", "links", "_task"},
    "get_provider_info": {"version", "hooks"},
}
#: What single files may import beyond that.
EXCEPTIONS = {"emulator/pytest_plugin.py": {"pytest"}}
#: What is imported inside functions only: it is not there, or costs time, where most processes import the room.
INSIDE_FUNCTIONS = {"hooks": {"wtforms"}, "teardown": {"airflow", "fsspec"}}


@dataclass(frozen=True)
class Import:
    name: str
    line: int
    in_function: bool


def imports(tree, package):
    """Return the full names of all modules that a file imports, wherever in it."""
    found = []

    def visit(node, in_function):
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, in_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
            name = base if node.level else node.module
            # `from package import room` imports a room.
            names = [f"{name}.{alias.name}" for alias in node.names] if name == NAME else [name]
            found.extend(Import(name, node.lineno, in_function) for name in names)
        for child in ast.iter_child_nodes(node):
            visit(child, in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    visit(tree, False)
    return found


def parse(path):
    return ast.parse(path.read_text("utf-8"), str(path))


def room_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def target(name):
    """Return the room or the foreign package that a module belongs to."""
    parts = name.split(".")
    if parts[0] != NAME:
        return parts[0]
    return "version" if len(parts) == 1 or parts[1] == "__version__" else parts[1]


def forbidden(path, tree):
    room, relative = room_of(path), path.relative_to(ROOT)
    allowed = ALLOWED[room] | EXCEPTIONS.get(relative.as_posix(), set()) | {room}
    later = INSIDE_FUNCTIONS.get(room, set())
    return [
        f"{relative}:{found.line} imports {found.name}"
        for found in imports(tree, (NAME, *relative.parent.parts))
        if (where := target(found.name)) not in allowed
        and not (where in later and found.in_function)
        and where not in sys.stdlib_module_names
    ]


def tries_several_places(tree):
    """Return whether a file tries to import something and goes on where it is not there."""
    errors = {"ImportError", "ModuleNotFoundError", "AttributeError", "Exception", "BaseException"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in _within(node.body)):
            caught = {n.id for handler in node.handlers if handler.type for n in _within([handler.type], ast.Name)}
            if caught & errors or any(handler.type is None for handler in node.handlers):
                return True
    return False


def _within(nodes, kind=ast.AST):
    return [n for node in nodes for n in ast.walk(node) if isinstance(n, kind)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_imports_only_the_rooms_below_it(path):
    assert forbidden(path, parse(path)) == []


@pytest.mark.parametrize(
    "path", [path for path in FILES if room_of(path) != "_compat"], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_only_one_file_knows_that_airflow_versions_differ(path):
    assert not tries_several_places(parse(path))


@pytest.mark.parametrize(
    "path", [path for path in FILES if room_of(path) != "_compat"], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_no_other_file_asks_for_airflows_version(path):
    names = {n.attr for n in ast.walk(parse(path)) if isinstance(n, ast.Attribute)}
    assert not names & {"version_info", "AIRFLOW_V_3_1_PLUS", "__version_info__"}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_every_room_that_has_a_rule_exists(room):
    assert (ROOT / room).is_dir() or (ROOT / f"{room}.py").is_file()


@pytest.mark.parametrize("room", ["emulator", "operators", "sensors"])
def test_nothing_else_knows_of(room):
    allowed = [rule for name, rule in ALLOWED.items() if name != room]
    assert not any(room in rule for rule in allowed)


class TestTheseTests:
    """A rule that is never broken could as well not be there."""

    @pytest.mark.parametrize(
        ("file", "source"),
        [
            ("api/client.py", "import airflow"),
            ("api/client.py", "def f():\n    from airflow.sdk import conf"),
            ("api/client.py", "if TYPE_CHECKING:\n    from airflow_provider_batches.hooks.batches import BatchesHook"),
            ("api/client.py", "from ..hooks import batches"),
            ("api/client.py", "from .. import _compat"),
            ("api/client.py", "from airflow_provider_batches import hooks"),
            ("api/client.py", "import requests"),
            ("emulator/app.py", "import pytest"),
            ("emulator/app.py", "from airflow_provider_batches.api import MessageBatch"),
            ("hooks/form.py", "import wtforms"),
            ("hooks/form.py", "from airflow.sdk import BaseHook"),
            ("hooks/batches.py", "from airflow_provider_batches.triggers.batches import BatchEndedTrigger"),
            ("triggers/batches.py", "from airflow_provider_batches.operators.batches import CancelBatchOperator"),
            ("teardown/storage.py", "from airflow.sdk import ObjectStoragePath"),
            ("operators/batches.py", "from airflow_provider_batches.emulator import Emulator"),
            ("operators/batches.py", "from airflow_provider_batches.sensors.batches import BatchEndedSensor"),
        ],
    )
    def test_see_a_forbidden_import(self, file, source):
        assert len(forbidden(ROOT / file, ast.parse(source))) == 1

    @pytest.mark.parametrize(
        ("file", "source"),
        [
            ("api/client.py", "import asyncio, httpx\nfrom .models import MessageBatch"),
            ("emulator/pytest_plugin.py", "import pytest"),
            ("hooks/form.py", "def f():\n    import wtforms"),
            ("hooks/connection.py", "from airflow_provider_batches import __version__"),
        ],
    )
    def test_see_nothing_wrong_in_an_allowed_one(self, file, source):
        assert forbidden(ROOT / file, ast.parse(source)) == []

    @pytest.mark.parametrize("error", ["ImportError", "(ImportError, OSError)", "ModuleNotFoundError", "Exception"])
    def test_see_a_second_place_being_tried(self, error):
        source = f"try:\n    from airflow.sdk import conf\nexcept {error}:\n    from airflow.configuration import conf"
        assert tries_several_places(ast.parse(source))
