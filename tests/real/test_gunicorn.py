"""gunicorn in a patched process: its master, which runs an event loop in a thread, and its workers serve and stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("gunicorn")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30  # seconds
CONTROLLED = find_spec("gunicorn.ctl") is not None  # today's gunicorn
APPLICATION = """
import asyncio, os, threading, time

def wsgi(environ, start_response):
    time.sleep(0.1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]

async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    await asyncio.sleep(0.1)
    headers = [(b"content-length", str(len(scope["path"])).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": scope["path"].encode()})
"""


class Server:
    """A gunicorn that runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.port = 0

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    def until_it_says(self, pattern: str, times: int = 1) -> str:
        """Wait until the log has `times` lines that match; return the last one's group."""
        end = time.monotonic() + PATIENCE
        while len(found := re.findall(pattern, self.log)) < times:
            assert self.process.poll() is None and time.monotonic() < end, self.log
            time.sleep(0.02)
        return str(found[-1])

    def get(self, path: str) -> bytes:
        """Return the answer to a request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("GET", path)
        body = connection.getresponse().read()
        connection.close()
        return body

    def ends_after(self, number: signal.Signals) -> int:
        """Send a signal to the master; return its status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def gunicorn(place: Path, *options: str) -> Iterator[Server]:
    """Run gunicorn with two workers, from when both have started."""
    (place / "application.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "greenswitch.monkey", "-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(place), "XDG_RUNTIME_DIR": str(place)}
    with open(place / "log", "wb") as log:
        process = subprocess.Popen([*command, *options], cwd=place, env=environment, stdout=log, stderr=log)
    server = Server(process, place / "log")
    try:
        server.port = int(server.until_it_says(r"Listening at: http://127\.0\.0\.1:(\d+)"))
        server.until_it_says("(Booting worker)", times=2)
        if CONTROLLED:
            server.until_it_says("(Control socket listening)")
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "options",
    [
        ("--worker-class", "sync", "application:wsgi"),
        ("--worker-class", "gthread", "--threads", "4", "application:wsgi"),
        ("--worker-class", "asgi", "application:asgi"),
        ("--worker-class", "sync", "--preload", "application:wsgi"),
    ],
    ids=lambda options: " ".join(options[1:-1]),
)
def test_gunicorn_serves_and_stops(tmp_path: Path, options: tuple[str, ...], number: signal.Signals) -> None:
    with gunicorn(tmp_path, *options) as server:
        assert [server.get(f"/{number}") for number in range(5)] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
        assert server.ends_after(number) == 0, server.log
        assert server.log.count("Worker exiting") == 2, server.log
        assert "exited with code" not in server.log and "Traceback" not in server.log, server.log
        assert "Shutting down: Master" in server.log


def test_the_control_socket_which_an_event_loop_in_a_thread_of_the_master_serves_answers(tmp_path: Path) -> None:
    client = pytest.importorskip("gunicorn.ctl.client")
    with gunicorn(tmp_path, "--worker-class", "gthread", "application:wsgi") as server:
        with client.ControlClient(server.until_it_says(r"Control socket listening at (\S+)"), PATIENCE) as control:
            assert len(control.send_command("show workers")["workers"]) == 2
            control.send_command("worker add", ["1"])
        server.until_it_says("(Booting worker)", times=3)
        assert server.get("/added") == b"/added"
        assert server.ends_after(signal.SIGTERM) == 0, server.log


def test_gunicorn_reloads_its_workers_and_goes_on_serving(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "--worker-class", "gthread", "application:wsgi") as server:
        server.process.send_signal(signal.SIGHUP)
        server.until_it_says("(Booting worker)", times=4)
        server.until_it_says("(Worker exiting)", times=2)
        assert server.get("/again") == b"/again"
        assert server.ends_after(signal.SIGTERM) == 0, server.log
