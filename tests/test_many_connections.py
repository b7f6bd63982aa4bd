"""Very many connections: one after another without anything growing, and ten thousand at once.

GREENSWITCH_CYCLES sets how many connect/echo/close cycles there are (default 20,000; the full measure is 100,000),
GREENSWITCH_CONNECTIONS how many connections are open at once (default 10,000).
"""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from greenswitch import get_hub, joinall, sleep, spawn
from greenswitch.sockets import create_connection, create_server

CYCLES = int(os.environ.get("GREENSWITCH_CYCLES", "20000"))
CONNECTIONS = int(os.environ.get("GREENSWITCH_CONNECTIONS", "10000"))

pytestmark = pytest.mark.slow


def echo(connection):
    with connection:
        connection.settimeout(60)
        while data := connection.recv(1024):
            connection.sendall(data)


def serve(listener):
    while True:
        spawn(echo, listener.accept()[0])


def cycle(address, number):
    """Connect, echo, close; now and then as a client that is rude, or that gives up."""
    message = b"%d" % number
    sock = create_connection(address, timeout=30)
    try:
        sock.sendall(message)
        assert sock.recv(1024) == message
        if number % 10 == 0:
            sock.settimeout(1e-6)
            with pytest.raises(TimeoutError):
                sock.recv(1)
    finally:
        sock.close()


def resident():
    """Memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def census():
    """Everything that might grow."""
    hub = get_hub()
    gc.collect()
    return {
        "fds": len(os.listdir("/proc/self/fd")),
        "tasks": len(hub.carriers.jobs()),
        "carriers": len(hub.carriers.all),
        "parked": len(hub.parked),
        "timers": len(hub.timers),
        "registrations": len(hub.registrations),
        "objects": len(gc.get_objects()),
    }


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts fds and memory by /proc")
@pytest.mark.timeout(600)
def test_cycles_of_connect_echo_close_leave_nothing_behind(real_hub):
    workers = 20

    def client(address, count):
        for number in range(count):
            cycle(address, number)

    def rounds(address, count):
        joinall([spawn(client, address, count // workers) for _ in range(workers)], raise_error=True)
        sleep(0.05)

    with create_server(("127.0.0.1", 0), backlog=256) as listener:
        server = spawn(serve, listener)
        rounds(listener.getsockname(), 2000)  # whatever is made once is there now
        before, memory = census(), resident()
        rounds(listener.getsockname(), CYCLES)
        after, memory_after = census(), resident()
        server.kill()
    print(f"{CYCLES} cycles: {before} -> {after}, {memory_after - memory:+} bytes resident")
    objects = after.pop("objects") - before.pop("objects")
    assert after == before
    assert objects < 500
    assert memory_after - memory < 4_000_000


SERVER = """
import resource, sys
from greenswitch import run, spawn
from greenswitch.sockets import create_server

resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)

def echo(connection):
    with connection:
        while data := connection.recv(1024):
            connection.sendall(data.upper())

def main():
    with create_server(("127.0.0.1", 0), backlog=4096) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            spawn(echo, listener.accept()[0])

run(main)
"""

CLIENT = """
import resource, sys
from greenswitch import joinall, run, spawn
from greenswitch.locks import Semaphore
from greenswitch.sockets import create_connection

resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
address, count = ("127.0.0.1", int(sys.argv[2])), int(sys.argv[3])
few = Semaphore(100)

def exchange(sock, number):
    message = b"connection %d" % number
    sock.sendall(message)
    assert sock.recv(1024) == message.upper()

def connect(number):
    with few:
        sock = create_connection(address, timeout=100)
    exchange(sock, number)
    return sock

def main():
    tasks = [spawn(connect, number) for number in range(count)]
    joinall(tasks, raise_error=True)
    socks = [task.value for task in tasks]
    print("open", len({sock.fileno() for sock in socks}), flush=True)
    for turn in range(2):  # all of them at once, all of them open
        joinall([spawn(exchange, sock, turn) for sock in socks], raise_error=True)
    print("echoed", len(socks) * 3, flush=True)
    for sock in socks:
        sock.close()

run(main)
"""


def limit_of_fds(needed):
    """Return the limit to run with, or skip."""
    resource = pytest.importorskip("resource")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"{CONNECTIONS} connections need {needed} file descriptors; this process may have {hard}")
    return needed


@pytest.mark.timeout(180)
def test_ten_thousand_connections_are_open_at_once_and_each_echoes():
    if os.environ.get("GREENSWITCH_POLLER") == "select":
        pytest.skip("select() watches fds below 1024 only")
    limit = str(limit_of_fds(CONNECTIONS + 100))
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, limit], stdout=subprocess.PIPE, text=True, env=environment
    )
    with server:
        try:
            port = server.stdout.readline().strip()
            done = subprocess.run(
                [sys.executable, "-c", CLIENT, limit, port, str(CONNECTIONS)],
                capture_output=True,
                text=True,
                timeout=150,
                env=environment,
            )
        finally:
            server.kill()
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == f"open {CONNECTIONS}\nechoed {CONNECTIONS * 3}\n"
