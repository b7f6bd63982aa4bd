"""The twin of `_multiprocessing`: tasks park for a semaphore that several processes share, and own it one by one."""

from __future__ import annotations

import _multiprocessing as original  # type: ignore[import-not-found]
import itertools
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from greenswitch import move_on_after, sleep, spawn, timeout, to_thread
from greenswitch.green import _multiprocessing
from greenswitch.green._multiprocessing import SemLock
from greenswitch.hub import Hub

pytestmark = pytest.mark.skipif(not hasattr(original, "SemLock"), reason="no semaphores here")

RECURSIVE, SEMAPHORE = 0, 1
_names = itertools.count()


def make(kind: int = SEMAPHORE, value: int = 1, maxvalue: int = 1, of: Any = SemLock) -> Any:
    return of(kind, value, maxvalue, f"/greenswitch-{os.getpid()}-{next(_names)}", True)


def by_another_process(semaphore: Any) -> None:
    """Release it behind the twin's back, as only another process does."""
    semaphore._raw.release()


def test_every_name_of_the_original_is_there() -> None:
    assert [name for name in dir(original) if not hasattr(_multiprocessing, name)] == []
    assert [name for name in dir(original.SemLock) if not hasattr(SemLock, name)] == []


def calls_of_one_owner(lock: Any) -> list[Any]:
    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            return type(error), "" if isinstance(error, TypeError) else str(error)

    def state() -> list[Any]:
        return [lock._count(), lock._is_mine(), lock._get_value(), lock._is_zero(), lock.kind, lock.maxvalue]

    seen = [state()]
    for call in (
        lambda: lock.acquire(False),
        lambda: lock.acquire(block=False),
        lambda: lock.acquire(True, 0.001),
        lambda: lock.acquire(timeout=-1),
        lambda: lock.release(),
        lambda: lock.release(),
        lambda: lock.acquire(False, 5),
        lambda: lock._after_fork(),
        lambda: lock.release(),
        lambda: lock.release(),
        lambda: lock.release(),
        lambda: lock.acquire(timeout="x"),
    ):
        seen += [outcome(call), state()]
    return seen


@pytest.mark.parametrize(
    "values", [(RECURSIVE, 1, 1), (SEMAPHORE, 1, 1), (SEMAPHORE, 2, 2), (SEMAPHORE, 0, 5)], ids=str
)
def test_one_owner_gets_the_answers_and_errors_of_the_original(values: tuple[int, int, int], real_hub: Hub) -> None:
    assert calls_of_one_owner(make(*values)) == calls_of_one_owner(make(*values, of=original.SemLock))
    task = spawn(calls_of_one_owner, make(*values))
    assert task.get() == calls_of_one_owner(make(*values, of=original.SemLock))


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unrecognized kind"):
        make(kind=2)


def test_task_that_waits_parks_and_gets_it_as_soon_as_another_task_releases(hub: Hub) -> None:
    lock = make()
    lock.acquire()
    first, second = spawn(lock.acquire), spawn(lock.acquire)
    sleep(0)
    before = hub.clock()
    lock.release()
    assert first.get() is True
    assert hub.clock() == before  # it was handed over, not looked for
    assert not second.ready()
    lock.release()
    assert second.get() is True
    lock.release()
    assert lock._get_value() == 1


def test_tasks_of_one_os_thread_do_not_share_a_recursive_lock(real_hub: Hub) -> None:
    lock = make(RECURSIVE)
    assert lock.acquire() and lock.acquire()
    seen = []

    def other() -> None:
        seen.append((lock.acquire(False), lock._is_mine()))
        with pytest.raises(AssertionError, match="not owned"):
            lock.release()
        with lock:
            seen.append((lock._is_mine(), lock._count()))

    task = spawn(other)
    sleep(0)
    lock.release()
    sleep(0)
    assert seen == [(False, False)]
    lock.release()
    assert not lock._is_mine()
    assert not lock.acquire(False)  # it has been handed over, though the other has not run yet
    task.get()
    assert seen[1:] == [(True, 1)]
    assert lock._get_value() == 1


def test_release_by_another_process_is_found(real_hub: Hub) -> None:
    lock = make(value=0)
    tasks = [spawn(lock.acquire) for _ in range(2)]
    sleep(0)
    for number in (1, 2):
        by_another_process(lock)
        while sum(task.ready() for task in tasks) < number:
            sleep(0.001)
    assert [task.get() for task in tasks] == [True, True]
    assert lock._is_zero()


def test_main_that_is_alone_waits_in_c_for_another_process(real_hub: Hub) -> None:
    lock = make(value=0)
    turns = real_hub.turns
    assert not lock.acquire(timeout=0.12)
    assert real_hub.turns == turns


def test_task_that_another_os_thread_starts_runs_while_main_waits_in_c(real_hub: Hub) -> None:
    lock = make(value=0)
    thread = threading.Timer(0.01, real_hub.call_soon, (spawn, lock.release))
    thread.start()
    assert lock.acquire()
    thread.join()


def test_task_killed_while_it_waits_takes_nothing(real_hub: Hub) -> None:
    lock = make()
    lock.acquire()
    killed, next_one = spawn(lock.acquire), spawn(lock.acquire)
    sleep(0)
    killed.kill()
    lock.release()
    assert next_one.get() is True
    lock.release()
    assert lock._get_value() == 1


def test_what_was_given_to_a_task_that_is_interrupted_goes_to_the_next(real_hub: Hub) -> None:
    lock = make()
    lock.acquire()
    tasks = [spawn(lock.acquire) for _ in range(2)]
    sleep(0)
    lock.release()
    carrier = tasks[0].carrier
    assert carrier is not None
    real_hub.ready.remove(carrier)
    real_hub.call_soon(carrier.throw, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        sleep(0.01)
    assert tasks[1].get() is True


@pytest.mark.parametrize("how", ["its own", "a scope's"])
def test_time_limit_ends_the_wait_and_leaves_nothing(how: str, hub: Hub) -> None:
    lock = make()
    lock.acquire()
    before = hub.clock()
    if how == "its own":
        assert not lock.acquire(timeout=0.1)
    else:
        with pytest.raises(TimeoutError), timeout(0.1):
            lock.acquire()
    assert 0.1 <= hub.clock() - before < 0.11
    lock.release()
    assert lock._get_value() == 1
    assert not hub.timers.pending()


def test_semaphore_that_is_free_is_taken_without_meeting_a_time_limit(real_hub: Hub) -> None:
    lock = make()
    with move_on_after(0) as scope:
        lock.acquire()
        lock.release()
    assert not scope.expired


def test_os_thread_without_a_hub_waits_for_it(real_hub: Hub) -> None:
    lock = make()
    lock.acquire()
    waiting = spawn(to_thread, lock.acquire)
    sleep(0.01)
    lock.release()
    assert waiting.get() is True
    lock.release()
    assert lock._get_value() == 1


def test_hub_itself_is_refused(real_hub: Hub) -> None:
    lock = make()
    lock.acquire()
    real_hub.call_soon(lock.acquire)
    sleep(0)
    ((_, error),) = real_hub.errors  # type: ignore[attr-defined]
    assert "callback runs inside the hub" in str(error)
    real_hub.errors.clear()  # type: ignore[attr-defined]
    lock.release()
    assert lock._get_value() == 1
