"""Task groups: nothing is alive after the block, no error is lost, and everybody's `finally` has been waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import greenlet
import pytest

from greenswitch import sleep, spawn
from greenswitch.errors import DeadlockError, HubError, ScopeError
from greenswitch.groups import TaskGroup
from greenswitch.hub import Hub
from greenswitch.locks import Event
from greenswitch.testing import VirtualTime
from greenswitch.timeouts import move_on_after, shield, timeout

pytestmark = pytest.mark.usefixtures("hub")


def fail(seconds: float, error: BaseException) -> None:
    sleep(seconds)
    raise error


class Worker:
    """Waits, and takes its time to clean up."""

    def __init__(self, time: VirtualTime, cleanup: float = 0, error: BaseException | None = None) -> None:
        self.time = time
        self.cleanup = cleanup
        self.error = error
        self.cleaned: float | None = None

    def __call__(self) -> None:
        try:
            sleep(1000)
        finally:
            with shield():
                sleep(self.cleanup)
            self.cleaned = self.time()
            if self.error is not None:
                raise self.error


# -- all goes well -----------------------------------------------------------------------------------------------------


def test_block_ends_when_all_its_tasks_have(time: VirtualTime) -> None:
    with TaskGroup() as group:
        tasks = [group.spawn(sleep, seconds) for seconds in (3, 1, 2)]
    assert time() == 3 and all(task.successful() for task in tasks)


def test_block_without_tasks_does_not_even_switch(hub: Hub) -> None:
    switched: list[bool] = []
    hub.call_soon(switched.append, True)
    with TaskGroup():
        pass
    assert switched == []
    sleep(0)


def test_results_are_read_from_the_tasks() -> None:
    with TaskGroup() as group:
        task = group.spawn(lambda number, *, by: number * by, 6, by=7)
    assert task.value == 42


def test_children_may_spawn_siblings_also_while_the_block_only_waits(time: VirtualTime) -> None:
    def child(depth: int) -> None:
        sleep(1)
        seen.append(depth)
        if depth:
            group.spawn(child, depth - 1)

    seen: list[int] = []
    with TaskGroup() as group:
        group.spawn(child, 3)
    assert seen == [3, 2, 1, 0] and time() == 4


def test_killed_child_is_no_failure(time: VirtualTime) -> None:
    with TaskGroup() as group:
        victim = group.spawn(sleep, 100)
        group.spawn(sleep, 2)
        sleep(1)
        victim.kill()
    assert victim.state == "killed" and time() == 2


# -- failures ----------------------------------------------------------------------------------------------------------


def test_first_failure_kills_the_siblings_waits_for_their_ends_and_is_raised(time: VirtualTime) -> None:
    worker = Worker(time, cleanup=5)
    error = KeyError("first")
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(worker)
        group.spawn(fail, 1, error)
    assert caught.value.exceptions == (error,) and worker.cleaned == 6 and time() == 6


def test_failure_interrupts_the_block_where_it_waits(time: VirtualTime) -> None:
    seen = []
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(fail, 1, KeyError())
        try:
            sleep(100)
        finally:
            seen.append(time())
        seen.append(-1)
    assert seen == [1] and len(caught.value.exceptions) == 1


def test_all_errors_are_raised_together(time: VirtualTime) -> None:
    first, second, third = KeyError(), ValueError(), OSError()
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(Worker(time, error=second))
        group.spawn(fail, 1, first)
        try:
            sleep(100)
        finally:
            raise third
    assert set(caught.value.exceptions) == {first, second, third}


def test_two_failures_in_the_same_turn_are_both_raised(time: VirtualTime) -> None:
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(fail, 0, KeyError())
        group.spawn(fail, 0, ValueError())
        group.spawn(sleep, 100)
    assert sorted(type(one).__name__ for one in caught.value.exceptions)[0] == "KeyError" and time() == 0


def test_error_of_the_block_kills_the_tasks_and_comes_in_the_group(time: VirtualTime) -> None:
    worker = Worker(time, cleanup=2)
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(worker)
        sleep(1)
        raise KeyError("block")
    assert isinstance(caught.value.exceptions[0], KeyError) and worker.cleaned == 3


def test_task_that_has_not_started_never_runs_once_another_has_failed() -> None:
    ran = []
    with pytest.raises(ExceptionGroup), TaskGroup() as group:
        group.spawn(fail, 0, KeyError())
        sleep(0)
        task = group.spawn(ran.append, True)
        raise ValueError
    assert task.state == "killed" and ran == []


def test_swallowed_interrupt_of_the_block_changes_nothing(time: VirtualTime) -> None:
    with pytest.raises(ExceptionGroup), TaskGroup() as group:
        group.spawn(fail, 1, KeyError())
        try:
            sleep(100)
        except BaseException:  # what a careless library does
            pass
    assert time() == 1
    sleep(1)


def test_block_that_waits_no_more_is_not_interrupted_after_it(hub: Hub) -> None:
    with pytest.raises(ExceptionGroup):
        with TaskGroup() as group:
            group.spawn(fail, 0, KeyError())
            sleep(0)
            sleep(0)
    sleep(1)
    assert not hub.interrupts


def test_error_that_is_no_exception_makes_a_base_exception_group() -> None:
    class Odd(BaseException):
        pass

    with pytest.raises(BaseExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(fail, 0, Odd())
    assert not isinstance(caught.value, ExceptionGroup)


def test_failures_of_a_group_are_reported_by_nobody_else(hub: Hub) -> None:
    with pytest.raises(ExceptionGroup), TaskGroup() as group:
        group.spawn(fail, 0, KeyError())
    assert hub.errors == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_keyboard_interrupt_and_system_exit_come_out_bare(error: BaseException, time: VirtualTime) -> None:
    worker = Worker(time, cleanup=1)
    with pytest.raises(type(error)) as caught, TaskGroup() as group:
        group.spawn(worker)
        group.spawn(fail, 1, error)
        group.spawn(fail, 1, KeyError())
    assert caught.value is error and worker.cleaned == 2
    worker = Worker(time)
    with pytest.raises(type(error)) as caught, TaskGroup() as group:
        group.spawn(worker)
        sleep(0)
        raise error
    assert caught.value is error and worker.cleaned is not None


def test_ctrl_c_while_the_block_waits_for_its_tasks_ends_them(hub: Hub, time: VirtualTime) -> None:
    worker = Worker(time, cleanup=2)
    hub.call_later(1, hub.interrupt_main, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), TaskGroup() as group:
        group.spawn(worker)
    assert worker.cleaned == 3


def test_second_ctrl_c_does_not_wait_for_who_hangs(hub: Hub, time: VirtualTime) -> None:
    worker = Worker(time, cleanup=100)
    for seconds in (1, 2):
        hub.call_later(seconds, hub.interrupt_main, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), TaskGroup() as group:
        task = group.spawn(worker)
    assert time() == 2 and worker.cleaned is None
    task.join()


def test_deadlocked_group_says_so(time: VirtualTime) -> None:
    with pytest.raises(DeadlockError, match="TaskGroup"), TaskGroup() as group:
        group.spawn(Event().wait)


# -- interrupted from outside ------------------------------------------------------------------------------------------


def parent_of(worker: Callable[[], None], waits_in_block: bool) -> Callable[[], None]:
    def parent() -> None:
        with TaskGroup() as group:
            group.spawn(worker)
            if waits_in_block:
                sleep(1000)

    return parent


inside_or_at_the_end = pytest.mark.parametrize("waits_in_block", [True, False], ids=["in the block", "at its end"])


@inside_or_at_the_end
def test_killed_parent_kills_its_tasks_and_waits_for_them(waits_in_block: bool, time: VirtualTime) -> None:
    worker = Worker(time, cleanup=5)
    parent = spawn(parent_of(worker, waits_in_block))
    sleep(1)
    parent.kill()
    assert parent.state == "killed" and worker.cleaned == 6 and time() == 6


@inside_or_at_the_end
def test_killed_parent_raises_what_its_tasks_fail_with(waits_in_block: bool, time: VirtualTime) -> None:
    parent = spawn(parent_of(Worker(time, error=KeyError()), waits_in_block))
    sleep(1)
    parent.kill()
    assert isinstance(parent.exception, ExceptionGroup)


@inside_or_at_the_end
def test_parent_killed_twice_still_waits(waits_in_block: bool, time: VirtualTime) -> None:
    worker = Worker(time, cleanup=5)
    parent = spawn(parent_of(worker, waits_in_block))
    sleep(1)
    parent.kill(block=False)
    sleep(1)
    parent.kill()
    assert parent.state == "killed" and worker.cleaned == 6


@inside_or_at_the_end
def test_parent_killed_with_any_exception_raises_it(waits_in_block: bool, time: VirtualTime) -> None:
    parent = spawn(parent_of(Worker(time), waits_in_block))
    sleep(1)
    parent.kill(ValueError)
    error = parent.exception
    assert isinstance(error, ExceptionGroup if waits_in_block else ValueError)


@inside_or_at_the_end
def test_deadline_around_a_group_ends_it(waits_in_block: bool, time: VirtualTime) -> None:
    worker = Worker(time, cleanup=5)
    with pytest.raises(TimeoutError), timeout(1):
        parent_of(worker, waits_in_block)()
    assert worker.cleaned == 6
    with move_on_after(1) as scope:
        parent_of(worker, waits_in_block)()
    assert scope.expired and worker.cleaned == 12


def test_deadline_around_a_group_gives_way_to_errors(time: VirtualTime) -> None:
    with pytest.raises(ExceptionGroup), move_on_after(1) as scope:
        parent_of(Worker(time, error=KeyError()), False)()
    assert scope.expired


def test_deadline_inside_of_a_group_ends_its_own_block_only(time: VirtualTime) -> None:
    with TaskGroup() as group:
        task = group.spawn(sleep, 5)
        with move_on_after(1) as scope:
            task.join()
        assert scope.expired and time() == 1
    assert time() == 5


def test_shield_around_a_group_keeps_kills_off_but_not_failures(time: VirtualTime) -> None:
    def work() -> None:
        with shield():
            with pytest.raises(ExceptionGroup), TaskGroup() as group:
                group.spawn(fail, 5, KeyError())
                sleep(100)
        seen.append(time())
        sleep(100)

    seen: list[float] = []
    task = spawn(work)
    sleep(1)
    task.kill()
    assert seen == [5] and task.state == "killed"


# -- nested ------------------------------------------------------------------------------------------------------------


def test_inner_group_ends_before_the_outer_goes_on(time: VirtualTime) -> None:
    with TaskGroup() as outer:
        outer.spawn(sleep, 1)
        with TaskGroup() as inner:
            inner.spawn(sleep, 3)
        assert time() == 3
        outer.spawn(sleep, 3)
    assert time() == 6


def test_failure_in_the_inner_group_passes_through_the_outer(time: VirtualTime) -> None:
    worker = Worker(time, cleanup=1)
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as outer:
        outer.spawn(worker)
        with TaskGroup() as inner:
            inner.spawn(fail, 1, KeyError())
    [inside] = caught.value.exceptions
    assert isinstance(inside, ExceptionGroup) and isinstance(inside.exceptions[0], KeyError) and worker.cleaned == 2


def test_failure_in_the_outer_group_ends_the_inner(time: VirtualTime) -> None:
    worker = Worker(time, cleanup=1)
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as outer:
        outer.spawn(fail, 1, KeyError())
        with TaskGroup() as inner:
            inner.spawn(worker)
    assert [type(one) for one in caught.value.exceptions] == [KeyError] and worker.cleaned == 2


def test_group_in_a_task_of_a_group_is_ended_with_it(time: VirtualTime) -> None:
    worker = Worker(time, cleanup=1)
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as outer:
        outer.spawn(parent_of(worker, False))
        outer.spawn(fail, 1, KeyError())
    assert len(caught.value.exceptions) == 1 and worker.cleaned == 2


# -- misuse, and from elsewhere ----------------------------------------------------------------------------------------


def test_spawn_outside_of_the_block_is_refused() -> None:
    group = TaskGroup()
    with pytest.raises(ScopeError, match="takes no more"):
        group.spawn(sleep)
    with group:
        with pytest.raises(TypeError, match="needs a function"):
            group.spawn(None)  # type: ignore[arg-type]
    with pytest.raises(ScopeError, match="takes no more"):
        group.spawn(sleep)


def test_spawn_after_a_failure_is_refused(time: VirtualTime) -> None:
    refused = []

    def late(group: TaskGroup) -> None:
        try:
            sleep(100)
        finally:
            try:
                group.spawn(sleep)
            except ScopeError:
                refused.append(True)

    with pytest.raises(ExceptionGroup), TaskGroup() as group:
        group.spawn(late, group)
        group.spawn(fail, 1, KeyError())
    assert refused == [True]


def test_group_is_entered_once() -> None:
    group = TaskGroup()
    with group, pytest.raises(ScopeError, match="entered before"), group:
        pass
    with pytest.raises(ScopeError, match="entered before"), group:
        pass


def test_leaving_in_another_task_is_refused_and_ends_the_tasks() -> None:
    group = TaskGroup()

    def begin() -> None:
        group.__enter__()
        sleep(1)

    def finish() -> None:
        task = group.spawn(sleep, 100)
        with pytest.raises(ScopeError, match="was entered by"):
            group.__exit__(None, None, None)
        task.join()
        assert task.state == "killed"

    beginner = spawn(begin)
    sleep(0)
    spawn(finish).get()
    beginner.join()


def test_group_in_the_hub_is_refused(hub: Hub) -> None:
    hub.call_soon(TaskGroup().__enter__)
    sleep(0)
    [(_, error)] = hub.errors  # type: ignore[attr-defined]
    hub.errors.clear()  # type: ignore[attr-defined]
    assert isinstance(error, HubError) and "spawn a task" in str(error)


def test_raw_greenlet_has_a_group(hub: Hub, time: VirtualTime) -> None:
    def work() -> None:
        with pytest.raises(ExceptionGroup), TaskGroup() as group:
            group.spawn(fail, 1, KeyError())
            sleep(100)
        seen.append(time())

    seen: list[float] = []
    hub.call_soon(greenlet.greenlet(work, hub.greenlet).switch)
    sleep(5)
    assert seen == [1]


def test_spawn_from_another_thread_is_refused() -> None:
    refused: list[Any] = []

    def intrude() -> None:
        with pytest.raises(ScopeError, match="another thread") as caught:
            group.spawn(sleep)
        refused.append(caught.value)

    with TaskGroup() as group:
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_group_says_what_it_waits_for() -> None:
    def parent() -> None:
        with TaskGroup() as group:
            group.spawn(sleep, 5)
            group.spawn(sleep, 5)

    task = spawn(parent)
    sleep(1)
    assert "wait for <TaskGroup closing, 2 tasks>" in repr(task)
    task.join()
