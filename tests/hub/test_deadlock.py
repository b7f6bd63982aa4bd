"""What a deadlock's report says, word for word: who waits, for what and where, and who is to blame."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import greenlet
import pytest

import greenswitch
from greenswitch import DeadlockError, Pool, TaskGroup, iwait, joinall, sleep, spawn, wait
from greenswitch.hub import Hub, Waiter
from greenswitch.hub.bystanders import Bystander
from greenswitch.hub.deadlock import Wait, circles
from greenswitch.hub.naming import brief
from greenswitch.locks import AsyncResult, Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore
from greenswitch.queues import Channel, Queue, select

ROOT = Path(__file__).parents[2]


def named(name: str, function: Callable[..., Any], *args: Any) -> greenswitch.Task:
    task = spawn(function, *args)
    task.name = name
    return task


def report(main: Callable[[], object]) -> str:
    """Return the text of the deadlock that `main` runs into, without places; end what it has left."""
    with pytest.raises(DeadlockError) as caught:
        main()
    ended = [one for one in greenswitch.get_hub().carriers.jobs()]
    greenswitch.killall(ended)  # type: ignore[arg-type]
    return re.sub(r" at \S+:\d+ in .*", "", str(caught.value))


HEAD = "everybody waits and nobody is left who could wake anyone:\n"


def test_circle_of_joins(hub: Hub) -> None:
    tasks: dict[str, Any] = {}
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        tasks[name] = named(name, lambda other: tasks[other].join(), other)
    assert report(tasks["a"].join) == HEAD + (
        "  Task 'a': join Task 'b'\n"
        "  Task 'b': join Task 'c'\n"
        "  Task 'c': join Task 'a'\n"
        "  main greenlet: join Task 'a'\n"
        "because:\n"
        "  Task 'a' waits for Task 'b', which waits for Task 'c', which waits for Task 'a'"
    )


def test_circle_of_a_join_and_a_lock(hub: Hub) -> None:
    lock = Lock()

    def a() -> None:
        with lock:
            b_task.join()

    def b() -> None:
        with lock:
            pass

    a_task, b_task = named("a", a), named("b", b)
    assert report(lambda: sleep(1) or a_task.join()) == HEAD + (  # type: ignore[func-returns-value]
        "  Task 'a': join Task 'b'\n"
        "  Task 'b': acquire <Lock held by Task 'a', 1 waiting>\n"
        "  main greenlet: join Task 'a'\n"
        "because:\n"
        "  Task 'a' waits for Task 'b', which waits for Task 'a'"
    )


@pytest.mark.parametrize("kind", [Lock, RLock])
def test_circle_of_locks_taken_in_opposite_order(hub: Hub, kind: type[Lock]) -> None:
    locks = kind(), kind()

    def take(first: int, second: int) -> None:
        with locks[first]:
            sleep(1)
            with locks[second]:
                pass

    tasks = [named("a", take, 0, 1), named("b", take, 1, 0)]
    assert report(lambda: joinall(tasks)) == HEAD + (
        f"  Task 'a': acquire <{kind.__name__} held by Task 'b', 1 waiting>\n"
        f"  Task 'b': acquire <{kind.__name__} held by Task 'a', 1 waiting>\n"
        "  main greenlet: join Task 'a'\n"
        "because:\n"
        "  Task 'a' waits for Task 'b', which waits for Task 'a'"
    )


def test_main_may_be_part_of_the_circle(hub: Hub) -> None:
    lock = Lock()
    task = named("a", lock.acquire)

    def main() -> None:
        with lock:
            task.join()

    assert report(main) == HEAD + (
        "  main greenlet: join Task 'a'\n"
        "  Task 'a': acquire <Lock held by main greenlet, 1 waiting>\n"
        "because:\n"
        "  main greenlet waits for Task 'a', which waits for main greenlet"
    )


def test_join_of_itself(hub: Hub) -> None:
    def narcissus() -> None:
        greenswitch.getcurrent().join()

    task = named("narcissus", narcissus)
    assert report(task.join) == HEAD + (
        "  Task 'narcissus': join Task 'narcissus'\n"
        "  main greenlet: join Task 'narcissus'\n"
        "because:\n"
        "  Task 'narcissus' waits for itself"
    )


def test_lock_taken_twice_by_the_same_task(hub: Hub) -> None:
    lock = Lock()

    def twice() -> None:
        with lock, lock:
            pass

    task = named("a", twice)
    assert report(task.join) == HEAD + (
        "  Task 'a': acquire <Lock held by Task 'a', 1 waiting>\n"
        "  main greenlet: join Task 'a'\n"
        "because:\n"
        "  Task 'a' waits for itself"
    )


def test_lock_whose_owner_has_ended(hub: Hub) -> None:
    lock = RLock()
    named("forgetful", lock.acquire).join()
    assert report(lock.acquire) == HEAD + (
        "  main greenlet: acquire <RLock held by Task 'forgetful', which has ended, 1 waiting>\n"
        "because:\n"
        "  <RLock held by Task 'forgetful', which has ended, 1 waiting>: "
        "Task 'forgetful' has ended and has not released it"
    )


class Case:
    """One thing that main waits for alone, the line that says so, and the reason."""

    def __init__(self, call: Callable[[], object], waits: str, because: str) -> None:
        self.call, self.waits, self.because = call, waits, because


def unfinished() -> Queue[int]:
    queue = Queue[int](items=[1, 2, 3])
    queue.get()
    queue.get()
    queue.task_done()
    return queue


def done_but_for_one() -> Queue[int]:
    queue = unfinished()
    queue.get()
    queue.task_done()
    return queue


def lost_wake_up() -> None:
    """The notification comes before anybody waits: the classical one."""
    condition = Condition()
    with condition:
        condition.notify()
    with condition:
        condition.wait()


CASES = {
    "event": Case(lambda: Event().wait(), "wait for <Event not set, 1 waiting>", "nobody sets it"),
    "result": Case(lambda: AsyncResult().get(), "wait for <AsyncResult not set, 1 waiting>", "nobody sets it"),
    "condition": Case(lost_wake_up, "wait for <Condition on <RLock free>, 1 waiting>", "nobody notifies it"),
    "semaphore": Case(lambda: Semaphore(0).acquire(), "acquire <Semaphore none free, 1 waiting>", "nobody releases it"),
    "bounded": Case(
        lambda: BoundedSemaphore(0).acquire(), "acquire <BoundedSemaphore none free, 1 waiting>", "nobody releases it"
    ),
    "barrier": Case(lambda: Barrier(3).wait(), "wait for <Barrier 1 of 3 here>", "2 more have to come"),
    "barrier for two": Case(lambda: Barrier(2).wait(), "wait for <Barrier 1 of 2 here>", "1 more has to come"),
    "get": Case(
        lambda: Queue[int]().get(),
        "get from <Queue 0 items, 1 waiting to get, main greenlet first>",
        "nobody puts anything in",
    ),
    "peek": Case(lambda: Queue[int]().peek(), "peek at <Queue 0 items>", "nobody puts anything in"),
    "put": Case(
        lambda: Queue(1, items=[1]).put(2),
        "put into <Queue 1/1 items, 1 waiting to put, main greenlet first>",
        "nobody takes anything out",
    ),
    "task_done": Case(
        lambda: unfinished().join(),
        "join <Queue 1 item, 1 waiting to join (2 unfinished)>",
        "task_done() has not been called for 1 item that has been taken out",
    ),
    "task_done of the last": Case(
        lambda: done_but_for_one().join(),
        "join <Queue 0 items, 1 waiting to join (1 unfinished)>",
        "task_done() has not been called for 1 item that has been taken out",
    ),
    "nothing taken": Case(
        lambda: Queue(items=[1, 2]).join(),
        "join <Queue 2 items, 1 waiting to join (2 unfinished)>",
        "nobody takes anything out",
    ),
    "channel get": Case(
        lambda: Channel[int]().get(),
        "get from <Channel 1 waiting to get, main greenlet first>",
        "nobody puts anything in",
    ),
    "channel put": Case(
        lambda: Channel[int]().put(1),
        "put into <Channel 1 waiting to put, main greenlet first>",
        "nobody takes anything out",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_has_not_happened_is_said(hub: Hub, name: str) -> None:
    case = CASES[name]
    target = case.waits[case.waits.index("<") :]
    assert report(case.call) == HEAD + f"  main greenlet: {case.waits}\nbecause:\n  {target}: {case.because}"


def test_forgotten_task_done_of_a_worker(hub: Hub) -> None:
    queue = Queue[int]()

    def work() -> None:
        for number in queue:
            if number != 2:
                queue.task_done()

    named("worker", work)
    for number in range(4):
        queue.put(number)
    text = "<Queue 0 items, 1 waiting to get, Task 'worker' first, 1 waiting to join (1 unfinished)>"
    assert report(queue.join) == HEAD + (
        f"  main greenlet: join {text}\n"
        f"  Task 'worker': get from {text}\n"
        "because:\n"
        f"  {text}: task_done() has not been called for 1 item that has been taken out\n"
        f"  {text}: nobody puts anything in"
    )


def test_waiting_for_any_of_several_names_them(hub: Hub) -> None:
    event = Event()
    tasks = [named("a", event.wait), named("b", event.wait)]
    assert report(lambda: list(iwait(tasks))) == HEAD + (
        "  Task 'a': wait for <Event not set, 2 waiting>\n"
        "  Task 'b': wait for <Event not set, 2 waiting>\n"
        "  main greenlet: wait for any of [Task 'a', Task 'b']\n"
        "because:\n"
        "  <Event not set, 2 waiting>: nobody sets it"
    )


def test_way_out_of_a_circle_is_what_is_to_blame(hub: Hub) -> None:
    """Were the event set, all would go on: that `a` and main wait for each other is nothing wrong."""
    event = Event()
    main = greenlet.getcurrent()
    a, b = named("a", lambda: hub.park(Waiter(hub, "join", [main]))), named("b", event.wait)
    text = report(lambda: wait([a, b], count=1))
    assert "because:\n  <Event not set, 1 waiting>: nobody sets it" in text


def test_group_and_pool_wait_for_their_tasks(hub: Hub) -> None:
    lock = Lock()

    def in_group() -> None:
        with TaskGroup() as group:
            group.spawn(lock.acquire).name = "child"

    def in_pool() -> None:
        pool = Pool(1)
        pool.spawn(lock.acquire).name = "call"
        with pytest.raises(greenlet.GreenletExit):
            pool.spawn(sleep)

    def main_function() -> None:
        with lock:
            joinall([named("group", in_group), named("pool", in_pool)])

    assert report(main_function) == HEAD + (
        "  main greenlet: join Task 'group'\n"
        "  Task 'group': wait for <TaskGroup closing, 1 tasks>\n"
        "  Task 'child': acquire <Lock held by main greenlet, 2 waiting>\n"
        "  Task 'pool': acquire <place in a Pool, none free, 1 waiting>\n"
        "  Task 'call': acquire <Lock held by main greenlet, 2 waiting>\n"
        "because:\n"
        "  main greenlet waits for Task 'group', which waits for Task 'child', which waits for main greenlet"
    )


def test_select_from_several_queues(hub: Hub) -> None:
    queues = Queue[int](), Channel[int]()
    assert report(lambda: select(*queues)) == HEAD + (
        "  main greenlet: select from [<Queue 0 items, 1 waiting to get, main greenlet first>, "
        "<Channel 1 waiting to get, main greenlet first>]\n"
        "because:\n"
        "  <Queue 0 items, 1 waiting to get, main greenlet first>: nobody puts anything in\n"
        "  <Channel 1 waiting to get, main greenlet first>: nobody puts anything in"
    )


def test_ten_thousand_who_wait_make_a_short_report_with_the_culprits_first(hub: Hub) -> None:
    event = Event()
    chain = [named("last", event.wait)]
    for _ in range(10_000):
        chain.append(spawn(chain[-1].join))
    text = report(chain[-1].join)
    lines = text.splitlines()
    assert lines[1] == "  Task 'last': wait for <Event not set, 1 waiting>"
    assert lines[-3:] == ["  and 9,982 more", "because:", "  <Event not set, 1 waiting>: nobody sets it"]
    assert len(lines) == 1 + 20 + 3


def test_circles_are_found_in_linear_time_and_each_once() -> None:
    here = greenlet.getcurrent()
    waiter: Any = None

    def waits(*pairs: tuple[int, list[int]], one_will_do: bool = False) -> list[Wait]:
        things: dict[int, object] = {}
        named = lambda number: things.setdefault(number, f"thing {number}")  # noqa: E731
        return [Wait(named(who), here, waiter, [named(k) for k in whom], one_will_do) for who, whom in pairs]

    assert circles(waits((1, [2]), (2, [3]))) == []
    assert circles(waits((1, [2]), (2, [3]), (3, [2]))) == [["thing 2", "thing 3"]]
    assert circles(waits((1, [2, 3]), (2, [1]))) == [["thing 1", "thing 2"]]
    assert circles(waits((1, [2, 3]), (2, [1]), one_will_do=True)) == []
    assert circles(waits((1, [2, 3]), (2, [1]), (3, [1]), one_will_do=True)) == [["thing 1", "thing 2"]]
    assert circles(waits((1, [2]), (2, [1]), (3, [4]), (4, [3]), (5, [1]))) == [
        ["thing 1", "thing 2"],
        ["thing 3", "thing 4"],
    ]
    many = 100_000
    assert circles(waits(*((number, [number + 1]) for number in range(many)))) == []
    ring = circles(waits(*((number, [(number + 1) % many]) for number in range(many))))
    assert len(ring) == 1 and len(ring[0]) == many


def test_repr_that_fails_or_is_endless_does_no_harm(hub: Hub) -> None:
    class Bad:
        def __repr__(self) -> str:
            return str(1 / 0)

    class Long:
        def __repr__(self) -> str:
            return "x" * 1000

    waiting = [Bad(), Long()]
    assert report(lambda: hub.park(Waiter(hub, "wait for", waiting))) == HEAD + (
        f"  main greenlet: wait for [<Bad, whose repr raises ZeroDivisionError>, {'x' * 200}…]"
    )
    assert brief([1, 2, 3, 4, 5, 6, 7]) == "[1, 2, 3, 4, 5, and 2 more]"


# -- no false alarm --------------------------------------------------------------------------------------------------


def script(body: str) -> str:
    """Run `body` in a fresh Python and return what it prints."""
    prelude = "import os, signal, sys, threading, time\nfrom greenswitch import *\nfrom greenswitch.hub import Waiter\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(body)], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.stderr == ""
    return done.stdout


def test_thread_that_only_looks_on_hides_no_deadlock_and_another_one_does() -> None:
    assert script("""
    from greenswitch.hub.bystanders import Bystander, there_are_others
    first, second = Bystander(lambda: True, 0.001), Bystander(lambda: True, 0.001)
    print(there_are_others())
    try:
        Event().wait()
    except DeadlockError as error:
        print(str(error).count("nobody sets it"))
    event = Event()
    thread = threading.Timer(0.05, event.set)
    thread.start()
    print(there_are_others())
    print(event.wait())
    thread.join()
    first.stop()
    second.stop()
    second.stop()
    try:
        Event().wait()
    except DeadlockError:
        print("again")
    """) == "False\n1\nTrue\nTrue\nagain\n"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_handler_that_says_that_it_wakes_nobody_hides_no_deadlock() -> None:
    assert script("""
    class Looks:
        wakes_nobody = True
        def caught(self, *_): pass
    signal.signal(signal.SIGUSR1, Looks().caught)
    try:
        Event().wait()
    except DeadlockError:
        print("found")
    event = Event()
    signal.signal(signal.SIGUSR2, lambda *_: event.set())
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGUSR2))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    print(event.wait())
    """) == "found\nTrue\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_forked_child_counts_no_onlooker_of_its_parent() -> None:
    assert script("""
    from greenswitch.hub.bystanders import Bystander
    looking = Bystander(lambda: True, 0.001)
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # "may lead to deadlocks": here it must not
    if os.fork() == 0:
        event = Event()
        threading.Timer(0.05, event.set).start()
        print(event.wait(), flush=True)
        os._exit(0)
    os.wait()
    looking.stop()
    """) == "True\n"


def test_onlooker_that_has_seen_enough_ends_by_itself(no_leaked_fds: None) -> None:
    looks: list[int] = []
    looking = Bystander(lambda: looks.append(1) or len(looks) < 3, 0.001)  # type: ignore[func-returns-value]
    looking._ended.acquire(timeout=10)
    assert len(looks) == 3
    looking.stop()
