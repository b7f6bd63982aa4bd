"""Three ways to share one thread, each task naming the next: round robin, ping-pong, pipeline.

Why: these are the smallest programs in which several tasks are under way at once, and everything larger is made of
them. Read this file beside `generators.py`: the same three, with the same signatures and the same results, made of
generators. There, a task can only yield to whoever resumed it, so a loop in the middle must pass everything on. Here a
task switches straight to the next one, and its first switch needs no priming: the values of it are the function's
arguments.

Two habits to copy. All greenlets are started by one caller, since a greenlet inherits the recursion depth of whoever
starts it (a chain of 1,000 starts is a RecursionError). And whoever makes greenlets stops the ones that are left over:
they refer to each other, so Python would never free them, nor run their `finally` blocks.

One difference remains: a generator sees its caller's context variables (the precision of `decimal` is one), and a raw
greenlet starts with none. `Coroutine` and `iterate` copy them.

Knows raw greenlets, nothing else of ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


def round_robin(sequences: Iterable[Iterable[T]]) -> list[T]:
    """Take one item of each sequence in turn until all are used up; return the items in that order.

    >>> round_robin(["abc", "1", "xy"])
    ['a', '1', 'x', 'b', 'y', 'c']
    """
    caller = getcurrent()
    taken: list[T] = []
    ring: deque[greenlet] = deque()

    def take(sequence: Iterable[T]) -> None:
        caller.switch()  # started; the first turn comes when the ring is complete
        for item in sequence:
            taken.append(item)
            ring.rotate(-1)
            ring[0].switch()
        ring.popleft()  # and return: to the parent, which is the caller

    try:
        for sequence in sequences:
            ring.append(greenlet(take))
            ring[-1].switch(sequence)
        while ring:
            ring[0].switch()
    finally:
        _stop(ring)
    return taken


def ping_pong(rounds: int) -> list[tuple[str, int]]:
    """Let two players hit a ball to each other `rounds` times each; return who hit which ball.

    >>> ping_pong(2)
    [('ping', 0), ('pong', 1), ('ping', 2), ('pong', 3)]
    """
    hits: list[tuple[str, int]] = []

    def play_ping(ball: int) -> None:
        while ball < 2 * rounds:
            hits.append(("ping", ball))
            ball = pong.switch(ball + 1)

    def play_pong(ball: int) -> None:
        while True:
            hits.append(("pong", ball))
            ball = ping.switch(ball + 1)

    ping, pong = greenlet(play_ping), greenlet(play_pong)
    try:
        ping.switch(0)  # no priming: 0 is the argument
    finally:
        _stop((ping, pong))
    return hits


def pipeline(items: Iterable[Any], *stages: Callable[[Any], Any]) -> list[Any]:
    """Send each item from a producer through the stages, one task each, to a consumer; return what arrives.

    One item is under way at a time. An exception in a stage, or in the items, ends the pipeline and is raised here.

    >>> pipeline("abc", str.upper, ord)
    [65, 66, 67]
    """
    arrived: list[Any] = []

    def produce(first: greenlet) -> None:
        for item in items:
            first.switch(item)

    def transform(stage: Callable[[Any], Any], following: greenlet) -> None:
        item = caller.switch()
        while True:
            item = following.switch(stage(item))

    def consume() -> None:
        item = caller.switch()
        while True:
            arrived.append(item)
            item = producer.switch()  # straight back; a generator's way back leads through every stage

    caller = getcurrent()
    producer = greenlet(produce)
    line = [greenlet(consume)]
    try:
        line[0].switch()
        for stage in reversed(stages):
            line.append(greenlet(transform))
            line[-1].switch(stage, line[-2])
        producer.switch(line[-1])
    finally:
        _stop((producer, *line))
    return arrived


def _stop(tasks: Iterable[greenlet]) -> None:
    """Throw GreenletExit into those that haven't ended, so that their `finally` blocks run."""
    for task in tuple(tasks):
        if not task.dead:
            task.throw()
