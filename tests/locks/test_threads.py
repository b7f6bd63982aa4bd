"""Locks between OS threads: with hubs and without, switched every microsecond, and with finalisers in between.

Real threads and real time, so each test is bounded by rounds and not by seconds. What is random is seeded, and the seed
is printed: pytest shows it with the failure.
"""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import greenswitch
from greenswitch.hub import Hub, has_hub
from greenswitch.locks import AsyncResult, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore

MUTEXES = [Lock, RLock, Semaphore, BoundedSemaphore]
PATIENCE = 30.0


@pytest.fixture
def hasty() -> Iterator[random.Random]:
    """Switch OS threads as often as possible; return seeded randomness."""
    seed = random.randrange(1 << 32)
    print("seed:", seed)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield random.Random(seed)
    sys.setswitchinterval(before)


def in_threads(*functions: Callable[[], object]) -> None:
    """Run each function in an OS thread of its own, as a task of a fresh hub; raise what one of them raises."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            greenswitch.run(function)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"


@pytest.mark.parametrize("make", MUTEXES)
def test_only_one_at_a_time_holds_it(make: Callable[[], Any], hasty: random.Random) -> None:
    lock, inside, count = make(), [], [0]

    def task(rounds: int) -> None:
        for _ in range(rounds):
            with lock:
                inside.append(1)
                assert len(inside) == 1
                if count[0] % 7 == 0:
                    greenswitch.sleep(0)
                count[0] += 1
                inside.pop()

    def thread() -> None:
        greenswitch.joinall([greenswitch.spawn(task, 100) for _ in range(5)], raise_error=True)

    in_threads(*[thread] * 4)
    assert count[0] == 2000 and lock.ready() and not lock._line


@pytest.mark.parametrize("make", MUTEXES)
def test_kills_and_timeouts_in_all_threads_lose_no_wake(make: Callable[[], Any], hasty: random.Random) -> None:
    lock, got = make(), []

    def task(number: int) -> None:
        chance = random.Random(number)
        for _ in range(40):
            if lock.acquire(timeout=chance.choice([0.0001, 0.001, PATIENCE])):
                try:
                    got.append(number)
                    greenswitch.sleep(chance.choice([0, 0, 0.0002]))
                finally:
                    lock.release()

    numbers = [hasty.random() for _ in range(12)]

    def thread(numbers: list[float]) -> None:
        tasks = [greenswitch.spawn(task, number) for number in numbers]
        victims = [greenswitch.spawn(task, number + 1) for number in numbers]
        for victim in victims:
            greenswitch.sleep(0.002)
            victim.kill(block=False)
        greenswitch.joinall(tasks + victims, raise_error=True)

    in_threads(*(lambda part=part: thread(part) for part in (numbers[:4], numbers[4:8], numbers[8:])))
    assert lock.acquire(blocking=False), lock
    lock.release()
    assert got and not lock._line


def test_threads_without_hubs_exclude_each_other_and_need_none_unless_they_wait(hasty: random.Random) -> None:
    lock, count, hubs = Lock(), [0], []

    def thread() -> None:
        for _ in range(1000):
            if lock.acquire(blocking=False):
                count[0] += 1
                lock.release()
        hubs.append(has_hub())

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENCE)
    assert hubs == [False] * 4 and count[0] > 0 and not lock.locked()


def test_thread_that_must_wait_gets_a_hub_and_is_woken_by_one_that_has_none(no_leaked_fds: None) -> None:
    lock, seen = Lock(), []
    lock.acquire()
    thread = threading.Thread(target=lambda: seen.append((lock.acquire(timeout=PATIENCE), has_hub())))
    thread.start()
    while not lock._line:
        clock.sleep(0.001)
    lock.release()
    thread.join(PATIENCE)
    assert seen == [(True, True)] and not has_hub()


def test_semaphore_keeps_its_permits_between_threads(hasty: random.Random) -> None:
    semaphore, inside = Semaphore(3), []

    def task() -> None:
        for _ in range(100):
            with semaphore:
                inside.append(1)
                assert len(inside) <= 3
                greenswitch.sleep(0)
                inside.pop()

    def thread() -> None:
        greenswitch.joinall([greenswitch.spawn(task) for _ in range(3)], raise_error=True)

    in_threads(*[thread] * 4)
    assert semaphore.value == 3 and not semaphore._line


def test_no_event_is_missed_between_threads(hasty: random.Random) -> None:
    there, back = Event(), Event()

    def ping() -> None:
        for _ in range(1500):
            there.set()
            assert back.wait(PATIENCE)
            back.clear()

    def pong() -> None:
        for _ in range(1500):
            assert there.wait(PATIENCE)
            there.clear()
            back.set()

    in_threads(ping, pong)


def test_results_reach_every_thread(hasty: random.Random) -> None:
    for value in range(100):
        result = AsyncResult()
        seen: list[int] = []
        in_threads(
            *[lambda result=result, seen=seen: seen.append(result.get(timeout=PATIENCE))] * 2,
            lambda result=result, value=value: result.set(value),
        )
        assert seen == [value] * 2


def test_condition_guards_a_buffer_between_threads(hasty: random.Random) -> None:
    condition, buffer, taken = Condition(), [], []

    def producer() -> None:
        for number in range(500):
            with condition:
                buffer.append(number)
                condition.notify()

    def consumer() -> None:
        for _ in range(500):
            with condition:
                assert condition.wait_for(lambda: buffer, PATIENCE)
                taken.append(buffer.pop())

    in_threads(producer, consumer, producer, consumer)
    assert sorted(taken) == sorted(list(range(500)) * 2) and not condition._lock.locked()


def test_wait_for_several_is_woken_by_other_threads(hasty: random.Random) -> None:
    events = [Event() for _ in range(50)]
    hasty.shuffle(events)
    seen: list[list[Event]] = []
    in_threads(
        lambda: seen.append(greenswitch.wait(events, timeout=PATIENCE)),
        lambda: [event.set() for event in events],
        lambda: seen.append(greenswitch.wait(events, timeout=PATIENCE)),
    )
    assert [len(some) for some in seen] == [50, 50] and not any(event._line for event in events)


@pytest.mark.parametrize("make", [RLock, lambda: Semaphore(20)], ids=["RLock", "Semaphore"])
def test_finalisers_take_the_same_lock_in_every_thread_and_nothing_hangs(
    make: Callable[[], Any], hasty: random.Random
) -> None:
    lock, freed = make(), []

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            if lock.acquire(blocking=False):
                freed.append(1)
                lock.release()

    def task() -> None:
        for _ in range(150):
            Cycle()
            with lock:
                Cycle()
                greenswitch.sleep(0)

    def thread() -> None:
        greenswitch.joinall([greenswitch.spawn(task) for _ in range(3)], raise_error=True)

    before = gc.get_threshold()
    gc.set_threshold(5)
    try:
        in_threads(*[thread] * 3)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert freed and lock.ready() and not lock._line


IDLE = """
import gc, sys, threading
import greenswitch
from greenswitch.locks import Event

def collected(*_):
    for _ in range(300):
        pass

gc.callbacks.append(collected)
gc.set_threshold(1)
sys.setswitchinterval(1e-6)

def idle(mine, other):
    for _ in range(1000):
        mine.wait()
        mine.clear()
        other.set()

events = [Event() for _ in range(3)]
threads = [threading.Thread(target=idle, args=(events[n], events[(n + 1) % 3])) for n in range(3)]
for thread in threads:
    thread.start()
events[0].set()
for thread in threads:
    thread.join()
"""


def test_hubs_that_fall_idle_in_many_threads_never_hang_while_the_collector_runs() -> None:
    where = os.pathsep.join([str(Path(greenswitch.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", IDLE], check=True, timeout=PATIENCE, env=dict(os.environ, PYTHONPATH=where))


def test_rlock_of_another_thread_is_named_so(real_hub: Hub) -> None:
    lock = RLock()
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match="main greenlet releases <RLock held by main greenlet of another thread>"):
        lock.release()
