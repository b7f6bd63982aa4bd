"""Queues and channels: what every kind promises, then what each promises alone."""

from __future__ import annotations

import gc
import logging.handlers
import pickle  # noqa: F401  (logging's queue handler pulls it in; not within a leak check)
import queue as stdlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import greenlet
import pytest

from greenswitch import Task, getcurrent, iwait, killall, sleep, spawn, spawn_later, wait
from greenswitch.errors import BusyError, DeadlockError, HubError
from greenswitch.hub import Hub
from greenswitch.queues import (
    Channel,
    Empty,
    Full,
    LifoQueue,
    PriorityQueue,
    Queue,
    ShutDown,
    SimpleQueue,
    select,
)
from greenswitch.testing import VirtualTime

KINDS = [SimpleQueue, Queue, LifoQueue, PriorityQueue, Channel]
BUFFERED = [SimpleQueue, Queue, LifoQueue, PriorityQueue]
BOUNDED = [Queue, LifoQueue, PriorityQueue]


def nobody_waits(place: Any) -> bool:
    return not (place._getters or place._putters or place._links or getattr(place, "_joiners", None))


# -- every call that waits, beyond the suite of test_waiting -----------------------------------------------------------


class Case:
    """One waiting call on one kind: how to make it wait, how to let it go on, and what it then has."""

    def __init__(self, kind: Callable[[], Any], call: Callable[[Any, float | None], Any], free: Callable[[Any], Any]):
        self.place = kind()
        self.call = lambda timeout=None: call(self.place, timeout)
        self.free = lambda: free(self.place)
        # One whose time is over, but who finds it there when he goes on, has got it.
        self.looks_again = call is joining
        self._kind, self._free = kind, free

    def items(self) -> list[Any]:
        return list(getattr(self.place, "_items", ()))

    def items_without_waiter(self) -> list[Any]:
        """What is in such a place when it has been set free and nobody has waited."""
        untouched = Case(self._kind, self.call, self._free)
        untouched.free_if_possible()
        return untouched.items()

    def free_if_possible(self) -> None:
        try:
            self.free()
        except (Empty, Full):
            assert isinstance(self.place, Channel)  # nobody there to pass it on to


def full(kind: Any) -> Callable[[], Any]:
    return lambda: kind(1, [0])


def unfinished() -> Any:
    return Queue(items=[0])


def getting(place: Any, timeout: float | None) -> Any:
    return place.get(timeout=timeout)


def putting(place: Any, timeout: float | None) -> Any:
    return place.put(1, timeout=timeout)


def joining(place: Any, timeout: float | None) -> Any:
    return place.join(timeout)


def selecting(place: Any, timeout: float | None) -> Any:
    return select(place, type(place)(), timeout=timeout)[1]


CASES = {
    **{f"{kind.__name__}.get": (kind, getting, lambda place: place.put_nowait(1)) for kind in KINDS},
    **{f"select {kind.__name__}": (kind, selecting, lambda place: place.put_nowait(1)) for kind in KINDS},
    **{f"{kind.__name__}.put": (full(kind), putting, lambda place: place.get_nowait()) for kind in BOUNDED},
    **{
        f"{kind.__name__}.peek": (kind, lambda place, timeout: place.peek(timeout=timeout), lambda place: place.put(1))
        for kind in BUFFERED
    },
    "Channel.put": (Channel, putting, lambda place: place.get_nowait()),
    "Queue.join": (unfinished, joining, lambda place: place.task_done()),
}
ITERATIONS = {f"iterating {kind.__name__}": (kind, lambda place, _: next(place), CASES[f"{kind.__name__}.get"][2])
              for kind in KINDS}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    case = Case(*CASES[request.param])
    yield case
    assert nobody_waits(case.place), case.place


@pytest.fixture(params=ITERATIONS)
def endless(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Iteration, which takes no timeout; the others are put through the same in test_waiting."""
    case = Case(*ITERATIONS[request.param])
    yield case
    assert nobody_waits(case.place), case.place


def parked(call: Callable[..., Any], *args: Any) -> Task:
    task = spawn(call, *args)
    sleep(0)
    assert task.state == "parked"
    return task


def test_killed_while_waiting_leaves_nothing(hub: Hub, endless: Case) -> None:
    task = parked(endless.call)
    task.kill()
    assert task.state == "killed"


def test_killed_waiter_swallows_nothing(hub: Hub, endless: Case) -> None:
    first, second = parked(endless.call), parked(endless.call)
    first.kill(block=False)
    endless.free()
    first.join()
    second.get(timeout=0)
    assert (first.state, second.state) == ("killed", "done")


def test_woken_and_killed_in_the_same_turn_keeps_what_it_was_given(hub: Hub, endless: Case) -> None:
    ended = []

    def body() -> None:
        ended.append(endless.call())
        sleep(1)
        ended.append("survived")

    task = parked(body)
    endless.free()
    task.kill()
    assert task.state == "killed" and len(ended) == 1


def test_killed_and_woken_in_the_same_turn_is_killed_and_takes_nothing(hub: Hub, case: Case) -> None:
    task = parked(case.call)
    task.kill(block=False)
    case.free_if_possible()
    task.join()
    assert task.state == "killed"
    assert case.items() == case.items_without_waiter()


def test_timed_out_just_before_the_wake_takes_nothing(hub: Hub, time: VirtualTime, case: Case) -> None:
    task = parked(case.call, 5.0)
    hub.timers.add(5.001, case.free_if_possible)
    time.now = 10.0
    task.join()
    if case.looks_again:
        assert task.successful()
    else:
        assert isinstance(task.exception, Empty | Full | TimeoutError)
        assert case.items() == case.items_without_waiter()


def test_main_waits(hub: Hub, endless: Case) -> None:
    spawn(endless.free)
    endless.call()


def test_raw_greenlet_waits(hub: Hub, endless: Case) -> None:
    done = []
    raw = greenlet.greenlet(lambda: done.append(endless.call()))
    hub.call_soon(raw.switch)
    sleep(0)
    assert not done
    endless.free()
    sleep(0)
    assert done and raw.dead


def test_inside_the_hub_waiting_is_refused(hub: Hub, endless: Case) -> None:
    hub.call_soon(endless.call)
    sleep(0)
    (_, error), *others = hub.errors
    assert isinstance(error, HubError) and not others
    hub.errors.clear()


def test_inside_the_hub_the_call_that_need_not_wait_is_made(hub: Hub) -> None:
    queue = Queue(1)
    hub.call_soon(queue.put, "x")
    sleep(0)
    hub.call_soon(queue.get)
    sleep(0)
    assert queue.empty()


def test_another_thread_lets_it_go_on(real_hub: Hub, endless: Case) -> None:
    task = parked(endless.call)
    thread = threading.Thread(target=endless.free)
    thread.start()
    task.get(timeout=10)
    thread.join()


def test_another_thread_waits(real_hub: Hub, endless: Case) -> None:
    thread = threading.Thread(target=endless.call)
    thread.start()
    while nobody_waits(endless.place):
        sleep(0.001)
    endless.free()
    thread.join(10)
    assert not thread.is_alive()


def test_timeout_of_zero_does_not_switch(hub: Hub, case: Case) -> None:
    other = spawn(lambda: None)
    with pytest.raises((Empty, Full, TimeoutError)):
        case.call(0)
    assert other.state == "new"
    other.join()


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_negative_timeout_is_a_value_error(hub: Hub, case: Case, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        case.call(timeout)


def test_deadlock_names_the_call_and_the_queue(hub: Hub, case: Case) -> None:
    with pytest.raises(DeadlockError, match=r"main greenlet: .*(Queue|Channel)"):
        case.call()


# -- every kind --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_getters_are_served_first_in_first_out(hub: Hub, kind: Any) -> None:
    place = kind()
    tasks = [parked(place.get) for _ in range(4)]
    tasks.pop(1).kill()
    for number in range(3):
        place.put_nowait(number)
    assert [task.get() for task in tasks] == [0, 1, 2]


@pytest.mark.parametrize("kind", [*BOUNDED, Channel])
def test_putters_are_served_first_in_first_out(hub: Hub, kind: Any) -> None:
    place = Channel() if kind is Channel else kind(1, [-1])
    tasks = [parked(place.put, number) for number in range(4)]
    tasks.pop(1).kill()
    order = []
    for task in tasks:
        task.link(lambda task: order.append(tasks.index(task)))
    for _ in range(3 if kind is Channel else 4):
        place.get()
        sleep(0)
    wait(tasks)
    sleep(0)
    assert order == [0, 1, 2]


@pytest.mark.parametrize("kind", BOUNDED)
def test_nobody_barges_past_a_waiting_putter(hub: Hub, kind: Any) -> None:
    place = kind(1, [0])
    waiting = parked(place.put, 1)
    assert place.get_nowait() == 0
    with pytest.raises(Full):
        place.put_nowait(2)
    assert place.get_nowait() == 1
    waiting.get()


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_barges_past_a_waiting_getter(hub: Hub, kind: Any) -> None:
    place = kind()
    waiting = parked(place.get)
    place.put_nowait(1)
    with pytest.raises(Empty):
        place.get_nowait()
    assert waiting.get() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_block_does_not_switch(hub: Hub, kind: Any) -> None:
    other = spawn(lambda: None)
    place = kind()
    with pytest.raises(Empty):
        place.get_nowait()
    if kind is Channel:
        with pytest.raises(Full):
            place.put_nowait(1)
    else:
        place.put(1)
        assert place.get() == 1
    assert other.state == "new"
    other.join()


@pytest.mark.parametrize("kind", BUFFERED)
def test_any_item_passes_none_and_sentinels_too(hub: Hub, kind: Any) -> None:
    for item in (None, False, StopIteration, (), 0):
        place = kind()
        place.put(item)
        assert place.peek() is item and place.get() is item
        getter = parked(place.get)
        place.put(item)
        assert getter.get() is item


@pytest.mark.parametrize("kind", KINDS)
def test_iteration_ends_at_gevents_end_mark(hub: Hub, kind: Any) -> None:
    place = kind()
    task = parked(list, place)
    for item in (1, 2, StopIteration):
        place.put(item)
        sleep(0)
    assert task.get() == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_select_takes_exactly_one_from_several(hub: Hub, kind: Any) -> None:
    first, second = kind(), kind()
    task = parked(select, first, second)
    late = parked(second.get)
    second.put_nowait("a")
    assert task.get() == (second, "a")
    second.put_nowait("b")
    assert late.get() == "b"
    assert nobody_waits(first) and nobody_waits(second)
    with pytest.raises(Empty):
        first.get_nowait()


def test_select_given_by_two_in_the_same_turn_takes_the_first_and_leaves_the_other(hub: Hub) -> None:
    first, second = Queue(), Queue()
    task = parked(select, first, second)
    second.put(2)
    first.put(1)
    assert task.get() == (second, 2)
    assert first.get_nowait() == 1


def test_select_prefers_the_one_named_first(hub: Hub) -> None:
    first, second = Queue(items=[1]), Queue(items=[2])
    assert select(second, first) == (second, 2)
    assert select(second, first) == (first, 1)


def test_select_passes_over_what_is_shut_down_until_all_are(hub: Hub) -> None:
    queue, channel = Queue(items=[1]), Channel()
    queue.shutdown()
    assert select(queue, channel) == (queue, 1)
    task = parked(select, queue, channel)
    putter = spawn(channel.put, 2)
    assert task.get() == (channel, 2)
    task = parked(select, queue, channel)
    channel.close()
    assert isinstance(task.exception or task.join() or task.exception, ShutDown)
    assert putter.successful()


def test_select_frees_the_slot_of_what_it_takes(hub: Hub) -> None:
    queue = Queue(1, [0])
    putter = parked(queue.put, 1)
    assert select(queue) == (queue, 0)
    putter.get()
    task = parked(lambda: (queue.get(), select(queue)))
    queue.put(2)
    assert task.get() == (1, (queue, 2))
    queue.put_nowait(3)


def test_select_needs_something_to_select_from(hub: Hub) -> None:
    with pytest.raises(ValueError, match="at least one"):
        select()


@pytest.mark.parametrize("kind", KINDS)
def test_wait_and_iwait_tell_when_a_get_would_not_wait(hub: Hub, kind: Any) -> None:
    places = [kind() for _ in range(3)]
    assert wait(places, timeout=0) == []
    putter = spawn_later(1, places[1].put, "x")
    assert next(iwait(places)) is places[1]
    assert places[1].get_nowait() == "x"
    putter.join()
    assert all(map(nobody_waits, places))


# -- queues ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "order"), [(Queue, [3, 1, 2]), (LifoQueue, [2, 1, 3]), (PriorityQueue, [1, 2, 3])])
def test_order(hub: Hub, kind: Any, order: list[int]) -> None:
    queue = kind(items=[3, 1, 2])
    assert queue.peek() == queue.peek_nowait() == order[0]
    assert [queue.get() for _ in range(3)] == order


def test_maxsize_sizes_and_fullness(hub: Hub) -> None:
    queue: Queue[int] = Queue(2)
    assert (queue.maxsize, queue.qsize(), len(queue), queue.empty(), queue.full()) == (2, 0, 0, True, False)
    assert queue
    queue.put(1)
    queue.put_nowait(2)
    assert (queue.qsize(), queue.empty(), queue.full()) == (2, False, True)
    with pytest.raises(Full):
        queue.put(3, block=False)
    assert not Queue(0).full() and not Queue(None).full() and Queue(-1).maxsize == -1


def test_great_maxsize_costs_nothing(hub: Hub) -> None:
    queue: Queue[int] = Queue(2**62)
    queue.put(1)
    assert queue.get() == 1 and len(queue._slots or ()) == 1


@pytest.mark.parametrize("kind", BOUNDED)
def test_slots_are_never_lost_nor_made(hub: Hub, kind: Any) -> None:
    queue = kind(3)

    def work(number: int) -> None:
        for step in range(20):
            queue.put(number * 100 + step)
            sleep(0)
            queue.get()

    tasks = [spawn(work, number) for number in range(10)]
    sleep(0)
    killall(tasks[::3])
    while queue.qsize() and not all(task.dead for task in tasks):
        sleep(0)
    killall(tasks)
    while not queue.empty():
        queue.get_nowait()
    for number in range(3):
        queue.put_nowait(number)
    with pytest.raises(Full):
        queue.put_nowait(4)


def test_a_getter_finds_waiting_putters_items_one_after_the_other_without_switching(hub: Hub) -> None:
    queue = Queue(1, [0])
    tasks = [parked(queue.put, number) for number in (1, 2)]
    assert [queue.get_nowait() for _ in range(3)] == [0, 1, 2]
    assert [task.state for task in tasks] == ["ready", "ready"]
    for task in tasks:
        task.join()


def test_join_waits_for_every_item_to_be_done(hub: Hub, time: VirtualTime) -> None:
    queue: Queue[int] = Queue()

    def worker() -> None:
        for _ in queue:
            sleep(1)
            queue.task_done()

    workers = [spawn(worker) for _ in range(2)]
    for number in range(5):
        queue.put(number)
    assert queue.unfinished_tasks == 5
    queue.join()
    assert time() == 3.0
    queue.shutdown()
    wait(workers)


def test_task_done_once_too_often_is_a_value_error_and_changes_nothing(hub: Hub) -> None:
    queue = Queue(items=[1])
    queue.task_done()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()
    queue.join()
    assert queue.unfinished_tasks == 0


def test_join_with_a_timeout_says_what_is_unfinished(hub: Hub) -> None:
    with pytest.raises(TimeoutError, match=r"Queue 2 items.*2 unfinished after 3 seconds"):
        Queue(items=[1, 2]).join(timeout=3)


def test_shutdown_lets_what_is_left_be_gotten(hub: Hub) -> None:
    queue = Queue(2, [1, 2])
    putter = parked(queue.put, 3)
    queue.shutdown()
    putter.join()
    assert isinstance(putter.exception, ShutDown)
    with pytest.raises(ShutDown, match="shut down"):
        queue.put(4)
    assert list(queue) == [1, 2]
    with pytest.raises(ShutDown):
        queue.get()
    with pytest.raises(ShutDown):
        queue.get_nowait()
    with pytest.raises(ShutDown):
        queue.peek()
    with pytest.raises(ShutDown):
        queue.put_nowait(4)
    assert queue.unfinished_tasks == 2


@pytest.mark.parametrize("kind", BOUNDED)
def test_immediate_shutdown_throws_away_and_ends_the_joining(hub: Hub, kind: Any) -> None:
    queue = kind(items=[1, 2])
    joining = parked(queue.join)
    queue.shutdown(immediate=True)
    joining.get()
    assert queue.empty() and queue.unfinished_tasks == 0
    with pytest.raises(ShutDown):
        queue.get()


def test_shutdown_wakes_all_getters_and_peekers(hub: Hub) -> None:
    queue: Queue[int] = Queue()
    tasks = [parked(queue.get), parked(queue.peek), parked(queue.get)]
    queue.shutdown()
    wait(tasks)
    assert [type(task.exception) for task in tasks] == [ShutDown] * 3


def test_empty_full_and_shutdown_are_the_standard_librarys(hub: Hub) -> None:
    assert Empty is stdlib.Empty and Full is stdlib.Full
    assert ShutDown is getattr(stdlib, "ShutDown", ShutDown)


def test_simple_queue_ignores_block_and_timeout_when_putting(hub: Hub) -> None:
    queue: SimpleQueue[int] = SimpleQueue()
    queue.put(1, False, -5)
    assert queue.get() == 1


@pytest.mark.parametrize("kind", BUFFERED)
def test_peek_waits_and_leaves_it_there_for_the_others(hub: Hub, kind: Any) -> None:
    queue = kind()
    tasks = [parked(queue.peek) for _ in range(3)]
    queue.put("x")
    assert [task.get() for task in tasks] == ["x"] * 3
    assert queue.get_nowait() == "x"


def test_repr_shows_how_full_it_is_and_who_waits(hub: Hub) -> None:
    queue = Queue(2, [1, 2])
    assert repr(queue) == "<Queue 2/2 items>"
    task = spawn(queue.put, 3)
    task.name = "filler"
    sleep(0)
    assert repr(queue) == "<Queue 2/2 items, 1 waiting to put, Task 'filler' first>"
    assert "parked: put into <Queue 2/2 items, 1 waiting" in repr(task)
    queue.shutdown(immediate=True)
    assert repr(queue) == "<Queue 0/2 items, shut down>"
    assert isinstance(task.exception or task.join() or task.exception, ShutDown)
    other = LifoQueue(items=[1])
    joining = parked(other.join)
    assert repr(other) == "<LifoQueue 1 item, 1 waiting to join (1 unfinished)>"
    joining.kill()


# -- priorities --------------------------------------------------------------------------------------------------------


class Touchy:
    """Compares itself by Python code, which may do more than that."""

    meddle: Callable[[], Any] | None = None

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __lt__(self, other: Touchy) -> bool:
        meddle, Touchy.meddle = Touchy.meddle, None
        if meddle is not None:
            meddle()
        return self.rank < other.rank


@pytest.mark.parametrize("kind", [PriorityQueue])
def test_item_that_cannot_be_compared_is_refused_and_leaves_the_queue_whole(hub: Hub, kind: Any) -> None:
    queue = kind(3, [3, 1])
    for _ in range(5):
        with pytest.raises(TypeError):
            queue.put("x")
    assert queue.unfinished_tasks == 2
    queue.put(2)
    putter = parked(queue.put, "y")
    assert [queue.get() for _ in range(3)] == [1, 2, 3][: queue.maxsize]
    putter.join()
    assert putter.state in ("done", "failed")
    putter.exception


def test_put_amid_a_change_is_seen_to_afterwards(hub: Hub) -> None:
    queue: PriorityQueue[Touchy] = PriorityQueue(items=[Touchy(5)])
    Touchy.meddle = lambda: queue.put(Touchy(1))
    queue.put(Touchy(3))
    Touchy.meddle = lambda: queue.put(Touchy(2))
    assert [queue.get().rank for _ in range(4)] == [1, 2, 3, 5]


def test_get_amid_a_change_is_refused(hub: Hub) -> None:
    queue: PriorityQueue[Touchy] = PriorityQueue(items=[Touchy(5)])
    Touchy.meddle = queue.get_nowait
    with pytest.raises(BusyError, match="further up the stack"):
        queue.put(Touchy(3))
    assert queue.get().rank == 5 and queue.empty()


# -- channels ----------------------------------------------------------------------------------------------------------


def test_channel_put_waits_for_its_getter(hub: Hub, time: VirtualTime) -> None:
    channel: Channel[str] = Channel()
    putter = parked(channel.put, "x")
    sleep(5)
    assert putter.state == "parked" and channel.balance == 1 and channel.qsize() == 0
    assert channel.get() == "x"
    putter.get()


def test_closing_a_channel_ends_putters_getters_and_iteration(hub: Hub) -> None:
    channel: Channel[int] = Channel()
    listening = parked(list, channel)
    getting = parked(channel.get)
    channel.put(1)
    channel.close()
    channel.close()
    assert channel.closed and listening.get() == [1]
    assert isinstance(getting.exception or getting.join() or getting.exception, ShutDown)
    other: Channel[int] = Channel()
    putting = parked(other.put, 1)
    other.close()
    putting.join()
    assert isinstance(putting.exception, ShutDown)
    for call in (other.get, other.get_nowait, lambda: other.put(1), lambda: other.put_nowait(1)):
        with pytest.raises(ShutDown):
            call()


def test_channels_repr(hub: Hub) -> None:
    channel: Channel[int] = Channel()
    assert repr(channel) == "<Channel idle>"
    task = parked(channel.get)
    assert repr(channel) == f"<Channel 1 waiting to get, Task {task.name!r} first>"
    task.kill()
    channel.close()
    assert repr(channel) == "<Channel shut down>"


# -- finalisers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Queue, LifoQueue, PriorityQueue, SimpleQueue])
def test_finaliser_may_put_at_any_point(hub: Hub, kind: Any) -> None:
    queue = kind()
    made = [0]

    class Dying:
        def __init__(self) -> None:
            self.ring = self  # so that only the collector frees it, whenever it happens to run

        def __del__(self) -> None:
            made[0] += 1
            queue.put((0, made[0]))

    gotten: list[Any] = []
    reader = spawn(lambda: gotten.extend(iter(queue.get, "end")))
    threshold = gc.get_threshold()
    gc.set_threshold(3)
    try:
        for number in range(300):
            Dying()
            queue.put((1, number))
            if number % 7 == 0:
                sleep(0)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    sleep(0)
    gotten += [queue.get_nowait() for _ in range(queue.qsize())]
    reader.kill()
    assert made[0] == 300
    assert len(gotten) == 600 and len(set(gotten)) == 600


def test_current_task_is_named_first_even_if_its_function_has_no_name(hub: Hub) -> None:
    queue: Queue[Any] = Queue()
    task = parked(lambda: (getcurrent(), queue.get()))
    assert task.label in repr(queue)
    task.kill()


def test_queue_handler_and_listener_work_over_our_queue(hub: Hub) -> None:
    queue: Queue[Any] = Queue()
    handler = logging.handlers.QueueHandler(queue)
    logger = logging.Logger("greenswitch-test")
    logger.addHandler(handler)
    tasks = [spawn(logger.warning, "from %s", number) for number in range(5)]
    wait(tasks)
    assert sorted(queue.get().getMessage() for _ in range(5)) == [f"from {number}" for number in range(5)]
    handler.close()


def test_channel_is_empty_and_full_at_any_time(hub: Hub) -> None:
    channel: Channel[int] = Channel()
    assert (channel.empty(), channel.full(), channel.qsize()) == (True, True, 0)
    putter = parked(channel.put, 1)
    assert (channel.empty(), channel.full(), channel.qsize()) == (True, True, 0)
    assert channel.get() == 1
    putter.join()
