"""A recording as Chrome trace JSON, which https://ui.perfetto.dev and chrome://tracing open.

Each lane is a thread of one process. A span is a complete event (`"ph": "X"`), a wake a flow arrow from whoever woke to
the woken one's next run (`"s"` to `"f"`). Times are microseconds. The format is Google's "Trace Event Format".

Knows events and spans; knows nothing of who recorded them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from greenswitch.recorder.events import Event
from greenswitch.recorder.spans import Span

# The names that chrome://tracing gives its colours; Perfetto chooses its own, by the name of the span.
_COLOURS = {
    "running": "thread_state_running",
    "polling": "thread_state_iowait",
    "ready": "thread_state_runnable",
    "parked": "thread_state_sleeping",
    "suspended": "thread_state_sleeping",
}


def write(path: str | os.PathLike[str], events: Sequence[Event], lanes: Mapping[str, list[Span]], dropped: int) -> None:
    """Write a recording to `path`."""
    text = json.dumps(document(events, lanes, dropped), ensure_ascii=False)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def document(events: Sequence[Event], lanes: Mapping[str, list[Span]], dropped: int) -> dict[str, Any]:
    """Return a recording as the object that the file holds."""
    process = os.getpid()
    threads = {lane: number for number, lane in enumerate(lanes, start=1)}
    entries = [
        *_names(threads),
        *(_complete(threads[lane], span) for lane, its in lanes.items() for span in its),
        *_flows(events, threads),
    ]
    return {
        "traceEvents": [{"pid": process, **entry} for entry in entries],
        "displayTimeUnit": "ms",
        "otherData": {"recorder": "greenswitch", "dropped_events": dropped},
    }


def _names(threads: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "tid": 0, "name": "process_name", "args": {"name": "greenswitch"}}
    for lane, thread in threads.items():
        yield {"ph": "M", "tid": thread, "name": "thread_name", "args": {"name": lane}}
        yield {"ph": "M", "tid": thread, "name": "thread_sort_index", "args": {"sort_index": thread}}


def _complete(thread: int, span: Span) -> dict[str, Any]:
    begin, end = _microseconds(span.begin), _microseconds(span.end)
    return {
        "ph": "X",
        "tid": thread,
        "ts": begin,
        "dur": end - begin,
        "cat": span.state,
        "name": f"parked: {span.why}" if span.state == "parked" and span.why else span.state,
        "cname": _COLOURS[span.state],
        "args": {"waits for" if span.state == "parked" else "given": span.why} if span.why else {},
    }


def _flows(events: Sequence[Event], threads: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Yield both ends of each arrow: where somebody was woken or spawned, and where that one goes on."""
    wakes: dict[str, Event] = {}
    number = 0
    for event in events:
        if event.kind in ("wake", "spawn"):
            wakes[event.target] = event
        elif event.target in wakes:
            wake = wakes.pop(event.target)
            number += 1
            same = {"id": number, "cat": wake.kind, "name": wake.kind}
            yield {"ph": "s", **same, "tid": threads[wake.source], "ts": _microseconds(wake.time)}
            # "e": to the span that is open there, its run. By default it would be the next one to begin.
            yield {"ph": "f", **same, "tid": threads[event.target], "ts": _microseconds(event.time), "bp": "e"}


def _microseconds(seconds: float) -> float:
    """Return whole eighths, which binary fractions hold exactly: so where one span ends the next begins, to the bit."""
    return round(seconds * 8e6) / 8
