"""What each lock does beyond what all waiting calls do (see test_waiting.py): its own rules, errors and repr."""

from __future__ import annotations

import gc
import inspect
import os
import subprocess
import sys
import threading
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import greenlet
import pytest

import greenswitch
from greenswitch import locks
from greenswitch.hub import Hub
from greenswitch.locks import AsyncResult, Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore
from greenswitch.testing import VirtualTime

MUTEXES = [Lock, RLock, Semaphore, BoundedSemaphore]
mutexes = pytest.mark.parametrize("make", MUTEXES)


def start(function: Callable[..., Any], *args: Any, name: str = "a") -> greenswitch.Task:
    """Start a task and let it go as far as it can."""
    task = greenswitch.spawn(function, *args)
    task.name = name
    greenswitch.sleep(0)
    return task


def hold(lock: Any, seconds: float = 1) -> None:
    with lock:
        greenswitch.sleep(seconds)


# -- all that one can hold ---------------------------------------------------------------------------------------------


@mutexes
def test_lock_is_handed_over_first_in_first_out(make: Callable[[], Any], hub: Hub) -> None:
    lock, order = make(), []

    def worker(number: int) -> None:
        for _ in range(3):
            with lock:
                order.append(number)
                greenswitch.sleep(0.1)

    greenswitch.joinall([greenswitch.spawn(worker, number) for number in range(5)], raise_error=True)
    assert order == list(range(5)) * 3


@mutexes
def test_nobody_barges_past_a_waiter(make: Callable[[], Any], hub: Hub) -> None:
    lock, order = make(), []
    lock.acquire()

    def waiter() -> None:
        with lock:
            order.append("waiter")

    task = start(waiter)
    lock.release()
    assert not lock.acquire(blocking=False), "it has been handed to the waiter, who has not gone on yet"
    with lock:
        order.append("main")
    task.get()
    assert order == ["waiter", "main"]


@mutexes
def test_lock_whose_waiters_have_all_left_is_free_at_release(make: Callable[[], Any], hub: Hub) -> None:
    lock = make()
    lock.acquire()
    tasks = [start(hold, lock), start(hold, lock)]
    for task in tasks:
        task.kill(block=False)
    lock.release()
    assert lock.acquire(blocking=False)
    lock.release()
    greenswitch.joinall(tasks)


@mutexes
def test_non_blocking_calls_never_switch(make: Callable[[], Any], hub: Hub) -> None:
    lock, turns = make(), []
    other = greenswitch.spawn(turns.append, "other")
    assert lock.acquire(blocking=False) and lock.locked()
    lock.release()
    assert not lock.locked() and turns == []
    other.join()


@mutexes
def test_timeout_is_checked_as_the_standard_library_does(make: Callable[[], Any], hub: Hub) -> None:
    lock = make()
    with pytest.raises(ValueError, match="non-blocking"):
        lock.acquire(False, 1)
    assert lock.acquire(timeout=0) and lock.locked()
    lock.release()


@pytest.mark.parametrize("make", [Lock, RLock])
@pytest.mark.parametrize("timeout", [-2, -0.5, float("nan")])
def test_lock_refuses_a_timeout_that_is_no_time(make: Callable[[], Any], timeout: float, hub: Hub) -> None:
    lock = make()
    with pytest.raises(ValueError, match="non-negative"):
        lock.acquire(timeout=timeout)
    assert not lock.locked()


@mutexes
def test_lock_works_without_a_hub_as_long_as_nobody_has_to_wait(make: Callable[[], Any]) -> None:
    lock = make()
    with lock:
        assert lock.locked() is True
    assert not greenswitch.hub.has_hub()


# -- Lock, RLock -------------------------------------------------------------------------------------------------------


def test_lock_says_who_holds_it_and_how_many_wait(hub: Hub) -> None:
    lock = Lock()
    assert repr(lock) == "<Lock free>"
    holder, waiters = start(hold, lock, name="a"), [start(hold, lock, name=name) for name in "bc"]
    assert repr(lock) == "<Lock held by Task 'a', 2 waiting>"
    assert repr(waiters[0]) == "<Task 'b' parked: acquire <Lock held by Task 'a', 2 waiting>>"
    holder.join()
    assert repr(lock) == "<Lock held by Task 'b', 1 waiting>"
    greenswitch.joinall(waiters)
    with lock:
        assert repr(lock) == "<Lock held by main greenlet>"


def test_lock_says_that_its_holder_has_ended(hub: Hub) -> None:
    lock = Lock()
    start(lock.acquire, name="gone").join()
    assert repr(lock) == "<Lock held by Task 'gone', which has ended>"


def test_lock_says_its_next_owner_as_soon_as_it_is_handed_over(hub: Hub) -> None:
    lock = Lock()
    lock.acquire()
    task = start(hold, lock, name="next")
    lock.release()
    assert repr(lock) == "<Lock held by Task 'next'>"
    task.join()


def test_releasing_an_unlocked_lock_names_who_did(hub: Hub) -> None:
    lock = Lock()
    task = start(lock.release, name="eager")
    assert isinstance(task.exception, RuntimeError)
    assert str(task.exception) == "release unlocked lock: Task 'eager' releases <Lock free>, which nobody holds"


def test_lock_may_be_released_by_another(hub: Hub) -> None:
    lock = Lock()
    lock.acquire()
    greenswitch.spawn(lock.release).join()
    assert not lock.locked()


def test_rlock_is_taken_again_by_its_owner_only(hub: Hub) -> None:
    lock = RLock()
    assert lock.acquire() and lock.acquire(timeout=1) and lock.acquire(blocking=False)
    assert repr(lock) == "<RLock held by main greenlet, 3 times>"
    assert greenswitch.spawn(lock.acquire, False).get() is False
    lock.release()
    lock.release()
    assert lock.locked()
    lock.release()
    assert repr(lock) == "<RLock free>"


def test_rlock_refuses_another_s_release_and_names_both(hub: Hub) -> None:
    lock = RLock()
    holder = start(hold, lock, name="owner")
    thief = start(lock.release, name="thief")
    text = "cannot release un-acquired lock: Task 'thief' releases <RLock held by Task 'owner'>"
    assert str(thief.exception) == text and isinstance(thief.exception, RuntimeError)
    holder.join()
    with pytest.raises(RuntimeError, match="main greenlet releases <RLock free>"):
        lock.release()


def test_rlock_belongs_to_the_task_and_not_to_the_carrier_it_ran_on(hub: Hub) -> None:
    lock = RLock()
    first = greenswitch.spawn(lock.acquire)
    first.join()
    assert greenswitch.spawn(lock.acquire, False).get() is False, "the next task runs on the same carrier"


# -- Semaphore ---------------------------------------------------------------------------------------------------------


def test_semaphore_lets_so_many_in(hub: Hub, time: VirtualTime) -> None:
    semaphore = Semaphore(3)
    greenswitch.joinall([greenswitch.spawn(hold, semaphore) for _ in range(9)])
    assert time() == 3 and semaphore.value == 3 and repr(semaphore) == "<Semaphore 3 free>"


def test_semaphore_releases_several_at_once(hub: Hub) -> None:
    semaphore = Semaphore(0)
    tasks = [start(semaphore.acquire) for _ in range(3)]
    assert repr(semaphore) == "<Semaphore none free, 3 waiting>"
    semaphore.release(4)
    assert [task.get() for task in tasks] == [True] * 3 and semaphore.value == 1
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="one or more"):
            semaphore.release(wrong)


def test_semaphore_needs_a_count(hub: Hub) -> None:
    with pytest.raises(ValueError, match=">= 0"):
        Semaphore(-1)
    with pytest.raises(TypeError):
        Semaphore(1.5)  # type: ignore[arg-type]


def test_bounded_semaphore_refuses_more_than_it_had(hub: Hub) -> None:
    semaphore = BoundedSemaphore(2)
    semaphore.acquire()
    with pytest.raises(ValueError, match="released too many times: <BoundedSemaphore 1 free> of 2"):
        semaphore.release(2)
    semaphore.release()
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()


# -- Event, AsyncResult ------------------------------------------------------------------------------------------------


def test_event_wakes_all_in_the_order_of_their_arrival(hub: Hub) -> None:
    event, order = Event(), []

    def waiter(name: str) -> None:
        event.wait()
        order.append(name)

    tasks = [start(waiter, name) for name in "abc"]
    assert repr(event) == "<Event not set, 3 waiting>"
    event.set()
    greenswitch.joinall(tasks)
    assert order == ["a", "b", "c"] and repr(event) == "<Event set>" and event.is_set()


def test_waiter_of_an_event_that_is_set_and_cleared_in_one_turn_is_woken(hub: Hub) -> None:
    event = Event()
    task = start(event.wait)
    event.set()
    event.clear()
    assert task.get() is True and event.wait(0) is False


def test_result_passes_a_value_or_an_exception_to_all(hub: Hub) -> None:
    good, bad = AsyncResult(), AsyncResult()
    tasks = [start(good.get), start(good.get), start(bad.get)]
    assert repr(good) == "<AsyncResult not set, 2 waiting>" and not good.ready() and not good.successful()
    good.set("value")
    bad.set_exception(KeyError("key"))
    assert [tasks[0].get(), tasks[1].get()] == ["value", "value"]
    with pytest.raises(KeyError):
        tasks[2].get()
    assert good.successful() and good.value == "value" and good.exception is None
    assert bad.ready() and not bad.successful() and bad.value is None and isinstance(bad.exception, KeyError)
    assert repr(good) == "<AsyncResult value 'value'>" and repr(bad) == "<AsyncResult exception KeyError('key')>"
    assert bad.wait() is None and good.wait() == "value"


def test_result_that_is_not_there_is_no_answer(hub: Hub) -> None:
    result = AsyncResult()
    for ask in (result.get_nowait, lambda: result.get(block=False), lambda: result.get(timeout=0)):
        with pytest.raises(TimeoutError, match="AsyncResult not set"):
            ask()
    with pytest.raises(TypeError, match="needs an exception"):
        result.set_exception("no exception")  # type: ignore[arg-type]


def test_result_takes_over_a_task_s_outcome_as_its_link(hub: Hub) -> None:
    good, bad, killed = AsyncResult(), AsyncResult(), AsyncResult()
    greenswitch.spawn(lambda: 7).link(good)
    greenswitch.spawn(lambda: 1 / 0).link(bad)
    task = greenswitch.spawn(greenswitch.sleep, 9)
    task.link(killed)
    task.kill()
    assert good.get() == 7
    with pytest.raises(ZeroDivisionError):
        bad.get()
    with pytest.raises(greenlet.GreenletExit):
        killed.get()


def test_count_of_events_can_be_waited_for_as_with_a_latch(hub: Hub, time: VirtualTime) -> None:
    things = [Event(), AsyncResult(), Semaphore(0), Event()]
    greenswitch.spawn_later(1, things[1].set)
    greenswitch.spawn_later(2, things[2].release)
    greenswitch.spawn_later(3, things[0].set)
    assert greenswitch.wait(things, count=2) == [things[1], things[2]] and time() == 2
    assert [thing for thing in greenswitch.iwait(things, timeout=5)] == [things[1], things[2], things[0]]
    assert time() == 7 and not any(thing._line or getattr(thing, "_links", ()) for thing in things)


# -- Condition ---------------------------------------------------------------------------------------------------------


def test_condition_notifies_so_many_first_in_first_out(hub: Hub) -> None:
    condition, order = Condition(), []

    def waiter(name: str) -> None:
        with condition:
            condition.wait()
            order.append(name)

    tasks = [start(waiter, name) for name in "abcd"]
    with condition:
        condition.notify(2)
    greenswitch.sleep(0)
    assert order == ["a", "b"]
    with condition:
        condition.notify_all()
    greenswitch.joinall(tasks)
    assert order == ["a", "b", "c", "d"]


@pytest.mark.parametrize("lock", [Lock, RLock, threading.Lock, threading.RLock])
def test_condition_stands_on_any_lock(lock: Callable[[], Any], hub: Hub) -> None:
    condition, box = Condition(lock()), []

    def consumer() -> list[int]:
        with condition:
            assert condition.wait_for(lambda: box, timeout=10)
            return list(box)

    task = start(consumer)
    with condition:
        box.append(1)
        condition.notify()
    assert task.get() == [1]


def test_condition_without_its_lock_is_refused(hub: Hub) -> None:
    for condition in (Condition(), Condition(Lock())):
        for call in (condition.wait, condition.notify, condition.notify_all):
            with pytest.raises(RuntimeError, match="un-acquired lock: take it first"):
                call()


def test_condition_waits_for_a_predicate_so_long(hub: Hub, time: VirtualTime) -> None:
    condition = Condition()
    with condition:
        assert condition.wait_for(lambda: False, timeout=2) is False
        assert condition.wait_for(lambda: "yes", timeout=0) == "yes"
    assert time() == 2


def test_condition_lets_go_of_an_rlock_however_often_it_is_held(hub: Hub) -> None:
    condition = Condition()

    def waiter() -> str:
        with condition, condition:
            condition.wait()
            return repr(condition._lock)

    task = start(waiter)
    with condition:
        condition.notify()
    assert task.get() == f"<RLock held by {task.label}, 2 times>"


def test_waiter_that_is_killed_while_it_takes_the_lock_again_holds_it_and_dies_later(hub: Hub) -> None:
    condition, seen = Condition(), []

    def waiter() -> None:
        with condition:
            seen.append(condition.wait())
        greenswitch.sleep(1)
        seen.append("not reached")

    task = start(waiter)
    with condition:
        condition.notify()
        greenswitch.sleep(0)  # the waiter now waits for the lock
        task.kill(block=False)
        greenswitch.sleep(0)
    task.join()
    assert seen == [True] and task.state == "killed" and not condition._lock.locked()


# -- Barrier -----------------------------------------------------------------------------------------------------------


def test_barrier_lets_all_go_on_when_the_last_has_come(hub: Hub, time: VirtualTime) -> None:
    calls: list[float] = []
    barrier = Barrier(3, action=lambda: calls.append(time()))

    def party(seconds: float) -> list[int]:
        places = []
        for _ in range(2):
            greenswitch.sleep(seconds)
            places.append(barrier.wait())
        return places

    tasks = [greenswitch.spawn(party, seconds) for seconds in (1, 2, 3)]
    places = [task.get() for task in tasks]
    assert [sorted(round) for round in zip(*places, strict=True)] == [[0, 1, 2]] * 2
    assert calls == [3, 6] and repr(barrier) == "<Barrier 0 of 3 here>"


def test_barrier_is_broken_for_all_when_one_s_time_is_over(hub: Hub) -> None:
    barrier = Barrier(3)
    tasks = [start(barrier.wait, 5), start(barrier.wait, 1)]
    greenswitch.joinall(tasks)
    assert "1 of 3 did not come within 1 seconds" in str(tasks[1].exception)
    assert all(isinstance(task.exception, threading.BrokenBarrierError) for task in tasks)
    assert barrier.broken and repr(barrier) == "<Barrier broken>"
    with pytest.raises(locks.BrokenBarrierError, match="reset"):
        barrier.wait()
    barrier.reset()
    assert not barrier.broken


def test_barrier_is_broken_when_its_action_fails(hub: Hub) -> None:
    barrier = Barrier(2, action=lambda: 1 / 0)
    first, last = start(barrier.wait), start(barrier.wait)
    assert isinstance(first.exception, threading.BrokenBarrierError) or first.join() or first.exception
    assert isinstance(last.exception, ZeroDivisionError) and barrier.broken


@pytest.mark.parametrize("end", [Barrier.reset, Barrier.abort])
def test_barrier_that_is_reset_or_aborted_fails_those_who_wait(end: Callable[[Barrier], None], hub: Hub) -> None:
    barrier = Barrier(2)
    task = start(barrier.wait)
    end(barrier)
    task.join()
    assert isinstance(task.exception, threading.BrokenBarrierError)
    assert barrier.broken is (end is Barrier.abort)


def test_one_killed_at_a_barrier_has_not_come(hub: Hub) -> None:
    barrier = Barrier(2)
    start(barrier.wait).kill()
    task = start(barrier.wait)
    assert barrier.n_waiting == 1 and sorted([barrier.wait(), task.get()]) == [0, 1]


# -- as the others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Event", "Condition", "Barrier"])
def test_methods_and_parameters_are_those_of_threading(name: str) -> None:
    theirs, ours = getattr(threading, name), getattr(locks, name)
    theirs = {"Lock": type(threading.Lock()), "RLock": threading._PyRLock}.get(name, theirs)  # type: ignore[attr-defined]
    for method in [word for word in dir(theirs) if not word.startswith("_") and not word.endswith("_lock")]:
        if method in ("notifyAll", "isSet"):
            continue  # deprecated
        assert hasattr(ours, method) or method in ours.__slots__, method
        if name not in ("Lock", "Condition") and callable(getattr(theirs, method)):
            assert parameters(getattr(ours, method)) == parameters(getattr(theirs, method)), method


def test_result_has_the_parameters_of_gevent_s() -> None:
    theirs = pytest.importorskip("gevent.event").AsyncResult
    for method in ("get", "get_nowait", "wait", "set", "ready", "successful"):
        assert parameters(getattr(AsyncResult, method)) == parameters(getattr(theirs, method)), method


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


# -- those who never come back -----------------------------------------------------------------------------------------


@mutexes
def test_waiter_of_a_closed_hub_does_not_swallow_the_lock(make: Callable[[], Any]) -> None:
    lock = make()
    lock.acquire()
    with Hub():
        task = start(lock.acquire)
    lock.release()
    assert lock.acquire(blocking=False) and not task.ready()


FORK = """
import os
import greenswitch
from greenswitch.locks import Lock

def main():
    lock = Lock()
    lock.acquire()
    task = greenswitch.spawn(lock.acquire)
    greenswitch.sleep(0)
    child = os.fork()
    lock.release()
    if not child:
        taken = lock.acquire(blocking=False)
        greenswitch.sleep(0.01)
        os._exit(0 if taken and not task.ready() else 1)
    task.get()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "in the child the parent's task has got the lock"

greenswitch.run(main)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_parent_s_task_does_not_swallow_the_lock_in_a_forked_child() -> None:
    where = os.pathsep.join([str(Path(greenswitch.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=30, env=dict(os.environ, PYTHONPATH=where))


# -- interrupted anywhere ----------------------------------------------------------------------------------------------


def interrupted(plan: dict[int, Callable[[], object]], operation: Callable[[], object]) -> int:
    """Run `operation` and, before the n-th line that it executes in our modules, `plan[n]`; return how many there were.

    This is what a finaliser, a signal handler or another thread may do, at each place where one may come in.
    """
    lines, running = 0, True

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal lines
        if not frame.f_globals.get("__name__", "").startswith("greenswitch.locks."):
            return None
        if event == "line":
            lines += 1
            if lines in plan:
                sys.settrace(None)
                plan[lines]()
                sys.settrace(trace if running else None)  # it may have waited until after the end
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        operation()
    finally:
        running = False
        sys.settrace(previous)
    return lines


def steps(nested: Callable[[], object], operation: Callable[[], object]) -> Iterator[int]:
    """Interrupt `operation` at each of its lines in turn."""
    step = 1
    while interrupted({step: nested}, operation) >= step:
        yield step
        step += 1
    assert step > 3, "the operation has lines to be interrupted at"


def use(lock: Any) -> None:
    with lock:
        pass


def try_to_use(lock: Any) -> None:
    if lock.acquire(blocking=False):
        lock.release()


@mutexes
def test_finaliser_that_takes_the_free_lock_at_any_point_leaves_it_free(make: Callable[[], Any], hub: Hub) -> None:
    lock = make()
    for step in steps(lambda: try_to_use(lock), lambda: use(lock)):
        assert not lock.locked(), step


def test_finaliser_takes_the_rlock_at_any_point_and_never_waits_for_itself(hub: Hub) -> None:
    lock, taken = RLock(), []
    for step in steps(lambda: (use(lock), taken.append(1)), lambda: use(lock)):
        assert not lock.locked() and len(taken) == step


@mutexes
def test_finaliser_that_takes_the_lock_as_it_is_handed_over_changes_nothing(make: Callable[[], Any], hub: Hub) -> None:
    lock = make()
    order: list[str] = []

    def waiter(name: str) -> None:
        with lock:
            order.append(name)

    def hand_over() -> None:
        order.clear()
        lock.acquire()
        tasks = [start(waiter, name) for name in "ab"]
        tasks[0].kill(block=False)
        lock.release()
        greenswitch.joinall(tasks)

    for step in steps(lambda: try_to_use(lock), hand_over):
        assert order == ["b"] and not lock.locked() and not lock._line, step


class Late:
    """Something that comes while main is about to wait, and main's wait, of at most a second."""

    def __init__(self, time: VirtualTime, come: Callable[[], object], wait: Callable[[], bool]) -> None:
        self.time = time
        self.come = come
        self.wait = wait
        self.gots: list[bool] = []

    def nested(self) -> None:
        self.came = self.time()
        self.come()

    def operation(self) -> None:
        self.begun = self.came = self.time()
        self.gots.append(self.wait())

    def check(self) -> bool:
        """Main has got it at once, unless it came after the second; return whether it has."""
        got = self.gots[-1]
        assert got is (self.came == self.begun) and self.time() - self.begun == (0 if got else 1)
        return got

    def check_all(self) -> None:
        assert self.gots.count(True) > 5, "there are lines before main parks"


def test_finaliser_that_releases_while_main_lines_up_wakes_it(hub: Hub, time: VirtualTime) -> None:
    semaphore = Semaphore(0)
    late = Late(time, semaphore.release, lambda: semaphore.acquire(timeout=1))
    for _ in steps(late.nested, late.operation):
        assert semaphore.value == (0 if late.check() else 1) and not semaphore._line
        assert semaphore.value == 0 or semaphore.acquire(blocking=False)
    late.check_all()


def test_finaliser_that_lets_the_lock_go_while_main_lines_up_wakes_it(hub: Hub, time: VirtualTime) -> None:
    lock = Lock()
    lock.acquire()
    late = Late(time, lock.release, lambda: lock.acquire(timeout=1))
    for _ in steps(late.nested, late.operation):
        assert lock.locked() is late.check() and not lock._line
        assert lock.locked() or lock.acquire(blocking=False)
    late.check_all()


def test_finaliser_that_sets_while_main_lines_up_wakes_it(hub: Hub, time: VirtualTime) -> None:
    event = Event()
    late = Late(time, event.set, lambda: bool(event.wait(timeout=1)))
    for _ in steps(late.nested, late.operation):
        late.check()
        assert not event._line
        event.clear()
    late.check_all()


@mutexes
def test_no_two_things_that_come_in_while_the_lock_is_let_go_lose_it(make: Callable[[], Any], hub: Hub) -> None:
    """One lines up at some line of `release`; at a later one another tries to barge in, or that one is killed."""
    lock = make()
    tasks: list[greenswitch.Task] = []

    def line_up() -> None:
        tasks.append(start(hold, lock))

    def barge() -> None:
        if make is RLock:
            try_to_use(lock)  # main's own, until it is handed over
        elif lock._line:
            assert not lock.acquire(blocking=False)

    def kill() -> None:
        if lock._line:
            tasks[-1].kill()

    def both_orders() -> Iterator[tuple[int, int, Callable[[], object]]]:
        lock.acquire()
        lines = interrupted({}, lock.release)
        for first in range(1, lines + 1):
            for second in range(first + 1, lines + 12):
                yield first, second, barge
                yield first, second, kill

    for first, second, disturb in both_orders():
        lock.acquire()
        interrupted({first: line_up, second: disturb}, lock.release)
        task = tasks.pop()
        task.join(timeout=2)
        assert task.state in ("done", "killed"), (first, second, disturb, lock)
        assert lock.ready() and not lock._line, (first, second, disturb, lock)


@mutexes
def test_finaliser_that_has_to_wait_itself_loses_no_lock(make: Callable[[], Any], hub: Hub) -> None:
    """It waits in the midst of main's own wait, or of the holder's release. It may get an error; main gets the lock."""
    met: list[object] = []

    def wait_too() -> None:
        try:
            met.append(lock.acquire(timeout=1))
        except greenswitch.SwitchError as error:
            met.append(error)
        if met[-1] is True:
            lock.release()

    for step in range(1, 100):
        lock = make()
        holder = start(hold, lock, 0.5)
        taken: list[bool] = []
        lines = interrupted({step: wait_too}, lambda: taken.append(lock.acquire(timeout=2)))  # noqa: B023
        assert taken == [True], (step, met)
        lock.release()
        holder.join()
        assert lock.ready() and not lock._line, (step, met)
        if lines < step:
            break
    assert True in met


def test_finaliser_run_by_the_collector_may_use_the_lock_that_is_being_taken(hub: Hub) -> None:
    lock, freed = RLock(), []

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            with lock:
                freed.append(1)

    previous = gc.get_threshold()
    gc.set_threshold(1)
    try:
        begun = clock.monotonic()
        while len(freed) < 500 and clock.monotonic() - begun < 10:
            Cycle()
            with lock:
                Cycle()
                Event(), Lock()
    finally:
        gc.set_threshold(*previous)
    assert len(freed) >= 500 and not lock.locked()
