"""The twin of `socket`: every public name is there, ours where the original blocks, its own elsewhere."""

from __future__ import annotations

import socket as original
import subprocess
import sys
from pathlib import Path

import pytest

from greenswitch import names, sockets, spawn
from greenswitch.green import socket

ROOT = Path(__file__).resolve().parents[2]

# What blocks the thread in the original, and what stands in its place.
OURS = {
    "SocketType": sockets.Socket,
    "create_connection": sockets.create_connection,
    "create_server": sockets.create_server,
    "fromfd": sockets.fromfd,
    "getaddrinfo": names.getaddrinfo,
    "getfqdn": names.getfqdn,
    "gethostbyaddr": names.gethostbyaddr,
    "gethostbyname": names.gethostbyname,
    "gethostbyname_ex": names.gethostbyname_ex,
    "getnameinfo": names.getnameinfo,
    "socket": sockets.Socket,
    "socketpair": sockets.socketpair,
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
    assert ours["socket"] is sockets.Socket


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
        "from greenswitch.sockets import Socket\n"
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
