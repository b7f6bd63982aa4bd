"""The rows of the comparison and the peers in it, as data.

Knows what each row measures, in which unit, how much work it is and what the project promises of it. Must not know how
a row is run (`rows_blocking`, `rows_coroutines`, `rows_streams`), nor any peer's library.
"""

from __future__ import annotations

from dataclasses import dataclass

READ_SIZE = 4096  # bytes asked for by every server's recv: more than a message, so that every read is a short one
TASKS = 1000  # tasks alive at once in the rows that have many
VOLLEY = 100  # messages that the readers of row `recv-deadline` swallow before one of them answers
VOLLEY_MESSAGE = 1024  # bytes of each of them
BASE = "gevent"  # the peer whose ratio is 1.00 by definition


@dataclass(frozen=True)
class Peer:
    """One column: a library's words (peers/<words>.py) and the style (rows_<style>.py) that its rows are written in."""

    name: str
    words: str
    style: str


PEERS = (
    Peer("greenswitch", "greenswitch_words", "blocking"),
    Peer("gevent", "gevent_words", "blocking"),
    Peer("asyncio", "asyncio_words", "coroutines"),
    Peer("asyncio-streams", "asyncio_words", "streams"),
    Peer("uvloop", "uvloop_words", "coroutines"),
    Peer("uvloop-streams", "uvloop_words", "streams"),
)


@dataclass(frozen=True)
class Promise:
    """What greenswitch's figure may be at most: `of` says whether the ratio to gevent or the value itself is meant."""

    limit: float
    of: str = "ratio"


@dataclass(frozen=True)
class Figure:
    """One number that a row yields: measured in seconds, bytes or as it is, shown times `scale` in `unit`."""

    key: str
    unit: str
    scale: float = 1e6
    promise: Promise | None = None
    has_ratio: bool = True


@dataclass(frozen=True)
class Row:
    """One kind of work. `size` is the number of operations, `quick_size` the same for a smoke run."""

    name: str
    what: str
    size: int
    quick_size: int
    figures: tuple[Figure, ...]
    served: bool = False  # measured in a server process under the load client's fire, not in one process

    def operations(self, quick: bool) -> int:
        """Return how many operations one measurement does."""
        return self.quick_size if quick else self.size


def _cpu(unit: str, promise: float | None = None) -> tuple[Figure, ...]:
    return (Figure("cpu", f"µs/{unit}", promise=Promise(promise) if promise is not None else None),)


ROWS = (
    Row("echo", "loopback echo, --connections at once, --message bytes: the server's CPU time", 100_000, 3_000,
        _cpu("message", 0.65), served=True),
    Row("connections", "--many connections open at once, each echoing: the server's CPU time and memory", 30_000, 1_000,
        (Figure("open", "open at once", scale=1, has_ratio=False),
         Figure("accept", "µs/accept+echo"),
         Figure("cpu", "µs/message"),
         Figure("memory", "KiB/connection", scale=1 / 1024)), served=True),
    Row("spawn", "spawn an empty body and join it, one after another", 30_000, 2_000, _cpu("task", 0.2)),
    Row("spawn-batch", "spawn 1,000 empty bodies, then join them all", 50_000, 2_000, _cpu("task", 0.2)),
    Row("spawn-sleep0", "spawn 1,000 bodies that sleep(0), then join them all", 40_000, 2_000, _cpu("task")),
    Row("spawn-sleep1ms", "spawn 1,000 bodies that sleep(1 ms), then join them all", 30_000, 2_000, _cpu("task")),
    Row("sleep0", "sleep(0) in 1,000 tasks", 400_000, 10_000, _cpu("sleep", 0.6)),
    Row("queue", "ping-pong of two tasks over two queues: a round trip is two puts and two gets", 50_000, 2_000,
        _cpu("round trip", 0.6)),
    Row("lock", "10 tasks want one lock, each holds it over a sleep(0) and lets go: every acquire waits", 60_000, 2_000,
        _cpu("hand-over", 0.6)),
    Row("event", "ping-pong of two tasks over two events: a set, a wait and a clear", 100_000, 4_000,
        _cpu("set+wait", 0.6)),
    Row("pool-map", "Pool(100).map of an empty function", 100_000, 2_000, _cpu("call", 0.6)),
    Row("deadlines", "arm a deadline of 10 s and cancel it", 100_000, 4_000, _cpu("deadline", 0.6)),
    Row("recv-deadline", "a recv that waits: bare, within a deadline that doesn't come, by a socket with a timeout",
        100_000, 4_000,
        (Figure("bare", "µs/bare recv"),
         Figure("armed", "µs/armed recv"),
         Figure("extra-armed", "% on top", scale=100, promise=Promise(10, of="value"), has_ratio=False),
         Figure("own", "µs/own timeout"),
         Figure("extra-own", "% on top", scale=100, has_ratio=False)), served=True),
)
