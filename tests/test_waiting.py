"""What every call that waits obeys: the table of all of them, and the suite that runs over it.

To add a call, add one `Waiting(...)` to `TABLE`. It says how to make a thing on which one has to wait, how to wait on
it, how to let one waiter go on, and how many stand in line; flags say what does not apply. Everything else (killed,
timed out, both at once with being woken, from main, task, greenlet, thread and hub) is tested below, and that nothing
is left behind: the `hub` fixture looks for what is parked, timed or alive, `waiting(thing)` for who stands in line.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import greenlet
import pytest

import greenswitch
from greenswitch.hub import Hub
from greenswitch.locks import (
    AsyncResult,
    Barrier,
    BoundedSemaphore,
    BrokenBarrierError,
    Condition,
    Event,
    Lock,
    RLock,
    Semaphore,
)
from greenswitch.pools import Pool
from greenswitch.queues import Channel, Empty, Full, LifoQueue, PriorityQueue, Queue, SimpleQueue, select
from greenswitch.tasks import Task
from greenswitch.testing import VirtualTime
from greenswitch.timeouts import timeout as deadline


@dataclass(frozen=True)
class Waiting:
    """One call that waits."""

    name: str
    make: Callable[[], Any]
    """Return a thing on which one has to wait. Called in the greenlet that calls `wake`."""
    wait: Callable[[Any, float | None], object]
    """Wait on it at most so many seconds. Time over: raise TimeoutError or return False (not None, not 0)."""
    wake: Callable[[Any], object]
    """Let one (or all) go on, without switching."""
    waiting: Callable[[Any], int]
    """How many stand in line."""
    at_once: bool = True
    """The waiter is woken when `wake` returns, and may be woken from the hub or a thread. False: some turns later."""
    keeps: bool = True
    """A wake that meets nobody is kept for the next who comes."""
    anyone: bool = True
    """Anybody may wake: the hub, another task, another thread. False: only who made it."""
    looks_again: bool = False
    """One whose time is over has still got it, if it is there when he goes on."""


def held(lock: Any) -> Any:
    """Return the lock, taken."""
    assert lock.acquire(blocking=False)
    return lock


def lock_wait(lock: Any, timeout: float | None) -> bool:
    return lock.acquire() if timeout is None else lock.acquire(timeout=timeout)


def in_line(thing: Any) -> int:
    return len(thing._line) + len(getattr(thing, "_links", ()))


def condition_wait(condition: Condition, timeout: float | None) -> bool:
    with condition:
        try:
            return condition.wait(timeout)
        finally:
            assert condition._lock.locked(), "the lock is held again, whatever has happened"


def notify(condition: Condition) -> None:
    with condition:
        condition.notify()


def barrier_wait(barrier: Barrier, timeout: float | None) -> object:
    try:
        return barrier.wait(timeout)
    except BrokenBarrierError:
        return False


def wait_any(thing: Any, timeout: float | None) -> bool:
    return greenswitch.wait([thing, Event()], timeout, count=1) == [thing]


def in_lines(place: Any) -> int:
    lines = (place._getters, place._putters, place._links or (), getattr(place, "_joiners", ()))
    return sum(map(len, lines))


def got(place: Any, timeout: float | None) -> bool:
    try:
        return place.get(timeout=timeout) is not None
    except Empty:
        return False


def peeked(place: Any, timeout: float | None) -> bool:
    try:
        return place.peek(timeout=timeout) is not None
    except Empty:
        return False


def put(place: Any, timeout: float | None) -> bool:
    try:
        place.put(1, timeout=timeout)
    except Full:
        return False
    return True


def selected(place: Any, timeout: float | None) -> bool:
    return select(Queue(), place, timeout=timeout)[0] is place


def put_one(place: Any) -> None:
    place.put_nowait(1)


def get_one(place: Any) -> None:
    place.get_nowait()


def full_pool() -> Pool:
    pool = Pool(1)
    pool.places.acquire()
    return pool


def spawned(pool: Pool, timeout: float | None) -> bool:
    with deadline(timeout):
        pool.spawn(int)
    return True


def unfinished() -> Task:
    return Task(greenswitch.get_hub(), int, (), {})


def joined(task: Task, timeout: float | None) -> bool:
    task.join(timeout)
    return task.ready()


def finish(task: Task) -> None:
    task.finish(1, None)


def _queue(kind: Any) -> list[Waiting]:
    """Return the rows that every kind of queue and channel has."""
    name, keeps = kind.__name__, kind is not Channel
    return [
        Waiting(f"{name}.get", kind, got, put_one, in_lines, keeps=keeps),
        Waiting(f"select({name})", kind, selected, put_one, in_lines, keeps=keeps),
    ]


def _bounded(kind: Any) -> list[Waiting]:
    name = kind.__name__
    return [
        Waiting(f"{name}.put", lambda: kind(1, [0]), put, get_one, in_lines),
        Waiting(f"{name}.peek", kind, peeked, put_one, in_lines),
        Waiting(f"{name}.join", lambda: kind(items=[0]), lambda queue, timeout: queue.join(timeout), kind.task_done,
                in_lines, looks_again=True),
    ]


def _lock(name: str, make: Callable[[], Any]) -> Waiting:
    return Waiting(f"{name}.acquire", lambda: held(make()), lock_wait, lambda lock: lock.release(), in_line)


TABLE = [
    _lock("Lock", Lock),
    _lock("Semaphore", Semaphore),
    _lock("BoundedSemaphore", BoundedSemaphore),
    Waiting("RLock.acquire", lambda: held(RLock()), lock_wait, lambda lock: lock.release(), in_line, anyone=False),
    Waiting("Event.wait", Event, lambda event, timeout: event.wait(timeout), Event.set, in_line),
    Waiting("AsyncResult.get", AsyncResult, lambda result, timeout: result.get(timeout=timeout),
            lambda result: result.set(1), in_line),
    Waiting("AsyncResult.wait", AsyncResult, lambda result, timeout: result.wait(timeout) or False,
            lambda result: result.set(1), in_line, looks_again=True),
    Waiting("Condition.wait", Condition, condition_wait, notify, in_line, keeps=False),
    Waiting("Condition.wait on a Lock", lambda: Condition(Lock()), condition_wait, notify, in_line, keeps=False),
    Waiting("Barrier.wait", lambda: Barrier(2), barrier_wait, lambda barrier: greenswitch.spawn(barrier.wait),
            lambda barrier: barrier.n_waiting, at_once=False, keeps=False),
    Waiting("wait([Event])", Event, wait_any, Event.set, in_line, looks_again=True),
    Waiting("wait([Semaphore])", lambda: held(Semaphore()), wait_any, Semaphore.release, in_line, looks_again=True),
    Waiting("wait([Lock])", lambda: held(Lock()), wait_any, Lock.release, in_line, looks_again=True),
    Waiting("wait([AsyncResult])", AsyncResult, wait_any, AsyncResult.set, in_line, looks_again=True),
    *(row for kind in (SimpleQueue, Queue, LifoQueue, PriorityQueue, Channel) for row in _queue(kind)),
    *(row for kind in (Queue, LifoQueue, PriorityQueue) for row in _bounded(kind)),
    Waiting("Channel.put", Channel, put, get_one, in_lines, keeps=False),
    Waiting("Pool.spawn", full_pool, spawned, lambda pool: pool.leave(None), lambda pool: len(pool.places._line),
            looks_again=True),
    Waiting("Pool.wait_available", full_pool, lambda pool, timeout: pool.wait_available(timeout),
            lambda pool: pool.leave(None), lambda pool: len(pool.places._links), looks_again=True),
    Waiting("Pool.join", full_pool, lambda pool, timeout: pool.join(timeout), lambda pool: pool.leave(None),
            lambda pool: len(pool._joiners)),
    Waiting("Task.join", unfinished, joined, finish, lambda task: len(task._links or ()), looks_again=True),
    Waiting("Task.get", unfinished, lambda task, timeout: task.get(timeout), finish,
            lambda task: len(task._links or ())),
    Waiting("wait([Queue])", Queue, wait_any, put_one, in_lines, looks_again=True),
]

every = pytest.mark.parametrize("call", TABLE, ids=lambda call: call.name)
at_once = pytest.mark.parametrize("call", [call for call in TABLE if call.at_once], ids=lambda call: call.name)
anyone = pytest.mark.parametrize(
    "call", [call for call in TABLE if call.anyone and call.at_once], ids=lambda call: call.name
)
keeping = pytest.mark.parametrize("call", [call for call in TABLE if call.keeps], ids=lambda call: call.name)

GOT, LATE = "got", "late"


class Waiters:
    """Tasks that wait on one thing, and what became of each: nothing yet, "got" or "late"."""

    def __init__(self, call: Waiting) -> None:
        self.call = call
        self.thing = call.make()
        self.seen: dict[str, str] = {}

    def wait(self, name: str, timeout: float | None = None) -> None:
        """Wait here and now, and note how it went."""
        try:
            answer = self.call.wait(self.thing, timeout)
        except TimeoutError:
            answer = False
        self.seen[name] = LATE if answer is False else GOT

    def wait_then_sleep(self, name: str, timeout: float | None = None) -> None:
        self.wait(name, timeout)
        greenswitch.sleep(1)
        self.seen[name] += ", and went on"

    def start(self, name: str, timeout: float | None = None, then_sleep: bool = False) -> greenswitch.Task:
        """Start a task that waits; return when it does."""
        task = greenswitch.spawn(self.wait_then_sleep if then_sleep else self.wait, name, timeout)
        task.name = name
        greenswitch.sleep(0)
        assert task.state == "parked"
        return task

    def wake(self) -> None:
        self.call.wake(self.thing)

    def nobody_waits(self) -> bool:
        return self.call.waiting(self.thing) == 0


@every
def test_waiter_gets_what_it_waits_for_in_no_time(call: Waiting, hub: Hub, time: VirtualTime) -> None:
    waiters = Waiters(call)
    task = waiters.start("a", 10)
    assert call.waiting(waiters.thing) > 0
    waiters.wake()
    task.get()
    assert waiters.seen == {"a": GOT}
    assert waiters.nobody_waits() and time() == 0


@every
def test_waiter_gives_up_when_its_time_is_over_and_leaves_the_line(call: Waiting, hub: Hub, time: VirtualTime) -> None:
    waiters = Waiters(call)
    waiters.start("a", 1.5).get()
    assert waiters.seen == {"a": LATE}
    assert waiters.nobody_waits() and time() == 1.5


@every
def test_waiter_that_has_no_time_does_not_wait(call: Waiting, hub: Hub, time: VirtualTime) -> None:
    waiters = Waiters(call)
    greenswitch.spawn(waiters.wait, "a", 0).get()
    assert waiters.seen == {"a": LATE}
    assert waiters.nobody_waits() and time() == 0


@every
def test_killed_waiter_leaves_the_line(call: Waiting, hub: Hub) -> None:
    waiters = Waiters(call)
    task = waiters.start("a", 10)
    task.kill()
    assert task.state == "killed" and waiters.seen == {} and waiters.nobody_waits()


@every
def test_waiter_is_thrown_any_exception(call: Waiting, hub: Hub) -> None:
    waiters = Waiters(call)
    task = waiters.start("a")
    task.kill(ValueError("enough"))
    assert isinstance(task.exception, ValueError) and waiters.seen == {} and waiters.nobody_waits()


@keeping
def test_wake_after_the_waiter_was_killed_is_kept_for_the_next(call: Waiting, hub: Hub) -> None:
    waiters = Waiters(call)
    waiters.start("a").kill()
    waiters.wake()
    waiters.wait("main", 0)
    assert waiters.seen == {"main": GOT} and waiters.nobody_waits()


@at_once
def test_killed_waiter_does_not_swallow_the_wake_meant_for_the_next(call: Waiting, hub: Hub) -> None:
    waiters = Waiters(call)
    first, second = waiters.start("a"), waiters.start("b")
    first.kill(block=False)
    waiters.wake()  # in the same turn: the first is still in line
    greenswitch.joinall([first, second])
    assert waiters.seen == {"b": GOT} and waiters.nobody_waits()


@at_once
def test_woken_waiter_keeps_what_it_got_and_is_killed_at_its_next_wait(call: Waiting, hub: Hub) -> None:
    waiters = Waiters(call)
    task = waiters.start("a", then_sleep=True)
    waiters.wake()
    task.kill(block=False)
    task.join()
    assert waiters.seen == {"a": GOT} and task.state == "killed" and waiters.nobody_waits()


@anyone
def test_waiter_whose_time_ends_in_the_turn_before_the_wake_is_late(call: Waiting, hub: Hub, time: VirtualTime) -> None:
    waiters = Waiters(call)
    first = waiters.start("a", 1)
    second = waiters.start("b", 2)
    hub.timers.add(1.0, waiters.wake)
    greenswitch.joinall([first, second])
    assert waiters.seen in ({"a": LATE, "b": GOT}, {"a": GOT, "b": GOT} if call.looks_again else None)
    assert waiters.nobody_waits() and time() == 1


@anyone
def test_waiter_whose_time_ends_in_the_turn_after_the_wake_got_it(call: Waiting, hub: Hub, time: VirtualTime) -> None:
    waiters = Waiters(call)
    hub.timers.add(1.0, waiters.wake)
    waiters.start("a", 1).get()
    assert waiters.seen == {"a": GOT}
    assert waiters.nobody_waits() and time() == 1


@anyone
def test_waiter_that_is_woken_killed_and_late_at_once_has_got_it(call: Waiting, hub: Hub) -> None:
    waiters = Waiters(call)
    hub.timers.add(1.0, waiters.wake)
    task = waiters.start("a", 1, then_sleep=True)
    hub.timers.add(1.0, lambda: task.kill(block=False))
    task.join()
    assert waiters.seen == {"a": GOT} and task.state == "killed" and waiters.nobody_waits()


@pytest.mark.parametrize("call", [call for call in TABLE if call.anyone], ids=lambda call: call.name)
def test_main_waits(call: Waiting, hub: Hub, time: VirtualTime) -> None:
    waiters = Waiters(call)
    greenswitch.spawn_later(1, waiters.wake)
    waiters.wait("main", 5)
    assert waiters.seen == {"main": GOT}
    assert waiters.nobody_waits() and time() == 1


@every
def test_raw_greenlet_waits(call: Waiting, hub: Hub) -> None:
    waiters = Waiters(call)
    raw = greenlet.greenlet(lambda: waiters.wait("raw"), hub.greenlet)
    hub.call_soon(raw.switch)
    greenswitch.sleep(0)
    assert call.waiting(waiters.thing) > 0
    waiters.wake()
    greenswitch.sleep(1)
    assert raw.dead and waiters.seen == {"raw": GOT} and waiters.nobody_waits()


@every
def test_hub_is_refused_and_nothing_is_left(call: Waiting, hub: Hub) -> None:
    waiters = Waiters(call)
    hub.call_soon(waiters.wait, "hub")
    greenswitch.sleep(0)
    [(_, error)] = hub.errors  # type: ignore[attr-defined]
    hub.errors.clear()  # type: ignore[attr-defined]
    assert isinstance(error, greenswitch.HubError) and "spawn a task" in str(error)
    assert waiters.seen == {} and waiters.nobody_waits()
    task = waiters.start("a")
    waiters.wake()
    task.get()
    assert waiters.seen == {"a": GOT}


@anyone
def test_callback_in_the_hub_wakes(call: Waiting, hub: Hub) -> None:
    waiters = Waiters(call)
    task = waiters.start("a")
    hub.call_soon(waiters.wake)
    task.get()
    assert waiters.seen == {"a": GOT}


@every
def test_task_says_what_it_waits_for(call: Waiting, hub: Hub) -> None:
    waiters = Waiters(call)
    task = waiters.start("a")
    assert repr(task).startswith("<Task 'a' parked: ") and type(waiters.thing).__name__ in repr(task)
    task.kill()


@anyone
def test_thread_without_a_hub_wakes_a_task(call: Waiting, real_hub: Hub) -> None:
    waiters = Waiters(call)
    task = waiters.start("a", 10)
    thread = threading.Thread(target=waiters.wake)
    thread.start()
    task.get(timeout=10)
    thread.join()
    assert waiters.seen == {"a": GOT} and waiters.nobody_waits()


@anyone
def test_task_wakes_another_thread_that_waits(call: Waiting, real_hub: Hub) -> None:
    waiters = Waiters(call)
    thread = threading.Thread(target=greenswitch.run, args=(waiters.wait, "thread", 10))
    thread.start()
    while not call.waiting(waiters.thing):
        greenswitch.sleep(0.001)
    waiters.wake()
    thread.join()
    assert waiters.seen == {"thread": GOT} and waiters.nobody_waits()
