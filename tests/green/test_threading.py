"""The twin of `threading`: the standard library's own text, over our `_thread`. Nothing is patched here."""

from __future__ import annotations

import gc
import sys
import threading as original
from typing import Any

import pytest

from greenswitch import getcurrent, sleep, spawn
from greenswitch.green import threading
from greenswitch.hub import Hub, get_hub
from greenswitch.testing import VirtualTime

T: Any = threading


def test_every_name_of_the_original_is_there_and_the_original_is_untouched(hub: Hub) -> None:
    assert [name for name in dir(original) if not hasattr(threading, name)] == []
    assert set(threading.__all__) == set(original.__all__)
    assert T.Thread is not original.Thread and original.Lock is not T.Lock
    assert T.BrokenBarrierError is original.BrokenBarrierError and T.ThreadError is original.ThreadError
    with pytest.raises(AttributeError, match="neither has the standard library's threading"):
        T.no_such_name


def test_threads_are_tasks_that_wait_side_by_side(hub: Hub, time: VirtualTime) -> None:
    def work(number: int) -> None:
        sleep(1)
        seen.append((number, T.current_thread().name, T.get_ident() == T.current_thread().ident))

    seen: list[Any] = []
    threads = [T.Thread(target=work, args=(number,), name=f"T{number}") for number in range(3)]
    for thread in threads:
        thread.start()
    assert T.active_count() == 4 and set(T.enumerate()) == {T.main_thread(), *threads}
    for thread in threads:
        thread.join()
    assert seen == [(number, f"T{number}", True) for number in range(3)] and time.now == 1
    assert T.enumerate() == [T.main_thread()] and not any(thread.is_alive() for thread in threads)


def test_join_with_a_timeout_returns_while_the_thread_goes_on(hub: Hub, time: VirtualTime) -> None:
    thread = T.Thread(target=sleep, args=(2,))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and time.now == 0.5
    thread.join()
    assert time.now == 2


def test_what_waits_parks(hub: Hub, time: VirtualTime) -> None:
    def later() -> None:
        sleep(1)
        event.set()
        sleep(1)
        with condition:
            condition.notify()
        sleep(1)
        semaphore.release()
        sleep(1)
        barrier.wait()

    event, condition, semaphore, barrier = T.Event(), T.Condition(), T.Semaphore(0), T.Barrier(2)
    task = spawn(later)
    moments = []
    assert event.wait() and not event.wait.__self__._cond._lock.locked()
    moments.append(time.now)
    with condition:
        assert condition.wait(5)
    moments.append(time.now)
    assert semaphore.acquire()
    moments.append(time.now)
    barrier.wait()
    moments.append(time.now)
    assert moments == [1, 2, 3, 4]
    task.get()


def test_timer_fires_or_is_cancelled(hub: Hub, time: VirtualTime) -> None:
    fired: list[float] = []
    timers = [T.Timer(seconds, lambda: fired.append(time.now)) for seconds in (1, 2)]
    for timer in timers:
        timer.start()
    timers[1].cancel()
    for timer in timers:
        timer.join()
    assert fired == [1]


def test_local_is_each_threads_own(hub: Hub) -> None:
    def work(value: int) -> None:
        local.value = value
        sleep(0)
        seen.append(local.value)

    local, seen = T.local(), list[int]()
    threads = [T.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [0, 1, 2] and not hasattr(local, "value")


def test_plain_task_is_a_dummy_thread_of_its_name_that_goes_away_with_it(hub: Hub) -> None:
    def work() -> tuple[str, bool, bool]:
        dummy = T.current_thread()
        sleep(0)
        return dummy.name, dummy is T.current_thread(), dummy in T.enumerate()

    tasks = [spawn(work) for _ in range(3)]
    assert [task.get() for task in tasks] == [(task.name, True, True) for task in tasks]
    sleep(0)
    gc.collect()
    assert T.enumerate() == [T.main_thread()]


def test_thread_has_its_name_in_the_hubs_messages(hub: Hub, time: VirtualTime) -> None:
    names: list[str] = []
    thread = T.Thread(target=lambda: names.append(getcurrent().name), name="reader")
    thread.start()
    thread.join()
    assert names == ["reader"]


def test_error_of_a_thread_goes_to_the_excepthook(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("in the thread")

    thread = T.Thread(target=fail, name="failing")
    thread.start()
    thread.join()
    shown = capsys.readouterr().err
    assert shown.startswith("Exception in thread failing:\nTraceback") and "ValueError: in the thread" in shown


def test_ctrl_c_in_a_thread_goes_to_main_and_a_kill_says_nothing(
    hub: Hub, time: VirtualTime, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        T.Thread(target=interrupt).start()
        sleep(1)
    thread = T.Thread(target=sleep, args=(100,), daemon=True)
    thread.start()
    [task] = get_hub().carriers.jobs()
    task.kill()  # type: ignore[attr-defined]
    thread.join()
    assert capsys.readouterr().err == "" and time.now < 1


@pytest.mark.parametrize("make", ["Lock", "RLock"])
def test_killed_waiter_leaves_a_condition_with_the_lock_held_until_its_with_ends(make: str, hub: Hub) -> None:
    def work() -> None:
        with condition:
            try:
                condition.wait()
            finally:
                held.append(lock.locked() if make == "Lock" else lock._is_owned())

    lock = getattr(T, make)()
    condition, held = T.Condition(lock), list[bool]()
    task = spawn(work)
    sleep(0)
    with condition:
        condition.notify()
        sleep(0)  # it has been notified, and waits for the lock
        task.kill(block=False)
        sleep(0)
        task.kill(block=False)
        sleep(0)
        assert held == []
    task.join()
    assert held == [True] and lock.acquire(False)


def test_works_between_os_threads(real_hub: Hub) -> None:
    def other() -> None:
        started.set()
        event.wait()
        with condition:
            seen.append("other")
            condition.notify()

    real_hub.others_could_wake = lambda: True
    started, event, condition, seen = T.Event(), T.Event(), T.Condition(), list[str]()
    thread = original.Thread(target=other)
    thread.start()
    started.wait()
    with condition:
        event.set()
        condition.wait()
    assert seen == ["other"]
    thread.join()


def test_trace_functions_are_the_originals_own() -> None:
    assert T.gettrace() is None and T.getprofile() is None
    assert T.stack_size() == original.stack_size()
    assert "greenswitch" not in original.Thread.__module__ and sys.modules["threading"] is original
