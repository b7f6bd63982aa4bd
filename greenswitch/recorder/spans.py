"""From events to spans: what each lane did from when to when. Pure data: knows events and the hub's lane's name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from greenswitch.recorder.events import Event
from greenswitch.recorder.lanes import HUB

ENDED = ("done", "failed", "killed")


class Span(NamedTuple):
    """One state of one lane, between two times in seconds."""

    state: str
    """`running`, `ready`, `parked` or `suspended`; for the hub `polling` instead of running: it mostly sleeps then."""
    why: str
    """What is waited for, if it is parked; what it was given, if it runs."""
    begin: float
    end: float


class _Now(NamedTuple):
    state: str
    why: str
    since: float


def spans(events: Iterable[Event], end: float, from_start: bool = True) -> dict[str, list[Span]]:
    """Return the spans of each lane, in the order of time, until `end`.

    With `from_start`, nothing was dropped: who is first seen running, or woken, has run or been parked from the start.
    """
    found: dict[str, list[Span]] = {}
    now: dict[str, _Now] = {}

    def close(lane: str, time: float) -> None:
        before = now.pop(lane, None)
        if before is not None:
            found[lane].append(Span(before.state, before.why, before.since, time))

    for event in events:
        for lane, known in ((event.source, _earlier_source(event)), (event.target, _earlier_target(event))):
            if lane and lane not in found:
                found[lane] = []
                if known is not None and from_start:
                    now[lane] = known
        if event.kind in ("switch", "throw", "end"):
            close(event.source, event.time)
            if event.state not in ENDED:
                now[event.source] = _Now(event.state, event.why, event.time)
        elif event.source not in now:  # what came before was dropped: whoever wakes somebody runs
            now[event.source] = _running(event.source, "", event.time)
        if event.target:
            close(event.target, event.time)
            runs = event.kind in ("switch", "throw")
            now[event.target] = (
                _running(event.target, event.passed, event.time) if runs else _Now("ready", "", event.time)
            )
    for lane in list(now):
        close(lane, end)
    return found


def _running(lane: str, given: str, since: float) -> _Now:
    return _Now("polling" if lane == HUB else "running", given, since)


def _earlier_source(event: Event) -> _Now | None:
    """Say what a lane did that is first seen as the source of an event: it ran."""
    return None if event.kind == "end" else _running(event.source, "", 0.0)


def _earlier_target(event: Event) -> _Now | None:
    """Say what a lane did that is first seen as the target of an event: if it is woken, it was parked."""
    return _Now("parked", event.why, 0.0) if event.kind == "wake" else None
