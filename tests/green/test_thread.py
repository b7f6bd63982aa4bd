"""The twin of `_thread`: threads are tasks, and everything says and refuses what the original's says and refuses."""

from __future__ import annotations

import _thread as original
import sys
import threading
from typing import Any

import greenlet
import pytest

from greenswitch import Event, sleep, spawn, timeout, to_thread
from greenswitch.green import _thread
from greenswitch.hub import Hub, get_hub
from greenswitch.testing import VirtualTime


def test_every_name_of_the_original_is_there() -> None:
    assert [name for name in dir(original) if not hasattr(_thread, name)] == []
    with pytest.raises(AttributeError, match="neither has the standard library's _thread"):
        _thread.no_such_name


# -- idents ------------------------------------------------------------------------------------------------------------


def test_each_task_has_an_ident_of_its_own_and_main_that_of_the_os(hub: Hub) -> None:
    def both() -> tuple[int, int, int, int]:
        before = _thread.get_ident(), _thread.get_native_id()
        sleep(0)
        return before + (_thread.get_ident(), _thread.get_native_id())

    assert both() == (original.get_ident(), original.get_native_id()) * 2
    tasks = [spawn(both) for _ in range(3)]
    seen = [task.get() for task in tasks]
    assert all(one[:2] == one[2:] for one in seen)
    assert len({one[0] for one in seen} | {original.get_ident()}) == 4
    assert {one[1] for one in seen} == {original.get_native_id()}  # the OS knows no other


def test_ident_of_a_task_that_is_given_to_the_os_means_its_os_thread(hub: Hub) -> None:
    assert _thread.os_thread_of(original.get_ident()) == original.get_ident()
    ident = _thread.start_new_thread(sleep, (0.01,))
    assert _thread.os_thread_of(ident) == original.get_ident()
    sleep(0.02)
    with pytest.raises(ProcessLookupError):
        _thread.os_thread_of(12345)


def test_hub_is_part_of_its_os_thread_and_a_raw_greenlet_is_not(hub: Hub) -> None:
    seen: list[int] = []
    hub.call_soon(lambda: seen.append(_thread.get_ident()))
    sleep(0)
    greenlet.greenlet(lambda: seen.append(_thread.get_ident())).switch()
    assert seen[0] == original.get_ident() != seen[1]


def test_os_thread_has_its_own_ident(real_hub: Hub) -> None:
    ours, theirs = to_thread(lambda: (_thread.get_ident(), original.get_ident()))
    assert ours == theirs != original.get_ident()


# -- locks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["allocate_lock", "RLock"])
def test_repr_is_the_originals_and_says_who_holds_it(kind: str, hub: Hub) -> None:
    ours, theirs = getattr(_thread, kind)(), getattr(original, kind)()
    assert repr(ours).split()[:2] == repr(theirs).split()[:2] and "object free at 0x" in repr(ours)
    with ours, theirs:
        assert repr(ours).split()[:2] == repr(theirs).split()[:2] and "held by main greenlet at 0x" in repr(ours)


@pytest.mark.parametrize(
    "args", [(True, -2), (False, 1), (True, 1e18), (True, None), (True, float("nan")), (True, "x"), (1, 2, 3)]
)
@pytest.mark.parametrize("kind", ["allocate_lock", "RLock"])
def test_wrong_arguments_are_refused_with_the_originals_errors(kind: str, args: Any) -> None:
    errors = []
    for module in (original, _thread):
        with pytest.raises((TypeError, ValueError, OverflowError)) as caught:
            getattr(module, kind)().acquire(*args)
        errors.append(caught.type)
    assert errors[0] is errors[1]


def test_lock_has_the_originals_methods_and_cannot_be_a_base() -> None:
    for kind in ("allocate_lock", "RLock"):
        ours, theirs = getattr(_thread, kind)(), getattr(original, kind)()
        assert [name for name in dir(theirs) if not hasattr(ours, name)] == []
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Mine", (_thread.LockType,), {})


def test_lock_is_made_by_its_type_only_where_the_originals_is() -> None:
    if sys.version_info >= (3, 13):
        assert not _thread.lock().locked()
    else:
        with pytest.raises(TypeError, match=r"cannot create '_thread\.lock' instances"):
            _thread.lock()


KINDS = ["allocate_lock", "RLock", "BriefLock"]


@pytest.mark.parametrize("kind", KINDS)
def test_lock_that_is_free_is_had_without_a_switch_and_without_raising_what_is_pending(kind: str, hub: Hub) -> None:
    def work() -> None:
        woken.wait()
        for _ in range(3 * _thread._FAILED):
            with lock:
                assert not other, "another task has run"
            assert lock.acquire(False)
            lock.release()
        done.append(True)
        sleep(100)

    lock, woken, done, other = getattr(_thread, kind)(), Event(), list[bool](), list[bool]()
    task = spawn(work)
    sleep(0)
    woken.set()
    task.kill(block=False)
    spawn(other.append, True)
    task.join()
    assert done == [True] and task.state == "killed"


@pytest.mark.parametrize("kind", KINDS)
def test_task_that_polls_under_a_free_lock_lets_the_others_do_their_part_and_meets_no_kill(
    kind: str, hub: Hub
) -> None:
    def spin() -> int:
        for turn in range(10 * _thread._TAKEN):
            with lock:
                if ready:
                    return turn
        return -1

    lock, ready = getattr(_thread, kind)(), list[bool]()
    spinning = spawn(spin)
    spawn(spinning.kill, block=False)
    spawn(ready.append, True)
    assert 0 < spinning.get() <= 2 * _thread._TAKEN


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("args", [(False,), (True, 0)])
def test_task_that_tries_in_vain_for_a_lock_lets_its_holder_release_it(kind: str, args: Any, hub: Hub) -> None:
    def hold() -> None:
        with lock:
            sleep(0)

    def spin() -> int:
        tries = 0
        while not lock.acquire(*args):
            tries += 1
        return tries

    lock = getattr(_thread, kind)()
    spawn(hold)
    spinning = spawn(spin)
    assert _thread._FAILED <= spinning.get() + 1 <= 2 * _thread._FAILED


def test_task_that_tries_in_vain_for_a_lock_can_be_killed_and_timed_out(real_hub: Hub) -> None:
    def spin() -> None:
        while not lock.acquire(False):
            pass

    lock = _thread.allocate_lock()
    lock.acquire()
    spinning = spawn(spin)
    spawn(spinning.kill, block=False)
    spinning.join()
    assert spinning.state == "killed"
    with pytest.raises(TimeoutError), timeout(0.01):
        spin()


def test_few_tries_in_vain_and_those_inside_the_hub_never_switch(hub: Hub) -> None:
    def work() -> None:
        for _ in range(_thread._FAILED // 2):
            assert not held.acquire(False)
            assert free.acquire(False)
            free.release()
        for _ in range(_thread._FAILED // 2):
            assert not held.acquire(False)
        seen.append(len(other))

    def in_hub() -> None:
        for _ in range(3 * _thread._FAILED):
            held.acquire(False)
        seen.append(len(other))

    held, free, seen, other = _thread.allocate_lock(), _thread.allocate_lock(), list[int](), list[int]()
    held.acquire()
    hub.call_soon(in_hub)
    spawn(work)
    spawn(other.append, 1)
    sleep(0)
    assert seen == [0, 0]


def test_task_that_asks_in_vain_whether_a_thread_lives_lets_that_end(hub: Hub) -> None:
    handle = _thread.start_joinable_thread(lambda: sleep(0))
    while not handle.is_done():
        pass
    made: list[Any] = []
    _thread.start_new_thread(lambda: made.append(_thread._set_sentinel()), ())
    sleep(0)
    while not made[0].acquire(False):
        pass


def test_condition_over_a_lock_notifies_without_a_try_in_vain(hub: Hub) -> None:
    condition, other = threading.Condition(_thread.allocate_lock()), list[int]()  # type: ignore[arg-type]
    spawn(other.append, 1)
    for _ in range(3 * _thread._FAILED):
        with condition:
            condition.notify()
    assert other == []
    with pytest.raises(RuntimeError, match="un-acquired lock"):
        condition.notify()


def test_lock_that_is_released_to_a_killed_task_before_its_turn_is_still_taken_by_it(hub: Hub) -> None:
    """So the waiter of a condition that has been killed and then notified has been notified, and no other is missed."""

    def wait() -> None:
        lock.acquire()
        taken.append(True)
        sleep(100)

    lock, taken = _thread.allocate_lock(), list[bool]()
    lock.acquire()
    task = spawn(wait)
    sleep(0)
    task.kill(block=False)
    lock.release()
    task.join()
    assert taken == [True] and lock.locked() and task.state == "killed"


# -- threads -----------------------------------------------------------------------------------------------------------


def test_thread_runs_beside_with_an_empty_context_and_is_counted(hub: Hub, time: VirtualTime) -> None:
    def work(*args: int, by: int) -> None:
        seen.append((_thread.get_ident(), sum(args) * by, _thread._count() - before))
        sleep(1)

    seen, before = list[Any](), _thread._count()
    ident = _thread.start_new_thread(work, (1, 2), {"by": 3})
    assert seen == []
    sleep(0.5)
    assert seen == [(ident, 9, 1)]
    sleep(1)
    assert _thread._count() == before


def test_wrong_arguments_of_a_thread_are_refused() -> None:
    wrong: list[tuple[Any, ...]] = [(1, ()), (print, []), (print, (), [])]
    for args in wrong:
        errors = []
        for module in (original, _thread):
            with pytest.raises(TypeError) as caught:
                module.start_new_thread(*args)
            errors.append(str(caught.value))
        assert errors[0] == errors[1]


def test_error_of_a_thread_is_reported_as_the_originals_and_system_exit_is_not(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ValueError("in the thread")

    reports: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    _thread.start_new_thread(sys.exit, (1,))
    _thread.start_new_thread(fail, ())
    sleep(0)
    ours = reports.pop()
    assert reports == []
    with monkeypatch.context() as patch:
        patch.setattr(sys, "unraisablehook", reports.append)
        done = original.allocate_lock()
        original.start_new_thread(fail, ())
        while not reports:
            done.acquire(timeout=0.001) and done.release()  # type: ignore[func-returns-value]
    theirs = reports.pop()
    assert (ours.exc_type, ours.err_msg, ours.object) == (theirs.exc_type, theirs.err_msg, theirs.object)
    assert type(ours) is type(theirs)


def test_ctrl_c_in_a_thread_reaches_main_at_once_also_when_it_was_about_to_go_on(hub: Hub) -> None:
    def interrupt() -> None:
        lock.release()  # main is ready now
        raise KeyboardInterrupt

    lock = _thread.allocate_lock()
    lock.acquire()
    _thread.start_new_thread(interrupt, ())
    with pytest.raises(KeyboardInterrupt):
        lock.acquire()
    assert lock.acquire(False), "who was interrupted has passed it on"


def test_killed_thread_ends_without_a_word(hub: Hub, time: VirtualTime) -> None:
    _thread.start_new_thread(sleep, (100,))
    sleep(0)
    [task] = [job for job in get_hub().carriers.jobs() if isinstance(job, _thread.ThreadTask)]
    task.kill()
    assert task.state == "killed" and task not in _thread._running


# -- what threads are joined by ----------------------------------------------------------------------------------------


def test_sentinel_is_free_for_all_at_once_when_its_thread_has_ended(hub: Hub, time: VirtualTime) -> None:
    def work() -> None:
        made.append(_thread._set_sentinel())
        made[0].acquire()
        sleep(1)

    def join() -> bool:
        got = made[0].acquire()
        made[0].release()
        return got and not made[0].locked()

    made: list[Any] = []
    _thread.start_new_thread(work, ())
    sleep(0)
    assert made[0].locked() and not made[0].acquire(False) and not made[0].acquire(True, 0.5)
    joiners = [spawn(join) for _ in range(3)]
    assert [joiner.get(1) for joiner in joiners] == [True, True, True]


def test_handle_joins_its_thread_and_refuses_what_the_originals_refuses(hub: Hub, time: VirtualTime) -> None:
    handle = _thread._ThreadHandle()
    for call in (handle.join, handle._set_done):
        with pytest.raises(RuntimeError, match="thread not started"):
            call()
    assert _thread.start_joinable_thread(lambda: sleep(1), handle=handle) is handle
    with pytest.raises(RuntimeError, match="thread already started"):
        _thread.start_joinable_thread(print, handle=handle)
    handle.join(0.5)
    assert not handle.is_done()
    handle.join()
    assert handle.is_done() and time.now == 1
    wrong: Any = 1
    with pytest.raises(TypeError, match="'handle' must be a _ThreadHandle"):
        _thread.start_joinable_thread(print, handle=wrong)
    with pytest.raises(TypeError, match="must be callable"):
        _thread.start_joinable_thread(wrong)


def test_thread_cannot_join_itself(hub: Hub) -> None:
    def work() -> None:
        try:
            handle.join()
        except RuntimeError as error:
            errors.append(str(error))

    errors: list[str] = []
    handle = _thread.start_joinable_thread(work)
    handle.join()
    assert errors == ["Cannot join current thread"]


def test_shutdown_waits_for_all_but_daemons(hub: Hub, time: VirtualTime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "_os_shutdown", lambda: None)
    _thread.start_joinable_thread(lambda: sleep(1), daemon=False)
    daemon = _thread.start_joinable_thread(lambda: sleep(2))
    _thread._shutdown()
    assert time.now == 1 and not daemon.is_done()
    daemon.join()


def test_os_threads_are_left_to_the_os(real_hub: Hub) -> None:
    assert threading.current_thread() is threading.main_thread()
    assert to_thread(threading.get_ident) != threading.get_ident()
