"""Queues between OS threads and tasks: nothing lost, nothing twice, in order, and logging never hangs.

The interpreter is made to change threads every few microseconds, so that what can come in between does.
"""

from __future__ import annotations

import gc
import io
import logging
import logging.handlers
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from greenswitch import Hub, joinall, killall, run, sleep, spawn
from greenswitch.hub import new_waiter
from greenswitch.locks.lines import Line
from greenswitch.queues import Channel, Empty, Full, LifoQueue, PriorityQueue, Queue, ShutDown, SimpleQueue, select

THREADS = 4


@pytest.fixture(autouse=True)
def restless_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(interval)


class Threads:
    """Threads that are joined at the end, and whose errors are raised there."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        thread = threading.Thread(target=self._run, args=(function, *args), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _run(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            function(*args)
        except BaseException as error:
            self.errors.append(error)

    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(30)
        assert not self.errors, self.errors
        assert not self.alive()


def exchange(place: Any, puts: int, readers: int = 3) -> dict[int, list[Any]]:
    """Have threads put `puts` numbers each; return what each of several tasks has read, in its order."""
    threads = Threads()
    read: dict[int, list[Any]] = {number: [] for number in range(readers)}

    def write(number: int) -> None:
        for count in range(puts):
            place.put((number, count))

    def reader(number: int) -> None:
        while True:
            item = place.get()
            if item == (9, 9):
                return
            read[number].append(item)

    tasks = [spawn(reader, number) for number in range(readers)]
    for number in range(THREADS):
        threads.start(write, number)
    while threads.alive():
        sleep(0.005)
    while not (place._getters and not getattr(place, "_items", ())):
        sleep(0.005)  # a LIFO queue would give the end mark too early
    for _ in tasks:
        place.put((9, 9))
    joinall(tasks, raise_error=True)
    threads.join()
    return read


def check_all_there(read: dict[int, list[Any]], puts: int) -> None:
    counts = Counter(item for items in read.values() for item in items)
    assert sum(counts.values()) == THREADS * puts
    assert set(counts) == {(number, count) for number in range(THREADS) for count in range(puts)}


KINDS: dict[str, Callable[[], Any]] = {
    "SimpleQueue": SimpleQueue,
    "Queue": Queue,
    "Queue(1)": lambda: Queue(1),
    "Queue(7)": lambda: Queue(7),
    "LifoQueue(7)": lambda: LifoQueue(7),
    "PriorityQueue(7)": lambda: PriorityQueue(7),
    "Channel": Channel,
}
FIFO = {name: make for name, make in KINDS.items() if name.startswith(("Q", "S", "C"))}


@pytest.mark.parametrize("kind", KINDS)
def test_what_threads_put_is_read_by_tasks_once(real_hub: Hub, kind: str) -> None:
    check_all_there(exchange(KINDS[kind](), 2_000), 2_000)


@pytest.mark.parametrize("kind", FIFO)
def test_each_threads_items_come_in_its_order_to_each_reader(real_hub: Hub, kind: str) -> None:
    for items in exchange(FIFO[kind](), 2_000).values():
        for number in range(THREADS):
            counts = [count for writer, count in items if writer == number]
            assert counts == sorted(counts)


@pytest.mark.slow
def test_four_threads_put_a_hundred_thousand_each_and_tasks_read_each_once(real_hub: Hub) -> None:
    check_all_there(exchange(Queue(), 100_000, readers=10), 100_000)


@pytest.mark.parametrize("kind", KINDS)
def test_hubs_of_two_threads_exchange_through_two_queues(real_hub: Hub, kind: str) -> None:
    there, back = KINDS[kind](), KINDS[kind]()
    threads = Threads()

    def answer() -> None:
        for _ in range(300):
            back.put(there.get() + 1)

    threads.start(run, answer)
    for number in range(300):
        there.put(number, timeout=10)  # (with a timeout: the fixture's hub believes that no other thread wakes anyone)
        assert back.get(timeout=10) == number + 1
    threads.join()


@pytest.mark.parametrize("kind", KINDS)
def test_timeouts_and_kills_of_either_side_lose_nothing(real_hub: Hub, kind: str) -> None:
    place = KINDS[kind]()
    threads, done, got = Threads(), [], []
    seed = random.randrange(10**6)
    print("seed", seed)

    def write(number: int) -> None:
        luck = random.Random(seed + number)
        for count in range(400):
            try:
                place.put((number, count), timeout=luck.choice([0, 0.0001, 0.001]))
            except Full:
                continue
            done.append((number, count))

    def read() -> None:
        while True:
            try:
                got.append(place.get(timeout=0.0003))
            except Empty:
                pass

    def read_selecting() -> None:
        while True:
            try:
                got.append(select(place, Queue(), timeout=0.0003)[1])
            except TimeoutError:
                pass

    for number in range(THREADS):
        threads.start(write, number)
    tasks = [spawn(read), spawn(read), spawn(read_selecting)]
    while threads.alive():
        sleep(0.002)
        tasks.pop(0).kill()
        tasks.append(spawn(read))
    threads.join()
    killall(tasks)
    while True:
        try:
            got.append(place.get_nowait())
        except Empty:
            break
    assert Counter(got) == Counter(done)
    assert not place._getters and not place._putters
    for number in range(getattr(place, "maxsize", 0)):
        place.put_nowait((number, 0))  # no slot is lost
    if getattr(place, "maxsize", 0):
        with pytest.raises(Full):
            place.put_nowait((0, 0))


def test_shutdown_amid_a_hand_over_tells_no_getter_that_nothing_is_left(hub: Hub) -> None:
    queue: PriorityQueue[int] = PriorityQueue()
    shutting = threading.Thread(target=queue.shutdown)
    late = new_waiter("get from", queue)

    class Getters(Line):
        def give(self, thing: object = True) -> bool:
            if not shutting.ident:
                shutting.start()
                shutting.join(0.1)  # it has to wait until this is over
            return super().give(thing)

    def store(item: int, store: Callable[[int], Any] = queue._store) -> Any:
        queue._getters.append(late)  # another thread's, who has seen that nothing is there
        return store(item)

    queue._getters, queue._store = Getters(), store  # type: ignore[method-assign]
    queue.put(1)
    shutting.join(10)
    assert (late.value, late.error, queue.qsize()) == (1, None, 0)
    late.hub.park(late)


@pytest.mark.parametrize("kind", [name for name in KINDS if name not in ("SimpleQueue", "Channel")])
def test_what_is_put_before_the_shutdown_is_read_and_no_reader_hangs(real_hub: Hub, kind: str) -> None:
    for _ in range(20):
        queue, threads = KINDS[kind](), Threads()
        done: list[Any] = []

        def write(number: int, queue: Any = queue, done: list[Any] = done) -> None:
            for count in range(50):
                try:
                    queue.put((number, count))
                except ShutDown:
                    return
                done.append((number, count))

        for number in range(THREADS):
            threads.start(write, number)
        readers = [spawn(list, queue) for _ in range(3)]
        sleep(0.001)
        threads.start(queue.shutdown)
        joinall(readers, timeout=10)
        threads.join()
        got = [item for reader in readers for item in reader.get(timeout=0)]
        assert Counter(got) == Counter(done)


def test_threads_mark_items_as_done_while_a_task_joins(real_hub: Hub) -> None:
    for _ in range(30):
        queue, threads = Queue(items=range(40)), Threads()

        def work(queue: Queue[int] = queue) -> None:
            while True:
                try:
                    queue.get_nowait()
                except Empty:
                    return
                queue.task_done()

        for _ in range(THREADS):
            threads.start(work)
        queue.join(timeout=10)
        assert queue.unfinished_tasks == 0
        threads.join()


class Ranked:
    """Compares by Python code, in which the interpreter may change threads."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __lt__(self, other: Ranked) -> bool:
        return self.rank < other.rank


def test_priority_queue_keeps_its_order_whatever_the_comparing_does(real_hub: Hub) -> None:
    queue: PriorityQueue[Ranked] = PriorityQueue()
    threads, early, ranks = Threads(), [], list(range(4_000))
    random.Random(1).shuffle(ranks)

    def write(number: int) -> None:
        for rank in ranks[number::THREADS]:
            queue.put(Ranked(rank))

    def read() -> None:
        while len(early) < 1_000:
            try:
                early.append(queue.get_nowait().rank)
            except Empty:
                pass

    for number in range(THREADS):
        threads.start(write, number)
    threads.start(read)
    read()
    threads.join()
    late = [queue.get_nowait().rank for _ in range(queue.qsize())]
    assert late == sorted(late) and sorted(early + late) == sorted(ranks)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("kind", ["SimpleQueue", "Queue", "PriorityQueue(7)", "Queue(7)"])
def test_signal_handler_may_put_amid_anything(real_hub: Hub, kind: str) -> None:
    queue = KINDS[kind]()
    put, got, handled = [], [], [0]

    def handler(number: int, frame: Any) -> None:
        handled[0] += 1
        item = (0, handled[0])  # the next signal may come before this one has been dealt with
        try:
            queue.put_nowait(item)
        except Full:
            return
        put.append(item)

    def read() -> None:
        while True:
            got.append(queue.get())

    reader = spawn(read)
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        for count in range(3_000):
            queue.put((1, count))
            put.append((1, count))
            if count % 5 == 0:
                sleep(0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    while len(got) < len(put):
        sleep(0.001)
    reader.kill()
    assert handled[0] > 5
    assert Counter(got) == Counter(put)


def test_finalisers_of_several_threads_put_into_the_queue_they_interrupt(real_hub: Hub) -> None:
    queue: Queue[Any] = Queue()
    threads, got = Threads(), []

    class Dying:
        def __init__(self, name: tuple[str, int, int]) -> None:
            self.name, self.ring = name, self

        def __del__(self) -> None:
            queue.put(self.name)

    def write(number: int) -> None:
        for count in range(300):
            Dying(("dead", number, count))
            queue.put(("alive", number, count))

    threshold = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for number in range(THREADS):
            threads.start(write, number)
        while len(got) < THREADS * 300:
            got.append(queue.get(timeout=10))
        threads.join()
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    while not queue.empty():
        got.append(queue.get_nowait())
    assert len(got) == len(set(got)) == THREADS * 600


# -- logging -----------------------------------------------------------------------------------------------------------


def log_from_everywhere(logger: logging.Logger, each: int) -> int:
    """Log from 4 threads and 100 tasks at once; return how many records that makes."""
    threads = Threads()

    def work(name: str, pause: Callable[[], None]) -> None:
        for count in range(each):
            logger.warning("%s says %d", name, count)
            pause()

    for number in range(THREADS):
        threads.start(work, f"thread {number}", lambda: None)
    tasks = [spawn(work, f"task {number}", lambda: sleep(0)) for number in range(100)]
    joinall(tasks, raise_error=True)
    while threads.alive():
        sleep(0.001)
    threads.join()
    return (THREADS + 100) * each


def test_logging_from_threads_and_tasks_to_one_stream_never_hangs(real_hub: Hub) -> None:
    stream = io.StringIO()
    logger = logging.Logger("greenswitch-stream")
    logger.addHandler(logging.StreamHandler(stream))
    records = log_from_everywhere(logger, 20)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(set(lines)) == records


def test_logging_through_our_queue_from_threads_and_tasks_never_hangs(real_hub: Hub) -> None:
    queue: Queue[Any] = Queue()
    stream = io.StringIO()
    logger = logging.Logger("greenswitch-queue")
    handler = logging.handlers.QueueHandler(queue)
    logger.addHandler(handler)
    listener = logging.handlers.QueueListener(queue, logging.StreamHandler(stream))  # reads in a thread of its own
    listener.start()
    records = log_from_everywhere(logger, 20)
    queue.join(timeout=10)
    listener.stop()
    handler.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(set(lines)) == records
