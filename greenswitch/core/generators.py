"""The three relays of `relay.py` once more, made of generators: `yield` to wait, `send` to go on with a value.

Why: Python had coroutines before it had greenlets or `async`, and these are they. Reading the two files side by side
shows what a generator costs and what it can't do:

- It yields to whoever resumed it, and to nobody else. So a loop in the middle picks the next one, or the way back leads
  through everybody who passed the value on.
- It takes a value only at a `yield`, and a new one stands before its first. So it must be *primed*: run to that `yield`
  first.
- It is left at a `yield` in its own text only, never inside a function that it calls. `iterate.py` is about that.

In return it needs nothing but Python, and one that nobody refers to any more is closed by itself, even in a cycle.

Knows the standard library, nothing else of ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
Sink = Generator[None, Any, None]


def round_robin(sequences: Iterable[Iterable[T]]) -> list[T]:
    """Take one item of each sequence in turn until all are used up; return the items in that order.

    >>> round_robin(["abc", "1", "xy"])
    ['a', '1', 'x', 'b', 'y', 'c']
    """
    taken: list[T] = []

    def take(sequence: Iterable[T]) -> Generator[None, None, None]:
        for item in sequence:
            taken.append(item)
            yield

    ready = deque([take(sequence) for sequence in sequences])
    while ready:
        task = ready.popleft()
        try:
            next(task)
        except StopIteration:
            continue
        ready.append(task)
    return taken


def ping_pong(rounds: int) -> list[tuple[str, int]]:
    """Let two players hit a ball to each other `rounds` times each; return who hit which ball.

    >>> ping_pong(2)
    [('ping', 0), ('pong', 1), ('ping', 2), ('pong', 3)]
    """
    hits: list[tuple[str, int]] = []

    def play(name: str) -> Generator[int | None, int, None]:
        ball = yield None  # primed; the first ball comes by send
        while True:
            hits.append((name, ball))
            ball = yield ball + 1

    players = deque([play("ping"), play("pong")])
    for player in players:
        next(player)
    ball: int | None = 0
    while ball is not None and ball < 2 * rounds:
        ball = players[0].send(ball)
        players.rotate(-1)
    return hits


def pipeline(items: Iterable[Any], *stages: Callable[[Any], Any]) -> list[Any]:
    """Send each item from a producer through the stages, one task each, to a consumer; return what arrives.

    One item is under way at a time. An exception in a stage, or in the items, ends the pipeline and is raised here.

    >>> pipeline("abc", str.upper, ord)
    [65, 66, 67]
    """
    arrived: list[Any] = []

    def transform(stage: Callable[[Any], Any], following: Sink) -> Sink:
        while True:
            following.send(stage((yield)))

    def consume() -> Sink:
        while True:
            arrived.append((yield))

    first = _primed(consume())
    for stage in reversed(stages):
        first = _primed(transform(stage, first))
    for item in items:
        first.send(item)
    return arrived


def _primed(sink: Sink) -> Sink:
    """Run a new generator to its first `yield`: before that there is nowhere for a value to go."""
    next(sink)
    return sink
