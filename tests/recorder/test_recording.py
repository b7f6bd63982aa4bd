"""What a recording is, whatever it holds: bounded, only text, a table, and a good neighbour of other tracers."""

from __future__ import annotations

import gc
import itertools
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import greenlet
import pytest

from greenswitch import sleep, spawn
from greenswitch.core import relay
from greenswitch.errors import ScopeError
from greenswitch.hub import Carrier, Hub, Waiter
from greenswitch.locks import Lock
from greenswitch.recorder import Event, Recording, record
from greenswitch.tasks import Task
from greenswitch.testing import VirtualTime


def ticking() -> Callable[[], float]:
    """Return a clock that shows a millisecond more each time."""
    return (number / 1000 for number in itertools.count()).__next__


def bounce(rounds: int = 1) -> None:
    main = greenlet.getcurrent()
    other = greenlet.greenlet(lambda: [main.switch() for _ in range(rounds)])
    other.name = "other"  # type: ignore[attr-defined]
    for _ in range(rounds + 1):
        other.switch()


@pytest.fixture(autouse=True)
def tracing_is_left_as_it_was() -> Iterator[None]:
    """Fail the test that leaves a trace function, or the kernel with a probe in it."""
    parts = ((Waiter, "wake"), (Waiter, "fail"), (Lock, "_hand_over"), (Task, "__init__"), (Carrier, "job"))
    before = [vars(owner)[name] for owner, name in parts]
    assert greenlet.gettrace() is None
    yield
    assert greenlet.gettrace() is None
    assert [vars(owner)[name] for owner, name in parts] == before


# --- looking at it ----------------------------------------------------------------------------------------------------


def test_recording_is_a_series_of_events_with_a_length() -> None:
    with record(clock=ticking()) as recording:
        bounce()
    assert list(recording) == [
        Event(0.001, "switch", "main greenlet", "other", "suspended", "", ""),
        Event(0.002, "switch", "other", "main greenlet", "suspended", "", ""),
        Event(0.003, "switch", "main greenlet", "other", "suspended", "", ""),
        Event(0.004, "switch", "other", "main greenlet", "done", "", "its result"),
    ]
    assert len(recording) == 4
    assert recording.lanes == ["main greenlet", "other"]


def test_recording_prints_as_a_table_with_times_in_milliseconds() -> None:
    with record(clock=ticking()) as recording:
        relay.ping_pong(1)
    assert str(recording).splitlines() == [
        "   ms  who                         whom           why   with",
        "1.000  main greenlet  →            play_ping            0",
        "2.000  play_ping      →            play_pong            1",
        "3.000  play_pong      →            play_ping            2",
        "4.000  play_ping      →            main greenlet  done  its result",
        "5.000  main greenlet  throws into  play_pong            raises GreenletExit",
        "6.000  play_pong      →            main greenlet  done  its result",
    ]


def test_long_table_is_cut_in_the_middle_and_says_so() -> None:
    with record(clock=ticking()) as recording:
        bounce(200)
    lines = str(recording).splitlines()
    assert len(lines) == 1 + 100 + 1
    assert lines[51] == "      …  302 more: table(None) shows them all"
    assert lines[50].startswith(" 50.000") and lines[52].startswith("353.000")
    assert len(recording.table(None).splitlines()) == 1 + 402
    assert len(recording.table(10).splitlines()) == 1 + 10 + 1


def test_table_for_jupyter_has_a_row_for_each_event_and_escapes_what_it_shows() -> None:
    with record() as recording:
        main = greenlet.getcurrent()
        other = greenlet.greenlet(lambda text: main.switch(text))
        other.switch("<b>&")
        html = recording._repr_html_()
    assert html.count("<tr>") == 1 + 2
    assert "<td>&#x27;&lt;b&gt;&amp;&#x27;</td>" in html and "<b>" not in html


def test_long_table_for_jupyter_is_cut_too() -> None:
    with record() as recording:
        bounce(200)
    html = recording._repr_html_()
    assert html.count("<tr>") == 1 + 100 + 1
    assert "… 302 more" in html


def test_recording_can_be_looked_at_while_it_goes_on() -> None:
    with record(clock=ticking()) as recording:
        assert (len(recording), str(recording).count("\n")) == (0, 0)
        bounce()
        assert len(recording) == 4
        assert repr(recording) == "<Recording of 4 events, under way>"
        assert recording.seconds == 0.005
        bounce()
    assert len(recording) == 8
    assert repr(recording) == "<Recording of 8 events, 0.011000 s>"
    assert repr(record()) == "<Recording of 0 events, not begun>"
    assert record().seconds == 0.0


def test_greenlets_of_the_same_name_are_told_apart() -> None:
    with record() as recording:
        relay.round_robin(["ab", "cd", "e"])
    assert recording.lanes == ["main greenlet", "take", "take (2)", "take (3)"]


def test_greenlet_is_called_by_its_name_else_by_its_outermost_function_even_if_that_ran_before() -> None:
    main = greenlet.getcurrent()

    def outer() -> None:
        inner()

    def inner() -> None:
        main.switch()
        main.switch()

    early, silent = greenlet.greenlet(outer), greenlet.greenlet(lambda: None)
    early.switch()
    with record() as recording:
        early.switch()
        silent.switch()  # ends without ever having been seen to stand anywhere
    early.switch()
    assert recording.lanes == ["main greenlet", "outer", "greenlet"]


# --- memory -----------------------------------------------------------------------------------------------------------


def test_recording_keeps_the_last_events_and_counts_those_it_dropped() -> None:
    with record(limit=3, clock=ticking()) as recording:
        bounce(4)
    assert (len(recording), recording.dropped) == (3, 7)
    assert [event.time for event in recording] == [0.008, 0.009, 0.01]
    assert str(recording).splitlines()[-1] == "7 earlier events dropped: record(limit=…) keeps more"
    assert "7 earlier events dropped" in recording._repr_html_()
    assert repr(recording) == "<Recording of 3 events, 0.012000 s, 7 dropped>"


class Thing:
    def __repr__(self) -> str:
        return "a thing"


def test_what_was_passed_is_text_and_nothing_is_kept_alive() -> None:
    kept: list[weakref.ref[Any]] = []

    def program() -> None:
        main = greenlet.getcurrent()
        other = greenlet.greenlet(lambda thing: main.switch(thing))
        thing = Thing()
        kept.extend([weakref.ref(thing), weakref.ref(other)])
        other.switch(thing)

    with record() as recording:
        program()
        assert [one() for one in kept] == [None, None]
    assert [event.passed for event in recording][:2] == ["a thing", "a thing"]


def test_greenlet_that_is_being_let_go_is_not_held() -> None:
    """To hold it while its `finally` blocks run would bring it back to life: CPython 3.13.0 crashes then."""
    counts: list[int] = []

    def child() -> None:
        try:
            main.switch()
        finally:
            counts.append(sys.getrefcount(greenlet.getcurrent()))

    main = greenlet.getcurrent()
    recorders: list[AbstractContextManager[Any]] = [nullcontext(), record()]
    for recorder in recorders:
        with recorder:
            greenlet.greenlet(child).switch()
    assert len(counts) == 2 and counts[0] == counts[1]


def test_task_and_its_value_live_no_longer_for_having_been_recorded(hub: Hub) -> None:
    class Value:
        pass

    with record() as recording:
        task = spawn(Value)
        value, name = weakref.ref(task.get()), task.name
        reference = weakref.ref(task)
        del task
        sleep(0)  # its carrier has gone on
        gc.collect()
        assert (reference(), value()) == (None, None)
    assert name in recording.lanes


def test_lanes_of_what_has_ended_are_forgotten(hub: Hub) -> None:
    with record(limit=10) as recording:
        for _ in range(50):
            spawn(sleep, 0).join()
        assert recording._tracer is not None
        assert len(recording._tracer._lanes._known) < 10
        del recording


# --- thread and scope -------------------------------------------------------------------------------------------------


def test_other_threads_are_not_recorded() -> None:
    with record() as recording:
        thread = threading.Thread(target=bounce)
        thread.start()
        thread.join()
    assert len(recording) == 0


def test_two_threads_can_record_at_once() -> None:
    recordings: list[Recording] = []

    def recorded() -> None:
        with record() as recording:
            both_are_in.wait(10)
            bounce(3)
            both_are_in.wait(10)
        recordings.append(recording)

    both_are_in = threading.Barrier(2)
    threads = [threading.Thread(target=recorded) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [len(recording) for recording in recordings] == [8, 8]


def test_recording_left_in_another_thread_is_refused_and_stops_all_the_same() -> None:
    recording = record()
    recording.__enter__()
    failures: list[str] = []

    def leave() -> None:
        task = spawn(int)  # in a hub of this thread, which is none of the recording's
        with pytest.raises(ScopeError) as failure:
            recording.__exit__(None, None, None)
        failures.append(str(failure.value))
        task.join()

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    assert failures == [
        "a recording is of one thread: leave its `with` block in the thread that has entered it"
    ]
    bounce()  # its trace function finds that it is over, and takes itself out
    assert len(recording) == 0 and greenlet.gettrace() is None


def test_recording_is_made_once() -> None:
    with record() as recording:
        with pytest.raises(ScopeError, match="needs a record\\(\\) of its own"):
            recording.__enter__()
    with pytest.raises(ScopeError, match="made already"):
        with recording:
            pass
    with pytest.raises(ScopeError, match="ended already"):
        recording.__exit__(None, None, None)
    with pytest.raises(ScopeError, match="not begun"):
        record().__exit__(None, None, None)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"limit": 0}, ValueError, "limit is a number of events from 1 on, not 0"),
        ({"limit": -5}, ValueError, "not -5"),
        ({"limit": 1.5}, TypeError, "limit is a number of events, not 1.5"),
        ({"limit": True}, TypeError, "not True"),
        ({"clock": 5}, TypeError, "clock is a function that returns seconds, not 5"),
    ],
)
def test_wrong_argument_is_refused(given: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        record(**given)


def test_error_inside_the_block_comes_out_and_ends_the_recording() -> None:
    with pytest.raises(ZeroDivisionError):
        with record() as recording:
            bounce()
            1 / 0
    bounce()
    assert len(recording) == 4


def test_clock_is_the_hubs_or_else_monotonic(hub: Hub, time: VirtualTime) -> None:
    with record() as recording:
        sleep(5)
    assert recording.seconds == 5.0
    assert [event.time for event in recording][-1] == 5.0


def test_clock_without_a_hub_is_monotonic() -> None:
    with record() as recording:
        began = time.monotonic()
        while time.monotonic() - began < 0.002:
            pass
    assert 0.002 <= recording.seconds < 10


# --- other users of settrace ------------------------------------------------------------------------------------------


def test_trace_function_that_was_there_is_called_on_to_and_put_back() -> None:
    heard: list[str] = []

    def theirs(event: str, ends: tuple[greenlet.greenlet, greenlet.greenlet]) -> None:
        heard.append(event)

    greenlet.settrace(theirs)
    try:
        with record() as recording:
            bounce()
        assert greenlet.gettrace() is theirs
        assert heard == ["switch"] * 4
        bounce()
        assert (len(heard), len(recording)) == (8, 4)
    finally:
        greenlet.settrace(None)


def test_recordings_nest() -> None:
    with record() as outer:
        bounce()
        with record() as inner:
            bounce()
        bounce()
    assert (len(outer), len(inner)) == (12, 4)


def test_recordings_may_end_in_any_order() -> None:
    first, second = record(), record()
    first.__enter__()
    second.__enter__()
    bounce()
    first.__exit__(None, None, None)
    bounce()
    second.__exit__(None, None, None)
    assert (len(first), len(second)) == (4, 8)
    assert greenlet.gettrace() is not None  # the first one's, which second has put back: nobody could know
    bounce()
    assert (len(first), len(second)) == (4, 8)
    assert greenlet.gettrace() is None


def test_tracer_that_came_later_stays() -> None:
    heard: list[str] = []

    def theirs(event: str, ends: tuple[greenlet.greenlet, greenlet.greenlet]) -> None:
        heard.append(event)
        assert before is not None
        before(event, ends)

    with record() as recording:
        before = greenlet.settrace(theirs)
        bounce()
    assert greenlet.gettrace() is theirs
    bounce()
    assert (len(heard), len(recording), recording.complete) == (8, 4, True)
    greenlet.settrace(before)
    bounce()
    assert greenlet.gettrace() is None


def test_tracing_switched_off_meanwhile_is_told() -> None:
    with record() as recording:
        bounce()
        greenlet.settrace(None)
        bounce()
    assert len(recording) == 4
    assert not recording.complete
    assert str(recording).splitlines()[-1] == "tracing was switched off meanwhile: switches are missing at the end"


def test_trace_function_that_raises_ends_tracing_as_it_would_alone() -> None:
    def theirs(event: str, ends: tuple[greenlet.greenlet, greenlet.greenlet]) -> None:
        raise ArithmeticError("theirs")

    greenlet.settrace(theirs)
    with record() as recording:
        with pytest.raises(ArithmeticError, match="theirs"):
            bounce()
    assert len(recording) == 1
    assert not recording.complete


def test_interrupt_in_the_midst_of_noting_reaches_the_program_and_ends_tracing() -> None:
    class Interrupting:
        def __repr__(self) -> str:
            raise KeyboardInterrupt  # as a signal handler does, wherever it finds the program

    thing = Interrupting()
    with record() as recording:
        with pytest.raises(KeyboardInterrupt):
            greenlet.greenlet(lambda given: None).switch(thing)
        bounce()
    assert not recording.complete


# --- where all is patched ---------------------------------------------------------------------------------------------

PATCHED = """
from greenswitch import monkey
monkey.patch_all()
import threading
import time
from greenswitch.recorder import record

with record() as recording:
    threads = [threading.Thread(target=time.sleep, args=(0,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
assert not any(event.source == event.target for event in recording)
ends = [event.source for event in recording if event.kind == "switch" and event.state == "done"]
assert len(ends) == len(set(ends)) == 2, ends
"""


def test_threads_that_are_tasks_are_recorded_as_tasks_even_if_the_recorder_comes_after_the_patch() -> None:
    done = subprocess.run([sys.executable, "-c", PATCHED], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
