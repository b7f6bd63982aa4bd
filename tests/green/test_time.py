"""The twin of `time`: its sleep parks, and refuses what the original's refuses; all else is the original's own."""

from __future__ import annotations

import threading
import time as original
from typing import Any

import pytest

from greenswitch import spawn
from greenswitch.errors import HubError
from greenswitch.green import time
from greenswitch.hub import Hub, has_hub
from greenswitch.testing import VirtualTime

T: Any = time


def test_everything_but_sleep_is_the_originals() -> None:
    names = [name for name in dir(original) if not name.startswith("_")]
    assert [name for name in names if getattr(T, name) is not getattr(original, name)] == [*sorted(T.REPLACED)]
    assert set(names) == set(time.__all__)
    with pytest.raises(AttributeError, match="neither has the standard library's time"):
        T.no_such_name


def test_sleep_parks_the_task_and_zero_lets_others_go_first(hub: Hub, time: VirtualTime) -> None:
    def work() -> None:
        T.sleep(1)
        order.append("slept")

    order: list[str] = []
    task = spawn(work)
    spawn(order.append, "other")
    assert T.sleep(0) is None
    assert order == ["other"] and time.now == 0
    T.sleep(1.5)
    assert order == ["other", "slept"] and time.now == 1.5 and task.dead


@pytest.mark.parametrize("wrong", [-1, -0.001, float("nan"), float("inf"), 1e19, "1", None])
def test_what_nobody_can_sleep_is_refused_as_by_the_original(wrong: Any, hub: Hub) -> None:
    caught = []
    for sleep in (original.sleep, T.sleep):
        with pytest.raises((TypeError, ValueError, OverflowError)) as error:
            sleep(wrong)
        caught.append(error.type)
    assert caught[0] is caught[1]


def test_sleep_is_refused_in_the_hub(hub: Hub) -> None:
    hub.call_soon(T.sleep, 1)
    T.sleep(0)
    [(_, error)] = hub.errors  # type: ignore[attr-defined]
    hub.errors.clear()  # type: ignore[attr-defined]
    assert isinstance(error, HubError)


def test_thread_without_a_hub_sleeps_without_making_one() -> None:
    def work() -> None:
        T.sleep(0.001)
        made.append(has_hub())

    made: list[bool] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert made == [False]
