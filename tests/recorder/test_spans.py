"""From events to spans, as data: no greenlet is needed for that."""

from __future__ import annotations

from greenswitch.recorder import Event, Span
from greenswitch.recorder.spans import spans


def switch(time: float, source: str, target: str, state: str = "suspended", why: str = "", passed: str = "") -> Event:
    return Event(time, "switch", source, target, state, why, passed)


def wake(time: float, source: str, target: str, why: str = "", kind: str = "wake") -> Event:
    return Event(time, kind, source, target, "ready", why, "")


def test_lane_runs_parks_becomes_ready_and_runs_again() -> None:
    events = [
        switch(1, "a", "hub", "parked", "sleep 2"),
        wake(3, "hub", "a", "sleep 2"),
        switch(3, "hub", "b"),
        switch(4, "b", "a", "done", passed="5"),
    ]
    assert spans(events, 6) == {
        "a": [
            Span("running", "", 0, 1),
            Span("parked", "sleep 2", 1, 3),
            Span("ready", "", 3, 4),
            Span("running", "5", 4, 6),
        ],
        "hub": [Span("polling", "", 1, 3), Span("suspended", "", 3, 6)],
        "b": [Span("running", "", 3, 4)],
    }


def test_who_is_first_seen_woken_was_parked_from_the_start() -> None:
    assert spans([wake(2, "hub", "a", "read <fd 3>")], 3)["a"] == [
        Span("parked", "read <fd 3>", 0, 2),
        Span("ready", "", 2, 3),
    ]


def test_who_is_spawned_was_not_there_before() -> None:
    assert spans([wake(2, "a", "b", kind="spawn")], 3) == {
        "a": [Span("running", "", 0, 3)],
        "b": [Span("ready", "", 2, 3)],
    }


def test_nothing_is_said_of_what_was_dropped() -> None:
    events = [wake(2, "a", "b", "join c"), switch(3, "a", "b", "parked", "sleep 1")]
    assert spans(events, 4, from_start=False) == {
        "a": [Span("running", "", 2, 3), Span("parked", "sleep 1", 3, 4)],
        "b": [Span("ready", "", 2, 3), Span("running", "", 3, 4)],
    }
    assert spans([switch(3, "a", "b")], 4, from_start=False)["a"] == [Span("suspended", "", 3, 4)]


def test_task_that_never_started_ends() -> None:
    events = [wake(1, "a", "b", kind="spawn"), Event(2, "end", "b", "", "killed", "", "")]
    assert spans(events, 9)["b"] == [Span("ready", "", 1, 2)]


def test_who_stepped_aside_is_ready() -> None:
    assert spans([switch(1, "a", "b", "ready"), switch(2, "b", "a", "done")], 3)["a"] == [
        Span("running", "", 0, 1),
        Span("ready", "", 1, 2),
        Span("running", "", 2, 3),
    ]


def test_no_events_make_no_spans() -> None:
    assert spans([], 5) == {}
