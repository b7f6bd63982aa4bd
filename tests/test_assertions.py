"""`no_switch` and `must_switch`: exact, by name and line, and nothing of them stays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import greenlet
import pytest

from greenswitch import Event, Lock, Queue, getcurrent, killall, sleep, spawn, timeout
from greenswitch.assertions import must_switch, no_switch
from greenswitch.errors import ScopeError, SwitchError
from greenswitch.hub import Hub


@pytest.fixture(autouse=True)
def no_tracer_stays() -> Iterator[None]:
    assert greenlet.gettrace() is None
    yield
    assert greenlet.gettrace() is None


def test_block_in_which_nobody_switches_is_fine(hub: Hub) -> None:
    lock, queue, event = Lock(), Queue[int](), Event()
    other = spawn(sleep, 0)
    with no_switch():
        with lock:
            queue.put(1)
            queue.get()
            event.set()
            event.wait()
        assert not lock.acquire(blocking=False) or lock.release() is None
    other.join()


def test_switch_is_named_with_its_reason_and_line(hub: Hub) -> None:
    lock = Lock()

    def takes(lock: Lock) -> None:
        with no_switch():
            lock.acquire()

    task = spawn(takes, lock)
    lock.acquire()
    sleep(0)
    lock.release()
    with pytest.raises(SwitchError) as caught:
        task.get()
    assert str(caught.value) == (
        f"{task.label} has let others run in a no_switch() block: "
        f"acquire <Lock held by main greenlet, 1 waiting> at {__file__}:{takes.__code__.co_firstlineno + 2} in takes"
    )


@pytest.mark.parametrize("others", [0, 3])
def test_sleep_0_counts_whether_anybody_is_ready_or_not(hub: Hub, others: int) -> None:
    tasks = [spawn(sleep, 0) for _ in range(others)]
    with pytest.raises(SwitchError, match=r"let others go first at \S+test_assertions\.py:\d+ in test_sleep_0_counts"):
        with no_switch():
            sleep(0)
    with must_switch():
        sleep(0)
    killall(tasks)


def test_first_of_several_switches_is_the_one_that_is_told(hub: Hub) -> None:
    with pytest.raises(SwitchError, match=r"block: sleep 5 at"):
        with no_switch():
            sleep(5)
            sleep(6)


def test_switch_by_hand_is_a_switch_too() -> None:
    def other() -> None:
        return None

    one = greenlet.greenlet(other)
    with pytest.raises(SwitchError, match=rf"switched by hand to greenlet {id(one):#x} at .* in test_switch_by_hand"):
        with no_switch():
            one.switch()
    with must_switch():
        greenlet.greenlet(other).switch()


def test_switches_of_others_are_not_ours(hub: Hub) -> None:
    """A block that is left by a wait is blamed for that wait only, and another's block not at all."""
    seen: list[str] = []

    def careful() -> None:
        with no_switch():
            seen.append("alone")

    def busy() -> None:
        for _ in range(5):
            sleep(1)

    tasks = [spawn(busy), spawn(busy)]
    with must_switch():
        spawn(careful).join()
    with pytest.raises(SwitchError, match="join"):
        with no_switch():
            tasks[0].join()
    tasks[1].join()
    assert seen == ["alone"]


def test_error_of_the_block_itself_gets_a_note_instead(hub: Hub) -> None:
    with pytest.raises(TimeoutError) as caught:
        with timeout(1), no_switch():
            sleep(5)
    notes = getattr(caught.value, "__notes__", []) + getattr(caught.value.__cause__, "__notes__", [])
    assert len(notes) == 1 and re.match(r"main greenlet has let others run in a no_switch\(\) block: sleep 5", notes[0])
    with pytest.raises(ZeroDivisionError) as divided:
        with no_switch():
            _ = 1 / 0
    assert not hasattr(divided.value, "__notes__")


def test_must_switch_says_where_nobody_was_let_run(hub: Hub) -> None:
    with pytest.raises(SwitchError) as caught:
        with must_switch():
            Lock().acquire()
    assert re.fullmatch(
        r"main greenlet has let nobody else run in a must_switch\(\) block, which ends at \S+test_assertions\.py:\d+ "
        r"in test_must_switch_says_where_nobody_was_let_run: nothing in it had to wait; "
        r"sleep\(0\) lets others go first",
        str(caught.value),
    )
    with pytest.raises(ZeroDivisionError):
        with must_switch():
            _ = 1 / 0
    with must_switch():
        sleep(1)


def test_blocks_within_each_other_and_beside_another_tracer(hub: Hub) -> None:
    told: list[str] = []

    def tracer(event: str, ends: Any) -> None:
        told.append(event)

    greenlet.settrace(tracer)
    try:
        with must_switch(), must_switch():
            with no_switch():
                pass
            sleep(1)
        assert greenlet.gettrace() is tracer
        before = len(told)
        assert before >= 2
        with pytest.raises(SwitchError), no_switch():
            sleep(1)
        assert len(told) > before and greenlet.gettrace() is tracer
    finally:
        greenlet.settrace(None)


def test_tracer_that_comes_within_the_block_stays(hub: Hub) -> None:
    block = must_switch()
    block.__enter__()
    ours = greenlet.gettrace()
    told: list[Any] = []

    def tracer(event: str, ends: Any) -> None:
        told.append(event)
        assert ours is not None
        ours(event, ends)

    greenlet.settrace(tracer)
    sleep(1)
    block.__exit__(None, None, None)
    assert greenlet.gettrace() is tracer and told
    sleep(1)
    greenlet.settrace(None)


def test_entered_twice_or_left_by_another_it_says_so(hub: Hub) -> None:
    block = no_switch()
    with block:
        with pytest.raises(ScopeError, match="has been entered before"):
            block.__enter__()
    assert repr(block) == "<no_switch(), entered by main greenlet>" and repr(must_switch()) == "<must_switch()>"

    def generator() -> Iterator[None]:
        with no_switch():
            yield

    shared = generator()

    def begin() -> None:
        next(shared)
        sleep(1)

    def finish() -> None:
        next(shared, None)

    first = spawn(begin)
    sleep(0)
    with pytest.raises(ScopeError, match=r"is left by Task 'finish-\d+'"):
        spawn(finish).get()
    first.join()
    assert getcurrent() is hub.main
