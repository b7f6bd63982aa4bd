"""Task-local data against threading.local: the same questions, asked of tasks."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import greenlet
import pytest

from greenswitch import sleep, spawn
from greenswitch.hub import Hub
from greenswitch.local import _lives, _namespaces_of, local


class Thing:
    """Something whose death can be seen."""


def in_task(function: Callable[..., Any], *args: Any) -> Any:
    return spawn(function, *args).get()


def test_each_task_sees_its_own_attributes(hub: Hub) -> None:
    mine = local()
    mine.x = "main"

    def body(value: int) -> tuple[bool, int]:
        fresh = not hasattr(mine, "x")
        mine.x = value
        sleep(0.1)
        return fresh, mine.x

    tasks = [spawn(body, number) for number in range(10)]
    assert [task.get() for task in tasks] == [(True, number) for number in range(10)]
    assert mine.x == "main"


def test_tasks_on_the_same_carrier_share_nothing(hub: Hub) -> None:
    mine = local()
    in_task(setattr, mine, "x", 1)
    assert in_task(lambda: vars(mine)) == {}


def test_raw_greenlets_and_threads_are_keyed_by_themselves(hub: Hub) -> None:
    mine = local()
    mine.x = "main"
    seen = []

    def look() -> None:
        seen.append(getattr(mine, "x", "nothing"))
        mine.x = "other"

    greenlet.greenlet(look).switch()
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == ["nothing", "nothing"] and mine.x == "main"


def test_subclass_init_runs_once_per_task_with_the_same_arguments(hub: Hub) -> None:
    calls = []

    class Mine(local):
        shared = "class"

        def __init__(self, start: int, *, name: str = "") -> None:
            calls.append((start, name))
            self.count = start

        def add(self) -> int:
            self.count += 1
            return self.count

    mine = Mine(5, name="n")
    assert mine.add() == 6 and mine.add() == 7
    assert in_task(mine.add) == 6  # the bound method is looked up in main, its attributes in the task
    assert in_task(lambda: (mine.add(), mine.add(), mine.shared)) == (6, 7, "class")
    assert calls == [(5, "n")] * 3


def test_properties_and_slots_of_a_subclass_go_first(hub: Hub) -> None:
    class Mine(local):
        __slots__ = ("shared",)

        @property
        def double(self) -> int:
            return self.single * 2  # type: ignore[no-any-return]

        @double.setter
        def double(self, value: int) -> None:
            self.single = value // 2

        @double.deleter
        def double(self) -> None:
            del self.single

    mine = Mine()
    mine.shared, mine.double = "all", 8
    assert (mine.single, mine.double) == (4, 8)
    assert in_task(lambda: (mine.shared, hasattr(mine, "single"))) == ("all", False)
    del mine.double
    assert not hasattr(mine, "single")


def test_class_attribute_is_shadowed_and_getattr_is_asked_last(hub: Hub) -> None:
    class Mine(local):
        x = "class"

        def __getattr__(self, name: str) -> str:
            return f"no {name}"

    mine = Mine()
    mine.x = "own"
    assert (mine.x, mine.y) == ("own", "no y")
    assert in_task(lambda: mine.x) == "class"


def test_deleting_and_misuse_are_answered_as_by_threading_local(hub: Hub) -> None:
    mine = local()
    mine.x = 1
    del mine.x
    with pytest.raises(AttributeError, match="x"):
        mine.x
    with pytest.raises(AttributeError, match="x"):
        del mine.x
    with pytest.raises(AttributeError, match="read-only"):
        mine.__dict__ = {}
    with pytest.raises(AttributeError, match="read-only"):
        del mine.__dict__
    with pytest.raises(TypeError, match="no arguments"):
        local(1)
    mine.__dict__["y"] = 2
    assert mine.y == 2 and vars(mine) == {"y": 2} and "y" in dir(mine)


def test_values_are_freed_when_the_task_ends_even_if_the_task_object_is_kept(hub: Hub) -> None:
    mine = local()
    things = []

    def body() -> None:
        mine.thing = Thing()
        things.append(weakref.ref(mine.thing))
        sleep(1)
        assert things[-1]() is not None

    task = spawn(body)
    task.join()
    assert things[0]() is None
    assert task.successful()


def test_values_are_freed_when_a_task_is_killed_or_fails(hub: Hub) -> None:
    mine = local()
    things = []

    def body(error: bool) -> None:
        mine.thing = Thing()
        things.append(weakref.ref(mine.thing))
        if error:
            raise LookupError
        sleep(1000)

    failing, killed = spawn(body, True), spawn(body, False)
    sleep(0)
    killed.kill()
    assert isinstance(failing.exception, LookupError)
    del failing
    gc.collect()  # the exception's traceback is gone with its task
    assert [thing() for thing in things] == [None, None]


def test_values_are_freed_with_the_local_while_the_task_goes_on(hub: Hub) -> None:
    mine = local()
    mine.thing = thing = Thing()
    seen = weakref.ref(thing)
    mine.itself = mine
    del mine, thing
    gc.collect()
    assert seen() is None


def test_many_locals_leave_nothing_in_a_task_that_goes_on(hub: Hub) -> None:
    def body() -> list[int]:
        counts = []
        for number in range(100):
            mine = local()
            mine.x = number
            counts.append(len(task._links))
        return counts

    task = spawn(body)
    assert len(set(task.get())) == 1


def test_nothing_is_kept_of_tasks_that_have_ended(hub: Hub) -> None:
    mine = local()
    before = len(_lives)
    for number in range(100):
        in_task(setattr, mine, "x", number)
    assert len(_lives) == before
    assert len(_namespaces_of(mine)) == 1  # main's


def test_data_is_freed_with_the_local_and_not_by_the_collector(hub: Any) -> None:
    class Held:
        pass

    gc.disable()
    try:
        mine = local()
        mine.held = Held()
        held = weakref.ref(mine.held)
        del mine
        assert held() is None
    finally:
        gc.enable()


def test_copy_has_the_callers_data_and_shares_none(hub: Any) -> None:
    class Named(local):
        def __init__(self, name: str) -> None:
            self.name = name

    mine = Named("original")
    mine.items = []
    other = copy.copy(mine)
    assert other.name == "original" and other.items is mine.items
    other.name = "copy"
    assert mine.name == "original"
    assert spawn(lambda: (other.name, hasattr(other, "items"))).get() == ("original", False)
    with pytest.raises(TypeError, match="cannot pickle 'local' object"):
        pickle.dumps(local())
