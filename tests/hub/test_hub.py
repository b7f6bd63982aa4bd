"""The kernel's contract, clause by clause: what `greenswitch/hub/hub.py` promises at its top."""

from __future__ import annotations

import gc
import itertools
import os
import re
import sys
import threading
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any

import greenlet
import pytest
from greenlet import GreenletExit

from greenswitch import DeadlockError, HubError, SwitchError, getcurrent, joinall, sleep, spawn
from greenswitch.hub import TIMED_OUT, Hub, Waiter, get_hub, has_hub, make_poller, os_threads, step_aside, wait_readable
from greenswitch.testing import VirtualTime


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def expect_errors(hub: Hub, *expected: type[BaseException]) -> list[str]:
    """Check and clear what was reported; return what was said to have failed."""
    reported: list[tuple[str, BaseException]] = hub.errors  # type: ignore[attr-defined]
    assert [type(error) for _, error in reported] == list(expected)
    whats = [what for what, _ in reported]
    reported.clear()
    return whats


# -- waiters (1, 2) ------------------------------------------------------------------------------------------------


def test_park_returns_what_it_is_woken_with(hub: Hub) -> None:
    waiter = Waiter(hub, "wait")
    hub.call_soon(waiter.wake, "value")
    assert hub.park(waiter) == "value"


def test_park_raises_what_it_is_failed_with(hub: Hub) -> None:
    waiter = Waiter(hub, "wait")
    hub.call_soon(waiter.fail, KeyError("cause"))
    with pytest.raises(KeyError, match="cause"):
        hub.park(waiter)


def test_waiter_woken_before_it_parks_goes_on_at_its_turn(hub: Hub) -> None:
    waiter = Waiter(hub, "wait")
    assert waiter.wake(1)
    assert hub.park(waiter) == 1


@pytest.mark.parametrize("first", ["wake", "fail", "cancel"])
@pytest.mark.parametrize("second", ["wake", "fail", "cancel"])
def test_only_the_first_of_two_wakers_counts(hub: Hub, first: str, second: str) -> None:
    waiter = Waiter(hub, "wait")
    arguments: dict[str, tuple[Any, ...]] = {"wake": ("first",), "fail": (KeyError("first"),), "cancel": ()}
    later: dict[str, tuple[Any, ...]] = {"wake": ("second",), "fail": (ValueError("second"),), "cancel": ()}
    assert getattr(waiter, first)(*arguments[first]) is True
    assert getattr(waiter, second)(*later[second]) is False
    if first == "wake":
        assert hub.park(waiter) == "first"
    elif first == "fail":
        with pytest.raises(KeyError, match="first"):
            hub.park(waiter)
    sleep(0)  # a second entry in the ready queue would come now


@pytest.mark.parametrize("order", ["wake first", "timeout first"])
def test_wake_and_timeout_in_the_same_turn_wake_once(hub: Hub, order: str) -> None:
    waiter = Waiter(hub, "wait")
    if order == "wake first":
        hub.timers.add(1.0, waiter.wake, "woken")
        assert hub.wait(waiter, 1.0) == "woken"
    else:
        timer = hub.timers.add(1.0, lambda: hub.timers.add(1.0, waiter.wake, "late"))
        assert hub.wait(waiter, 1.0) is TIMED_OUT
        timer.cancel()
    sleep(2)


def test_timer_that_lost_its_race_never_wakes_the_next_park(hub: Hub, time: VirtualTime) -> None:
    first = Waiter(hub, "first")
    hub.timers.add(1.0, first.wake)
    hub.wait(first, 1.0)
    second = Waiter(hub, "second")
    hub.timers.add(5.0, second.wake, "in time")
    assert hub.wait(second, 10.0) == "in time"
    assert time() == 5.0


@pytest.mark.parametrize("timeout", [0, -1, 0.0])
def test_timeout_of_nothing_times_out_at_the_next_turn(hub: Hub, timeout: float) -> None:
    assert hub.wait(Waiter(hub, "wait"), timeout) is TIMED_OUT


def test_timeout_that_is_no_number_is_refused_and_nothing_is_left(hub: Hub) -> None:
    with pytest.raises(ValueError, match="NaN"):
        hub.wait(Waiter(hub, "wait"), float("nan"))


def test_many_threads_wake_one_waiter_and_one_of_them_wins(real_hub: Hub, eager_threads: None) -> None:
    for _ in range(100):
        waiter = Waiter(real_hub, "wait")
        barrier = threading.Barrier(4)
        won: list[str] = []

        def race(waker: Any, name: str, barrier: Any = barrier, won: list[str] = won) -> None:
            barrier.wait()
            if waker():
                won.append(name)

        threads = [
            threading.Thread(target=race, args=(lambda name=name, waiter=waiter: waiter.wake(name), name))
            for name in "abc"
        ]
        threads.append(threading.Thread(target=race, args=(lambda waiter=waiter: waiter.fail(KeyError("d")), "d")))
        for thread in threads:
            thread.start()
        try:
            woken_by = real_hub.wait(waiter, 20)
        except KeyError:
            woken_by = "d"
        for thread in threads:
            thread.join()
        assert won == [woken_by]
        assert not real_hub.ready


def test_wakes_from_threads_race_with_timeouts_and_none_is_lost(real_hub: Hub, eager_threads: None) -> None:
    real_hub.others_could_wake = lambda: True
    requests: list[Waiter] = []
    done = threading.Event()
    claimed = 0

    def waker() -> None:
        nonlocal claimed
        while not done.is_set():
            if requests and requests.pop().wake("woken"):
                claimed += 1

    thread = threading.Thread(target=waker)
    thread.start()
    outcomes = []
    for number in range(2000):
        waiter = Waiter(real_hub, "wait")
        requests.append(waiter)
        outcomes.append(real_hub.wait(waiter, 0.0 if number % 2 else 20.0))
    done.set()
    thread.join()
    assert outcomes.count("woken") == claimed
    assert set(outcomes[::2]) == {"woken"}


def test_hub_asleep_is_woken_from_a_thread(real_hub: Hub) -> None:
    for _ in range(200):
        waiter = Waiter(real_hub, "wait")
        thread = threading.Thread(target=waiter.wake, args=("rung",))
        thread.start()
        assert real_hub.wait(waiter, 20) == "rung"
        thread.join()


@pytest.mark.parametrize("others", [0, 1])
def test_busy_hub_lets_other_threads_have_the_gil_every_few_milliseconds(
    others: int, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(0, 0.001)  # a millisecond passes each time that somebody looks
    slept: list[float] = []
    monkeypatch.setattr(os_threads, "monotonic", lambda: next(now))
    monkeypatch.setattr(os_threads, "sleep", slept.append)
    monkeypatch.setattr("greenswitch.hub.hub.count_os_threads", lambda: others)
    before = hub.turns
    while hub.turns < before + 60:
        sleep(0)
    assert (10 <= len(slept) <= 12) if others else not slept, "once in five turns, or six"
    sleep(1)
    assert len(slept) <= 13 and all(0 < seconds < 0.0001 for seconds in slept), "a hub that sleeps lets go of it anyway"


def test_waiter_says_what_it_waits_for_and_whether_it_is_woken(hub: Hub) -> None:
    waiter = Waiter(hub, "acquire", 7)
    assert repr(waiter) == "<Waiter live: acquire 7>"
    waiter.cancel()
    assert repr(waiter) == "<Waiter woken: acquire 7>"
    assert Waiter(hub, "rest").reason == "rest"
    assert repr(TIMED_OUT) == "TIMED_OUT"


def test_error_that_woke_a_waiter_is_freed_without_the_garbage_collector(hub: Hub) -> None:
    class Held:
        pass

    def wait_and_fail() -> weakref.ref[Held]:
        held = Held()
        waiter = Waiter(hub, "wait")
        hub.call_soon(waiter.fail, KeyError("cause"))
        with pytest.raises(KeyError):
            hub.park(waiter)
        return weakref.ref(held)

    gc.disable()
    try:
        # pytest.raises itself keeps frames in a cycle: so a plain try.
        def plain() -> weakref.ref[Held]:
            held = Held()
            waiter = Waiter(hub, "wait")
            hub.call_soon(waiter.fail, KeyError("cause"))
            try:
                hub.park(waiter)
            except KeyError:
                pass
            return weakref.ref(held)

        assert plain()() is None
    finally:
        gc.enable()
    assert wait_and_fail() is not None


# -- interrupts ----------------------------------------------------------------------------------------------------


def test_interrupt_of_one_that_is_parked_is_raised_there(hub: Hub) -> None:
    main = greenlet.getcurrent()
    hub.call_soon(hub.interrupt, main, KeyError("now"))
    with pytest.raises(KeyError, match="now"):
        hub.park(Waiter(hub, "wait"))


def test_interrupt_of_one_that_is_woken_already_waits_for_its_next_park(hub: Hub) -> None:
    waiter = Waiter(hub, "wait")
    waiter.wake("kept")
    hub.interrupt(greenlet.getcurrent(), KeyError("later"))
    assert hub.park(waiter) == "kept"
    following = Waiter(hub, "wait")
    with pytest.raises(KeyError, match="later"):
        hub.park(following)
    assert following.wake() is False


def test_several_interrupts_are_met_in_their_order(hub: Hub) -> None:
    main = greenlet.getcurrent()
    for number in range(3):
        hub.interrupt(main, KeyError(number))
    met = []
    for _ in range(3):
        try:
            sleep(0)
        except KeyError as error:
            met.append(error.args[0])
    assert met == [0, 1, 2]
    sleep(0)


def test_withdrawn_interrupt_is_not_met(hub: Hub) -> None:
    main = greenlet.getcurrent()
    kept, withdrawn = KeyError("kept"), KeyError("withdrawn")
    hub.interrupt(main, withdrawn)
    hub.interrupt(main, kept)
    hub.withdraw(main, withdrawn)
    with pytest.raises(KeyError, match="kept"):
        sleep(0)
    hub.interrupt(main, withdrawn)
    hub.withdraw(main)
    sleep(0)


# -- nothing is left behind (3) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["woken", "timed out", "failed", "killed"])
def test_wait_leaves_nothing_parked_and_nothing_timed(hub: Hub, how: str) -> None:
    waiters: list[Waiter] = []

    def wait() -> None:
        waiters.append(Waiter(hub, "wait"))
        hub.wait(waiters[0], 10)

    task = spawn(wait)
    sleep(1)
    assert len(hub.parked) == 1
    if how == "woken":
        waiters[0].wake()
    elif how == "failed":
        waiters[0].fail(KeyError())
    elif how == "killed":
        task.kill()
    else:
        sleep(10)
    task.join()
    assert (task.exception is not None) == (how == "failed")
    assert not hub.parked
    assert len(hub.timers) == 0


# -- starts (4) ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parked_forebears", [True, False])
def test_chain_of_starts_from_inside_tasks_is_no_recursion(hub: Hub, parked_forebears: bool) -> None:
    length = 5_000 if parked_forebears else 100_000

    def link(left: int) -> int:
        if not left:
            return 0
        child = spawn(link, left - 1)
        return 1 + child.get() if parked_forebears else 0

    reached: list[int] = []
    assert spawn(link, length).get() == (length if parked_forebears else 0)
    spawn(lambda: reached.append(1)).join()
    wait_for_all_tasks(hub)
    assert reached == [1]


def wait_for_all_tasks(hub: Hub) -> None:
    while hub.carriers.jobs():
        sleep(0)


def test_raw_greenlet_starts_and_parks_in_the_same_hub(hub: Hub) -> None:
    seen = []

    def raw() -> None:
        sleep(1)
        seen.append("raw")

    hub.call_soon(greenlet.greenlet(raw, parent=hub.greenlet).switch)
    sleep(0.5)
    seen.append("main")
    sleep(1)
    assert seen == ["main", "raw"]


# -- fairness (5) --------------------------------------------------------------------------------------------------


def test_ready_ones_run_first_in_first_out(hub: Hub) -> None:
    order: list[str] = []

    def one(name: str) -> None:
        for turn in range(3):
            order.append(f"{name}{turn}")
            sleep(0)

    joinall([spawn(one, name) for name in "abc"])
    assert order == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def test_two_busy_tasks_starve_neither_descriptors_nor_timers(real_hub: Hub) -> None:
    running = True
    turns = 0

    def busy() -> None:
        nonlocal turns
        while running:
            turns += 1
            sleep(0)

    busy_ones = [spawn(busy), spawn(busy)]
    reading, writing = os.pipe()
    reader = spawn(wait_readable, reading, 20)
    timed = spawn(sleep, 0.001)
    sleep(0)
    os.write(writing, b"x")
    before = turns
    reader.get()
    assert turns - before <= 122  # two small batches, put together up to 61 each
    timed.get(20)
    running = False
    joinall(busy_ones)
    os.close(reading)
    os.close(writing)


def test_poller_is_asked_after_every_batch(hub: Hub) -> None:
    busy = [spawn(lambda: [sleep(0) for _ in range(50)]) for _ in range(70)]
    before = hub.turns
    joinall(busy)
    assert 50 <= hub.turns - before <= 55


def test_callbacks_that_add_callbacks_let_others_run(hub: Hub) -> None:
    running = True

    def again() -> None:
        if running:
            hub.call_soon(again)

    again()
    for _ in range(5):
        sleep(0)
    running = False


# -- calls that don't block never switch (6) ------------------------------------------------------------------------


def test_non_blocking_calls_never_switch(hub: Hub) -> None:
    others: list[str] = []
    other = spawn(others.append, "ran")
    task = spawn(sleep, 1)
    waiter = Waiter(hub, "wait")
    hub.call_soon(others.append, "called")
    hub.call_later(0, others.append, "timed").cancel()
    waiter.wake()
    task.kill(block=False)
    task.join(timeout=0)
    task.link(print)
    task.unlink(print)
    assert others == []
    hub.park(waiter)
    joinall([other, task])
    assert others == ["ran", "called"]


# -- deadlock (7) --------------------------------------------------------------------------------------------------


def where(line: str) -> str:
    return re.sub(r"\.py:\d+", ".py:N", line)


def test_deadlock_error_lists_who_waits_for_what_and_where(hub: Hub) -> None:
    def wait_for_ever() -> None:
        hub.park(Waiter(hub, "acquire", "the moon"))

    task = spawn(wait_for_ever)
    task.name = "alice"
    with pytest.raises(DeadlockError) as caught:
        task.join()
    assert where(str(caught.value)) == (
        "everybody waits and nobody is left who could wake anyone:\n"
        f"  main greenlet: join Task 'alice' at {__file__[:-3]}.py:N in "
        "test_deadlock_error_lists_who_waits_for_what_and_where\n"
        f"  Task 'alice': acquire 'the moon' at {__file__[:-3]}.py:N in wait_for_ever"
    ) or {*where(str(caught.value)).splitlines()} == {
        "everybody waits and nobody is left who could wake anyone:",
        f"  main greenlet: join Task 'alice' at {__file__[:-3]}.py:N in "
        "test_deadlock_error_lists_who_waits_for_what_and_where",
        f"  Task 'alice': acquire 'the moon' at {__file__[:-3]}.py:N in wait_for_ever",
    }
    task.kill()


def test_two_tasks_that_wait_for_each_other_are_both_listed(hub: Hub) -> None:
    tasks: list[Any] = []
    for name in ("a", "b"):
        task = spawn(lambda other: tasks[other].join(), len(tasks) ^ 1)
        task.name = name
        tasks.append(task)
    with pytest.raises(DeadlockError, match=r"Task 'a': join Task 'b'(.|\n)*Task 'b': join Task 'a'"):
        joinall(tasks)
    tasks[0].kill()
    tasks[1].join()


def test_hub_goes_on_after_a_deadlock(hub: Hub) -> None:
    for _ in range(3):
        with pytest.raises(DeadlockError):
            hub.park(Waiter(hub, "wait"))
    sleep(1)


def test_deadlock_reaches_main_that_has_switched_by_hand_to_one_who_parks(hub: Hub) -> None:
    parked = greenlet.greenlet(lambda: hub.park(Waiter(hub, "wait for ever")))
    with pytest.raises(DeadlockError, match="wait for ever"):
        parked.switch()
    sleep(1)
    assert not hub.ready
    hub.interrupt(parked, GreenletExit())
    parked.parent = greenlet.getcurrent()
    sleep(0)
    assert parked.dead


def test_no_deadlock_while_another_thread_could_wake(no_leaked_fds: None) -> None:
    with Hub() as hub:
        waiter = Waiter(hub, "wait")
        timer = threading.Timer(0.05, waiter.wake, ("from a thread",))
        timer.start()
        assert hub.park(waiter) == "from a thread"
        timer.join()


def test_no_deadlock_while_a_timer_or_a_descriptor_could_wake(real_hub: Hub) -> None:
    sleep(0.01)
    reading, writing = os.pipe()
    writer = spawn(lambda: (sleep(0.01), os.write(writing, b"x")))
    wait_readable(reading)
    writer.join()
    os.close(reading)
    os.close(writing)


def test_no_deadlock_in_a_thread_that_is_not_the_main_one(no_leaked_fds: None) -> None:
    outcome: list[Any] = []
    waiters: list[Waiter] = []

    def in_thread() -> None:
        with Hub() as hub:
            waiters.append(Waiter(hub, "wait"))
            outcome.append(hub.park(waiters[0]))

    thread = threading.Thread(target=in_thread)
    thread.start()
    while not waiters:
        threading.Event().wait(0.001)
    threading.Event().wait(0.01)
    waiters[0].wake("woken")
    thread.join()
    assert outcome == ["woken"]


# -- callbacks (8) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("bad"), GreenletExit("bad"), GeneratorExit("bad"), StopIteration("bad")])
@pytest.mark.parametrize("how", ["call_soon", "call_later"])
def test_error_in_a_callback_is_reported_and_the_hub_goes_on(hub: Hub, error: BaseException, how: str) -> None:
    def bad() -> None:
        raise error

    if how == "call_soon":
        hub.call_soon(bad)
    else:
        hub.call_later(1, bad)
    sleep(2)
    (what,) = expect_errors(hub, type(error))
    assert what.startswith("callback <function") and "bad" in what
    assert not hub.ready
    assert spawn(lambda: 5).get() == 5


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_and_exit_in_a_callback_reach_main(hub: Hub, kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind("leaving")

    hub.call_soon(leave)
    with pytest.raises(kind, match="leaving"):
        sleep(10)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_and_exit_reach_main_that_has_switched_by_hand(hub: Hub, kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind("leaving")

    parked = greenlet.greenlet(sleep)
    hub.call_later(1, leave)
    with pytest.raises(kind, match="leaving"):
        parked.switch(10)
    parked.parent = hub.greenlet
    sleep(20)
    assert parked.dead


def test_ctrl_c_of_a_task_reaches_main_that_has_switched_by_hand(hub: Hub) -> None:
    def leave() -> None:
        sleep(1)
        raise KeyboardInterrupt

    task = spawn(leave)
    parked = greenlet.greenlet(sleep)
    with pytest.raises(KeyboardInterrupt):
        parked.switch(10)
    parked.parent = hub.greenlet
    assert task.state == "failed"
    sleep(20)


def test_broken_on_error_is_survived(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(what: str, error: BaseException) -> None:
        raise RuntimeError("on_error is broken")

    kept, hub.on_error = hub.on_error, broken
    hub.call_soon(lambda: 1 / 0)
    sleep(0)
    sleep(0)
    hub.on_error = kept
    assert "the hub's on_error failed" in capsys.readouterr().err


@pytest.mark.parametrize("waiting", [lambda: sleep(0), lambda: sleep(1), lambda: spawn(sleep, 1).join()])
def test_waiting_inside_the_hub_is_refused(hub: Hub, waiting: Any) -> None:
    hub.call_soon(waiting)
    sleep(5)
    expect_errors(hub, HubError)


def test_refusal_inside_the_hub_says_what_to_do(hub: Hub) -> None:
    hub.call_soon(sleep, 1)
    said: list[str] = []
    hub.on_error = lambda what, error: said.append(str(error))
    sleep(2)
    assert said == [
        "a callback runs inside the hub, which can't wait (sleep 1): spawn a task for it, "
        "or use a call that doesn't block"
    ]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_callback_may_switch_by_hand_to_greenlets_that_park(hub: Hub, times: int) -> None:
    order: list[str] = []

    def raw(number: int) -> None:
        order.append(f"start {number}")
        sleep(1 + number)
        order.append(f"end {number}")

    def callback() -> None:
        for number in range(times):
            greenlet.greenlet(raw, parent=hub.greenlet).switch(number)
        order.append("callback returns")

    hub.call_soon(callback)
    others = [spawn(sleep, 0) for _ in range(3)]
    sleep(10)
    joinall(others)
    assert sorted(order) == sorted(
        [f"start {n}" for n in range(times)] + ["callback returns"] + [f"end {n}" for n in range(times)]
    )
    assert not hub.ready


def test_callback_may_switch_by_hand_while_tasks_start_and_callbacks_come(hub: Hub) -> None:
    seen: list[str] = []

    def raw() -> None:
        hub.call_soon(seen.append, "callback")
        spawn(seen.append, "task")
        sleep(0)
        seen.append("raw")

    def callback() -> None:
        greenlet.greenlet(raw, parent=hub.greenlet).switch()
        greenlet.greenlet(raw, parent=hub.greenlet).switch()

    hub.call_soon(callback)
    hub.call_soon(callback)
    sleep(1)
    assert sorted(seen) == ["callback"] * 4 + ["raw"] * 4 + ["task"] * 4
    assert not hub.ready


@pytest.mark.parametrize("how", ["wake", "fail"])
def test_thread_that_is_held_up_amid_a_wake_is_waited_for(real_hub: Hub, how: str) -> None:
    """A line tracer (a debugger's, say) lets other threads run between claiming a greenlet and queueing it."""
    claimed, go = threading.Event(), threading.Event()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if event == "line" and frame.f_locals.get("claimed") and not claimed.is_set():
            claimed.set()
            go.wait(10)
        return trace

    def held_up() -> None:
        sys.settrace(trace)
        waiter.wake("value") if how == "wake" else waiter.fail(KeyError("value"))
        sys.settrace(None)

    real_hub.others_could_wake = lambda: True
    waiter = Waiter(real_hub, "wait")
    thread = threading.Thread(target=held_up)
    thread.start()
    assert claimed.wait(10)
    spawn(go.set)  # it runs once main is parked, and not before
    if how == "wake":
        assert real_hub.park(waiter) == "value"
    else:
        with pytest.raises(KeyError, match="value"):
            real_hub.park(waiter)
    thread.join()
    assert not real_hub.ready


def test_thread_that_wakes_somebody_and_ends_while_the_hub_asks_for_threads_leaves_no_deadlock(hub: Hub) -> None:
    waiter = Waiter(hub, "wait")

    def last_thread_ends() -> bool:
        waiter.wake("value")
        return False

    hub.others_could_wake = last_thread_ends
    assert hub.park(waiter) == "value"
    sleep(0)


# -- raw greenlets and switching by hand ----------------------------------------------------------------------------


def test_raw_greenlet_that_dies_with_an_error_is_reported_by_the_hub_its_parent(hub: Hub) -> None:
    def fail() -> None:
        sleep(1)
        raise ValueError("raw")

    hub.call_soon(greenlet.greenlet(fail, parent=hub.greenlet).switch)
    sleep(2)
    assert expect_errors(hub, ValueError) == ["a greenlet whose parent is the hub"]
    assert not hub.ready


def test_switch_by_hand_into_a_parked_greenlet_is_an_error_in_it(hub: Hub) -> None:
    caught: list[str] = []

    def parks() -> None:
        try:
            hub.wait(Waiter(hub, "wait", "for rain"), 10)
        except SwitchError as error:
            caught.append(str(error))

    raw = greenlet.greenlet(parks, parent=hub.greenlet)
    hub.call_soon(raw.switch)
    sleep(1)
    raw.parent = greenlet.getcurrent()
    raw.switch()  # it ends, and so comes back to its parent
    assert caught == [
        f"greenlet {hex(id(raw))} waits (wait 'for rain') and was switched to by hand, "
        "or by the end of a greenlet whose parent it is; wake it through its waiter"
    ]
    sleep(20)


def test_greenlet_thrown_into_while_parked_is_not_woken_later(hub: Hub) -> None:
    seen: list[str] = []

    def parks() -> None:
        try:
            sleep(1)
        except KeyError:
            seen.append("thrown")
        sleep(5)
        seen.append("slept")

    raw = greenlet.greenlet(parks, parent=hub.greenlet)
    hub.call_soon(raw.switch)
    sleep(0.5)
    hub.call_soon(raw.throw, KeyError())
    sleep(10)
    assert seen == ["thrown", "slept"]


@pytest.mark.parametrize("how", ["step aside", "woken"])
def test_greenlet_thrown_into_while_ready_has_no_second_turn(hub: Hub, how: str) -> None:
    seen: list[str] = []

    def ready_one() -> None:
        try:
            if how == "step aside":
                sleep(0)
            else:
                waiter = Waiter(hub, "wait")
                waiter.wake()
                hub.park(waiter)
        except KeyError:
            seen.append("thrown")
        sleep(5)
        seen.append("slept")

    def start_and_throw() -> None:
        hub.left = 0  # the batch is over,
        raw.switch()  # so it hands over to the hub, which is in this callback
        assert raw in hub.ready
        raw.throw(KeyError())

    raw = greenlet.greenlet(ready_one, parent=hub.greenlet)
    hub.call_later(1, start_and_throw)
    sleep(20)
    assert seen == ["thrown", "slept"]


def test_end_of_a_greenlet_whose_parent_waits_is_explained(hub: Hub) -> None:
    hub.call_soon(greenlet.greenlet(sleep).switch, 1)
    with pytest.raises(SwitchError, match="by the end of a greenlet whose parent it is"):
        sleep(5)


# -- closing -------------------------------------------------------------------------------------------------------


def test_close_gives_back_every_descriptor_with_tasks_still_parked(no_leaked_fds: None) -> None:
    with Hub() as hub:
        task = spawn(sleep, 100)
        sleep(0)
        assert task.state == "parked"
    assert repr(hub) == "<Hub closed>"
    assert not has_hub()


def test_freeing_a_closed_hub_with_parked_tasks_is_silent(
    no_leaked_fds: None, capfd: pytest.CaptureFixture[str]
) -> None:
    hub = Hub()
    with hub:
        spawn(sleep, 100)
        spawn(sleep, 0).join()
    del hub
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_closing_twice_does_nothing(no_leaked_fds: None) -> None:
    hub = Hub()
    hub.close()
    hub.close()


def test_close_in_a_callback_or_task_is_refused_and_harmless(hub: Hub) -> None:
    refused: list[str] = []

    def close() -> None:
        try:
            hub.close()
        except HubError as error:
            refused.append(str(error))

    hub.call_soon(close)
    spawn(close).join()
    assert refused == ["a hub is closed from its own thread, and not from one of its tasks or callbacks"] * 2
    assert not hub.closed


def test_close_from_another_thread_is_refused(hub: Hub) -> None:
    refused: list[BaseException] = []

    def close() -> None:
        try:
            hub.close()
        except HubError as error:
            refused.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    assert len(refused) == 1


def test_closed_hub_can_be_used_no_more(no_leaked_fds: None) -> None:
    hub = Hub()
    hub.close()
    with pytest.raises(HubError, match=r"this hub is closed: nobody could wake you again \(wait\)"):
        hub.park(Waiter(hub, "wait"))
    left_over: Any = greenlet.greenlet(step_aside)
    left_over.hub = hub  # as a carrier's
    with pytest.raises(HubError, match="closed"):
        left_over.switch()
    with pytest.raises(HubError, match="closed"), hub:
        pass
    assert not has_hub()


def test_close_inside_with_leaves_the_thread_without_hub(no_leaked_fds: None) -> None:
    with Hub() as hub:
        hub.close()
        assert not has_hub()
    assert not has_hub()


def test_hubs_nest(no_leaked_fds: None) -> None:
    with Hub() as outer:
        waiting = spawn(sleep, 0)
        with Hub() as inner:
            assert get_hub() is inner
            assert spawn(lambda: 1).get() == 1
        assert get_hub() is outer
        assert waiting.state == "new"
        waiting.join()
    assert not has_hub()


def test_hub_cant_stand_in_its_own_place_twice(hub: Hub) -> None:
    with pytest.raises(HubError, match="in its place already"), hub:
        pass
    assert get_hub() is hub


def test_close_closes_what_others_keep_with_the_hub_even_if_one_fails(no_leaked_fds: None) -> None:
    closed: list[str] = []

    class Kept:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)
            if self.name == "bad":
                raise OSError("can't")

    errors: list[BaseException] = []
    with Hub() as hub:
        hub.on_error = lambda what, error: errors.append(error)
        hub.local.update(bad=Kept("bad"), good=Kept("good"), plain=5)
    assert closed == ["bad", "good"]
    assert len(errors) == 1


def test_poller_of_the_users_own_that_fails_is_reported_and_ready_ones_run(no_leaked_fds: None) -> None:
    class Failing:
        def __init__(self) -> None:
            self.beneath, self.failures = make_poller(), iter([True, False, True])

        def __getattr__(self, name: str) -> Any:
            return getattr(self.beneath, name)

        def poll(self, timeout: float | None) -> list[tuple[int, int]]:
            if next(self.failures, False):
                raise OSError("no poll today")
            return self.beneath.poll(timeout)

    hub = Hub(Failing())
    errors: list[str] = []
    hub.on_error = lambda what, error: errors.append(f"{what}: {error}")
    with hub:
        for _ in range(300):  # several batches
            sleep(0)
    assert errors == ["asking the poller: no poll today"] * 2


def test_error_raised_by_a_signal_handler_in_the_poller_reaches_main(no_leaked_fds: None) -> None:
    class Alarmed(Exception):
        pass

    hub = Hub()
    poll, failures = hub.poller.poll, iter([Alarmed("from a handler")])

    def interrupted(timeout: float | None) -> list[tuple[int, int]]:
        for failure in failures:
            raise failure
        return poll(timeout)

    hub.poller.poll = interrupted  # type: ignore[method-assign]
    with hub:
        with pytest.raises(Alarmed, match="from a handler"):
            sleep(10)
        sleep(0)


# -- threads -------------------------------------------------------------------------------------------------------


def test_each_thread_has_its_own_hub_whose_descriptors_end_with_it(no_leaked_fds: None) -> None:
    hubs: list[int] = []

    def in_thread() -> None:
        hubs.append(id(get_hub()))
        spawn(sleep, 0).join()
        spawn(sleep, 100)
        sleep(0)
        hubs.append(id(get_hub()))

    for _ in range(5):
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
    assert len(hubs) == 10
    assert hubs[0::2] == hubs[1::2]


def test_hub_of_a_thread_is_freed_with_the_thread(no_leaked_fds: None) -> None:
    hubs: list[weakref.ref[Hub]] = []

    def in_thread() -> None:
        spawn(sleep, 0).join()
        hubs.append(weakref.ref(get_hub()))

    for _ in range(3):
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
    gc.collect()
    assert [ref() for ref in hubs] == [None] * 3


def test_hub_of_another_thread_calls_back_in_its_own(real_hub: Hub) -> None:
    where: list[int] = []
    thread = threading.Thread(target=lambda: real_hub.call_threadsafe(lambda: where.append(threading.get_ident())))
    thread.start()
    thread.join()
    sleep(0)
    assert where == [threading.get_ident()]


def test_repr_counts_who_is_ready_parked_and_timed(hub: Hub) -> None:
    spawn(sleep, 5)
    sleep(1)
    assert re.fullmatch(r"<Hub of thread \d+, .*: 0 ready, 1 parked, 1 timed>", repr(hub))
    sleep(5)


def test_outside_of_tasks_the_current_one_is_the_greenlet(hub: Hub) -> None:
    assert getcurrent() is greenlet.getcurrent()
