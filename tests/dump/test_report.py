"""What a dump says of each task: a hundred that wait, in every way there is, and those that don't."""

from __future__ import annotations

import json
import os
import re
import socket as plain
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from time import monotonic
from typing import Any
from unittest import mock

import greenlet
import pytest

import greenswitch
from greenswitch import (
    Pool,
    TaskGroup,
    iwait,
    joinall,
    killall,
    move_on_after,
    names,
    sleep,
    sockets,
    spawn,
    spawn_later,
    timeout,
    to_thread,
    wait,
    wait_readable,
    wait_writable,
    wrap_future,
)
from greenswitch.dump import Report, dump, note_spawns, note_times
from greenswitch.hub import Hub, Waiter
from greenswitch.locks import AsyncResult, Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore
from greenswitch.queues import Channel, LifoQueue, PriorityQueue, Queue, SimpleQueue, select
from greenswitch.testing import VirtualTime

LOCALHOST = ("127.0.0.1", 0)
PEERS = r"fd \d+ \(127\.0\.0\.1:\d+, peer 127\.0\.0\.1:\d+\)"


class Stage:
    """What the tasks wait for, and how to get rid of it."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.helpers: list[greenswitch.Task] = []

    def named(self, name: str, function: Callable[..., Any], *args: Any) -> greenswitch.Task:
        task = spawn(function, *args)
        task.name = name
        self.helpers.append(task)
        return task

    def sleeper(self) -> greenswitch.Task:
        return self.named("sleeper", sleep, 1e6)

    def pair(self) -> tuple[sockets.Socket, sockets.Socket]:
        with sockets.create_server(LOCALHOST) as listener:
            ours = self.stack.enter_context(sockets.create_connection(listener.getsockname()))
            theirs = self.stack.enter_context(listener.accept()[0])
        return ours, theirs

    def pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        for fd in ends:
            os.set_blocking(fd, False)
            self.stack.callback(os.close, fd)
        return ends

    def held(self, lock: Any, name: str = "holder") -> Any:
        def hold() -> None:
            with lock:
                sleep(1e6)

        self.named(name, hold)
        return lock


Kind = Callable[[Stage], tuple[Callable[[], Any], str]]
KINDS: dict[str, Kind] = {}


def kind(function: Kind) -> Kind:
    KINDS[function.__name__] = function
    return function


@kind
def recv(stage: Stage) -> tuple[Callable[[], Any], str]:
    conn, _ = stage.pair()
    return lambda: conn.recv(10), f"read {PEERS} in Socket.recv"


@kind
def recv_into(stage: Stage) -> tuple[Callable[[], Any], str]:
    conn, _ = stage.pair()
    return lambda: conn.recv_into(bytearray(10)), f"read {PEERS} in Socket.recv_into"


@kind
def recv_with_a_timeout(stage: Stage) -> tuple[Callable[[], Any], str]:
    conn, _ = stage.pair()
    conn.settimeout(90)
    return lambda: conn.recv(10), f"read {PEERS} in Socket.recv, 90 s left"


@kind
def recvfrom(stage: Stage) -> tuple[Callable[[], Any], str]:
    conn = stage.stack.enter_context(sockets.Socket(plain.AF_INET, plain.SOCK_DGRAM))
    conn.bind(LOCALHOST)
    return lambda: conn.recvfrom(10), r"read fd \d+ \(127\.0\.0\.1:\d+\) in Socket.recvfrom"


@kind
def sendall(stage: Stage) -> tuple[Callable[[], Any], str]:
    conn, _ = stage.pair()
    return lambda: conn.sendall(bytes(20_000_000)), f"write {PEERS} in Socket.sendall"


@kind
def readline_of_a_file(stage: Stage) -> tuple[Callable[[], Any], str]:
    conn, _ = stage.pair()
    file = stage.stack.enter_context(conn.makefile("rb"))
    return file.readline, f"read {PEERS} in Socket.recv_into"


@kind
def accept(stage: Stage) -> tuple[Callable[[], Any], str]:
    listener = stage.stack.enter_context(sockets.create_server(LOCALHOST))
    return listener.accept, r"read fd \d+ \(127\.0\.0\.1:\d+\) in Socket.accept"


@kind
def connect(stage: Stage) -> tuple[Callable[[], Any], str]:
    listener = stage.stack.enter_context(plain.create_server(LOCALHOST, backlog=0))
    conns = [stage.stack.enter_context(sockets.Socket()) for _ in range(4)]
    for conn in conns[1:]:  # the kernel answers no more than it can queue
        conn.setblocking(False)
        conn.connect_ex(listener.getsockname())
    return lambda: conns[0].connect(listener.getsockname()), r"write fd \d+ \(127\.0\.0\.1:\d+\) in Socket.connect"


@kind
def unix_socket(stage: Stage) -> tuple[Callable[[], Any], str]:
    conn, other = sockets.socketpair()
    stage.stack.enter_context(conn)
    stage.stack.enter_context(other)
    return lambda: conn.recv(10), r"read fd \d+ \(unnamed, peer unnamed\) in Socket.recv"


@kind
def readable_pipe(stage: Stage) -> tuple[Callable[[], Any], str]:
    reading, _ = stage.pipe()
    return lambda: wait_readable(reading), rf"read fd {reading} \(pipe:\[\d+\]\) in wait_readable"


@kind
def writable_pipe(stage: Stage) -> tuple[Callable[[], Any], str]:
    _, writing = stage.pipe()
    while True:
        try:
            os.write(writing, bytes(65536))
        except BlockingIOError:
            break
    return lambda: wait_writable(writing, 7), rf"write fd {writing} \(pipe:\[\d+\]\) in wait_writable, 7 s left"


@kind
def lock(stage: Stage) -> tuple[Callable[[], Any], str]:
    return stage.held(Lock()).acquire, "acquire <Lock held by Task 'holder', 1 waiting> in Lock.acquire"


@kind
def lock_with_a_timeout(stage: Stage) -> tuple[Callable[[], Any], str]:
    held = stage.held(Lock(), "h")
    return lambda: held.acquire(timeout=3), "acquire <Lock held by Task 'h', 1 waiting> in Lock.acquire, 3 s left"


@kind
def rlock(stage: Stage) -> tuple[Callable[[], Any], str]:
    return stage.held(RLock()).acquire, "acquire <RLock held by Task 'holder', 1 waiting> in RLock.acquire"


@kind
def semaphore(stage: Stage) -> tuple[Callable[[], Any], str]:
    return stage.held(Semaphore()).acquire, "acquire <Semaphore none free, 1 waiting> in Semaphore.acquire"


@kind
def bounded_semaphore(stage: Stage) -> tuple[Callable[[], Any], str]:
    return BoundedSemaphore(0).acquire, "acquire <BoundedSemaphore none free, 1 waiting> in BoundedSemaphore.acquire"


@kind
def condition(stage: Stage) -> tuple[Callable[[], Any], str]:
    condition = Condition()

    def wait() -> None:
        with condition:
            condition.wait()

    return wait, "wait for <Condition on <RLock free>, 1 waiting> in Condition.wait"


@kind
def condition_with_a_predicate(stage: Stage) -> tuple[Callable[[], Any], str]:
    condition = Condition(Lock())

    def wait() -> None:
        with condition:
            condition.wait_for(lambda: False, 12)

    return wait, "wait for <Condition on <Lock free>, 1 waiting> in Condition.wait_for, 12 s left"


@kind
def event(stage: Stage) -> tuple[Callable[[], Any], str]:
    return Event().wait, "wait for <Event not set, 1 waiting> in Event.wait"


@kind
def result(stage: Stage) -> tuple[Callable[[], Any], str]:
    return AsyncResult().get, "wait for <AsyncResult not set, 1 waiting> in AsyncResult.get"


@kind
def barrier(stage: Stage) -> tuple[Callable[[], Any], str]:
    return Barrier(2).wait, "wait for <Barrier 1 of 2 here> in Barrier.wait"


@kind
def queue_get(stage: Stage) -> tuple[Callable[[], Any], str]:
    return Queue[int]().get, "get from <Queue 0 items, 1 waiting to get, Task 'queue_get' first> in Queue.get"


@kind
def queue_loop(stage: Stage) -> tuple[Callable[[], Any], str]:
    queue = Queue[int](3)
    text = "get from <Queue 0/3 items, 1 waiting to get, Task 'queue_loop' first> in Queue.__next__"
    return lambda: list(queue), text


@kind
def queue_put(stage: Stage) -> tuple[Callable[[], Any], str]:
    queue = Queue[int](2, [1, 2])
    text = "put into <Queue 2/2 items, 1 waiting to put, Task 'queue_put' first> in Queue.put, 5 s left"
    return lambda: queue.put(3, timeout=5), text


@kind
def queue_join(stage: Stage) -> tuple[Callable[[], Any], str]:
    return Queue(items=[1]).join, r"join <Queue 1 item, 1 waiting to join \(1 unfinished\)> in Queue.join"


@kind
def queue_peek(stage: Stage) -> tuple[Callable[[], Any], str]:
    return Queue[int]().peek, "peek at <Queue 0 items> in Queue.peek"


@kind
def lifo_queue(stage: Stage) -> tuple[Callable[[], Any], str]:
    return LifoQueue[int]().get, "get from <LifoQueue 0 items, 1 waiting to get, .*> in LifoQueue.get"


@kind
def priority_queue(stage: Stage) -> tuple[Callable[[], Any], str]:
    return PriorityQueue[int]().get, "get from <PriorityQueue 0 items, 1 waiting to get, .*> in PriorityQueue.get"


@kind
def simple_queue(stage: Stage) -> tuple[Callable[[], Any], str]:
    return SimpleQueue[int]().get, "get from <SimpleQueue 0 items, 1 waiting to get, .*> in SimpleQueue.get"


@kind
def channel_get(stage: Stage) -> tuple[Callable[[], Any], str]:
    return Channel[int]().get, "get from <Channel 1 waiting to get, Task 'channel_get' first> in Channel.get"


@kind
def channel_put(stage: Stage) -> tuple[Callable[[], Any], str]:
    channel = Channel[int]()
    return lambda: channel.put(1), "put into <Channel 1 waiting to put, Task 'channel_put' first> in Channel.put"


@kind
def select_one(stage: Stage) -> tuple[Callable[[], Any], str]:
    queue, channel = Queue[int](), Channel[int]()
    text = r"select from \[<Queue 0 items, 1 waiting to get, .*>, <Channel 1 waiting to get, .*>\] in select"
    return lambda: select(queue, channel), text


@kind
def join(stage: Stage) -> tuple[Callable[[], Any], str]:
    return stage.sleeper().join, "join Task 'sleeper' in Task.join"


@kind
def get(stage: Stage) -> tuple[Callable[[], Any], str]:
    sleeper = stage.sleeper()
    return lambda: sleeper.get(timeout=4), "join Task 'sleeper' in Task.get, 4 s left"


@kind
def join_all(stage: Stage) -> tuple[Callable[[], Any], str]:
    sleepers = [stage.named("one", sleep, 1e6), stage.named("two", sleep, 1e6)]
    return lambda: joinall(sleepers), "join Task 'one' in joinall"


@kind
def wait_for_all(stage: Stage) -> tuple[Callable[[], Any], str]:
    objects = [stage.sleeper(), Event(), Semaphore(0)]
    text = r"wait for any of \[Task 'sleeper', <Event not set, 1 waiting>, <Semaphore none free>\] in wait"
    return lambda: wait(objects), text


@kind
def iterated_wait(stage: Stage) -> tuple[Callable[[], Any], str]:
    sleepers = [stage.sleeper() for _ in range(7)]
    text = r"wait for any of \[(Task 'sleeper', ){5}and 2 more\] in iwait, 8 s left"
    return lambda: list(iwait(sleepers, timeout=8)), text


@kind
def kill(stage: Stage) -> tuple[Callable[[], Any], str]:
    def stubborn() -> None:
        try:
            sleep(1e6)
        except greenlet.GreenletExit:
            sleep(1e6)

    task = stage.named("stubborn", stubborn)
    return lambda: (sleep(0), task.kill()), "join Task 'stubborn' in Task.kill"


@kind
def sleeping(stage: Stage) -> tuple[Callable[[], Any], str]:
    return lambda: sleep(77), "sleep 77, 77 s left"


@kind
def sleeping_in_a_deadline(stage: Stage) -> tuple[Callable[[], Any], str]:
    def block() -> None:
        with timeout(30), move_on_after(20):
            sleep(77)

    return block, r"sleep 77, 77 s left, 20 s left of move_on_after\(20\), 30 s left of timeout\(30\)"


@kind
def in_a_thread(stage: Stage) -> tuple[Callable[[], Any], str]:
    done = threading.Event()
    stage.stack.callback(done.set)

    def blocks() -> None:
        done.wait(30)

    return lambda: to_thread(blocks), "run in a thread blocks in to_thread"


@kind
def future(stage: Stage) -> tuple[Callable[[], Any], str]:
    future: Future[None] = Future()
    return lambda: wrap_future(future, 6), r"get the result of <Future at \S+ state=pending> in wrap_future, 6 s left"


@kind
def name_of_a_host(stage: Stage) -> tuple[Callable[[], Any], str]:
    found = threading.Event()
    stage.stack.callback(found.set)

    def getaddrinfo(*address: Any) -> list[Any]:
        found.wait(30)
        return []

    stage.stack.enter_context(mock.patch.object(names, "_getaddrinfo", getaddrinfo))
    call = lambda: sockets.create_connection(("name.invalid", 80))  # noqa: E731
    return call, "run in a thread getaddrinfo in create_connection"


@kind
def full_pool(stage: Stage) -> tuple[Callable[[], Any], str]:
    pool = Pool(1)
    stage.helpers.append(pool.spawn(sleep, 1e6))
    return lambda: pool.spawn(sleep), "acquire <place in a Pool, none free, 1 waiting> in Pool.spawn"


@kind
def pool_join(stage: Stage) -> tuple[Callable[[], Any], str]:
    pool = Pool(1)
    stage.helpers.append(pool.spawn(sleep, 1e6))
    return pool.join, "join <Pool of 1: 1 running> in Pool.join"


@kind
def pool_map(stage: Stage) -> tuple[Callable[[], Any], str]:
    pool = Pool(3)
    return lambda: pool.map(sleep, [1e6, 1e6]), "map <Pool of 3: 2 running> in Pool.map"


@kind
def pool_imap(stage: Stage) -> tuple[Callable[[], Any], str]:
    pool = Pool(3)

    def take() -> None:
        with pool.imap(sleep, [1e6]) as results:
            next(results)

    return take, r"join Task 'sleep-\d+' in Results.__next__"


@kind
def pool_available(stage: Stage) -> tuple[Callable[[], Any], str]:
    pool = Pool(1)
    stage.helpers.append(pool.spawn(sleep, 1e6))
    return pool.wait_available, r"wait for any of \[<place in a Pool, none free>\] in Pool.wait_available"


@kind
def group(stage: Stage) -> tuple[Callable[[], Any], str]:
    def block() -> None:
        with TaskGroup() as group:
            group.spawn(sleep, 1e6)
            group.spawn(sleep, 1e6)

    return block, "wait for <TaskGroup closing, 2 tasks> in TaskGroup.__exit__"


@kind
def word_of_ones_own(stage: Stage) -> tuple[Callable[[], Any], str]:
    hub = greenswitch.get_hub()
    return lambda: hub.park(Waiter(hub, "wait for godot")), "wait for godot in Hub.park"


@pytest.fixture
def stage(hub: Hub) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(stack)
        killall(hub.carriers.jobs())  # type: ignore[arg-type]


def rows(report: Report | None = None) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in (report or dump()).data["hubs"][0]["rows"]}


def headings(report: Report, names: set[str]) -> list[str]:
    """Return the lines of the report that tell of those tasks."""
    lines = [line.strip() for line in str(report).splitlines()]
    return [line for line in lines if any(line.startswith(f"Task {name!r}: ") for name in names)]


def waiting(call: Callable[[], Any]) -> None:
    call()


def test_a_hundred_that_wait_in_all_ways_have_a_hundred_right_reasons(stage: Stage) -> None:
    assert len(KINDS) == 50
    expected: list[tuple[str, str]] = []
    started = []
    for make in sorted(KINDS.values(), key=lambda make: make is not in_a_thread):
        for _ in range(2):
            call, reason = make(stage)
            started.append(spawn(waiting, call))
            started[-1].name = make.__name__
            expected.append((make.__name__, reason))
    for _ in range(20):
        sleep(0)
    report = dump()
    lines = headings(report, set(KINDS))
    assert len(lines) == len(started) == 100
    for name, reason in expected:
        right = [line for line in lines if re.fullmatch(f"Task '{name}': parked, {reason}", line)]
        assert right, (reason, headings(report, {name}))
        lines.remove(right[0])
    told = [row for row in report.data["hubs"][0]["rows"] if row["name"][6:-1] in KINDS]
    here = [__file__, waiting.__code__.co_firstlineno + 1, "waiting"]
    assert [row["where"][-1] for row in told] == [here] * 100


def test_place_is_the_programs_own_line_and_those_that_called_it(hub: Hub) -> None:
    def inner() -> None:
        sleep(5)

    def outer() -> None:
        inner()

    task = spawn(outer)
    sleep(0)
    where = rows()[task.label]["where"]
    assert where == [
        [__file__, inner.__code__.co_firstlineno + 1, "inner"],
        [__file__, outer.__code__.co_firstlineno + 1, "outer"],
    ]
    assert (
        f"Task {task.name!r}: parked, sleep 5, 5 s left\n"
        f"      at   {__file__}:{where[0][1]} in inner\n"
        f"      from {__file__}:{where[1][1]} in outer\n"
    ) in f"{dump()}\n"
    task.kill()


def test_states(hub: Hub) -> None:
    by_hand = greenlet.greenlet(hub.greenlet.switch)

    def switches_by_hand() -> None:
        by_hand.parent = greenlet.getcurrent()
        by_hand.switch()

    def look() -> dict[str, str]:
        return {name: row["state"] for name, row in rows().items()}

    started = [spawn(sleep, 5), spawn(sleep, 0)]
    looking = spawn(look)
    new, later = spawn(sleep), spawn_later(3, sleep)
    names = [task.label for task in (*started, looking, new, later)]
    states = looking.get()
    assert [states[name] for name in names] == ["parked", "ready", "running", "new", "new"]
    assert states["main greenlet"] == "parked"
    assert rows()[later.label]["starts_in"] == 3
    assert look()["main greenlet"] == "running"
    away = spawn(switches_by_hand)
    sleep(0)
    assert look()[away.label] == "away"
    assert f"{away.label}: has switched away by hand\n" in str(dump())
    hub.call_soon(by_hand.throw, greenlet.GreenletExit)
    away.join()
    killall([*started, later])


def test_raw_greenlet_that_waits_is_listed(hub: Hub) -> None:
    one = greenlet.greenlet(lambda: sleep(3), hub.greenlet)
    hub.call_soon(one.switch)
    sleep(1)
    row = rows()[f"greenlet {id(one):#x}"]
    assert (row["state"], row["waits"]["verb"], row["is_task"]) == ("parked", "sleep", False)
    sleep(3)


def test_times_are_noted_from_the_time_on_when_somebody_asks_for_it(hub: Hub, time: VirtualTime) -> None:
    early = spawn(sleep, 100)
    sleep(3)
    assert "since when: unknown, since greenswitch.dump.note_times() has not been called" in str(dump())
    assert rows()[early.label]["since"] is None
    note_times()
    note_times()
    try:
        late = spawn(sleep, 100)
        sleep(5)
        found = rows()
        assert found[early.label]["since"] == {"seconds": 5, "exact": False}
        assert found[late.label]["since"] == {"seconds": 5, "exact": True}
        assert found["main greenlet"]["since"] is None
        text = str(dump())
        assert f"{early.label}: parked for at least 5 s, sleep 100, 92 s left\n" in text
        assert f"{late.label}: parked for 5 s, sleep 100, 95 s left\n" in text
        assert "since when" not in text
        with VirtualTime(7).hub() as later_hub:
            task = spawn(sleep, 10)
            sleep(4)
            assert rows()[task.label]["since"] == {"seconds": 4, "exact": True}
            task.join()
            assert not later_hub.parked.since  # type: ignore[attr-defined]
    finally:
        note_times(False)
    assert type(hub.parked) is dict
    assert early.state == late.state == "parked"
    killall([early, late])


def test_who_has_spawned_whom_is_a_tree(hub: Hub) -> None:
    before = spawn(sleep, 9)
    note_spawns()
    note_spawns()
    try:

        def child(name: str) -> None:
            greenswitch.getcurrent().name = name
            sleep(9)

        def parent() -> None:
            greenswitch.getcurrent().name = "parent"
            spawn(child, "a")
            spawn(child, "b")
            sleep(9)

        def gone() -> None:
            greenswitch.getcurrent().name = "gone"
            spawn(child, "orphan")

        tasks = [spawn(parent), spawn(gone)]
        hub.call_soon(spawn, child, "of the hub")
        sleep(1)
        del tasks[1]
        lines = str(dump()).splitlines()
    finally:
        note_spawns(False)
    headings = [re.sub(":.*", "", line) for line in lines if re.match(" +(Task|main)", line)]
    assert headings == [
        "  main greenlet",
        "    Task 'parent'",
        "      Task 'a'",
        "      Task 'b'",
        f"  {before.label}",
        "  Task 'orphan'",
        "  Task 'of the hub'",
    ]
    told = {name: row["spawned"] for name, row in rows().items()}
    assert told["Task 'a'"] is None  # forgotten, when noting has ended
    at = f"{__file__}:{parent.__code__.co_firstlineno + 2} in parent"
    assert f"          spawned by Task 'parent' at {at}" in lines
    assert any(line.startswith("      spawned by Task 'gone-") or "spawned by Task 'gone'" in line for line in lines)
    assert any("spawned by a callback of the hub" in line for line in lines)
    assert "      spawned by: unknown, before it was noted" in lines
    greenswitch.wait(timeout=20)


def test_nothing_is_left_of_noting_when_it_is_over(hub: Hub) -> None:
    before = vars(greenswitch.Task)["__init__"], vars(Hub)["__init__"]
    note_spawns()
    note_times()
    assert (vars(greenswitch.Task)["__init__"], vars(Hub)["__init__"]) != before
    note_spawns(False)
    note_times(False)
    assert (vars(greenswitch.Task)["__init__"], vars(Hub)["__init__"]) == before


def test_circle_is_named_before_anybody_calls_it_a_deadlock(hub: Hub) -> None:
    tasks: list[greenswitch.Task] = []
    tasks.append(spawn(lambda: tasks[1].join(timeout=60)))
    tasks.append(spawn(lambda: tasks[0].join()))
    tasks[0].name, tasks[1].name = "a", "b"
    sleep(0)
    report = dump()
    assert report.data["hubs"][0]["circles"] == ["Task 'a' waits for Task 'b', which waits for Task 'a'"]
    assert str(report).endswith("  in a circle: Task 'a' waits for Task 'b', which waits for Task 'a'")
    joinall(tasks)
    assert dump().data["hubs"][0]["circles"] == []


def test_lack_and_keepers_are_in_the_json(hub: Hub) -> None:
    lock, queue = Lock(), Queue[int]()
    lock.acquire()
    tasks = [spawn(lock.acquire), spawn(queue.get)]
    sleep(0)
    data = json.loads(dump().to_json())
    told = {row["name"]: row["waits"] for row in data["hubs"][0]["rows"]}
    assert told[tasks[0].label]["keepers"] == ["main greenlet"]
    assert [lack.split(": ")[1] for lack in told[tasks[1].label]["lacks"]] == ["nobody puts anything in"]
    assert data["pid"] == os.getpid()
    killall(tasks)


def test_report_survives_json_and_says_the_same(hub: Hub) -> None:
    task = spawn(sleep, 5)
    sleep(0)
    report = dump()
    assert str(Report.from_json(report.to_json())) == str(report)
    assert repr(report).startswith("<Report of 2 ")
    task.kill()


def test_dump_from_a_callback_and_with_nobody_there(hub: Hub) -> None:
    seen: list[Report] = []
    hub.call_soon(lambda: seen.append(dump()))
    sleep(1)
    assert seen[0].data["hubs"][0]["doing"] == "running a callback"
    assert [row["state"] for row in seen[0].data["hubs"][0]["rows"]] == ["parked"]


def test_hubs_of_other_threads_are_listed_with_where_they_stand(no_leaked_fds: None) -> None:
    go_on = threading.Event()
    ready: list[greenlet.greenlet] = []

    def waits() -> None:
        sleep(30)

    def blocks() -> None:
        ready.append(greenlet.getcurrent())
        go_on.wait(30)

    def in_thread() -> None:
        with Hub():
            tasks = [spawn(waits), spawn(blocks)]
            tasks[1].join()
            killall(tasks)

    with Hub():
        thread = threading.Thread(target=in_thread, name="the other")
        thread.start()
        while not ready:
            sleep(0.001)
        here, there = (hub for hub in dump().data["hubs"])
        go_on.set()
        thread.join()
        assert (here["here"], there["here"], there["thread_name"]) == (True, False, "the other")
        found = {row["name"].split("-")[0]: row for row in there["rows"]}
        assert {name: row["state"] for name, row in found.items()} == {
            "main greenlet": "parked",
            "Task 'waits": "parked",
            "Task 'blocks": "running",
        }
        assert found["Task 'waits"]["where"][0][2] == "waits"
        assert "blocks" in [function for _, _, function in found["Task 'blocks"]["where"]]
        assert len(dump().data["hubs"]) == 1


def test_default_timeout_of_sockets_is_no_reason_to_touch_an_fd_of_others(real_hub: Hub) -> None:
    reading, writing = plain.socketpair()
    task = spawn(wait_readable, reading)
    sleep(0)
    plain.setdefaulttimeout(5)
    try:
        row = rows()[task.label]
        assert re.fullmatch(r"socket:\[\d+\]", row["waits"]["ends"])
        assert os.get_blocking(reading.fileno())
    finally:
        plain.setdefaulttimeout(None)
    assert rows()[task.label]["waits"]["ends"] == "unnamed, peer unnamed"
    assert os.get_blocking(reading.fileno())
    task.kill()
    reading.close()
    writing.close()


@pytest.mark.slow
def test_looking_at_a_busy_hub_of_another_thread_does_no_harm(no_leaked_fds: None) -> None:
    stop = threading.Event()
    begun = threading.Event()
    ended: list[int] = []

    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        else:
            sleep(0)

    def busy() -> None:
        while not stop.is_set():
            deep(20)
            spawn(sleep).join()  # one at a time: whoever has the GIL for long must not pile up tasks meanwhile

    def in_thread() -> None:
        with Hub():
            tasks = [spawn(busy) for _ in range(20)]
            begun.set()
            joinall(tasks)
            ended.append(len(tasks))

    thread = threading.Thread(target=in_thread)
    thread.start()
    functions = set()
    try:
        assert begun.wait(10)
        until = monotonic() + 5  # a busy thread gives up the GIL rarely
        while monotonic() < until and not {"deep", "sleep"} <= functions:
            for hub in dump().data["hubs"]:
                functions |= {place[2] for row in hub["rows"] for place in row["where"]}
        for _ in range(20):
            if monotonic() < until:
                dump()
    finally:
        stop.set()
        thread.join(30)
    assert ended == [20]
    assert {"deep", "sleep"} <= functions, functions
