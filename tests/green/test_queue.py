"""The twin of `queue`: ours where the original blocks; the original's errors."""

from __future__ import annotations

import queue as original
from typing import Any

import pytest

from greenswitch import queues, sleep, spawn
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
    assert isinstance(items, getattr(queues, name))
    task = spawn(items.get)
    sleep(1)
    items.put(7)
    assert task.get() == 7
    with pytest.raises(original.Empty):
        items.get(timeout=1)
    assert time.now == 2
