"""The twin of `socket`: every public name is there, ours where the original blocks, its own elsewhere."""

from __future__ import annotations

import socket as original
import subprocess
import sys
from pathlib import Path

import pytest

from greenswitch import BusyError, move_on_after, names, sleep, sockets, spawn
from greenswitch.green import socket
from greenswitch.hub import Hub

ROOT = Path(__file__).resolve().parents[2]

# What blocks the thread in the original, and what stands in its place.
OURS = {
    "SocketType": socket.socket,
    "create_connection": socket.create_connection,
    "create_server": socket.create_server,
    "fromfd": socket.fromfd,
    "getaddrinfo": names.getaddrinfo,
    "getfqdn": names.getfqdn,
    "gethostbyaddr": names.gethostbyaddr,
    "gethostbyname": names.gethostbyname,
    "gethostbyname_ex": names.gethostbyname_ex,
    "getnameinfo": names.getnameinfo,
    "socket": socket.socket,
    "socketpair": socket.socketpair,
}


def public(module: object) -> list[str]:
    return [name for name in dir(module) if not name.startswith("_")]


def test_every_public_name_of_the_original_is_there_and_listed() -> None:
    assert [name for name in public(original) if not hasattr(socket, name)] == []
    assert set(public(original)) <= set(dir(socket))
    assert sorted(socket.__all__) == sorted(set(original.__all__))


def test_what_blocks_is_ours_and_all_else_is_the_originals_own() -> None:
    pairs = {name: (getattr(socket, name), getattr(original, name)) for name in public(original)}
    differing = {name: ours for name, (ours, theirs) in pairs.items() if ours is not theirs}
    differing.pop("fromshare", None)  # Windows only
    assert differing == OURS


def test_star_import_brings_the_same_names_as_the_originals() -> None:
    theirs: dict[str, object] = {}
    ours: dict[str, object] = {}
    exec("from socket import *", theirs)
    exec("from greenswitch.green.socket import *", ours)
    assert set(ours) == set(theirs)
    assert ours["socket"] is socket.socket and issubclass(socket.socket, sockets.Socket)


def test_unknown_name_is_an_attribute_error_that_names_both_modules() -> None:
    with pytest.raises(AttributeError, match=r"greenswitch\.green\.socket has no 'recieve'.*standard library"):
        socket.recieve
    with pytest.raises(ImportError):
        exec("from greenswitch.green.socket import recieve")


def test_default_timeout_is_shared_with_the_original(hub: object) -> None:
    socket.setdefaulttimeout(7.0)
    try:
        with socket.socket() as ours:
            assert original.getdefaulttimeout() == ours.gettimeout() == 7.0
    finally:
        socket.setdefaulttimeout(None)


def test_program_written_with_the_twins_names_runs_two_ends_in_one_thread(hub: object) -> None:
    def talk(listener: sockets.Socket) -> None:
        conn, _ = listener.accept()
        with conn:
            conn.sendall(conn.recv(100).upper())

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = spawn(talk, listener)
        with socket.create_connection(listener.getsockname()) as conn:
            assert isinstance(conn, socket.SocketType)
            conn.sendall(b"hello")
            assert conn.recv(100) == b"HELLO"
        server.get()


def test_importing_the_twin_patches_nothing() -> None:
    script = (
        "import socket\n"
        "before = dict(vars(socket))\n"
        "from greenswitch.green import socket as twin\n"
        "twin.AF_INET, dir(twin)\n"
        "assert dict(vars(socket)) == before\n"
        "assert twin is not socket and twin.socket is not socket.socket\n"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_patched_socket_functions_stand_on_ours_and_honour_what_others_put_there() -> None:
    script = (
        "import socket\n"
        "from socket import create_connection, create_server, getfqdn  # too early, all the same\n"
        "from greenswitch import monkey, spawn\n"
        "from greenswitch.green.socket import socket as Socket\n"
        "monkey.patch_all()\n"
        "listener = create_server(('localhost', 0))\n"
        "def greet():\n"
        "    with listener.accept()[0] as conn: conn.sendall(b'hello')\n"
        "server = spawn(greet)\n"
        "with listener, create_connection(listener.getsockname()) as conn:\n"
        "    assert type(conn) is type(listener) is socket.socket is Socket\n"
        "    assert conn.recv(10) == b'hello'\n"
        "with Socket() as some: another = socket.fromfd(some.fileno(), 2, 1)\n"
        "for one in (*socket.socketpair(), another):\n"
        "    with one: assert type(one) is Socket\n"
        "class Proxied(socket.socket):\n"
        "    def connect(self, address): raise OSError('through the proxy')\n"
        "socket.socket = Proxied\n"
        "try: create_connection(('127.0.0.1', 1))\n"
        "except OSError as error: print(error)\n"
        "import _thread\n"
        "getfqdn(), socket.getaddrinfo('localhost', 1)\n"
        "print(_thread._count(), 'threads')  # the hub's own workers are none of the program's\n"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "through the proxy\n0 threads\n", "")


def twin_pair() -> tuple[sockets.Socket, sockets.Socket]:
    return socket.socketpair()  # type: ignore[no-any-return]


def test_several_tasks_wait_for_one_socket_first_come_first_served(hub: Hub) -> None:
    near, far = twin_pair()
    with near, far:
        readers = [spawn(near.recv, 1) for _ in range(3)]
        sleep(0)
        for number, byte in enumerate((b"a", b"b", b"c")):
            far.send(byte)
            assert readers[number].get(timeout=5) == byte


def test_pool_of_acceptors_and_two_senders_are_served(hub: Hub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = [spawn(listener.accept) for _ in range(3)]
        sleep(0)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        for one in (*clients, *(task.get(timeout=5)[0] for task in accepting)):
            one.close()
    near, far = twin_pair()
    with near, far:
        senders = [spawn(near.sendall, b"x" * 1_000_000) for _ in range(2)]
        count = 0
        while count < 2_000_000:
            count += len(far.recv(65536))
        assert [sender.get(timeout=5) for sender in senders] == [None, None]


@pytest.mark.parametrize("end", ["kill", "timeout"])
@pytest.mark.parametrize("who", [0, 1])
def test_task_that_leaves_hands_its_turn_to_the_next(end: str, who: int, hub: Hub) -> None:
    near, far = twin_pair()
    with near, far:
        tasks = [spawn(read_within, near, 0.01 if end == "timeout" and number == who else None) for number in range(3)]
        sleep(0.02)
        if end == "kill":
            tasks[who].kill()
        assert tasks[who].dead and [task.dead for task in tasks].count(True) == 1
        far.send(b"x")
        sleep(0)
        far.send(b"y")
        left = [task for task in tasks if task is not tasks[who]]
        assert [task.get(timeout=5) for task in left] == [b"x", b"y"]


def read_within(near: sockets.Socket, seconds: float | None) -> bytes | None:
    with move_on_after(seconds):
        return near.recv(1)
    return None


def test_closing_a_socket_fails_all_that_wait_for_it(hub: Hub) -> None:
    near, far = twin_pair()
    readers = [spawn(near.recv, 1) for _ in range(3)]
    for reader in readers:
        reader.link(lambda _: None)
    sleep(0)
    near.close(), far.close()
    sleep(0)
    assert [type(reader.exception) for reader in readers] == [OSError] * 3


def test_socket_of_our_own_module_still_refuses_a_second_reader(hub: Hub) -> None:
    near, far = sockets.socketpair()
    with near, far:
        first = spawn(near.recv, 1)
        sleep(0)
        with pytest.raises(BusyError):
            near.recv(1)
        first.kill()
