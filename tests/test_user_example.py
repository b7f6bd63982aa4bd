"""The programs that people have from the gevent tutorial run here with nothing but their import lines changed.

Each program stands below as such tutorials write it, and runs in a fresh process. The port in the text, 8090, is
replaced: by 0 in servers, which print what they got, and by that in clients.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 20
# Tutorials leave the listener to the interpreter's end, which may warn of it; with blocking sockets too.
WARNINGS = "error,ignore::ResourceWarning"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": WARNINGS, "PYTHONUNBUFFERED": "1"}

# What is changed: the import lines. To be two others, `from greenswitch import monkey; monkey.patch_all()`.
IMPORTS = """
import greenswitch as gevent
from greenswitch.green import socket
"""

SERVER = """
def talk(conn, addr):
    try:
        while True:
            data = conn.recv(1024)
            print(addr, data)
            if not data:
                break
            conn.send(data.upper())
    finally:
        conn.close()

server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", 8090))
server.listen(5)
print("listening on", server.getsockname())

while True:
    conn, addr = server.accept()
    gevent.spawn(talk, conn, addr)
"""

SERVER_THAT_JOINS = """
def talk(conn):
    while True:
        data = conn.recv(1024)
        if not data:
            break
        conn.send(data.upper())
    conn.close()
    return addr_of[conn]

def serve(clients):
    talks = []
    for _ in range(clients):
        conn, addr = server.accept()
        addr_of[conn] = addr
        talks.append(gevent.spawn(talk, conn))
    gevent.joinall(talks)
    return [talk.value for talk in talks]

addr_of = {}
server = socket.socket()
server.bind(("127.0.0.1", 8090))
server.listen(5)
print("listening on", server.getsockname())
g = gevent.spawn(serve, 2)
g.join()
print("served", g.value)
"""

CLIENT = """
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect(("127.0.0.1", 8090))
while True:
    line = input("> ").strip()
    if not line:
        continue
    if line == "exit":
        break
    client.send(line.encode("utf-8"))
    print(client.recv(1024).decode("utf-8"))
client.close()
"""

CLIENTS = """
def ask(text):
    client = socket.create_connection(("127.0.0.1", 8090))
    client.send(text)
    answer = client.recv(1024)
    client.close()
    return answer

tasks = [gevent.spawn(ask, b"client %d" % number) for number in range(5)]
gevent.joinall(tasks)
print([task.value for task in tasks] == [b"CLIENT %d" % number for number in range(5)])
"""

# The tutorials' first page: two functions that take turns.
TURNS = """
def work(name, count):
    for number in range(count):
        print(name, number)
        gevent.sleep(0)
    return name * count

g1 = gevent.spawn(work, "a", 2)
g2 = gevent.spawn(work, "b", 3)
gevent.joinall([g1, g2])
print(g1.value, g2.value, g1.ready(), g2.successful())

g3 = gevent.spawn(work, name="c", count=1)
print(g3.value)
g3.join()
print(g3.value)

def fail():
    raise ValueError("no")

g4 = gevent.spawn(fail)
g4.join()
print(g4.value, repr(g4.exception), g4.successful())
print([g.value for g in [gevent.spawn(pow, 2, n) for n in range(4)] if g.join() is None])
"""

# Sleeping and name look-up side by side: three waits take as long as the longest one.
SIDE_BY_SIDE = """
import time

def work(seconds):
    gevent.sleep(seconds)
    return seconds

start = time.monotonic()
jobs = [gevent.spawn(socket.gethostbyname, "127.0.0.1")] + [gevent.spawn(work, 0.2) for _ in range(10)]
gevent.joinall(jobs, timeout=10)
print(jobs[0].value, sum(job.value for job in jobs[1:]) > 1.9, time.monotonic() - start < 10 * 0.2)
"""


class Running:
    """A server from the text above; `port` is the one it got."""

    def __init__(self, program: str) -> None:
        self.process = popen(program, 0)
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on ('127.0.0.1', "), self.process.stderr.read()
        self.port = int(line.rpartition(", ")[2].rstrip(")\n"))

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)


def popen(program: str, port: int) -> subprocess.Popen[str]:
    source = IMPORTS + program.replace("8090", str(port))
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, env=ENVIRONMENT, text=True, **pipes)


def output(program: str, port: int = 0, typed: str = "") -> str:
    """Run a program to its end, which must be a clean one, and return what it has printed."""
    with popen(program, port) as process:
        out, errors = process.communicate(typed, timeout=SECONDS)
    assert (process.returncode, errors) == (0, "")
    return out


@pytest.fixture
def start() -> Iterator[Callable[[str], Running]]:
    """Start servers that don't outlive the test."""
    started: list[Running] = []

    def starter(program: str) -> Running:
        started.append(Running(program))
        return started[-1]

    yield starter
    for one in started:
        with one.process as process:
            process.kill()


@pytest.fixture
def server(start: Callable[[str], Running]) -> Running:
    """The tutorial's echo server."""
    return start(SERVER)


def test_only_the_import_lines_know_of_greenswitch() -> None:
    programs = (SERVER, SERVER_THAT_JOINS, CLIENT, CLIENTS, TURNS, SIDE_BY_SIDE)
    assert [program for program in programs if "greenswitch" in program] == []


def test_tutorial_server_answers_one_client_while_another_is_idle(server: Running) -> None:
    with server.connect() as idle, server.connect() as conn:
        conn.sendall(b"hello")
        assert conn.recv(100) == b"HELLO"
        assert server.line() == f"{conn.getsockname()} b'hello'"
        idle.sendall(b"me too")
        assert idle.recv(100) == b"ME TOO"


def test_tutorial_client_reads_lines_of_a_person_and_prints_the_answers(server: Running) -> None:
    assert output(CLIENT, server.port, typed="hello\n\ngrüße\nexit\n") == "> HELLO\n> > GRüßE\n> "
    assert server.line().endswith("b'hello'")


def test_five_clients_in_one_thread_talk_to_the_tutorial_server(server: Running) -> None:
    assert output(CLIENTS, server.port) == "True\n"


def test_server_that_joins_its_talks_returns_what_they_returned(start: Callable[[str], Running]) -> None:
    server = start(SERVER_THAT_JOINS)
    with server.connect() as one, server.connect() as two:
        for conn in (two, one):
            conn.sendall(b"hello")
            assert conn.recv(100) == b"HELLO"
        addresses = [one.getsockname(), two.getsockname()]
    assert server.line() == f"served {addresses}"
    assert server.process.wait(SECONDS) == 0


def test_ctrl_c_ends_the_tutorial_server_as_it_ends_any_program(server: Running) -> None:
    with server.connect() as conn:
        conn.sendall(b"hello")
        assert conn.recv(100) == b"HELLO"
        server.process.send_signal(signal.SIGINT)
        _, errors = server.process.communicate(timeout=SECONDS)
        assert server.process.returncode == -signal.SIGINT
        assert errors.rstrip().endswith("KeyboardInterrupt") and errors.count("\nKeyboardInterrupt") == 1
        assert conn.recv(100) == b""


def test_two_functions_take_turns_and_leave_their_values() -> None:
    assert output(TURNS).splitlines() == [
        *("a 0", "b 0", "a 1", "b 1", "b 2"),
        "aa bbb True True",
        *("None", "c 0", "c"),
        "None ValueError('no') False",
        "[1, 2, 4, 8]",
    ]


def test_waits_side_by_side_take_as_long_as_the_longest() -> None:
    assert output(SIDE_BY_SIDE) == "127.0.0.1 True True\n"
