"""The twin of `queue`: ours where the original blocks; the original's errors."""

from __future__ import annotations

import queue as original
from typing import Any

import pytest

from greenswitch import Event, queues, sleep, spawn
from greenswitch.green import queue
from greenswitch.hub import Hub
from greenswitch.testing import VirtualTime

Q: Any = queue


def test_every_name_is_there_and_errors_are_the_originals() -> None:
    assert [name for name in dir(original) if not hasattr(queue, name)] == []
    assert set(queue.__all__) == set(original.__all__)
    assert Q.Empty is original.Empty and Q.Full is original.Full
    assert Q.ShutDown is getattr(original, "ShutDown", queues.ShutDown)
    with pytest.raises(AttributeError, match="neither has the standard library's queue"):
        Q.no_such_name


@pytest.mark.parametrize("name", ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"])
def test_queue_parks_who_gets_and_times_out(name: str, hub: Hub, time: VirtualTime) -> None:
    items = getattr(Q, name)()
    task = spawn(items.get)
    sleep(1)
    items.put(7)
    assert task.get() == 7
    with pytest.raises(original.Empty):
        items.get(timeout=1)
    assert time.now == 2


@pytest.mark.parametrize("name", ["Queue", "LifoQueue", "PriorityQueue"])
def test_queue_has_the_originals_attributes(name: str, hub: Hub) -> None:
    items = getattr(Q, name)(2)
    items.put(3)
    with items.mutex:
        assert list(items.queue) == [3] and items.unfinished_tasks == 1
    with items.not_full:
        items.not_full.notify_all()
    assert vars(items).keys() == vars(getattr(original, name)()).keys()


def test_subclass_decides_how_items_are_kept(hub: Hub) -> None:
    class Unique(Q.Queue):  # type: ignore[misc]
        def _init(self, maxsize: int) -> None:
            self.queue = set()

        def _put(self, item: Any) -> None:
            self.queue.add(item)

        def _get(self) -> Any:
            return self.queue.pop()

        def _qsize(self) -> int:
            return len(self.queue)

    items = Unique()
    for _ in range(3):
        items.put("same")
    assert items.get() == "same" and items.empty()


def test_put_that_has_room_raises_no_kill_though_the_lock_is_held_by_a_getter_that_has_not_run(hub: Hub) -> None:
    def put_back() -> None:
        event.wait()
        items.put("back")  # what has been woken before holds the mutex now
        put.append(True)
        sleep(1)

    items, event, put = Q.Queue(), Event(), list[bool]()
    getters = [spawn(items.get) for _ in range(2)]
    task = spawn(put_back)
    sleep(1)
    with items.mutex:  # both getters stand in line for it, and the first is given it
        items.not_empty.notify_all()
        items._put("one"), items._put("two")
        event.set()
        task.kill(block=False)
        sleep(0)
    task.join()
    assert put == [True] and task.state == "killed"
    assert {getter.get() for getter in getters} <= {"one", "two", "back"} and items.qsize() == 1
