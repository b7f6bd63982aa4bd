"""The tutorial server and client as people have them from gevent, patched: `gevent` is now `greenswitch`, no more.

`tests/test_user_example.py` runs the same without patching. Here the programs call `monkey.patch_all()`, use the plain
`socket`, `threading`, `time` and `input`, and run in fresh processes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 30
WARNINGS = "error,ignore::ResourceWarning"  # tutorials leave the listener to the interpreter's end
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": WARNINGS, "PYTHONUNBUFFERED": "1"}

SERVER = """
from gevent import monkey
monkey.patch_all()

import socket
import gevent


def talk(conn, addr):
    while True:
        data = conn.recv(1024)
        print(data.decode("utf-8"), addr[0])
        if not data:
            break
        conn.send(data.upper())
    conn.close()


def server(ip, port):
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((ip, port))
    server.listen(5)
    print("listening on", server.getsockname()[1])
    while True:
        conn, addr = server.accept()
        gevent.spawn(talk, conn, addr)


if __name__ == "__main__":
    g = gevent.spawn(server, "127.0.0.1", 8090)
    g.join()
"""

CLIENT = """
from gevent import monkey
monkey.patch_all()

import socket

client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect(("127.0.0.1", 8090))
while True:
    msg = input(">>>: ").strip()
    if not msg:
        break
    client.send(msg.encode("utf-8"))
    print(client.recv(1024).decode("utf-8"))
client.close()
"""

# Five hundred clients at once, by threads.
CLIENTS = """
from gevent import monkey
monkey.patch_all()

from threading import Thread, current_thread
import socket
import time

def client():
    c = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    c.connect(("127.0.0.1", 8090))
    for count in range(3):
        c.send(("%s say hello %s" % (current_thread().name, count)).encode("utf-8"))
        answers.append(c.recv(1024).decode("utf-8"))
        time.sleep(0.01)
    c.close()

answers = []
threads = [Thread(target=client) for _ in range(500)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(len(answers), sorted(set(a.split()[-1] for a in answers)), len(set(answers)))
"""

TWO_TASKS = """
from gevent import monkey; monkey.patch_all()
import gevent
import time

def eat(name):
    print("%s eat 1" % name)
    time.sleep(0.1)
    print("%s eat 2" % name)
    return "fed"

def play(name):
    print("%s play 1" % name)
    time.sleep(0.05)
    print("%s play 2" % name)

start = time.time()
g1 = gevent.spawn(eat, "egon")
g2 = gevent.spawn(play, name="egon")
gevent.joinall([g1, g2])
print(g1.value, g2.value, time.time() - start < 0.145 or "slow machine")
"""


def popen(program: str, port: int) -> subprocess.Popen[str]:
    source = program.replace("gevent", "greenswitch").replace("8090", str(port))
    command, pipe = [sys.executable, "-c", source], subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def output(program: str, port: int = 0, typed: str = "") -> str:
    with popen(program, port) as process:
        out, errors = process.communicate(typed, timeout=SECONDS)
    assert (process.returncode, errors) == (0, "")
    return out


class Server:
    """The tutorial's server, running; `port` is the one it got."""

    def __init__(self, source: str = SERVER) -> None:
        self.process = popen(source, 0)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split()[-1])


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    running = Server(getattr(request, "param", SERVER))
    yield running
    with running.process as process:
        process.kill()


def test_person_talks_to_the_server_and_so_does_another_meanwhile(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as idle:
        assert output(CLIENT, server.port, typed="hello\nthere\n\n") == ">>>: HELLO\n>>>: THERE\n>>>: "
        idle.sendall(b"still here")
        assert idle.recv(100) == b"STILL HERE"


# With room for five in the backlog the kernel drops most of them, and each tries again after 1, 3, 7 and 15 seconds.
@pytest.mark.parametrize("server", [SERVER.replace("listen(5)", "listen(500)")], indirect=True, ids=["backlog of 500"])
def test_five_hundred_clients_in_threads_of_one_process_are_all_answered(server: Server) -> None:
    drain = subprocess.Popen(["cat"], stdin=server.process.stdout, stdout=subprocess.DEVNULL)  # what the server prints
    try:
        assert output(CLIENTS, server.port) == "1500 ['0', '1', '2'] 1500\n"
    finally:
        drain.kill()
        drain.wait()


def test_two_tasks_sleep_side_by_side_by_the_plain_time_sleep() -> None:
    lines = output(TWO_TASKS).splitlines()
    assert lines[:4] == ["egon eat 1", "egon play 1", "egon play 2", "egon eat 2"]
    assert lines[4].startswith("fed None ")


def test_ctrl_c_ends_the_server_as_any_program(server: Server) -> None:
    time.sleep(0.1)
    server.process.send_signal(signal.SIGINT)
    _, errors = server.process.communicate(timeout=SECONDS)
    assert server.process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt") and errors.count("\nKeyboardInterrupt") == 1
