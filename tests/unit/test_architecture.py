"""The house: each room imports only the rooms below it, and no file needs more than a screen or two."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import airflow_provider_batches

NAME = "airflow_provider_batches"
ROOT = Path(airflow_provider_batches.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py"))
MOST_LINES = 350

#: What each room may import besides the standard library and itself; `version` is the package's own `__init__`.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "emulator": set(),
    "api": {"httpx", "pydantic"},
    "_compat": {"airflow", "asgiref"},
    "_arguments": {"api"},
    "waiting": {"api"},
    "storage": {"api", "_arguments"},
    "results": {"api", "storage", "submission"},
    "submission": {"api", "_arguments", "storage"},
    "teardown": {"pydantic", "api", "_arguments", "waiting", "storage", "results"},
    "hooks": {"asgiref", "version", "_compat", "api", "_arguments", "waiting"},
    "links": {"airflow"},
    "_datasets": {"airflow", "_compat"},
    "_metrics": {"_compat", "api", "waiting"},
    "_on_kill": {"_compat", "_metrics", "api"},
    "triggers": {"airflow", "_compat", "_metrics", "api", "_arguments", "_on_kill", "waiting", "hooks"},
    "_base": {"airflow", "_compat", "_metrics", "api", "waiting", "hooks", "links", "triggers"},
    "operators": {
        *(
            "airflow",
            "_compat",
            "_datasets",
            "_metrics",
            "api",
            "_arguments",
            "_on_kill",
            "waiting",
            "storage",
            "results",
            "submission",
            "teardown",
        ),
        *("hooks", "_base"),
    },
    "sensors": {"airflow", "_compat", "api", "_arguments", "_on_kill", "waiting", "hooks", "triggers", "_base"},
    "task_groups": {"airflow", "_arguments", "hooks", "operators", "sensors"},
    "page": {"airflow", "fastapi", "sqlalchemy", "_compat", "api", "hooks"},
    "get_provider_info": {"version"},
    "pytest_plugin": {"pytest"},
}
#: What is imported in functions or for type checkers only: it is missing, or costs time, where the room is imported.
LATER = {
    "emulator": {"uvicorn"},
    "api": {"botocore", "google"},
    "storage": {"airflow", "fsspec"},
    "results": {"fastjsonschema", "pyarrow"},
    "submission": {"airflow", "genai_prices", "jinja2", "pyarrow"},
    "hooks": {"airflow", "botocore", "google", "wtforms"},
    "get_provider_info": {"hooks"},
    "task_groups": {"submission"},
    "pytest_plugin": {"airflow", "sqlalchemy", "_compat", "emulator"},
}
#: Packages whose name differs from the name that is imported.
DISTRIBUTIONS = {"airflow": "apache-airflow", "genai_prices": "genai-prices", "google": "google-auth"}
#: Packages that are imported only where they are installed anyway: by pytest, and with Airflow.
UNDECLARED = {"fastapi", "jinja2", "pytest", "sqlalchemy", "wtforms"}
#: Words of Airflow's world. A "connection" may be one of the network, but "the connection's" is a setting's.
AIRFLOWS_WORDS = re.compile(
    r"\b(airflow|dags?|sensors?|operators?|triggers?|triggerers?|xcoms?|conn_id|the connection's)\b|\.expand\(",
    re.IGNORECASE,
)

of_each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())


@dataclass(frozen=True)
class Import:
    """A module, or a name of one, that a file imports: `name` in full, `bound` as the file calls it."""

    name: str
    bound: str
    line: int
    in_function: bool
    for_typing: bool


def imports(tree, package):
    """Return all imports of a file, wherever in it."""
    found = []

    def visit(node, in_function, for_typing):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            before = f"{module_of(node, package)}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                bound = alias.asname or alias.name
                found.append(Import(before + alias.name, bound, node.lineno, in_function, for_typing))
        in_function = in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for_typing = for_typing or (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
        for child in ast.iter_child_nodes(node):
            visit(child, in_function, for_typing)

    visit(tree, False, False)
    return found


def module_of(node, package):
    """Return the full name of the module that a `from ... import` names."""
    if not node.level:
        return node.module
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def parse(path):
    return ast.parse(path.read_text("utf-8"), str(path))


def package_of(path):
    return (NAME, *path.relative_to(ROOT).parent.parts)


def room_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def target(name):
    """Return the room or the foreign package that a module belongs to."""
    parts = name.split(".")
    if parts[0] != NAME:
        return parts[0]
    return "version" if parts[1:] in ([], ["__version__"]) else parts[1]


def foreign(path, tree):
    """Yield the imports of other rooms and of packages, and what each leads to."""
    for found in imports(tree, package_of(path)):
        place = target(found.name)
        if place != room_of(path) and place not in sys.stdlib_module_names:
            yield found, place


def forbidden(path, tree):
    room, relative = room_of(path), path.relative_to(ROOT)
    allowed = ALLOWED[room]
    later = LATER.get(room, set())
    return [
        f"{relative}:{found.line} imports {found.name}"
        for found, place in foreign(path, tree)
        if place not in allowed and not (place in later and (found.in_function or found.for_typing))
    ]


def private_names(path, tree):
    """Return the private names of other rooms that a file uses: what it imports, and attributes of what it imports."""
    borrowed = [found for found, place in foreign(path, tree) if found.name.startswith(NAME) and place != "version"]
    # The names of rooms may begin with an underscore.
    named = [found.name for found in borrowed if any(part[0] == "_" for part in found.name.split(".")[2:])]
    bound = {found.bound for found in borrowed}
    return named + [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound
        if node.attr[0] == "_" and not node.attr.startswith("__")
    ]


def import_graph(sources):
    """Return which modules each module imports when it runs, in functions too; `sources` maps names to texts."""
    graph = {}
    for module, source in sources.items():
        found = imports(ast.parse(source), module.split(".")[:-1])
        names = [each.name for each in found if not each.for_typing]
        graph[module] = {name if name in sources else name.rpartition(".")[0] for name in names} & sources.keys()
    return graph


def check_order(graph):
    """Raise CycleError if something imports itself through others."""
    TopologicalSorter(graph).prepare()


def texts(tree):
    """Yield the texts of a file, docstrings included, and their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            # The client introduces itself by the name of the package.
            yield node.lineno, node.value.replace("airflow-provider-batches", "").replace(NAME, "")


def words_of_airflow(tree):
    return [f"{line}: {found[0]}" for line, text in texts(tree) for found in AIRFLOWS_WORDS.finditer(text)]


def tries_several_places(tree):
    """Return whether a file tries to import something and continues if it is not there."""
    errors = {"ImportError", "ModuleNotFoundError", "AttributeError", "Exception", "BaseException"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in _within(node.body)):
            caught = {n.id for handler in node.handlers if handler.type for n in _within([handler.type], ast.Name)}
            if caught & errors or any(handler.type is None for handler in node.handlers):
                return True
    return False


def asks_for_the_version(tree):
    names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    return bool(names & {"version_info", "AIRFLOW_V_3_1_PLUS", "__version_info__"})


def is_long(text):
    return len(text.splitlines()) > MOST_LINES


def _within(nodes, kind=ast.AST):
    return [n for node in nodes for n in ast.walk(node) if isinstance(n, kind)]


@of_each_file
def test_a_file_imports_only_the_rooms_below_it(path):
    assert forbidden(path, parse(path)) == []


@of_each_file
def test_a_file_uses_no_private_name_of_another_room(path):
    assert private_names(path, parse(path)) == []


@of_each_file
def test_a_file_is_short(path):
    assert not is_long(path.read_text("utf-8"))


@of_each_file
def test_only_one_file_knows_that_airflow_versions_differ(path):
    tree = parse(path)
    assert room_of(path) == "_compat" or not (tries_several_places(tree) or asks_for_the_version(tree))


@pytest.mark.parametrize("path", sorted((ROOT / "api").glob("*.py")), ids=lambda path: path.name)
def test_the_texts_of_the_api_do_not_speak_of_airflow(path):
    assert words_of_airflow(parse(path)) == []


def test_no_file_imports_itself_through_others():
    names = {path: ".".join([*package_of(path), path.stem]).removesuffix(".__init__") for path in FILES}
    check_order(import_graph({names[path]: path.read_text("utf-8") for path in FILES}))


def test_no_room_imports_itself_through_others():
    check_order({room: ALLOWED[room] | LATER.get(room, set()) for room in ALLOWED})


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_uses_all_that_it_may_import(room):
    files = [path for path in FILES if room_of(path) == room]
    used = {place for path in files for _, place in foreign(path, parse(path))}

    assert files
    assert used == ALLOWED[room] | LATER.get(room, set())


def test_what_is_imported_is_declared_and_nothing_else():
    imported = {place for path in FILES for _, place in foreign(path, parse(path))} - {*ALLOWED, "version"}
    declared = {Requirement(text).name for text in requires("airflow-provider-batches") or ()}

    assert {DISTRIBUTIONS.get(name, name) for name in imported - UNDECLARED} == declared


@pytest.mark.parametrize("room", ["emulator", "operators", "sensors"])
def test_nothing_else_knows_of(room):
    assert not any(room in rule for name, rule in ALLOWED.items() if name not in (room, "task_groups"))


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
            ("api/client.py", "import tenacity"),
            ("api/flows.py", "from airflow_provider_batches.waiting.wait import Wait"),
            ("emulator/app.py", "import pytest"),
            ("emulator/server.py", "import uvicorn"),
            ("emulator/app.py", "from airflow_provider_batches.api import MessageBatch"),
            ("hooks/form.py", "import wtforms"),
            ("hooks/form.py", "from airflow.sdk import BaseHook"),
            ("hooks/batches.py", "from airflow_provider_batches.triggers.batches import BatchEndedTrigger"),
            ("waiting/poller.py", "from airflow_provider_batches.hooks.batches import BatchesHook"),
            ("triggers/batches.py", "from airflow_provider_batches.operators.batches import CancelBatchOperator"),
            ("storage/folder.py", "from airflow.sdk import ObjectStoragePath"),
            ("results/saving.py", "from airflow_provider_batches.teardown.job import Record"),
            ("teardown/job.py", "from airflow_provider_batches.hooks.batches import BatchesHook"),
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
            ("pytest_plugin.py", "import pytest"),
            ("hooks/form.py", "def f():\n    import wtforms"),
            ("operators/batches.py", "if TYPE_CHECKING:\n    from airflow.sdk import Context"),
            ("hooks/connection.py", "from airflow_provider_batches import __version__"),
        ],
    )
    def test_see_nothing_wrong_in_an_allowed_one(self, file, source):
        assert forbidden(ROOT / file, ast.parse(source)) == []

    @pytest.mark.parametrize(
        "source",
        [
            f"from {NAME}.api.flows import _gone",
            f"def f():\n    from {NAME}.operators._selecting import SelectingOperator",
            f"from {NAME} import api\napi._gone()",
            f"from {NAME}.api import BatchesClient as Client\nClient._run",
        ],
    )
    def test_see_a_private_name(self, source):
        assert len(private_names(ROOT / "hooks/batches.py", ast.parse(source))) == 1

    @pytest.mark.parametrize(
        "source",
        [
            f"from {NAME} import __version__",
            f"from {NAME}._arguments import read_count",
            f"from {NAME}.hooks.form import _widget",
            "from asyncio import _enter_task",
            "self._client._run()",
        ],
    )
    def test_see_no_private_name_in_what_is_public_or_one_s_own(self, source):
        assert private_names(ROOT / "hooks/batches.py", ast.parse(source)) == []

    @pytest.mark.parametrize("line", ["from .a import x", f"import {NAME}.a", f"def f():\n  from {NAME} import a"])
    def test_see_a_circle(self, line):
        sources = {f"{NAME}.a": "from .b import x", f"{NAME}.b": "from . import c", f"{NAME}.c": line}

        with pytest.raises(CycleError):
            check_order(import_graph(sources))

    def test_see_no_circle_in_what_only_a_type_checker_imports(self):
        sources = {f"{NAME}.a": "from .b import x", f"{NAME}.b": "if TYPE_CHECKING:\n    from .a import y"}

        check_order(import_graph(sources))

    @pytest.mark.parametrize(
        "text",
        [
            "Airflow retries it",
            "a sensor's wait",
            "the operators",
            "check the connection's password",
            "a DAG",
            "use .expand(batch_id=[...])",
        ],
    )
    def test_see_a_word_of_airflow(self, text):
        for source in (f'"""{text}"""', f'f"{{x}} {text}"'):
            assert len(words_of_airflow(ast.parse(source))) == 1

    @pytest.mark.parametrize("text", ["the connections to the API", "airflow-provider-batches/1.0"])
    def test_see_no_word_of_airflow_in_others(self, text):
        assert words_of_airflow(ast.parse(f'"""{text}"""')) == []

    @pytest.mark.parametrize(("lines", "long"), [(MOST_LINES, False), (MOST_LINES + 1, True)])
    def test_see_a_long_file(self, lines, long):
        assert is_long("x = 1\n" * lines) == long

    @pytest.mark.parametrize("error", ["ImportError", "(ImportError, OSError)", "ModuleNotFoundError", "Exception"])
    def test_see_a_second_place_being_tried(self, error):
        source = f"try:\n    from airflow.sdk import conf\nexcept {error}:\n    from airflow.configuration import conf"
        assert tries_several_places(ast.parse(source))

    def test_see_a_version_being_asked_for(self):
        assert asks_for_the_version(ast.parse("if sys.version_info >= (3, 11): pass"))
