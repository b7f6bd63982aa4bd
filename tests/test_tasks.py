"""Tasks: every state, every ending, and waiting for one or several."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import greenlet
import pytest
from greenlet import GreenletExit

import greenswitch
from greenswitch import (
    DeadlockError,
    Event,
    HubError,
    Task,
    get_hub,
    getcurrent,
    iwait,
    joinall,
    killall,
    run,
    shield,
    sleep,
    spawn,
    spawn_later,
    wait,
)
from greenswitch.hub import Hub, Waiter, has_hub
from greenswitch.testing import VirtualTime


def fail(error: BaseException) -> None:
    raise error


def seen_errors(hub: Hub) -> list[str]:
    """Return and clear what was reported."""
    reported = [f"{what} {error!r}" for what, error in hub.errors]  # type: ignore[attr-defined]
    hub.errors.clear()  # type: ignore[attr-defined]
    return reported


# -- states --------------------------------------------------------------------------------------------------------


def facts(task: Task) -> tuple[str, bool, bool, bool, bool, bool]:
    return task.state, task.started, task.dead, task.ready(), task.successful(), bool(task)


def test_task_passes_through_its_states(hub: Hub) -> None:
    inside: list[Any] = []

    def work() -> str:
        inside.append(facts(getcurrent()))
        sleep(1)
        return "result"

    task = spawn(work)
    assert facts(task) == ("new", False, False, False, False, False)
    sleep(0)
    assert inside == [("running", True, False, False, False, True)]
    assert facts(task) == ("parked", True, False, False, False, True)
    assert task.value is None
    task.join()
    assert facts(task) == ("done", False, True, True, True, False)
    assert (task.value, task.exception, task.get()) == ("result", None, "result")


def test_woken_task_is_ready_until_its_turn(hub: Hub) -> None:
    waiters: list[Waiter] = []

    def work() -> None:
        waiters.append(Waiter(hub, "wait"))
        hub.park(waiters[0])

    task = spawn(work)
    sleep(0)
    waiters[0].wake()
    assert task.state == "ready"
    task.get()


def test_failed_and_killed_are_two_things(hub: Hub) -> None:
    failed, killed = spawn(fail, ValueError("bad")), spawn(sleep, 9)
    sleep(0)
    killed.kill()
    assert facts(failed) == ("failed", False, True, True, False, False)
    assert facts(killed) == ("killed", False, True, True, False, False)
    assert (repr(failed.exception), killed.exception) == ("ValueError('bad')", None)
    assert (failed.value, killed.value) == (None, None)
    with pytest.raises(ValueError, match="bad"):
        failed.get()
    with pytest.raises(GreenletExit):
        killed.get()


def test_repr_says_the_state_and_what_is_waited_for(hub: Hub) -> None:
    task = spawn(sleep, 5)
    task.name = "sleeper"
    assert repr(task) == "<Task 'sleeper' new>"
    joiner = spawn(task.join)
    joiner.name = "joiner"
    sleep(0)
    assert repr(task) == "<Task 'sleeper' parked: sleep 5>"
    assert repr(joiner) == "<Task 'joiner' parked: join Task 'sleeper'>"
    joinall([task, joiner])
    assert repr(task) == "<Task 'sleeper' done>"
    failed = spawn(fail, ValueError("bad"))
    failed.name = "f"
    failed.join()
    assert repr(failed) == "<Task 'f' failed: ValueError('bad')>"
    assert failed.exception


def test_name_is_the_functions_and_a_number_before_and_after(hub: Hub) -> None:
    first, second = spawn(sleep), spawn(sleep)
    assert first.name.startswith("sleep-")
    joinall([first, second])
    assert second.name.startswith("sleep-")
    assert first.name != second.name

    class Work:
        def __call__(self) -> None:
            return None

    task = spawn(Work())
    task.join()
    assert task.name.startswith("Work-")


@pytest.mark.parametrize("thing", [None, 5, "print"])
def test_what_cant_be_called_cant_be_spawned(hub: Hub, thing: Any) -> None:
    with pytest.raises(TypeError, match=r"spawn needs a function and its arguments, not"):
        spawn(thing)
    with pytest.raises(TypeError, match=r"spawn_later needs seconds, a function"):
        spawn_later(1, thing)


def test_arguments_are_handed_over(hub: Hub) -> None:
    assert spawn(lambda *args, **kwargs: (args, kwargs), 1, 2, three=3).get() == ((1, 2), {"three": 3})
    assert spawn_later(1, dict, seconds=1, function=2).get() == {"seconds": 1, "function": 2}
    assert spawn(dict, function=1, hub=2, self=3).get() == {"function": 1, "hub": 2, "self": 3}


def test_spawn_inside_the_hub_is_fine(hub: Hub) -> None:
    seen: list[int] = []
    hub.call_soon(spawn, seen.append, 1)
    sleep(1)
    assert seen == [1]


# -- sleeping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-1, float("nan"), -0.001])
def test_sleep_refuses_what_time_sleep_refuses(hub: Hub, seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be a number from 0 on"):
        sleep(seconds)
    with pytest.raises(ValueError, match="seconds must be a number from 0 on"):
        spawn_later(seconds, print)


def test_sleepers_wake_in_the_order_of_their_times(hub: Hub, time: VirtualTime) -> None:
    order: list[float] = []

    def nap(seconds: float) -> None:
        sleep(seconds)
        order.append(seconds)
        assert time() == seconds

    joinall([spawn(nap, seconds) for seconds in (0.3, 0.1, 0.2)], raise_error=True)
    assert order == [0.1, 0.2, 0.3]


def test_spawn_later_starts_in_time_and_can_be_called_off(hub: Hub, time: VirtualTime) -> None:
    started, called_off = spawn_later(5, time), spawn_later(5, time)
    assert (started.state, started.started) == ("new", False)
    sleep(1)
    called_off.kill()
    assert called_off.state == "killed"
    assert started.get() == 5
    assert called_off.value is None


def test_spawn_later_may_be_called_off_when_it_is_due_already(hub: Hub) -> None:
    ran: list[int] = []
    task = spawn_later(1, ran.append, 1)
    hub.timers.add(1, lambda: task.kill(block=False))
    sleep(2)
    assert (ran, task.state) == ([], "killed")


def test_who_waits_for_every_task_waits_for_those_that_start_later_too(hub: Hub, time: VirtualTime) -> None:
    now, later = spawn(sleep, 1), spawn_later(5, sleep, 1)
    called_off = spawn_later(7, sleep, 1)
    called_off.kill()
    assert set(wait()) == {now, later}
    assert time() == 6


# -- join, get -----------------------------------------------------------------------------------------------------


def test_join_raises_nothing_and_get_raises_all(hub: Hub) -> None:
    task = spawn(fail, KeyError("k"))
    task.join()
    for _ in range(2):
        with pytest.raises(KeyError):
            task.get()


def test_join_and_get_take_a_timeout(hub: Hub, time: VirtualTime) -> None:
    task = spawn(sleep, 10)
    task.name = "slow"
    task.join(timeout=1)
    assert (time(), task.state) == (1, "parked")
    with pytest.raises(TimeoutError, match=r"<Task 'slow' parked: sleep 10> has not ended within 2 seconds"):
        task.get(timeout=2)
    assert time() == 3
    with pytest.raises(TimeoutError):
        task.get(timeout=0)
    task.join(timeout=-1)
    assert time() == 3
    assert task.get(timeout=100) is None
    assert time() == 10


def test_many_join_one(hub: Hub) -> None:
    task = spawn(lambda: (sleep(1), 5)[1])
    joiners = [spawn(task.get) for _ in range(100)]
    joinall(joiners)
    assert {joiner.value for joiner in joiners} == {5}


def test_joiner_that_is_killed_leaves_no_link(hub: Hub) -> None:
    task = spawn(sleep, 10)
    joiner = spawn(task.join)
    sleep(1)
    joiner.kill()
    assert not task._links
    task.join()


def test_join_inside_the_hub_is_refused(hub: Hub) -> None:
    task = spawn(sleep, 1)
    hub.call_soon(task.join)
    task.join()
    assert "HubError" in seen_errors(hub)[0]


def test_join_of_itself_is_a_deadlock_that_says_so(hub: Hub) -> None:
    task = spawn(lambda: getcurrent().join())
    task.name = "narcissus"
    with pytest.raises(DeadlockError, match="Task 'narcissus': join Task 'narcissus'"):
        task.join()
    task.kill()


# -- links ---------------------------------------------------------------------------------------------------------


def test_links_are_called_in_the_hub_in_their_order_also_when_it_has_ended(hub: Hub) -> None:
    calls: list[Any] = []
    task = spawn(fail, ValueError())
    task.link(lambda ended: calls.append((1, ended, greenlet.getcurrent() is hub.greenlet)))
    task.link(lambda ended: calls.append((2, ended, ended.state)))
    task.join()
    task.link(lambda ended: calls.append((3, ended, ended.dead)))
    assert len(calls) < 3
    sleep(1)
    assert calls == [(1, task, True), (2, task, "failed"), (3, task, True)]
    assert task.exception


def test_unlinked_callback_is_not_called(hub: Hub) -> None:
    calls: list[Task] = []
    task = spawn(sleep, 1)
    task.link(calls.append)
    task.unlink(calls.append)
    task.unlink(print)
    sleep(2)
    assert calls == []


def test_link_that_raises_is_reported_and_others_are_called(hub: Hub) -> None:
    calls: list[Task] = []
    task = spawn(sleep, 1)
    task.link(lambda _: fail(ValueError("link")))
    task.link(calls.append)
    sleep(2)
    assert calls == [task]
    assert "ValueError('link')" in seen_errors(hub)[0]


def test_link_needs_a_callable(hub: Hub) -> None:
    task = spawn(sleep)
    with pytest.raises(TypeError, match="link needs a callable"):
        task.link(5)  # type: ignore[arg-type]
    task.join()


# -- kill ----------------------------------------------------------------------------------------------------------


def test_killed_before_it_starts_it_never_runs(hub: Hub) -> None:
    ran: list[int] = []
    task = spawn(ran.append, 1)
    task.kill()
    assert task.state == "killed"
    sleep(1)
    assert ran == []


def test_killed_where_it_is_parked_its_finally_blocks_run_first(hub: Hub, time: VirtualTime) -> None:
    def work() -> None:
        try:
            sleep(100)
        finally:
            sleep(2)

    task = spawn(work)
    sleep(1)
    task.kill()
    assert (time(), task.state) == (3, "killed")


def test_killed_while_ready_it_keeps_what_it_was_given_and_dies_at_its_next_wait(hub: Hub) -> None:
    waiters, got = list[Waiter](), list[str]()

    def work() -> None:
        waiters.append(Waiter(hub, "wait"))
        got.append(hub.park(waiters[0]))
        sleep(1)
        got.append("never")

    task = spawn(work)
    sleep(0)
    waiters[0].wake("gift")
    task.kill()
    assert (got, task.state) == (["gift"], "killed")


def test_killed_while_it_yields(hub: Hub) -> None:
    task = spawn(lambda: [sleep(0) for _ in iter(int, 1)])
    sleep(0)
    task.kill()
    assert task.state == "killed"


def test_task_that_kills_itself_ends_there(hub: Hub) -> None:
    reached: list[int] = []

    def suicide() -> None:
        getcurrent().kill()
        reached.append(1)

    task = spawn(suicide)
    task.join()
    assert (task.state, reached) == ("killed", [])


def test_kill_of_the_dead_changes_nothing(hub: Hub) -> None:
    task = spawn(lambda: 5)
    task.join()
    task.kill()
    assert (task.state, task.value) == ("done", 5)


def test_kill_may_be_survived(hub: Hub) -> None:
    def survive() -> str:
        try:
            sleep(10)
        except GreenletExit:
            return "alive"
        return "?"

    task = spawn(survive)
    sleep(0)
    task.kill()
    assert (task.state, task.value) == ("done", "alive")


@pytest.mark.parametrize("error", [KeyError, KeyError("k")])
def test_kill_takes_another_exception(hub: Hub, error: Any) -> None:
    task = spawn(sleep, 10)
    sleep(0)
    task.kill(error)
    assert isinstance(task.exception, KeyError)


@pytest.mark.parametrize("error", [5, int, "GreenletExit"])
def test_kill_needs_an_exception(hub: Hub, error: Any) -> None:
    task = spawn(sleep)
    with pytest.raises(TypeError, match="kill needs an exception"):
        task.kill(error)
    task.join()


def test_kill_waits_no_longer_than_it_is_told(hub: Hub, time: VirtualTime) -> None:
    def slow_to_die() -> None:
        try:
            sleep(100)
        finally:
            sleep(10)

    task = spawn(slow_to_die)
    sleep(0)
    task.kill(timeout=3)
    assert (time(), task.dead) == (3, False)
    task.join()
    assert (time(), task.state) == (10, "killed")


def test_kill_inside_the_hub_does_not_wait(hub: Hub) -> None:
    task = spawn(sleep, 100)
    hub.call_later(1, lambda: task.kill(block=False))
    task.join()
    assert task.state == "killed"


@pytest.mark.parametrize("when", ["new", "parked"])
def test_kill_from_another_thread(real_hub: Hub, when: str) -> None:
    task = spawn(sleep, 100)
    if when == "parked":
        sleep(0)
    thread = threading.Thread(target=task.kill)
    thread.start()
    task.join()
    thread.join()
    assert task.state == "killed"


def test_join_and_get_from_other_threads(real_hub: Hub) -> None:
    task = spawn(lambda: (sleep(0.02), 5)[1])
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(task.get())) for _ in range(10)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    task.join()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    assert results == [5] * 10


# -- several -------------------------------------------------------------------------------------------------------


def nap(seconds: float) -> float:
    sleep(seconds)
    return seconds


def test_joinall_returns_those_that_have_ended(hub: Hub, time: VirtualTime) -> None:
    tasks = [spawn(nap, seconds) for seconds in (3, 1, 2)]
    assert joinall([]) == []
    assert joinall(tasks, timeout=0) == []
    assert joinall(tasks, timeout=1.5) == [tasks[1]]
    assert time() == 1.5
    assert joinall(iter(tasks), count=2) == [tasks[1], tasks[2]]
    assert time() == 2
    assert joinall(tasks) == tasks
    assert time() == 3


def test_joinall_raises_the_first_failure_at_once_if_asked(hub: Hub, time: VirtualTime) -> None:
    slow = spawn(nap, 10)
    broken = spawn_later(1, fail, ValueError("first"))
    with pytest.raises(ValueError, match="first"):
        joinall([slow, broken], raise_error=True)
    assert time() == 1
    assert joinall([slow, broken]) == [slow, broken]


def test_iwait_yields_each_once_as_it_ends(hub: Hub, time: VirtualTime) -> None:
    tasks = [spawn(nap, seconds) for seconds in (3, 1, 2)]
    assert [task.value for task in iwait([*tasks, tasks[0]])] == [1, 2, 3]
    assert list(iwait(tasks, timeout=0)) == tasks
    assert list(iwait(tasks, count=2)) == tasks[:2]
    assert list(iwait([])) == list(iwait(tasks, count=0)) == []


def test_iwait_that_is_left_early_leaves_no_links(hub: Hub) -> None:
    tasks = [spawn(nap, seconds) for seconds in (1, 2, 3)]
    arrivals = iwait(tasks)
    assert next(arrivals) is tasks[0]
    arrivals.close()  # type: ignore[attr-defined]
    assert not tasks[1]._links and not tasks[2]._links
    joinall(tasks)


def test_wait_has_one_timeout_for_all(hub: Hub, time: VirtualTime) -> None:
    tasks = [spawn(nap, seconds) for seconds in (1, 2, 3)]
    assert wait(tasks, timeout=2.5) == tasks[:2]
    assert time() == 2.5
    assert wait(tasks) == tasks


def test_wait_without_objects_waits_for_everybody_else(hub: Hub, time: VirtualTime) -> None:
    def waits() -> set[float]:
        return {task.value for task in wait()}

    spawn(nap, 1)
    spawn(nap, 2)
    assert spawn(waits).get() == {1, 2}


def test_wait_for_ten_thousand_takes_no_quadratic_time(hub: Hub) -> None:
    tasks = [spawn(nap, 1) for _ in range(10_000)]
    assert len(joinall(tasks, count=10_000)) == 10_000


def test_killall_kills_all_and_waits(hub: Hub, time: VirtualTime) -> None:
    def slow_to_die() -> None:
        try:
            sleep(100)
        finally:
            sleep(2)

    tasks = [spawn(slow_to_die) for _ in range(3)]
    new = spawn(nap, 1)
    sleep(0)
    late = spawn(nap, 1)
    killall(iter([*tasks, new, late]), timeout=1)
    assert (time(), [task.dead for task in tasks], new.state, late.state) == (1, [False] * 3, "killed", "killed")
    killall(tasks)  # a second kill cuts short the cleaning up
    assert {task.state for task in tasks} == {"killed"}
    killall(tasks, block=False)


def test_killall_spares_the_caller(hub: Hub) -> None:
    other = spawn(nap, 100)

    def caller() -> str:
        killall([getcurrent(), other])
        return "alive"

    assert spawn(caller).get() == "alive"
    assert other.state == "killed"


# -- errors nobody asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", ["get", "exception", "joinall"])
def test_failure_that_was_looked_at_is_not_reported(hub: Hub, look: str) -> None:
    task = spawn(fail, ValueError("seen"))
    task.join()
    if look == "exception":
        assert task.exception
    else:
        with pytest.raises(ValueError, match="seen"):
            task.get() if look == "get" else joinall([task], raise_error=True)
    del task
    assert seen_errors(hub) == []


@pytest.mark.parametrize("look", ["join", "repr", "state", "value", "nothing"])
def test_failure_nobody_looked_at_is_reported_once_with_the_tasks_name(hub: Hub, look: str) -> None:
    task: Any = spawn(fail, ValueError("unseen"))
    task.name = "blind"
    sleep(0)
    if look == "join":
        task.join()
    elif look == "repr":
        assert "unseen" in repr(task)
    elif look != "nothing":
        getattr(task, look)
    del task
    assert seen_errors(hub) == ["Task 'blind', which nobody asked for its result, ValueError('unseen')"]


def test_failure_of_a_task_that_is_kept_is_reported_when_its_hub_closes() -> None:
    reported: list[str] = []
    with Hub() as hub:
        hub.on_error = lambda what, error: reported.append(repr(error))
        kept = spawn(fail, ValueError("kept"))
        sleep(0)
        assert reported == []
    assert reported == ["ValueError('kept')"]
    del kept
    assert len(reported) == 1


# -- run -----------------------------------------------------------------------------------------------------------


def test_run_returns_what_main_returns_and_leaves_no_hub() -> None:
    assert run(lambda a, b: a + b, 1, 2) == 3
    assert not has_hub()


def test_run_raises_what_main_raises() -> None:
    with pytest.raises(KeyError, match="main"):
        run(fail, KeyError("main"))
    assert not has_hub()


def test_run_kills_what_is_left_and_its_finally_blocks_may_wait_and_spawn() -> None:
    log: list[str] = []

    def left() -> None:
        try:
            sleep(1000)
        finally:
            sleep(1)
            log.append("cleaned up")
            spawn(grandchild)

    def grandchild() -> None:
        log.append("grandchild")
        try:
            sleep(1000)
        finally:
            log.append("grandchild cleaned up")

    later: list[Task] = []

    def main() -> str:
        spawn(left)
        sleep(0)
        spawn(log.append, "started late")
        later.append(spawn_later(1000, log.append, "never"))
        return "result"

    assert run(main, hub=VirtualTime().hub()) == "result"
    assert later[0].state == "killed", "so that nobody in another thread waits for it for ever"
    assert "cleaned up" in log
    assert "never" not in log
    assert log.count("grandchild") == log.count("grandchild cleaned up")


def test_run_reports_tasks_that_refuse_to_die_within_the_grace() -> None:
    def refuse() -> None:
        while True:
            try:
                sleep(1000)
            except GreenletExit:
                continue

    def main() -> None:
        spawn(refuse).name = "immortal"
        sleep(0)

    time = VirtualTime()
    hub = time.hub()
    reported: list[str] = []
    hub.on_error = lambda what, error: reported.append(f"{what}: {error}")
    run(main, hub=hub, grace=7)
    assert time() == 7
    assert reported == [
        "closing the hub: still running 7 seconds after being killed: <Task 'immortal' parked: sleep 1000>"
    ]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("ends", [lambda: "result", partial(fail, KeyError("main"))])
def test_run_raises_ctrl_c_and_exit_of_another_task_that_come_as_main_ends(
    kind: type[BaseException], ends: Callable[[], str]
) -> None:
    hub = VirtualTime().hub()

    def main() -> str:
        spawn(fail, kind("now"))
        # The greenlet that has called run() is woken by the end of this task, and the other one's turn comes between.
        return ends()

    with pytest.raises(kind, match="now"):
        run(main, hub=hub)
    assert hub.closed and not hub.interrupts


def test_run_inside_a_task_or_callback_is_refused(hub: Hub) -> None:
    task = spawn(run, print)
    task.name = "inner"
    with pytest.raises(HubError, match=r"run\(\) starts a hub, and Task 'inner' runs inside one: spawn\(\)"):
        task.get()
    hub.call_soon(run, print)
    sleep(1)
    assert "HubError" in seen_errors(hub)[0]


def test_run_in_a_thread() -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(run(lambda: (sleep(0.001), 5)[1])))
    thread.start()
    thread.join()
    assert results == [5]


def test_spawn_in_a_closed_hub_is_refused() -> None:
    def main() -> None:
        spawn(spawns_when_killed)
        sleep(0)

    def spawns_when_killed() -> None:
        try:
            sleep(1000)
        finally:
            spawn(sleep)

    run(main)
    with Hub() as hub:
        hub.closed = True
        with pytest.raises(HubError, match="closed"):
            spawn(print)
        with pytest.raises(HubError, match="closed"):
            spawn_later(1, print)
        hub.closed = False
        assert get_hub() is hub


@pytest.mark.parametrize("state", ["parked", "ready", "shielded"])
def test_second_kill_before_the_first_is_met_does_not_cut_the_finally_short(hub: Hub, state: str) -> None:
    cleaned: list[str] = []
    event = Event()

    def works() -> None:
        try:
            if state == "shielded":
                with shield():
                    event.wait()
            event.wait()
            sleep(10)
        finally:
            sleep(0.001)
            cleaned.append("whole")

    task = spawn(works)
    sleep(0)
    if state == "ready":
        event.set()
    task.kill(block=False)
    task.kill(block=False)
    event.set()
    task.join()
    assert (cleaned, task.state) == (["whole"], "killed")


def test_kill_after_the_first_has_been_met_cuts_the_finally_short(hub: Hub) -> None:
    def works() -> None:
        try:
            sleep(10)
        finally:
            sleep(10)

    task = spawn(works)
    sleep(0)
    task.kill(block=False)
    sleep(0)
    task.kill(block=False)
    task.join(1)
    assert task.state == "killed"
# -- failures are told in time, and their tracebacks do not grow -------------------------------------------------------


def fail_early() -> None:
    raise ValueError("early")


def test_failure_of_a_background_task_is_reported_when_the_hub_has_nothing_else_to_do(hub: Any, time: Any) -> None:
    task = spawn(fail_early)
    sleep(0.01)
    ((what, error),) = hub.errors
    assert task.name in what and str(error) == "early"
    sleep(2)
    with pytest.raises(ValueError, match="early"):
        task.get()
    del task
    assert len(hub.errors) == 1  # once
    hub.errors.clear()


def test_failure_is_reported_after_a_second_if_the_hub_is_never_at_rest(hub: Any, time: Any) -> None:
    def busy() -> None:
        while hub.clock() < 3:
            time.now += 0.01
            sleep(0)
            if hub.errors:
                seen.append(hub.clock())
                break

    seen: list[float] = []
    task = spawn(fail_early)
    spawn(busy).join()
    assert len(seen) == 1 and 1 <= seen[0] < 1.5
    assert isinstance(task.exception, ValueError)
    hub.errors.clear()


@pytest.mark.parametrize("wait", ["get", "join", "link"])
def test_failure_of_a_task_that_something_waits_for_is_not_reported_at_once(wait: str, hub: Any, time: Any) -> None:
    def hear() -> None:
        with suppress(ValueError):
            task.link(heard.append) if wait == "link" else getattr(task, wait)()

    heard: list[Any] = []
    task = spawn_later(0.5, fail_early)
    waiting = spawn(hear)
    sleep(2)
    assert hub.errors == [] and waiting.dead
    assert isinstance(task.exception, ValueError)


def test_failure_leaves_nothing_that_hides_a_deadlock(hub: Any) -> None:
    task = spawn(fail_early)
    with pytest.raises(greenswitch.DeadlockError):
        greenswitch.Event().wait()
    assert len(hub.errors) == 1 and task.dead
    hub.errors.clear()


@pytest.mark.parametrize("kind", ["task", "result", "joinall"])
def test_traceback_of_a_failure_is_as_long_the_hundredth_time_as_the_first(kind: str, hub: Any) -> None:
    class Request:
        pass

    def ask() -> int:
        request = Request()
        alive.append(weakref.ref(request))
        try:
            get()
        except ValueError as error:
            return len(traceback.extract_tb(error.__traceback__))
        return -1

    alive: list[weakref.ref[Request]] = []
    task = spawn(fail_early)
    task.join()
    result = greenswitch.AsyncResult()
    result.set_exception(ValueError())
    get = {"task": task.get, "result": result.get, "joinall": lambda: joinall([task], raise_error=True)}[kind]
    lengths = [spawn(ask).get() for _ in range(100)]
    assert len(set(lengths)) == 1 and lengths[0] > 0
    gc.collect()
    assert sum(reference() is not None for reference in alive) <= 1  # what the last one raised
    assert isinstance(task.exception, ValueError)


def test_link_taken_back_before_the_hub_has_called_it_is_not_called(hub: Any) -> None:
    called: list[Any] = []
    task = spawn(int)
    task.join()
    task.link(called.append)
    task.unlink(called.append)
    task.link(called.append)
    sleep(0)
    assert called == [task]
    task.unlink(called.append)  # too late, and no error


def test_wait_for_what_can_not_be_waited_for_is_a_type_error(hub: Any) -> None:
    task = spawn(int)
    with pytest.raises(TypeError, match="can't wait for 7"):
        greenswitch.wait([task, 7])  # type: ignore[list-item]
    assert not task._links


def test_switch_to_a_running_task_by_hand_is_an_error(hub: Any) -> None:
    task = spawn(sleep, 1)
    sleep(0)
    with pytest.raises(greenswitch.SwitchError, match="kill it"):
        task.switch()
    task.join()


def test_links_for_a_value_or_an_exception_are_called_for_nothing_else(hub: Any) -> None:
    called: list[str] = []

    def note(what: str) -> Any:
        return lambda task: called.append(f"{task.name} {what}")

    tasks = {"returns": spawn(int), "fails": spawn(int, "x"), "is killed": spawn(sleep, 60)}
    for name, task in tasks.items():
        task.name = name
        task.link_value(note("value"))
        task.link_exception(note("exception"))
        task.link(note("end"))
    sleep(0)
    tasks["is killed"].kill()
    sleep(0)
    assert isinstance(tasks["fails"].exception, ValueError)
    assert sorted(called) == ["fails end", "fails exception", "is killed end", "returns end", "returns value"]


def test_link_for_a_value_can_be_taken_back(hub: Any) -> None:
    called: list[Any] = []
    task = spawn(int)
    task.link_value(called.append)
    task.unlink(called.append)
    task.join()
    sleep(0)
    assert called == []
