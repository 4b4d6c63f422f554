"""Runs third-party clients against the emulator.

    python -m scripts.conformance            # all parts, into docs/conformance.md
    python -m scripts.conformance curl       # one part, without the page

Each part installs its packages into build/conformance/. A part fails if its program (node, curl) is not installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_batches.emulator import Behavior, Emulator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "conformance"
PAGE = ROOT / "docs" / "conformance.md"
PYTHON_SDK = "2.14.0"
TYPESCRIPT_SDKS = ("1.14.0", "0.60.0")
KEY = "sk-ant-emulator"
TEXT = """\
<!-- Made by `make conformance`: change scripts/conformance/ instead. -->

# Conformance

Other people's programs, run against the [emulator](testing.md). `make conformance` runs all of them and writes this
table. The Python SDK's own tests name a beta flag and a workspace that do not exist, and both cursors at once: for them
alone, the emulator accepts those (`unknown_beta`, `foreign_workspace`, `both_cursors`).

| program | version | what it does | result |
|---|---|---|---|
{rows}
"""


@dataclass(frozen=True)
class Row:
    """The result of a part."""

    program: str
    version: str
    does: str
    result: str


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Return a command's output, including standard error; exit if the command fails."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC", "PYTEST"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


def python_sdk() -> Iterator[Row]:
    """Run the official Python SDK's own tests of batches, from its source distribution."""
    folder = BUILD / "python"
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / ".venv" / "bin" / "python"
    source = folder / f"anthropic-{PYTHON_SDK}"
    if not source.exists():
        uv = Path(sys.executable).with_name("uv")
        run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder / ".venv")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        run(*pip, "--dest", folder, f"anthropic=={PYTHON_SDK}")
        archive = next(folder.glob("anthropic-*.tar.gz"))
        needs = (
            "aiohttp",
            "httpx-aiohttp",
            "boto3",
            "google-auth",
            "pytest",
            "pytest-asyncio",
            "pytest-xdist",
            "respx",
        )
        more = ("time-machine", "dirty-equals", "rich", "inline-snapshot", "http-snapshot[httpx]", "opentelemetry-sdk")
        run(uv, "pip", "install", "--quiet", "--python", python, archive, *needs, *more)
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    for name, path in {"plain": "messages", "beta": "beta/messages"}.items():
        with Emulator(
            api_key=None, behavior=Behavior(both_cursors=200, foreign_workspace=200, unknown_beta=200)
        ) as api:
            tests = f"tests/api_resources/{path}/test_batches.py"
            plugin = ("-p", "batch_of_the_sdks_tests", "-n", "0", "-q", "-p", "no:cacheprovider")
            settings = {"TEST_API_BASE_URL": api.url, "PYTHONPATH": str(HERE)}
            printed = run(python, "-m", "pytest", *plugin, tests, cwd=source, **settings)
        (summary,) = re.findall(r"^\d+ passed.*(?= in )", printed, re.MULTILINE)
        yield Row("official SDK for Python", PYTHON_SDK, f"its own tests of batches, {name}", summary)


def typescript_sdk() -> Iterator[Row]:
    """Make all calls of the official TypeScript SDK."""
    for version in TYPESCRIPT_SDKS:
        folder = BUILD / f"typescript-{version}"
        if not (folder / "node_modules").exists():
            _npm_install(folder, f"@anthropic-ai/sdk@{version}")
        shutil.copy(HERE / "calls.mjs", folder)
        with Emulator(batch_seconds=0, cancel_seconds=0) as api:
            running = api.add_batch(3, id="msgbatch_running", batch_seconds=3600)
            calls = json.loads(run("node", "calls.mjs", api.url, KEY, running, cwd=folder).splitlines()[-1])
        yield Row("official SDK for TypeScript", version, ", ".join(calls), f"{len(calls)} of {len(calls)} calls")


def curl() -> Iterator[Row]:
    """Run the commands of the batch guide, with curl, sed and a loop over the pages."""
    with Emulator(batch_seconds=0) as api:
        for _ in range(45):
            api.add_batch(1)
        printed = run("bash", HERE / "calls.sh", ANTHROPIC_BASE_URL=api.url, ANTHROPIC_API_KEY=KEY)
    done = printed.split()
    version = run("curl", "--version").split()[1]
    yield Row("curl", version, ", ".join(done), f"{len(done)} of {len(done)} steps")


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "python": python_sdk,
    "typescript": typescript_sdk,
    "curl": curl,
}


def _npm_install(folder: Path, package: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}')
    run("npm", "install", "--silent", "--no-fund", "--no-audit", "--ignore-scripts", package, cwd=folder)


def main(names: list[str]) -> None:
    """Run the named parts, or all of them and write the page."""
    rows = []
    for name in names or PARTS:
        for row in PARTS[name]():
            print(f"{row.program} {row.version}: {row.does}: {row.result}", flush=True)
            rows.append(row)
    if not names:
        lines = [f"| {row.program} | {row.version} | {row.does} | {row.result} |" for row in rows]
        PAGE.write_text(TEXT.format(rows="\n".join(lines)))


if __name__ == "__main__":
    main(sys.argv[1:])
