"""Carriers: greenlets that run one job after another, and no job notices."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from typing import Any

import greenlet
import pytest
from greenlet import GreenletExit

from greenswitch import Event, Lock, getcurrent, joinall, move_on_after, sleep, sockets, spawn
from greenswitch.hub import Hub, Waiter, carriers

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_one_carrier_runs_one_task_after_another(hub: Hub) -> None:
    seen = {spawn(lambda: id(greenlet.getcurrent())).get() for _ in range(20)}
    assert seen == {id(carrier) for carrier in hub.carriers.all}
    assert len(seen) == 1


def test_carriers_at_rest_are_bounded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "_MAX_IDLE", 10)
    joinall([spawn(sleep, 1) for _ in range(100)])
    sleep(0)
    assert len(hub.carriers.idle) <= 10
    assert len(hub.carriers.all) <= 10
    assert spawn(lambda: 5).get() == 5


def test_many_more_tasks_than_carriers_at_rest_all_end(hub: Hub) -> None:
    joinall(tasks := [spawn(sleep, 1) for _ in range(3000)])
    assert all(task.successful() for task in tasks)


def test_tasks_on_one_carrier_share_no_context_variables(hub: Hub) -> None:
    def change(value: str) -> tuple[str, int]:
        before = variable.get()
        variable.set(value)
        sleep(0)
        assert variable.get() == value
        return before, id(greenlet.getcurrent())

    (first, carrier), (second, same) = spawn(change, "a").get(), spawn(change, "b").get()
    assert (first, second) == ("unset", "unset")
    assert carrier == same
    assert variable.get() == "unset"


def test_task_gets_a_copy_of_its_spawners_context(hub: Hub) -> None:
    token = variable.set("mine")
    task = spawn(lambda: (variable.get(), variable.set("theirs"))[0])
    variable.reset(token)
    assert task.get() == "mine"
    assert variable.get() == "unset"


def test_context_variables_follow_a_task_through_many_switches(hub: Hub) -> None:
    def keep(value: str) -> None:
        variable.set(value)
        for _ in range(10):
            sleep(0)
            assert variable.get() == value

    joinall([spawn(keep, str(number)) for number in range(20)], raise_error=True)


def keep_strongly(kept: list[Any]) -> None:
    kept.append(greenlet.getcurrent())


def keep_weakly(kept: list[Any]) -> None:
    kept.append(weakref.WeakKeyDictionary({greenlet.getcurrent(): "secret"}))


def keep_by_attribute(kept: list[Any]) -> None:
    greenlet.getcurrent().secret = "secret"  # type: ignore[attr-defined]


def keep_by_a_child(kept: list[Any]) -> None:
    kept.append(greenlet.greenlet(lambda: None))  # its parent is the greenlet that makes it


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("keep", [keep_strongly, keep_weakly, keep_by_attribute, keep_by_a_child])
def test_no_job_runs_on_a_carrier_that_something_may_know(hub: Hub, keep: Any, waits: bool) -> None:
    def know() -> None:
        keep(kept)
        if waits:
            sleep(0)

    def look() -> tuple[bool, Any]:
        current = greenlet.getcurrent()
        known = any(current is one or (isinstance(one, weakref.WeakKeyDictionary) and current in one) for one in kept)
        return known, getattr(current, "secret", None)

    kept: list[Any] = []
    for _ in range(3):
        joinall([spawn(know) for _ in range(3)], raise_error=True)
        assert {spawn(look).get() for _ in range(3)} == {(False, None)}
    assert len(hub.carriers.all) <= 3


def wait_for_an_event() -> None:
    Event().wait(1)


def meet_a_deadline() -> None:
    with move_on_after(1):
        sleep(10)


def take_a_lock_that_others_want(lock: Lock = Lock()) -> None:  # noqa: B008
    with lock:
        sleep(0)


def receive() -> None:
    near, far = sockets.socketpair()
    with near, far:
        near.settimeout(5)
        sender = spawn(far.send, b"x")
        near.recv(1)
        sender.join()


def handle_an_error() -> None:
    try:
        raise ValueError
    except ValueError:
        sleep(0)


@pytest.mark.parametrize(
    "work", [wait_for_an_event, meet_a_deadline, take_a_lock_that_others_want, receive, handle_an_error]
)
def test_no_wait_keeps_a_carrier_from_the_next_job(hub: Hub, work: Any) -> None:
    joinall([spawn(work) for _ in range(5)], raise_error=True)
    before = set(map(id, hub.carriers.all))
    for _ in range(5):
        joinall([spawn(work) for _ in range(5)], raise_error=True)
    assert set(map(id, hub.carriers.all)) == before


def test_kill_of_an_ended_task_spares_the_next_on_its_carrier(hub: Hub) -> None:
    first = spawn(lambda: id(greenlet.getcurrent()))
    carrier = first.get()

    def second() -> str:
        assert id(greenlet.getcurrent()) == carrier
        sleep(2)
        return "unharmed"

    following = spawn(second)
    sleep(1)
    first.kill()
    assert following.get() == "unharmed"


def test_kill_not_met_by_a_task_that_ended_spares_the_next_on_its_carrier(hub: Hub) -> None:
    def ends_without_another_wait() -> None:
        waiter = Waiter(hub, "wait")
        waiters.append(waiter)
        hub.park(waiter)

    waiters: list[Waiter] = []
    first = spawn(ends_without_another_wait)
    sleep(1)
    waiters[0].wake()
    first.kill(block=False)  # it has been woken: the kill waits for a next park that never comes
    following = spawn(sleep, 1)
    joinall([first, following], raise_error=True)
    assert (first.state, following.state) == ("done", "done")


def test_getcurrent_is_the_task_never_the_carrier(hub: Hub) -> None:
    task = spawn(getcurrent)
    assert task.get() is task


class Held:
    """Something whose end can be seen."""


@pytest.mark.parametrize("ending", ["returns", "fails", "is killed", "is killed before it starts"])
def test_arguments_and_locals_are_freed_when_the_task_ends(hub: Hub, ending: str) -> None:
    def work(held: Held) -> None:
        here = Held()
        seen.append(weakref.ref(here))
        if ending == "fails":
            raise ValueError
        if ending == "is killed":
            sleep(10)

    seen: list[weakref.ref[Held]] = []
    held = Held()
    seen.append(weakref.ref(held))
    gc.disable()
    try:
        task: Any = spawn(work, held)
        del held
        if ending != "is killed before it starts":
            sleep(0)
        if ending.startswith("is killed"):
            task.kill()
        task.join()
        if ending == "fails":
            assert task.exception is not None
            del task  # an error keeps its frames, and goes with its task
        assert [ref() for ref in seen] == [None] * len(seen)
    finally:
        gc.enable()


def test_result_is_freed_with_its_task(hub: Hub) -> None:
    gc.disable()
    try:
        task = spawn(Held)
        task.join()
        result = weakref.ref(task.value)
        assert result() is not None
        del task
        assert result() is None
    finally:
        gc.enable()


def test_failure_nobody_looked_at_is_reported_as_soon_as_the_task_is_released(hub: Hub) -> None:
    def fail() -> None:
        raise ValueError("unseen")

    gc.disable()
    try:
        task: Any = spawn(fail)
        task.join()
        assert hub.errors == []  # type: ignore[attr-defined]
        name = task.name
        del task
        ((what, error),) = hub.errors  # type: ignore[attr-defined]
        assert (what, str(error)) == (f"Task '{name}', which nobody asked for its result,", "unseen")
    finally:
        gc.enable()
        hub.errors.clear()  # type: ignore[attr-defined]


def test_traceback_of_a_failure_starts_in_the_tasks_function(hub: Hub) -> None:
    def fail() -> None:
        raise ValueError

    task = spawn(fail)
    task.join()
    assert task.exception is not None and task.exception.__traceback__ is not None
    assert task.exception.__traceback__.tb_frame.f_code.co_name == "fail"


@pytest.mark.parametrize("error", [GeneratorExit, StopIteration, GreenletExit, MemoryError])
def test_carrier_survives_whatever_its_task_raises(hub: Hub, error: type[BaseException]) -> None:
    def fail() -> None:
        raise error

    task = spawn(fail)
    task.join()
    assert task.state == ("killed" if error is GreenletExit else "failed")
    assert (task.exception is None) == (error is GreenletExit)
    assert spawn(lambda: 1).get() == 1
    assert len(hub.carriers.all) == 1


def test_open_hubs_of_all_threads_are_found_and_closed_ones_are_not(no_leaked_fds: None) -> None:
    begun, go_on = threading.Event(), threading.Event()
    theirs: list[Hub] = []

    def in_thread() -> None:
        with Hub() as hub:
            theirs.append(hub)
            begun.set()
            go_on.wait(10)

    before = carriers.open_hubs()
    thread = threading.Thread(target=in_thread)
    with Hub() as outer, Hub() as inner:
        thread.start()
        begun.wait(10)
        new = [hub for hub in carriers.open_hubs() if hub not in before]
        assert {*new} == {outer, inner, *theirs}
        go_on.set()
        thread.join()
    assert [hub for hub in carriers.open_hubs() if hub not in before] == []
