"""Pools: never more at a time than there are places, first come first served, no error lost, nothing left running."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from greenswitch import getcurrent, joinall, sleep, spawn
from greenswitch.errors import HubError
from greenswitch.hub import Hub
from greenswitch.pools import Pool
from greenswitch.queues import Queue
from greenswitch.testing import VirtualTime
from greenswitch.timeouts import move_on_after, timeout

pytestmark = pytest.mark.usefixtures("hub")


class Meter:
    """A function for pools that counts how many of its calls run at a time."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.begun: list[Any] = []
        self.cleaned: list[Any] = []

    def __call__(self, item: Any = None, seconds: float = 1) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.append(item)
        try:
            sleep(seconds)
            return item
        finally:
            self.running -= 1
            self.cleaned.append(item)


def fail_at(bad: int) -> Callable[[int], int]:
    def check(number: int) -> int:
        sleep(number)
        if number == bad:
            raise KeyError(number)
        return number

    return check


# -- spawning ----------------------------------------------------------------------------------------------------------


def test_no_more_run_than_there_are_places(time: VirtualTime) -> None:
    meter, pool = Meter(), Pool(3)
    for number in range(7):
        pool.spawn(meter, number)
    pool.join()
    assert meter.most == 3 and meter.begun == list(range(7)) and time() == 3


def test_spawn_waits_for_a_place_first_come_first_served(time: VirtualTime) -> None:
    pool, meter = Pool(1), Meter()
    spawners = [spawn(pool.spawn, meter, number) for number in range(4)]
    joinall(spawners)
    assert time() == 3 and pool.full()
    pool.join()
    assert meter.begun == [0, 1, 2, 3] and time() == 4


def test_spawn_never_switches_while_there_is_a_place(hub: Hub) -> None:
    switched: list[bool] = []
    hub.call_soon(switched.append, True)
    pool = Pool(2)
    pool.spawn(sleep)
    pool.spawn(sleep)
    assert switched == []
    pool.join()


def test_callback_in_the_hub_may_spawn_while_there_is_a_place(hub: Hub) -> None:
    pool = Pool(1)
    for _ in range(2):
        hub.call_soon(pool.spawn, sleep, 1)
    sleep(0)
    [(_, error)] = hub.errors  # type: ignore[attr-defined]
    hub.errors.clear()  # type: ignore[attr-defined]
    assert isinstance(error, HubError) and len(pool) == 1
    pool.join()
    assert pool.free_count() == 1


def test_killed_spawner_starts_nothing_and_takes_no_place(time: VirtualTime) -> None:
    pool, meter = Pool(1), Meter()
    pool.spawn(sleep, 5)
    spawners = [spawn(pool.spawn, meter, number) for number in range(2)]
    sleep(1)
    spawners[0].kill()
    pool.join()
    assert meter.begun == [1] and pool.free_count() == 1


def test_spawner_that_is_timed_out_starts_nothing(time: VirtualTime) -> None:
    pool = Pool(1)
    pool.spawn(sleep, 5)
    with pytest.raises(TimeoutError), timeout(1):
        pool.spawn(sleep)
    pool.join()
    assert time() == 5 and pool.free_count() == 1


def test_spawner_that_has_got_its_place_starts_though_it_is_killed_in_the_same_turn(time: VirtualTime) -> None:
    pool, meter = Pool(1), Meter()
    first = pool.spawn(sleep, 5)
    spawner = spawn(pool.spawn, meter)
    sleep(1)
    first.link(lambda task: spawner.kill(block=False))
    pool.join()
    assert len(meter.cleaned) == 1 and pool.free_count() == 1


def test_task_killed_before_it_started_gives_its_place_back() -> None:
    pool = Pool(1)
    task = pool.spawn(sleep)
    assert pool.full() and task in pool
    task.kill()
    assert not pool.full() and pool.free_count() == 1 and task not in pool


def test_pool_tells_who_runs() -> None:
    pool = Pool(2)
    assert pool and len(pool) == 0 and list(pool) == [] and pool.free_count() == 2
    tasks = {pool.spawn(sleep, 1), pool.spawn(sleep, 1)}
    waiting = spawn(pool.spawn, sleep)
    sleep(0)
    assert set(pool) == tasks and len(pool) == 2 and pool.full() and pool.free_count() == 0
    assert repr(pool) == "<Pool of 2: 2 running, 1 waiting>" and "place in a Pool" in repr(waiting)
    pool.join()
    assert len(pool) == 0


def test_wait_available_waits_and_takes_nothing(time: VirtualTime) -> None:
    pool = Pool(1)
    assert pool.wait_available()
    pool.spawn(sleep, 5)
    assert not pool.wait_available(1) and time() == 1
    assert pool.wait_available(10) and time() == 5 and pool.free_count() == 1


@pytest.mark.parametrize("size", [0, -1])
def test_pool_without_a_place_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least one place"):
        Pool(size)


def test_what_is_no_function_is_refused_at_once() -> None:
    pool: Any = Pool(1)
    for call in (pool.spawn, pool.apply, pool.apply_async):
        with pytest.raises(TypeError, match="needs a function"):
            call(42)
    for call in (pool.map, pool.imap, pool.imap_unordered):
        with pytest.raises(TypeError, match="needs a function"):
            call(42, [])
        with pytest.raises(TypeError, match="at least one iterable"):
            call(sleep)
    assert pool.free_count() == 1


# -- joining and killing -----------------------------------------------------------------------------------------------


def test_join_waits_for_those_in_line_too(time: VirtualTime) -> None:
    pool = Pool(1)
    pool.spawn(sleep, 1)
    spawn(pool.spawn, sleep, 1)
    sleep(0)
    assert pool.join() and time() == 2


def test_join_gives_up_when_its_time_is_over(time: VirtualTime) -> None:
    pool = Pool(1)
    pool.spawn(sleep, 5)
    assert not pool.join(0) and not pool.join(2) and time() == 2
    assert pool.join(10) and time() == 5 and not pool._joiners


def test_killed_joiner_leaves_nothing() -> None:
    pool = Pool(1)
    pool.spawn(sleep, 5)
    joiner = spawn(pool.join)
    sleep(1)
    joiner.kill()
    assert not pool._joiners
    pool.join()


def test_join_reports_all_errors_since_the_last_time() -> None:
    pool = Pool(2)
    for number in range(4):
        pool.spawn(fail_at(number), number)
    pool.spawn(sleep)
    with pytest.raises(ExceptionGroup) as caught:
        pool.join(raise_error=True)
    assert sorted(error.args[0] for error in caught.value.exceptions) == [0, 1, 2, 3]
    assert pool.join(raise_error=True)


def test_errors_that_nobody_joins_are_reported_when_the_pool_is_released(hub: Hub) -> None:
    pool = Pool(2)
    pool.spawn(fail_at(0), 0)
    pool.join()
    assert hub.errors == []  # type: ignore[attr-defined]
    del pool
    gc.collect()
    [(_, error)] = hub.errors  # type: ignore[attr-defined]
    hub.errors.clear()  # type: ignore[attr-defined]
    assert isinstance(error, KeyError)


def test_task_of_the_pool_cannot_join_it() -> None:
    pool = Pool(1)
    with pytest.raises(HubError, match="wait for itself"):
        pool.spawn(pool.join).get()


def test_kill_ends_all_and_the_pool_can_be_used_again(time: VirtualTime) -> None:
    pool, meter = Pool(3), Meter()
    tasks = [pool.spawn(meter, number, 100) for number in range(3)]
    sleep(1)
    pool.kill()
    assert all(task.state == "killed" for task in tasks) and len(meter.cleaned) == 3 and len(pool) == 0
    assert pool.map(meter, [1, 2]) == [1, 2]


def test_kill_from_a_task_of_the_pool_spares_it() -> None:
    pool = Pool(2)
    other = pool.spawn(sleep, 5)
    killer = pool.spawn(pool.kill)
    pool.join()
    assert other.state == "killed" and killer.successful()


def test_block_ends_when_all_have_ended_and_raises_what_they_raised(time: VirtualTime) -> None:
    with pytest.raises(ExceptionGroup), Pool(2) as pool:
        pool.spawn(fail_at(1), 1)
        pool.spawn(sleep, 5)
    assert time() == 5 and len(pool) == 0


def test_block_that_fails_kills_what_runs(time: VirtualTime) -> None:
    meter = Meter()
    with pytest.raises(KeyError), Pool(2) as pool:
        pool.spawn(meter, 1, 5)
        pool.imap(meter, count())
        sleep(0)
        raise KeyError
    assert len(pool) == 0 and time() == 0 and len(meter.cleaned) == len(meter.begun)


def test_block_that_is_killed_kills_what_runs(time: VirtualTime) -> None:
    def work() -> None:
        with Pool(2) as pool:
            pool.spawn(meter, 1, 5)

    meter = Meter()
    task = spawn(work)
    sleep(1)
    task.kill()
    assert task.state == "killed" and meter.cleaned == [1] and time() == 1


# -- apply and map -----------------------------------------------------------------------------------------------------


def test_apply_returns_or_raises_what_the_function_does(time: VirtualTime) -> None:
    pool = Pool(1)
    assert pool.apply(Meter(), (7,), {"seconds": 2}) == 7 and time() == 2
    with pytest.raises(KeyError):
        pool.apply(fail_at(0), (0,))
    assert pool.join(raise_error=True), "who has been told is not told again"


def test_apply_in_a_task_of_the_pool_does_not_wait_for_itself() -> None:
    pool = Pool(1)
    assert pool.spawn(lambda: pool.apply(lambda: getcurrent() in pool)).get()


def test_apply_async_never_waits_and_calls_back_what_the_call_returns(hub: Hub, time: VirtualTime) -> None:
    def in_hub() -> None:
        tasks.append(pool.apply_async(Meter(), ("late",), {"seconds": 1}, results.append))

    pool, results, tasks = Pool(1), list[Any](), list[Any]()
    tasks += [pool.apply_async(Meter(), (number,), callback=results.append) for number in range(2)]
    tasks.append(pool.apply_async(fail_at(0), (0,), callback=results.append))
    hub.call_soon(in_hub)
    assert pool.join() and time() == 3
    sleep(1)
    assert results == [0, 1, "late"]
    assert [task.get() for task in (*tasks[:2], tasks[3])] == results
    with pytest.raises(KeyError):
        tasks[2].get()


def test_map_returns_the_results_in_the_order_of_the_items(time: VirtualTime) -> None:
    meter, pool = Meter(), Pool(3)
    assert pool.map(lambda number: meter(number, 10 - number), range(10)) == list(range(10))
    assert meter.most == 3 and pool.free_count() == 3


def test_map_takes_items_of_several_iterables_until_the_shortest_ends() -> None:
    assert Pool(2).map(lambda *items: items, "abc", count(), [3, 4]) == [("a", 0, 3), ("b", 1, 4)]


def test_map_over_nothing_is_an_empty_list() -> None:
    assert Pool(1).map(len, []) == []


def test_map_takes_no_items_ahead_of_its_places() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(6):
            taken.append(number)
            yield number

    pool = Pool(2)
    mapper = spawn(pool.map, Meter(), items())
    sleep(0.5)
    assert taken == [0, 1, 2]
    assert mapper.get() == list(range(6))


def test_first_failure_of_map_is_raised_at_once_and_the_others_are_ended(time: VirtualTime) -> None:
    meter, pool = Meter(), Pool(3)

    def work(number: int) -> None:
        meter(number, 100 if number != 1 else 2)
        raise KeyError(number)

    with pytest.raises(KeyError, match="1"):
        pool.map(work, range(10))
    assert time() == 2 and sorted(meter.cleaned) == [0, 1, 2] and len(pool) == 0


def test_failing_iterable_ends_the_calls_and_is_raised(time: VirtualTime) -> None:
    def items() -> Iterator[int]:
        yield 1
        sleep(1)
        raise KeyError("items")

    meter, pool = Meter(), Pool(2)
    with pytest.raises(KeyError, match="items"):
        pool.map(lambda number: meter(number, 5), items())
    assert meter.cleaned == [1] and time() == 1


@pytest.mark.parametrize("how", ["killed", "timed out"])
@pytest.mark.parametrize("items", [2, 5], ids=["all fed", "still feeding"])
def test_interrupted_map_ends_its_calls(how: str, items: int, time: VirtualTime) -> None:
    meter, pool = Meter(), Pool(2)
    if how == "killed":
        mapper = spawn(pool.map, lambda number: meter(number, 5), range(items))
        sleep(1)
        mapper.kill()
        assert mapper.state == "killed"
    else:
        with move_on_after(1) as scope:
            pool.map(lambda number: meter(number, 5), range(items))
        assert scope.expired
    assert len(pool) == 0 and len(meter.cleaned) == 2 and time() == 1 and pool.free_count() == 2


def test_maps_share_the_places_and_other_calls_stay_untouched(time: VirtualTime) -> None:
    meter, pool = Meter(), Pool(4)
    other = pool.spawn(meter, "other", 10)
    maps = [spawn(pool.map, meter, range(6)) for _ in range(2)]
    failing = spawn(pool.map, fail_at(0), [0])
    assert isinstance(failing.exception or failing.join() or failing.exception, KeyError)
    assert [one.get() for one in maps] == [list(range(6))] * 2
    assert meter.most <= 4 and other.get() == "other"


def test_killed_pool_ends_a_map(time: VirtualTime) -> None:
    pool, meter = Pool(2), Meter()
    mapper = spawn(pool.map, lambda number: meter(number, 5), range(100))
    sleep(1)
    pool.kill()
    mapper.join()
    assert mapper.state == "killed" and len(meter.begun) <= 3 and time() == 1


# -- imap --------------------------------------------------------------------------------------------------------------

either = pytest.mark.parametrize("name", ["imap", "imap_unordered"])


def test_imap_yields_in_the_order_of_the_items(time: VirtualTime) -> None:
    meter = Meter()
    results = Pool(3).imap(lambda number: meter(number, 10 - number), range(7))
    assert list(results) == list(range(7)) and meter.most == 3
    assert list(results) == []


def test_imap_unordered_yields_what_comes_first() -> None:
    assert list(Pool(3).imap_unordered(lambda number: Meter()(number, number), [3, 1, 2])) == [1, 2, 3]


@either
def test_imap_starts_at_once(name: str, time: VirtualTime) -> None:
    results = getattr(Pool(3), name)(Meter(), range(3))
    sleep(5)
    assert sorted(results) == [0, 1, 2] and time() == 5


@either
def test_imap_of_endless_items_runs_ahead_only_so_far(name: str, time: VirtualTime) -> None:
    meter, pool = Meter(), Pool(3)
    results = getattr(pool, name)(meter, count())
    sleep(100)
    assert len(meter.begun) == 6, "twice the pool's size"
    assert [next(results) for _ in range(10)] == list(range(10))
    results.close()
    pool.join()
    sleep(1)  # those that were killed before they started still have to come up in the ready queue
    assert meter.most == 3
    with pytest.raises(StopIteration):
        next(results)


@either
def test_imap_begins_at_most_maxsize_calls_that_are_not_taken(name: str, time: VirtualTime) -> None:
    meter = Meter()
    with getattr(Pool(5), name)(meter, count(), maxsize=2) as results:
        sleep(10)
        assert len(meter.begun) == 2
        next(results)
        sleep(10)
        assert len(meter.begun) == 3
    with pytest.raises(ValueError, match="at least one"):
        getattr(Pool(5), name)(meter, [], maxsize=0)


@either
def test_result_comes_while_the_iterable_still_waits(name: str) -> None:
    queue: Queue[int] = Queue()
    queue.put(1)
    with getattr(Pool(2), name)(Meter(), iter(queue.get, None)) as results:
        assert next(results) == 1
        spawn(queue.put, 2)
        assert next(results) == 2


@either
def test_failed_call_is_raised_in_its_place_and_the_next_can_be_had(name: str) -> None:
    results = getattr(Pool(2), name)(fail_at(1), range(3))
    assert next(results) == 0
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == [2]


@either
def test_failing_iterable_is_raised_after_the_results(name: str) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("items")

    results = getattr(Pool(2), name)(Meter(), items())
    assert next(results) == 1
    with pytest.raises(KeyError, match="items"):
        next(results)
    assert list(results) == []


@either
def test_iterator_that_is_let_go_ends_its_calls(name: str, hub: Hub, time: VirtualTime) -> None:
    meter, pool = Meter(), Pool(2)
    for _ in getattr(pool, name)(meter, count()):
        break
    gc.collect()
    sleep(0)
    sleep(0)
    assert time() == 1 and len(pool) == 0 and len(meter.begun) == len(meter.cleaned) and not pool.feeders


@either
def test_iterator_that_is_never_used_ends_too(name: str) -> None:
    meter, pool = Meter(), Pool(2)
    getattr(pool, name)(meter, count())
    sleep(1)
    assert not meter.running and len(pool) == 0 and not pool.feeders


@either
def test_killed_pool_stops_the_feeding(name: str, time: VirtualTime) -> None:
    meter, pool = Meter(), Pool(2)
    results = getattr(pool, name)(meter, count())
    reader = spawn(list, results)
    sleep(2.5)
    pool.kill()
    reader.join()
    assert reader.state == "killed" and time() == 2.5 and not pool.feeders and len(pool) == 0
    with pytest.raises(BaseException):
        while True:
            next(results)


@either
def test_reader_that_is_timed_out_finds_the_same_result_next_time(name: str, time: VirtualTime) -> None:
    results = getattr(Pool(1), name)(lambda number: Meter()(number, 5), [1, 2])
    with move_on_after(1) as scope:
        next(results)
    assert scope.expired and list(results) == [1, 2] and time() == 10


@either
def test_two_imaps_and_a_map_share_a_pool(name: str) -> None:
    meter, pool = Meter(), Pool(2)
    first, second = (getattr(pool, name)(meter, range(start, start + 4)) for start in (0, 4))
    assert pool.map(meter, [8, 9]) == [8, 9]
    assert sorted([*first, *second]) == list(range(8)) and meter.most == 2


def test_hub_may_not_wait_for_a_result(hub: Hub) -> None:
    results = Pool(1).imap(Meter(), [1])
    hub.call_soon(next, results)
    sleep(0)
    [(_, error)] = hub.errors  # type: ignore[attr-defined]
    hub.errors.clear()  # type: ignore[attr-defined]
    assert isinstance(error, HubError) and list(results) == [1]


# -- without a bound ---------------------------------------------------------------------------------------------------


def test_pool_without_a_bound_never_waits_for_a_place(time: VirtualTime) -> None:
    meter, pool = Meter(), Pool()
    for number in range(500):
        pool.spawn(meter, number)
    assert not pool.full() and pool.free_count() > 1000 and len(pool) == 500
    pool.join()
    assert meter.most == 500 and pool.size is None
    assert repr(pool) == "<Pool without a bound: 0 running>"


def test_imap_of_a_pool_without_a_bound_takes_only_so_much_of_an_endless_iterable(time: VirtualTime) -> None:
    begun: list[int] = []
    with Pool().imap(begun.append, count()) as results:
        assert next(results) is None
        sleep(1)
    assert len(begun) <= 1002


# -- map_async ---------------------------------------------------------------------------------------------------------


def test_map_async_returns_a_task_whose_value_is_the_list(time: VirtualTime) -> None:
    results: list[Any] = []
    meter = Meter()
    task = Pool(2).map_async(meter, [1, 2, 3], callback=results.append)
    assert not meter.begun
    assert task.get() == [1, 2, 3]
    sleep(0)
    assert results == [[1, 2, 3]]


def test_map_async_that_fails_calls_nothing_back(time: VirtualTime) -> None:
    results: list[Any] = []
    task = Pool(2).map_async(fail_at(1), [1, 2], callback=results.append)
    with pytest.raises(KeyError):
        task.get()
    sleep(0)
    assert results == []


def test_killed_map_async_ends_its_calls(time: VirtualTime) -> None:
    meter = Meter()
    task = Pool(2).map_async(meter, [1, 2, 3])
    sleep(0.5)
    task.kill()
    assert sorted(meter.cleaned) == [1, 2]


def test_map_async_refuses_what_it_cannot_map() -> None:
    with pytest.raises(TypeError, match="needs a function"):
        Pool(1).map_async(None, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="at least one iterable"):
        Pool(1).map_async(print)
