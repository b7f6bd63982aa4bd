"""Who keeps the thread: a watchdog that catches whoever computes, or blocks, where he should let others run.

    with watchdog(0.1):             # or .start(), and .stop() some time
        ...                         # "Task 'parse-3' has kept the thread for 0.101 s (more than 0.1) at feed.py:7 in …"

It is an OS thread of its own. Twice within the limit it looks at two numbers that the hub keeps anyway: how many
turns it has had, and how many switches are left in this one. While these change, somebody is switched to, and all is
well, however busy the hub is; while the hub sleeps in its poller nobody keeps anything. If they stand still for longer
than the limit, it looks once who runs, and at which line. Nothing is traced, and no task does more for it.

A C function that keeps the GIL keeps the watchdog from looking as well. It comes to run when that has returned, and the
program still is in the line that called it: that it was late, while the thread had the CPU, says enough.

Knows the hub, its carriers and frames. Knows no task.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Self

from greenswitch.assertions import must_switch, no_switch
from greenswitch.errors import HubError
from greenswitch.hub import Hub, current_hub, describe, os_ident
from greenswitch.hub.bystanders import Bystander
from greenswitch.hub.carriers import open_hubs
from greenswitch.hub.frames import frames_of_thread, ours, outside
from greenswitch.hub.hub import print_error

__all__ = ["Kept", "must_switch", "no_switch", "print_kept", "watchdog"]

_LOOKS = 2  # within the limit; each costs some 0.1 ms of a core, most of it for changing threads
_SHORTEST = 0.005  # seconds between two looks


class Kept(NamedTuple):
    """One time that the thread was kept: who keeps it, for how many seconds so far, and where he stands."""

    who: str
    seconds: float
    limit: float
    stack: list[tuple[str, int, str]]
    """(file, line, function), the innermost first."""
    deaf: bool
    """True: a C function has kept the GIL, so that the watchdog could only look when it had returned."""

    @property
    def line(self) -> str:
        """'file:line in function', of the innermost line that is not this package's."""
        return "{}:{} in {}".format(*self.stack[0]) if self.stack else "nowhere"

    def __str__(self) -> str:
        what = "the thread, and the GIL," if self.deaf else "the thread"
        head = f"{self.who} has kept {what} for {self.seconds:.3g} s (more than {self.limit:g}) at {self.line}"
        lines = [(file, line, function, None) for file, line, function in reversed(self.stack)]
        return "".join([head, "\n", *traceback.StackSummary.from_list(lines).format()]).rstrip()


def print_kept(kept: Kept) -> None:
    """Write it to standard error."""
    if sys.stderr is not None:
        print(f"greenswitch: {kept}", file=sys.stderr, flush=True)


class Standstill:
    """Tells from one look after another when the same has been seen for too long. Times in seconds."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._seen: object = None
        self._lasted = 0.0
        self._told = False

    def look(self, passed: float, on_cpu: float, seen: object) -> float | None:
        """Return for how long `seen` has been the same, once it is too long, and then not before it has changed.

        `passed` since the last look, of which the thread had the CPU for `on_cpu`. None is seen while nobody could be
        blamed: it is never too long.
        """
        kept_out = passed > self._limit
        if kept_out and on_cpu <= self._limit:  # the whole process was stopped, or the machine has too much to do
            passed, kept_out = 0.0, False
        changed = seen != self._seen
        self._seen = seen
        if changed:
            self._told = False
        self._lasted = passed if kept_out else 0.0 if changed else self._lasted + passed
        if seen is None or self._told or self._lasted <= self._limit:
            return None
        self._told = True
        return self._lasted


class watchdog:
    """Reports whoever keeps this thread for more than `seconds` without a switch: once each time, while he still does.

    `report` is called with a `Kept`, in the watchdog's own thread; by default it is written to standard error. It
    watches every hub of the thread that starts it, and ends with the one that is in place then; started before there
    is one (`with watchdog(): run(main)`) it goes on until it is stopped. Somebody who keeps the thread may be noticed
    up to half of the limit too late, never too early. The main greenlet is blamed only while others are there. In
    a forked child it goes on. Several may run at once.
    """

    def __init__(self, seconds: float = 0.1, report: Callable[[Kept], object] = print_kept) -> None:
        if not seconds > 0:
            raise ValueError(f"a watchdog needs a limit of more than 0 seconds, not {seconds!r}")
        if not callable(report):
            raise TypeError(f"a watchdog's report is a function that takes a Kept, not {report!r}")
        self.seconds = seconds
        self.report = report
        self.thread_id = 0
        self._looking: Bystander | None = None
        self._hub: Hub | None = None
        self._pause = max(seconds / _LOOKS, _SHORTEST)

    def start(self) -> Self:
        """Begin to watch the calling thread; return the watchdog. HubError if it watches already."""
        if self._looking is not None:
            raise HubError(f"{self!r} watches already: stop it first, or make another one")
        self.thread_id = os_ident()
        self._on_cpu = _clock_of_this_thread()
        self._hub = current_hub()
        self._begin()
        return self

    def _begin(self) -> None:
        if self._hub is not None:
            self._hub.local[self] = self  # which calls `close` at its end
        self._standstill = Standstill(self.seconds)
        self._last = monotonic(), self._on_cpu()
        self._looking = Bystander(self._look, self._pause)
        _running.add(self)

    def stop(self) -> None:
        """Watch no more. Any thread; twice does nothing."""
        looking, self._looking = self._looking, None
        _running.discard(self)
        if self._hub is not None:
            self._hub.local.pop(self, None)
        if looking is not None:
            looking.stop()

    close = stop

    def _in_child(self) -> None:
        if self.thread_id == os_ident():
            self._on_cpu = _clock_of_this_thread()
            self._begin()
        else:
            self._looking = None  # its thread was left behind in the parent

    # -- looking, in its own thread --------------------------------------------------------------------------------

    def _look(self) -> bool:
        before, self._last = self._last, (monotonic(), self._on_cpu())
        passed, on_cpu = self._last[0] - before[0], self._last[1] - before[1]
        hubs = [hub for hub in open_hubs() if hub.thread_id == self.thread_id]
        seen = _progress(hubs)
        seconds = self._standstill.look(passed, on_cpu, seen)
        if seconds is not None:
            who = _who_runs(hubs)
            stack = _stack(self.thread_id)
            if who is not None and stack and _progress(hubs) == seen:  # else he has gone on in this very moment
                self._tell(Kept(who, seconds, self.seconds, stack, passed > self.seconds))
        return True

    def _tell(self, kept: Kept) -> None:
        try:
            self.report(kept)
        except Exception as error:
            print_error("a watchdog's report", error)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<watchdog({self.seconds:g}), {'not running' if self._looking is None else 'running'}>"


_running: set[watchdog] = set()


def _go_on_in_child() -> None:
    for one in list(_running):
        one._in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_go_on_in_child)


def _clock_of_this_thread() -> Callable[[], float]:
    """Return a function that tells, in whatever thread, for how many seconds this one has had the CPU."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    clock = time.pthread_getcpuclockid(os_ident())

    def seconds() -> float:
        try:
            return time.clock_gettime(clock)
        except OSError:  # the thread has ended
            return 0.0

    return seconds


def _progress(hubs: list[Hub]) -> object:
    """Return what changes with every switch of a thread's hubs; None while none of them has the thread."""
    if not hubs or any(hub.asleep for hub in hubs):
        return None
    return [(id(hub), hub.turns, hub.left) for hub in hubs]


def _who_runs(hubs: list[Hub]) -> str | None:
    """Return who runs in these hubs' thread; None for nobody who would be in anybody's way."""
    for hub in hubs:
        if hub.greenlet and hub.greenlet.gr_frame is None:
            return "the hub, or a callback in it,"
        for carrier in list(hub.carriers.all):
            if carrier.job is not None and carrier and carrier.gr_frame is None:
                return describe(carrier)
    if hubs[0].main.gr_frame is None:
        return "main greenlet" if any(_others(hub) for hub in hubs) else None
    return "a greenlet that is no task"


def _others(hub: Hub) -> bool:
    return bool(hub.ready or len(hub.timers) or any(one is not hub.main for one in list(hub.parked)))


def _stack(thread_id: int) -> list[tuple[str, int, str]]:
    frames = outside(frames_of_thread(thread_id))
    while len(frames) > 1 and ours(frames[-1]):  # the hub's own, beneath a callback
        frames.pop()
    return [(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name) for frame in frames]
