"""What switching by hand can't do, measured: wait for several things at once, or compute faster.

Why: explicit switching is all that concurrency needs, except for one thing. A greenlet that calls `recv` and has
nothing to read takes the whole thread to sleep, and nobody is left to name the next one. Each function here is an
experiment of bounded time that returns its figures; printed, they tell what happened. The hub is the answer to the
first two, and nothing answers the third:

- `frozen_echo`: an echo server switched by hand between two clients. While one says nothing, the other waits.
- `blocking_adds_up`: two tasks that block 0.1 s each take 0.2 s. Taking turns is not waiting together.
- `switching_cost`: pure computing doesn't wait, so it gains nothing by switching, and pays for each switch.

Knows raw greenlets, sockets, and threads as the outside world that clients live in. Must not know any hub.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

from greenlet import getcurrent, greenlet

SAFETY = 5.0  # seconds beyond the longest planned silence; a bug here raises TimeoutError and doesn't hang


@dataclass(frozen=True, slots=True)
class FrozenEcho:
    """How long a busy client waited for each of its replies, in seconds: served alone, and beside an idle client."""

    idle: float
    alone: tuple[float, ...]
    beside_idle: tuple[float, ...]
    events: tuple[tuple[float, str], ...]

    @property
    def frozen(self) -> float:
        """Return the longest wait beside the idle client."""
        return max(self.beside_idle)

    def __str__(self) -> str:
        lines = [f"{at:7.3f} s  {what}" for at, what in self.events]
        lines.append(
            f"One client was silent for {self.idle:g} s, and the other waited {self.frozen:.3f} s for a reply that "
            f"takes {max(self.alone):.4f} s when it is alone: a blocking recv stops every greenlet on the thread."
        )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class BlockingAddsUp:
    """How long several tasks took together that block for `seconds` each and switch to one another before and after."""

    tasks: int
    seconds: float
    total: float

    def __str__(self) -> str:
        return (
            f"{self.tasks} tasks that block {self.seconds:g} s each took {self.total:.3f} s, switched by hand: "
            f"{self.tasks} x {self.seconds:g}, one after the other. Waiting together would take {self.seconds:g} s."
        )


@dataclass(frozen=True, slots=True)
class SwitchingCost:
    """A computation run straight through and by two greenlets that switch every `every` steps; times in seconds."""

    steps: int
    every: int
    switches: int
    straight: float
    switched: float

    @property
    def ratio(self) -> float:
        """Return how many times longer the switched run took."""
        return self.switched / self.straight

    @property
    def per_switch(self) -> float:
        """Return the seconds that one switch added."""
        return (self.switched - self.straight) / max(1, self.switches)

    def __str__(self) -> str:
        return (
            f"{self.steps:,} steps: {self.straight * 1e3:.2f} ms straight through, {self.switched * 1e3:.2f} ms with "
            f"{self.switches:,} switches (one every {self.every:,} steps): {self.ratio:.2f} times as long, "
            f"{self.per_switch * 1e6:+.2f} µs a switch."
        )


def frozen_echo(idle: float = 0.2, lines: int = 3) -> FrozenEcho:
    """Serve a busy client of `lines` lines, alone, then beside one silent for `idle` seconds; return the waits.

    The server runs on the calling thread and the clients on threads of their own, over socket pairs. Raise TimeoutError
    if anything takes much longer than planned.
    """
    if lines < 2 or idle <= 0:
        raise ValueError("frozen_echo needs 2 lines or more (the second meets the idle client) and a silence above 0 s")
    alone, _ = _serve_clients([lambda peer, log: _busy_client(peer, lines, log)], idle)
    beside, events = _serve_clients(
        [lambda peer, log: _busy_client(peer, lines, log), lambda peer, log: _idle_client(peer, idle, log)], idle
    )
    return FrozenEcho(idle, tuple(alone), tuple(beside), tuple(events))


def blocking_adds_up(tasks: int = 2, seconds: float = 0.1) -> BlockingAddsUp:
    """Let `tasks` greenlets block for `seconds` each, taking turns; return the time that all took together."""

    def block() -> None:
        main.switch()  # started
        time.sleep(seconds)
        main.switch()  # blocked for its time; the next one's turn

    main = getcurrent()
    ring = [greenlet(block) for _ in range(tasks)]
    began = time.perf_counter()
    for _turn in ("start", "block", "end"):
        for task in ring:
            task.switch()
    return BlockingAddsUp(tasks, seconds, time.perf_counter() - began)


def switching_cost(steps: int = 200_000, every: int = 100, repeats: int = 3) -> SwitchingCost:
    """Compute `steps` steps straight through, then in two greenlets that switch every `every`; return the best times.

    Each time is the least of `repeats` runs, the two kinds taking turns, so that a busy machine harms both alike.
    """
    if steps < 1 or every < 1 or repeats < 1:
        raise ValueError("steps, every and repeats must be 1 or more")
    straight = switched = float("inf")
    switches = 0
    for _ in range(repeats):
        began = time.perf_counter()
        expected = _compute(0, steps)
        middle = time.perf_counter()
        result, switches = _compute_by_turns(steps, every)
        switched = min(switched, time.perf_counter() - middle)
        straight = min(straight, middle - began)
        if result != expected:
            raise ArithmeticError(f"straight through is {expected}, two greenlets computed {result}: a value was lost")
    return SwitchingCost(steps, every, switches, straight, switched)


# The experiments' insides. Where a greenlet switches, it names the next one itself.

Log = Callable[[str], None]
Client = Callable[[socket.socket, Log], Sequence[float]]


def _serve_clients(clients: Sequence[Client], idle: float) -> tuple[Sequence[float], list[tuple[float, str]]]:
    """Run each client in a thread and the server here; return the first client's waits, and all that happened."""
    began = time.perf_counter()
    events: list[tuple[float, str]] = []

    def log(what: str) -> None:
        events.append((time.perf_counter() - began, what))

    def run(client: Client, peer: socket.socket) -> Sequence[float]:
        with peer:
            together.wait()
            return client(peer, log)

    together = Barrier(len(clients), timeout=SAFETY)  # or a late busy client would find the idle one's silence over
    pairs = [socket.socketpair() for _ in clients]
    for end in (end for pair in pairs for end in pair):
        end.settimeout(idle + SAFETY)
    with ThreadPoolExecutor(len(clients)) as pool:
        waits = [pool.submit(run, client, peer) for client, (_, peer) in zip(clients, pairs, strict=True)]
        try:
            _echo_by_turns([conn for conn, _ in pairs])
        finally:
            for conn, _ in pairs:
                conn.close()
    return waits[0].result(), events


def _echo_by_turns(conns: Sequence[socket.socket]) -> None:
    """Be the server: one greenlet a connection, each of which names the next one after every line."""
    ring: deque[greenlet] = deque()

    def talk(conn: socket.socket) -> None:
        main.switch()  # started; the first turn comes when the ring is complete
        while data := conn.recv(1024):  # here the thread sleeps, and with it every other greenlet
            conn.sendall(data.upper())
            ring.rotate(-1)
            ring[0].switch()
        ring.popleft()  # and return to main, which starts the next one's turn

    main = getcurrent()
    for conn in conns:
        ring.append(greenlet(talk))
        ring[-1].switch(conn)
    try:
        while ring:
            ring[0].switch()
    finally:
        for task in tuple(ring):
            task.throw()


def _busy_client(peer: socket.socket, lines: int, log: Log) -> list[float]:
    waits = []
    for number in range(1, lines + 1):
        log(f"busy client sends line {number}")
        sent = time.perf_counter()
        peer.sendall(b"hello")
        peer.recv(1024)
        waits.append(time.perf_counter() - sent)
        log(f"busy client has its reply {number}, after {waits[-1]:.3f} s")
    return waits


def _idle_client(peer: socket.socket, idle: float, log: Log) -> list[float]:
    log(f"idle client connects and says nothing for {idle:g} s")
    time.sleep(idle)
    log("idle client speaks at last")
    peer.sendall(b"sorry")
    peer.recv(1024)
    return []


def _compute(first: int, last: int) -> int:
    total = 0
    for number in range(first, last):
        total = (total + number * number) % 1_000_003
    return total


def _compute_by_turns(steps: int, every: int) -> tuple[int, int]:
    """Compute the two halves in a greenlet each; return the total and the number of switches between the two."""
    switches = 0
    totals = []

    def compute(first: int, last: int, other: greenlet) -> None:
        nonlocal switches
        total = 0
        for chunk in range(first, last, every):
            for number in range(chunk, min(chunk + every, last)):
                total = (total + number * number) % 1_000_003
            if not other.dead:  # a switch to a dead greenlet would land in its parent
                switches += 1
                other.switch()
        totals.append(total)

    middle = steps // 2
    right = greenlet(lambda: compute(middle, steps, left))
    left = greenlet(lambda: compute(0, middle, right))
    while not (left.dead and right.dead):  # whoever is through returns to here, and the other one goes on alone
        (right if left.dead else left).switch()
    return sum(totals) % 1_000_003, switches
