"""Record who switched to whom, when, why and with what, and look at it: as a table, as a picture, in Perfetto.

    with record() as recording:
        greenswitch.run(main)
    print(recording)                  # a table
    recording.timeline()              # a picture, in Jupyter; recording.timeline().save("picture.svg")
    recording.save("trace.json")      # for https://ui.perfetto.dev

It shows what the thread does: hand-switched greenlets and the hub's tasks alike. A lane is a task, never the carrier
that it runs on. One idea a file, each knowing only those above it:

- `events`: what one event says. `spans`: from events to what each lane did when. `perfetto`, `timeline`: both drawn.
- `lanes`: who is who. `probes`: what a trace function doesn't see. `tracing`: from all that to events. What crosses at
  a switch by hand is read by `greenswitch.core.passed`.
- `recording`: keeps the last of them.

An event costs 3 to 8 µs while recording (CPython 3.11): an echo over sockets takes twice as long, ten tasks that do
nothing but step aside nine times, a bare ping-pong by hand twenty times. `tests/benchmarks/recorder_cost.py` measures
it on your machine. Nothing below knows the recorder: a program that isn't recorded pays nothing.

Knows greenlet, core's reader of switches, the hub, tasks and locks.
"""

from __future__ import annotations

from collections.abc import Callable

from greenswitch.recorder.events import Event
from greenswitch.recorder.recording import LIMIT, Recording
from greenswitch.recorder.spans import Span
from greenswitch.recorder.timeline import Timeline

__all__ = ["Event", "Recording", "Span", "Timeline", "record"]


def record(limit: int = LIMIT, clock: Callable[[], float] | None = None) -> Recording:
    """Record every switch of this thread inside a `with` block; keep the last `limit` events.

    `clock` returns seconds and never goes back; by default it is that of the thread's hub, else `time.monotonic`. Other
    users of `greenlet.settrace` are called on to, and recordings may be nested. Other threads aren't recorded: enter a
    block in each.

    >>> from greenswitch.core import relay
    >>> with record() as recording:
    ...     hits = relay.ping_pong(1)
    >>> [(event.source, event.target, event.passed) for event in recording][:3]
    [('main greenlet', 'play_ping', '0'), ('play_ping', 'play_pong', '1'), ('play_pong', 'play_ping', '2')]
    """
    if type(limit) is not int:
        raise TypeError(f"limit is a number of events, not {limit!r}")
    if limit < 1:
        raise ValueError(f"limit is a number of events from 1 on, not {limit}")
    if clock is not None and not callable(clock):
        raise TypeError(f"clock is a function that returns seconds, not {clock!r}")
    return Recording(limit, clock)
