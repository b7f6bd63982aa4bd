"""The load client: one plain epoll loop that every peer's server faces alike.

Knows sockets, and how to read another process's CPU time and memory from the kernel (Linux only), so that a server
needs no code of its own for being measured. Must not know which peer the server is built on.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

from rows import VOLLEY, VOLLEY_MESSAGE

PATIENCE = 30.0  # seconds without a single event after which the server is given up
PAGE = os.sysconf("SC_PAGE_SIZE")
BLOCK = 10  # volleys measured at once in row `recv-deadline`: the machine's pace changes within a second
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ServerSilentError(Exception):
    """The server closed a connection, answered wrongly or fell silent."""


class Server:
    """A server in a process of its own, from its start to its end; `port` is where it listens."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.answer = self._process.stdout.readline().strip()
        self._clock = (~self._process.pid << 3) | 2  # the kernel's id of that process's CPU clock, see clock_getres(2)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def cpu(self) -> float:
        """Return the CPU seconds, user and system, that the server has used so far."""
        return time.clock_gettime(self._clock)

    def memory(self) -> int:
        """Return the bytes of the server's memory that are resident."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * PAGE


class Clients:
    """Connections to one server, watched by one epoll."""

    def __init__(self, port: int, message: bytes) -> None:
        self._address = ("127.0.0.1", port)
        self._message = message
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}

    def connect(self, count: int) -> list[socket.socket]:
        """Open that many more connections and return them."""
        opened = []
        for _ in range(count):
            sock = socket.create_connection(self._address, timeout=PATIENCE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)  # no TIME_WAIT is left behind
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)  # readers that don't answer ack 40 ms late
            self._sockets[sock.fileno()] = sock
            self._epoll.register(sock, select.EPOLLIN)
            opened.append(sock)
        for sock in opened:
            sock.settimeout(None)
        return opened

    def events(self) -> list[tuple[int, int]]:
        """Wait for answers."""
        events = self._epoll.poll(PATIENCE)
        if not events:
            raise ServerSilentError(f"no answer for {PATIENCE:.0f} s")
        return events

    def echo(self, sockets: list[socket.socket], total: int) -> None:
        """Have `total` messages echoed: each connection sends one, and the next when it has come back whole."""
        message, size, by_fd = self._message, len(self._message), self._sockets
        got, buffer = dict.fromkeys(by_fd, 0), bytearray(65536)
        for sock in sockets:
            sock.sendall(message)
        to_send, to_come = total - len(sockets), total
        while to_come > 0:
            for fd, _ in self.events():
                count = by_fd[fd].recv_into(buffer)
                if not count:
                    raise ServerSilentError("the server closed a connection")
                if count + got[fd] < size:
                    got[fd] += count
                    continue
                got[fd] = 0
                to_come -= 1
                if to_send > 0:
                    to_send -= 1
                    by_fd[fd].sendall(message)

    def check(self, sock: socket.socket) -> None:
        """Raise ServerSilentError unless what comes back is what was sent."""
        sock.sendall(self._message)
        with sock.makefile("rb") as stream:
            if stream.read(len(self._message)) != self._message:
                raise ServerSilentError("what came back isn't what was sent")

    def volley(self, sockets: list[socket.socket]) -> None:
        """Send a message on each connection, then wait for the single byte that one of them answers."""
        for sock in sockets:
            sock.sendall(self._message)
        (fd, _), *_ = self.events()
        if self._sockets[fd].recv(16) != b".":
            raise ServerSilentError("a volley wasn't answered by a full stop")


def echo(server: Server, operations: int, connections: int, message: int) -> dict[str, float]:
    """Return the server's CPU seconds for each echoed message."""
    clients = Clients(int(server.answer), os.urandom(message))
    sockets = clients.connect(connections)
    clients.check(sockets[0])
    clients.echo(sockets, max(connections, operations // 10))
    before = server.cpu()
    total = max(connections, operations)
    clients.echo(sockets, total)
    return {"cpu": (server.cpu() - before) / total}


def connections(server: Server, operations: int, many: int, message: int) -> dict[str, float]:
    """Open many connections, have each echo; return CPU seconds of accept and echo, and bytes of memory for each."""
    clients = Clients(int(server.answer), os.urandom(message))
    memory, before = server.memory(), server.cpu()
    sockets: list[socket.socket] = []
    while len(sockets) < many:
        group = clients.connect(min(100, many - len(sockets)))
        clients.echo(group, len(group))
        sockets += group
    opened = server.cpu()
    memory = server.memory() - memory
    total = max(many, operations)
    clients.echo(sockets, total)
    return {
        "open": len(sockets),
        "accept": (opened - before) / many,
        "cpu": (server.cpu() - opened) / total,
        "memory": memory / many,
    }


def recv_deadline(server: Server, operations: int) -> dict[str, float]:
    """Return the server's CPU seconds for a recv that is bare, within a deadline, and by a socket with a timeout.

    And how much more the latter two are, each beside a bare one of the same moment. All are by the same tasks on the
    same connections: where a task's stack happens to lie in memory makes a difference of up to a tenth.
    """
    clients = Clients(int(server.answer), os.urandom(VOLLEY_MESSAGE))
    sockets = clients.connect(VOLLEY)
    for sock in sockets:
        sock.sendall(b".")
    [control] = clients.connect(1)
    control.sendall(b"!")

    def takes(kind: str) -> bool:
        """Have everybody read in that way from now on; return False if this peer has nothing of the kind."""
        control.sendall(kind.encode())
        clients.events()
        if control.recv(16) != kind.encode():
            return False
        clients.volley(sockets)  # each is received by a task that waits for it as before, and then takes the new way
        return True

    def block(kind: str) -> float:
        takes(kind)
        before = server.cpu()
        for _ in range(BLOCK):
            clients.volley(sockets)
        return (server.cpu() - before) / BLOCK / VOLLEY

    kinds = [kind for kind in ("bare", "armed", "own") if takes(kind)]
    for kind in kinds:
        block(kind)  # to warm up
    turns: list[dict[str, float]] = []
    for turn in range(max(1, operations // len(kinds) // VOLLEY // BLOCK)):
        first = turn % len(kinds)
        turns.append({kind: block(kind) for kind in kinds[first:] + kinds[:first]})
    figures = {kind: statistics.median(turn[kind] for turn in turns) for kind in kinds}
    for kind in kinds[1:]:
        figures[f"extra-{kind}"] = statistics.median(turn[kind] / turn["bare"] - 1 for turn in turns)
    return figures


def allow_files(wanted: int) -> int:
    """Raise this process's limit of open files (and its children's); return how many connections it allows at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + 200  # beside the connections: what Python, the libraries and epoll hold open
    limit = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - 200)


def server_command(peer: str, row: str) -> list[str]:
    """Return the command that starts a peer's server for a row."""
    return [sys.executable, str(Path(__file__).with_name("measure.py")), "--serve", peer, row]
