"""Runs PostgreSQL and Redis from Debian's packages, in a temporary folder on free ports."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.real_airflow import ends_with_this_process, free_ports

REMEDY = "On Debian: apt-get install postgresql redis-server (their services need not run)."


class ServerError(Exception):
    """A server is not installed, or does not start."""


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run PostgreSQL with an empty database ``airflow``; yield the address for ``postgresql+psycopg2://{address}``.

    :param folder: An empty folder for its data and its log.
    """
    # Debian has one folder for each version's programs, which is not in PATH.
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    initdb, server = (_program(name, places) for name in ("initdb", "postgres"))
    (port,) = free_ports(1)
    password = secrets.token_hex(12)
    data, key = folder / "data", folder / "password"
    key.touch(0o600)
    key.write_text(password)
    # PostgreSQL refuses to run as root.
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    if user:
        for path in (folder, key):
            shutil.chown(path, "postgres", "postgres")
    with (folder / "log").open("ab") as log:
        options = ["--username=airflow", f"--pwfile={key}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            [initdb, f"--pgdata={data}", "--no-sync", *options], stdout=log, stderr=log, cwd=folder, **user
        )
        if made.returncode:
            raise ServerError(f"initdb failed:\n{_tail(folder)}")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 200,
        }
        process = subprocess.Popen(
            [
                *ends_with_this_process("INT"),
                *(server, "-D", str(data)),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            **user,
        )
        # SIGINT is PostgreSQL's "fast shutdown", which does not wait for clients.
        with _stopped_on_exit(process, signal.SIGINT):
            _wait_for(port, process, folder)
            address = f"airflow:{password}@127.0.0.1:{port}"
            _create_database(f"postgresql://{address}/postgres")
            yield f"{address}/airflow"


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run Redis and yield its URL.

    :param folder: An empty folder for its log.
    """
    server = _program("redis-server")
    (port,) = free_ports(1)
    password = secrets.token_hex(12)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*ends_with_this_process(), server, "-"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
        with _stopped_on_exit(process, signal.SIGTERM):
            if process.stdin:
                # Through stdin, so that the password is in no file and no command line.
                process.stdin.write(f'port {port}\nbind 127.0.0.1\nsave ""\nrequirepass {password}\n'.encode())
                process.stdin.close()
            _wait_for(port, process, folder)
            yield f"redis://:{password}@127.0.0.1:{port}/0"


def _program(name: str, places: Sequence[Path] = ()) -> str:
    for place in places:
        if (place / name).exists():
            return str(place / name)
    found = shutil.which(name)
    if not found:
        raise ServerError(f"The program {name} was not found. {REMEDY}")
    return found


@contextlib.contextmanager
def _stopped_on_exit(process: subprocess.Popen[bytes], number: signal.Signals) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerError(f"{folder.name} did not start:\n{_tail(folder)}")
        time.sleep(0.1)


def _create_database(url: str, timeout: float = 60) -> None:
    import psycopg2

    deadline = time.monotonic() + timeout
    while True:
        try:
            connection = psycopg2.connect(url)
            break
        except psycopg2.OperationalError:
            # The port is open before connections are accepted.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE airflow")


def _tail(folder: Path, lines: int = 20) -> str:
    return "\n".join((folder / "log").read_text(errors="replace").splitlines()[-lines:])
