"""A patched thread has a trace and a profile function of its own, as a thread of the OS has."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from greenswitch import sleep
from greenswitch.green import threading, time
from greenswitch.hub import Hub, leave_by, leave_no_more_by

KINDS = {"settrace": (sys.gettrace, sys.settrace), "setprofile": (sys.getprofile, sys.setprofile)}


@pytest.fixture(params=KINDS)
def kind(hub: Hub, request: pytest.FixtureRequest) -> Iterator[str]:
    get, put = KINDS[request.param]
    before = get()
    put(None)
    yield request.param
    getattr(threading, request.param)(None)
    put(before)


def of_thread(frame: Any, event: str, arg: Any) -> None:
    return None


def of_main(frame: Any, event: str, arg: Any) -> None:
    return None


def run(function: Callable[[], Any]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def waiting_thread(then: Callable[[], Any] = lambda: None) -> tuple[Any, Any]:
    """Return a thread that waits for an event, and then calls `then`; return the event as well."""
    goes_on = threading.Event()
    waits = threading.Event()

    def wait() -> None:
        waits.set()
        goes_on.wait()
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    waits.wait()
    return thread, goes_on


def test_a_thread_has_the_function_also_after_it_has_waited(kind: str) -> None:
    get, _ = KINDS[kind]
    seen = []

    def wait_and_look() -> None:
        seen.append(get())
        time.sleep(0.001)
        seen.append(get())

    getattr(threading, kind)(of_thread)
    run(wait_and_look)

    assert seen == [of_thread, of_thread]


def test_main_does_not_get_it(kind: str) -> None:
    get, _ = KINDS[kind]

    getattr(threading, kind)(of_thread)
    thread, goes_on = waiting_thread()
    while_it_waits = get()
    goes_on.set()
    thread.join()

    assert (while_it_waits, get()) == (None, None)


def test_main_keeps_its_own(kind: str) -> None:
    get, put = KINDS[kind]

    getattr(threading, kind)(of_thread)
    put(of_main)
    run(lambda: time.sleep(0.001))
    kept = get()
    put(None)

    assert kept is of_main


def test_what_main_sets_while_a_thread_waits_stays(kind: str) -> None:
    get, put = KINDS[kind]

    getattr(threading, kind)(of_thread)
    thread, goes_on = waiting_thread()
    put(of_main)
    goes_on.set()
    thread.join()
    kept = get()
    put(None)

    assert kept is of_main


def test_a_thread_that_fails_leaves_nothing(kind: str) -> None:
    get, _ = KINDS[kind]
    begun = []

    def fail() -> None:
        begun.append(get())
        raise SystemExit

    getattr(threading, kind)(of_thread)
    run(fail)

    assert begun == [of_thread]
    assert get() is None


def test_a_thread_that_starts_later_without_a_hook_has_none(kind: str) -> None:
    get, _ = KINDS[kind]
    seen = []

    getattr(threading, kind)(of_thread)
    run(lambda: None)
    getattr(threading, kind)(None)
    run(lambda: seen.append(get()))

    assert seen == [None]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
def test_a_function_for_all_threads_reaches_main_and_a_thread_that_waits(kind: str) -> None:
    get, put = KINDS[kind]
    seen: list[Any] = []

    getattr(threading, kind)(of_thread)
    thread, goes_on = waiting_thread(lambda: seen.append(get()))
    getattr(threading, f"{kind}_all_threads")(of_main)
    seen.append(get())
    goes_on.set()
    thread.join()
    seen.append(get())
    put(None)

    assert seen == [of_main] * 3


def test_two_functions_that_put_state_away_are_called_one_inside_the_other(hub: Hub) -> None:
    calls = []

    def one(go: Callable[[], Any]) -> None:
        calls.append("one puts away")
        go()
        calls.append("one puts back")

    def two(go: Callable[[], Any]) -> None:
        calls.append("two puts away")
        go()
        calls.append("two puts back")

    leave_by(one)
    leave_by(two)
    sleep(0)
    leave_no_more_by(two)
    leave_no_more_by(one)
    sleep(0)

    assert calls == ["two puts away", "one puts away", "one puts back", "two puts back"]
