"""Random programs of put, get, time-out, kill and shutdown, against a model that one can read.

Time is virtual, so a program of many seconds runs in no time and always in the same way; hypothesis draws the programs
and shrinks those that fail.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from greenswitch import Task, killall, sleep, spawn
from greenswitch.queues import Channel, Empty, Full, LifoQueue, PriorityQueue, Queue, ShutDown, SimpleQueue, select
from greenswitch.testing import VirtualTime, left_behind

pytest.importorskip("hypothesis")
from hypothesis import example, given, settings
from hypothesis import strategies as st

UNBOUNDED = 10**6
KINDS: dict[str, tuple[Callable[[], Any], int, str]] = {  # what, for how many items, in which order
    "SimpleQueue": (SimpleQueue, UNBOUNDED, "first"),
    "Queue": (Queue, UNBOUNDED, "first"),
    "Queue(1)": (lambda: Queue(1), 1, "first"),
    "Queue(2)": (lambda: Queue(2), 2, "first"),
    "LifoQueue(2)": (lambda: LifoQueue(2), 2, "last"),
    "PriorityQueue(2)": (lambda: PriorityQueue(2), 2, "least"),
    "Channel": (Channel, 0, "first"),
}

# One step of a program. Tasks are numbered in the order in which they are spawned.
Step = tuple[Any, ...]
PATIENCE = st.one_of(st.none(), st.integers(0, 3))
STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 9), PATIENCE),
    st.tuples(st.just("get"), PATIENCE),
    st.tuples(st.just("select"), PATIENCE),
    st.tuples(st.just("put_nowait"), st.integers(0, 9)),
    st.tuples(st.just("get_nowait")),
    st.tuples(st.just("kill"), st.integers(0, 12)),
    st.tuples(st.just("turn")),
    st.tuples(st.just("pass"), st.integers(1, 3)),
)
ENDS = st.one_of(st.none(), st.booleans())  # no shutdown, or whether an immediate one


def exact(patience: int | None, number: int) -> float | None:
    """Return the seconds that a task waits: a little different for each, so that no two deadlines fall together."""
    return None if patience is None else patience and patience + number / 1024


@dataclass
class Model:
    """A list of items, a list of those who wait to get, a list of those who wait to put, and what became of each."""

    capacity: int
    order: str
    now: float = 0.0
    shut: bool = False
    items: list[Any] = field(default_factory=list)
    getters: list[int] = field(default_factory=list)
    putters: list[tuple[int, Any]] = field(default_factory=list)
    deadlines: dict[int, float] = field(default_factory=dict)
    starting: list[tuple[int, Step]] = field(default_factory=list)
    outcome: dict[int, Any] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list)

    def spawn(self, number: int, step: Step) -> None:
        self.starting.append((number, step))

    def turn(self) -> None:
        starting, self.starting = self.starting, []
        for number, (what, *args) in starting:
            *item, patience = args
            found = self.try_put(item[0], number) if what == "put" else self.try_get(number)
            wait = exact(patience, number)
            if found is None and wait != 0:
                if what == "put":
                    self.putters.append((number, item[0]))
                else:
                    self.getters.append(number)
                if wait is not None:
                    self.deadlines[number] = self.now + wait
            else:
                self.outcome[number] = ("late" if found is None else found)

    def try_put(self, item: Any, number: int) -> Any:
        if self.shut:
            return "shut"
        if self.getters:
            self.outcome[self.getters.pop(0)] = ("got", item)
        elif len(self.items) < self.capacity:
            self.items.append(item)
        else:
            return None
        return "put"

    def try_get(self, number: int) -> Any:
        if self.items:
            item = self.next_item()
            if self.putters:
                putter, waiting = self.putters.pop(0)
                self.outcome[putter] = "put"
                self.items.append(waiting)
        elif self.putters:
            putter, item = self.putters.pop(0)
            self.outcome[putter] = "put"
        else:
            return "shut" if self.shut else None
        return ("got", item)

    def next_item(self) -> Any:
        if self.order == "least":
            heapq.heapify(self.items)
            return heapq.heappop(self.items)
        return self.items.pop(0 if self.order == "first" else -1)

    def leave(self, number: int, outcome: str) -> None:
        """Take out one that waits, or has not started; others stay as they are."""
        starting = [one for one, _ in self.starting]
        if number in self.getters or number in starting or number in [putter for putter, _ in self.putters]:
            self.getters = [one for one in self.getters if one != number]
            self.putters = [(one, item) for one, item in self.putters if one != number]
            self.starting = [(one, step) for one, step in self.starting if one != number]
            self.outcome[number] = outcome

    def pass_time(self, seconds: float) -> None:
        self.turn()
        self.now += seconds
        for number, deadline in sorted(self.deadlines.items(), key=lambda entry: entry[1]):
            if deadline <= self.now:
                self.leave(number, "late")

    def shutdown(self, immediate: bool) -> None:
        self.shut = True
        for number in [*self.getters, *(putter for putter, _ in self.putters)]:
            self.leave(number, "shut")
        if immediate:
            self.items.clear()


class Reality:
    """The same, done by a queue and tasks."""

    def __init__(self, place: Any) -> None:
        self.place = place
        self.tasks: list[Task] = []
        self.outcome: dict[int, Any] = {}
        self.answers: list[Any] = []

    def spawn(self, number: int, step: Step) -> None:
        self.tasks.append(spawn(self.body, number, *step))

    def body(self, number: int, what: str, *args: Any) -> None:
        *item, patience = args
        timeout = exact(patience, number)
        try:
            if what == "put":
                self.place.put(*item, timeout=timeout)
                self.outcome[number] = "put"
            elif what == "get":
                self.outcome[number] = ("got", self.place.get(timeout=timeout))
            else:
                self.outcome[number] = ("got", select(self.place, self.place, timeout=timeout)[1])
        except (Empty, Full, TimeoutError):
            self.outcome[number] = "late"
        except ShutDown:
            self.outcome[number] = "shut"
        except BaseException:
            self.outcome[number] = "killed"
            raise

    def kill(self, number: int) -> None:
        started = self.tasks[number].started
        self.tasks[number].kill(block=False)
        if not started and self.tasks[number].state == "killed":
            self.outcome[number] = "killed"


def put_now(place: Any, item: Any) -> Any:
    try:
        place.put_nowait(item)
    except Full:
        return None
    return "put"


def get_now(place: Any) -> Any:
    try:
        return ("got", place.get_nowait())
    except Empty:
        return None


def run_both(kind: str, program: list[Step], immediate: bool | None) -> tuple[Model, Reality, list[str]]:
    make, capacity, order = KINDS[kind]
    time = VirtualTime()
    model, real = Model(capacity, order), Reality(make())
    with time.hub() as hub:
        for step in program:
            do(step, model, real)
            assert time() == model.now
        model.turn()
        sleep(0)
        if immediate is not None:
            end(real.place, immediate)
            model.shutdown(immediate or kind == "Channel")
        model.pass_time(100)
        sleep(100)
        killall(real.tasks)
        for number in [*model.getters, *(putter for putter, _ in model.putters)]:
            model.leave(number, "killed")
        left = left_behind(hub)
    return model, real, left


def do(step: Step, model: Model, real: Reality) -> None:
    match step:
        case ("put" | "get" | "select", *_):
            number = len(real.tasks)
            model.spawn(number, step)
            real.spawn(number, step)
        case ("put_nowait", item):
            model.answers.append(model.try_put(item, -1))
            real.answers.append(put_now(real.place, item))
        case ("get_nowait",):
            model.answers.append(model.try_get(-1))
            real.answers.append(get_now(real.place))
        case ("kill", number) if number < len(real.tasks):
            model.leave(number, "killed")
            real.kill(number)
        case ("turn",):
            model.turn()
            sleep(0)
        case ("pass", seconds):
            model.pass_time(seconds)
            sleep(seconds)


def end(place: Any, immediate: bool) -> None:
    if isinstance(place, Channel):
        place.close()
    elif isinstance(place, Queue):
        place.shutdown(immediate)
    else:
        place._shut()  # a SimpleQueue has no end of its own
        while immediate and not place.empty():
            place.get_nowait()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120, deadline=None, database=None)
@given(program=st.lists(STEPS, max_size=30), immediate=ENDS)
@example(program=[("get", 1), ("turn",), ("put_nowait", 1), ("kill", 0), ("turn",)], immediate=None)
@example(program=[("get", None), ("turn",), ("kill", 0), ("put_nowait", 1), ("turn",)], immediate=None)
@example(program=[("put", 1, 2), ("put", 2, 1), ("put", 3, 3), ("pass", 1), ("get_nowait",), ("turn",)], immediate=True)
def test_random_program_does_what_the_model_does(kind: str, program: list[Step], immediate: bool | None) -> None:
    model, real, left = run_both(kind, program, immediate)
    assert real.outcome == model.outcome
    assert real.answers == model.answers
    assert sorted(getattr(real.place, "_items", ())) == sorted(model.items)
    assert not left, left
    assert not (real.place._getters or real.place._putters or real.place._links), real.place
    if isinstance(real.place, Queue) and real.place.maxsize and immediate is None:
        assert len(real.place._slots or ()) + real.place._unissued == real.place.maxsize - len(model.items)
