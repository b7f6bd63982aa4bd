"""Real servers on loopback, each on a port of its own and with its data in a directory that goes away with it.

A test that asks for a server which isn't installed is skipped, with the reason. Servers that refuse to run as root run
as `nobody`. And `patched`: run a script in a fresh process, with the standard library patched.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER = "nobody" if hasattr(os, "geteuid") and os.geteuid() == 0 else None
PATIENCE = 40  # seconds for a server to come up, and for a script to end

PROLOGUE = """
import sys, time
PATCHED = {patched}
if PATCHED:
    from greenswitch import monkey
    monkey.patch_all()
import greenswitch

def at_once(function, arguments=range(100), seconds=0.2):
    '''Call function(argument) for all arguments in tasks of their own; each waits so long, and so do all of them.'''
    start = time.monotonic()
    tasks = [greenswitch.spawn(function, argument) for argument in arguments]
    greenswitch.joinall(tasks, raise_error=True)
    took, one_by_one = time.monotonic() - start, len(tasks) * seconds
    assert took < one_by_one, f"{{took:.2f}} s, where one after another takes {{one_by_one:.2f}} s"
    return [task.value for task in tasks]

def free_port():
    from greenswitch.green import socket
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
"""


@pytest.fixture
def script() -> Callable[..., str]:
    """Run a script in a fresh process, patched or not; return what it prints. It gets `at_once` and the arguments."""
    if sys.platform == "win32":
        pytest.skip("these scripts are written for POSIX")

    def run(text: str, *arguments: object, patched: bool = True) -> str:
        source = PROLOGUE.format(patched=patched) + textwrap.dedent(text)
        command = [sys.executable, "-X", "faulthandler", "-c", source, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=environment, cwd=tempfile.gettempdir(), **pipes)
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it tells where it hangs
            output, errors = process.communicate(timeout=10)
            pytest.fail(f"no end within {PATIENCE} s\n{output}{errors}")
        finally:
            process.kill()
        assert process.returncode == 0, f"status {process.returncode}\n{output}{errors}"
        return output

    return run


def program(*names: str) -> str:
    """Return the path of the first program there is; skip the test if there is none."""
    places = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", *sorted(glob("/usr/lib/postgresql/*/bin"))]
    for name in names:
        if found := shutil.which(name, path=os.pathsep.join(places)):
            return found
    pytest.skip(f"{names[0]} is not installed")


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def place_of_its_own() -> Iterator[Path]:
    """Make a directory that belongs to whoever runs the server."""
    directory = Path(tempfile.mkdtemp(prefix="real-"))
    try:
        if USER is not None:
            shutil.chown(directory, USER)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def running(command: list[Any], place: Path, port: int, stop: signal.Signals) -> Iterator[None]:
    """Run a server from when it answers on its port until the tests are through."""
    with open(place / "log", "wb") as log:
        process = subprocess.Popen(list(map(str, command)), cwd=place, stdout=log, stderr=log, user=USER)
    try:
        _until_it_answers(process, port, place / "log")
        yield
    finally:
        process.send_signal(stop)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"{process.args!r} does not answer on port {port}:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def prepare(command: list[Any], place: Path) -> None:
    """Run a command that makes a server's data."""
    words = list(map(str, command))
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, user=USER, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    """The port of a redis-server."""
    server, port = program("redis-server"), free_port()
    with place_of_its_own() as place:
        command = [server, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", place]
        with running(command, place, port, signal.SIGTERM):
            yield port


@pytest.fixture(scope="module")
def postgres_port() -> Iterator[int]:
    """The port of a PostgreSQL server with the user `test`, who needs no password for the database `postgres`."""
    server, initdb, port = program("postgres"), program("initdb"), free_port()
    with place_of_its_own() as place:
        data = place / "data"
        prepare([initdb, "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"], place)
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={place}", "fsync=off"]
        settings.append("max_connections=120")
        command = [server, "-D", data, "-p", port, *(word for one in settings for word in ("-c", one))]
        with running(command, place, port, signal.SIGINT):
            yield port


@pytest.fixture(scope="module")
def mariadb_port() -> Iterator[int]:
    """The port of a MariaDB server where everybody may do everything in the database `mysql`."""
    server, install, port = program("mariadbd", "mysqld"), program("mariadb-install-db"), free_port()
    with place_of_its_own() as place:
        data = place / "data"
        prepare([install, "--no-defaults", f"--datadir={data}", "--skip-test-db"], place)
        options = ["--skip-grant-tables", "--bind-address=127.0.0.1", "--max-connections=200", "--skip-name-resolve"]
        files = [f"--datadir={data}", f"--socket={place / 'socket'}", f"--pid-file={place / 'pid'}", f"--port={port}"]
        with running([server, "--no-defaults", *files, *options], place, port, signal.SIGKILL):  # SIGTERM takes 7 s
            yield port
