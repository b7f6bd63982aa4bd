"""The twin of `queue`: the original's classes, which park a task where the original's block a thread."""

from __future__ import annotations

import queue as original
import subprocess
import sys
import threading
from typing import Any

import pytest

from greenswitch import Event, move_on_after, queues, sleep, spawn, timeout
from greenswitch.green import queue
from greenswitch.hub import Hub
from greenswitch.testing import VirtualTime

Q: Any = queue
KINDS = ["Queue", "LifoQueue", "PriorityQueue"]


def test_every_name_is_there_and_errors_are_the_originals() -> None:
    assert [name for name in dir(original) if not hasattr(queue, name)] == []
    assert set(queue.__all__) == set(original.__all__)
    assert Q.Empty is original.Empty and Q.Full is original.Full
    assert Q.ShutDown is getattr(original, "ShutDown", queues.ShutDown)
    with pytest.raises(AttributeError, match="neither has the standard library's queue"):
        Q.no_such_name


@pytest.mark.parametrize("name", [*KINDS, "SimpleQueue"])
def test_queue_parks_the_getter_and_times_out(name: str, hub: Hub, time: VirtualTime) -> None:
    items = getattr(Q, name)()
    task = spawn(items.get)
    sleep(1)
    items.put(7)
    assert task.get() == 7
    with pytest.raises(original.Empty):
        items.get(timeout=1)
    assert time.now == 2


@pytest.mark.parametrize("name", KINDS)
def test_queue_has_the_attributes_and_methods_of_the_original(name: str) -> None:
    ours, theirs = getattr(Q, name)(3), getattr(original, name)(3)
    assert vars(ours).keys() == vars(theirs).keys()
    assert set(dir(theirs)) <= set(dir(ours))
    ours.put(2)
    ours.put(1)
    with ours.mutex:
        assert list(ours.queue) == ([1, 2] if name == "PriorityQueue" else [2, 1])
        ours.queue.clear()
        ours.unfinished_tasks = 0
        ours.all_tasks_done.notify_all()
        ours.not_full.notify()
    ours.join()
    assert ours.empty()


def test_full_queue_parks_the_putter_and_errors_of_the_copy_are_the_originals(hub: Hub, time: VirtualTime) -> None:
    items = Q.Queue(1)
    items.put(1)
    with pytest.raises(original.Full):
        items.put(2, timeout=1)
    with pytest.raises(original.Full):
        items.put_nowait(2)
    putter = spawn(items.put, 2)
    sleep(0)
    assert putter.state == "parked" and items.get() == 1
    putter.get()
    assert items.get() == 2 and time.now == 1


def test_task_that_asks_a_simple_queue_in_vain_lets_the_others_run(hub: Hub) -> None:
    items = Q.SimpleQueue()
    spawn(items.put, 1)
    while items.empty():
        pass
    assert items.get() == 1
    spawn(items.put, 2)
    while True:
        try:
            assert items.get_nowait() == 2
            break
        except Q.Empty:
            pass


def test_join_parks_until_every_item_is_done(hub: Hub, time: VirtualTime) -> None:
    items = Q.Queue()
    items.put(1)
    joiner = spawn(items.join)
    sleep(1)
    assert joiner.state == "parked"
    items.task_done()
    joiner.get()
    with pytest.raises(ValueError, match="too many times"):
        items.task_done()


@pytest.mark.skipif(not hasattr(original, "ShutDown"), reason="from Python 3.13 on")
def test_shutdown_ends_the_waits_with_the_originals_error(hub: Hub) -> None:
    items = Q.Queue()
    getter = spawn(items.get)
    sleep(0)
    items.shutdown()
    with pytest.raises(Q.ShutDown):
        getter.get()


class Unique(Q.Queue):  # type: ignore[misc]
    """Keeps each item once: the recipe that many programs contain."""

    def _init(self, maxsize: int) -> None:
        self.queue: set[Any] = set()

    def _put(self, item: Any) -> None:
        self.queue.add(item)

    def _get(self) -> Any:
        return self.queue.pop()

    def _qsize(self) -> int:
        return len(self.queue)


def test_methods_of_a_subclass_are_used(hub: Hub) -> None:
    items = Unique()
    getter = spawn(items.get)
    sleep(0)
    items.put("a")
    assert getter.get() == "a"
    for _ in range(3):
        items.put("b")
    assert items.qsize() == 1 and items.get() == "b" and items.empty()


# -- what needs no wait, and what interrupts ---------------------------------------------------------------------------


class Slow(Q.Queue):  # type: ignore[misc]
    """Waits amid a put, with its mutex held."""

    pause = 0.0

    def _put(self, item: Any) -> None:
        if self.pause:
            sleep(self.pause)
        super()._put(item)


def test_put_after_a_put_does_not_wait_for_the_getter_of_the_first(hub: Hub, time: VirtualTime) -> None:
    def put() -> None:
        items.put(1)
        items.pause = 0
        before = list(ran)
        items.put(2)
        assert ran == before, "no other task has run"

    def get() -> int:
        ran.append("getter")
        item: int = items.get()
        ran.append("getter")
        return item

    items, ran = Slow(), list[str]()
    items.pause = 1
    putter = spawn(put)
    getters = [spawn(get) for _ in range(2)]
    sleep(0.5)
    assert ran == ["getter"] * 2, "both wait for the mutex"
    putter.get()
    assert [getter.get() for getter in getters] == [1, 2]


@pytest.mark.parametrize("how", ["kill", "time limit"])
def test_put_that_waits_for_the_mutex_puts_before_it_meets_an_interrupt(
    how: str, hub: Hub, time: VirtualTime
) -> None:
    def work() -> None:
        with move_on_after(1 if how == "time limit" else None):
            items.put("mine")
            put.append(list(items.queue))
            sleep(100)

    items, put = Slow(), list[Any]()
    items.pause = 3
    slow = spawn(items.put, "slow")
    sleep(0.5)
    task = spawn(work)
    sleep(0.5)
    if how == "kill":
        task.kill(block=False)
    items.pause = 0
    task.join()
    assert put == [["slow", "mine"]] and task.state == ("killed" if how == "kill" else "done")
    assert time.now == 3 and not items.mutex.locked() and slow.ready()


def test_put_that_has_room_raises_no_kill_though_getters_wait_for_the_mutex(hub: Hub) -> None:
    def put_back() -> None:
        event.wait()
        items.put("back")
        put.append(True)
        sleep(1)

    items, event, put = Q.Queue(), Event(), list[bool]()
    getters = [spawn(items.get) for _ in range(2)]
    task = spawn(put_back)
    sleep(1)
    with items.mutex:  # the getters wait for it now
        items.not_empty.notify_all()
        items._put("one")
        items._put("two")
        event.set()
        task.kill(block=False)
        sleep(0)
    task.join()
    assert put == [True] and task.state == "killed"
    assert {getter.get() for getter in getters} <= {"one", "two", "back"} and items.qsize() == 1


def test_ctrl_c_ends_a_wait_for_the_mutex(hub: Hub) -> None:
    items = Q.Queue()
    items.mutex.acquire()
    hub.call_soon(hub.interrupt_main, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        items.put(1)
    items.mutex.release()
    items.put(2)
    assert items.get() == 2 and items.empty()


def test_wait_for_the_mutex_has_a_limit_if_one_is_given(hub: Hub, time: VirtualTime) -> None:
    items = Q.Queue()
    with items.mutex:
        task = spawn(items.mutex.acquire, True, 2)
        assert task.get() is False and time.now == 2
        assert items.mutex.acquire(False) is False
    assert spawn(items.mutex.acquire, True, 2).get() is True


@pytest.mark.parametrize("name", KINDS)
def test_killed_getter_loses_no_wake_up_for_the_others(name: str, hub: Hub) -> None:
    items = getattr(Q, name)()
    getters = [spawn(items.get) for _ in range(2)]
    sleep(0)
    getters[0].kill(block=False)
    items.put(1)
    assert getters[1].get(1) == 1 and getters[0].state == "killed"


def test_tasks_and_threads_share_a_queue_and_lose_nothing(real_hub: Hub) -> None:
    def take(queue: Any) -> None:
        while (item := queue.get()) is not None:
            taken.append(item)

    items, taken = Q.Queue(5), list[int]()
    threads = [threading.Thread(target=take, args=(items,)) for _ in range(2)]
    tasks = [spawn(take, items) for _ in range(2)]
    for thread in threads:
        thread.start()
    with timeout(30):
        for item in [*range(500), *[None] * 4]:
            items.put(item)
        while any(thread.is_alive() for thread in threads) or not all(task.ready() for task in tasks):
            sleep(0.001)
    assert sorted(taken) == list(range(500))


# -- the original, patched ---------------------------------------------------------------------------------------------


def run_script(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


POOL = """
from greenswitch import monkey
import queue
early = queue.Queue
monkey.patch_all()
import random, greenswitch
from greenswitch import killall, sleep, spawn, timeout
assert queue.Queue is early and type(queue.Queue().mutex).__module__.startswith("greenswitch")
chance = random.Random(7)

def use():
    for _ in range(400):
        try:
            with timeout(chance.random() / 1000):
                connection = pool.get()
                try:
                    sleep(chance.random() / 2000)
                finally:
                    pool.put(connection)
        except TimeoutError:
            pass

for kind in (queue.Queue, queue.LifoQueue):
    pool = kind()
    for connection in range(3):
        pool.put(connection)
    greenswitch.joinall([spawn(use) for _ in range(20)], raise_error=True)
    print(sorted(pool.queue))
"""


def test_pool_in_a_patched_queue_loses_nothing_at_time_limits() -> None:
    assert run_script(POOL) == "[0, 1, 2]\n[0, 1, 2]\n"


def test_patched_thread_that_polls_a_queue_lets_the_others_run() -> None:
    assert run_script("""
from greenswitch import monkey
monkey.patch_all()
import queue, threading
import time
def put_later(item):
    time.sleep(0.001)
    items.put(item)
items = queue.Queue()
thread = threading.Thread(target=put_later, args=[1])
thread.start()
while items.empty():
    pass
items.get()
threading.Thread(target=put_later, args=[2]).start()
while True:
    try:
        print(items.get_nowait())
        break
    except queue.Empty:
        pass
""") == "2\n"


def test_without_patched_threads_a_queue_keeps_the_originals_locks() -> None:
    assert run_script("""
from greenswitch import monkey
monkey.patch_all(threading=False)
import queue, threading
print(type(queue.Queue().mutex) is type(threading.Lock()), type(queue.Queue().not_full) is threading.Condition)
""") == "True True\n"
