"""Carriers: greenlets that run one job after another.

Starting a greenlet costs about 8.5 µs on CPython from 3.11 on, because its frame stack is a fresh memory mapping;
switching to one that exists costs a twentieth. So a job is not a greenlet. It runs on a carrier, which goes on to the
next job when one ends and is kept for later, within a bound, when there is none.

Libraries keep data by greenlet: under `greenlet.getcurrent()` as a key, in a weak dictionary, in attributes. No job may
see the data of another, so a carrier runs another job only if nothing but its hub refers to it. It counts its
references before its first job, and after each one. The count is exact because nothing in the kernel keeps a reference
while it is suspended: whatever switches to a carrier calls `go`, its bound `switch`, and holds that instead.

Knows jobs: a function, its arguments, its context variables, and `finish` to tell the result to. Knows no task.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from sys import getrefcount
from typing import TYPE_CHECKING, Any
from weakref import getweakrefcount, ref

import greenlet
from greenlet import GreenletExit, getcurrent

from greenswitch.errors import SwitchError

if TYPE_CHECKING:
    from greenswitch.hub.hub import Hub

_MAX_IDLE = 1000  # a carrier at rest holds some 20 KiB


class Job:
    """A function call to run on a carrier. In the ready queue it stands for its own start."""

    __slots__ = ("args", "carrier", "context", "function", "hub", "kwargs")

    hub: Hub
    function: Callable[..., Any] | None
    """What to call; None once that is over, or called off."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    context: Context | None
    carrier: Carrier | None
    """Where it runs; None before and after."""

    is_thread = False
    """True: it stands for an OS thread. In a child that it forks it is the only one, and the child ends with it."""

    @property
    def label(self) -> str:
        """How to call it in a message about somebody else."""
        return repr(self)

    def finish(self, value: Any, error: BaseException | None) -> None:
        """Take the outcome. Called by the carrier, once, when the function has returned or raised."""
        raise NotImplementedError

    def switch(self) -> Any:
        """Start it: its turn in the ready queue has come. Only the hub calls it; SwitchError once it has started."""
        hub = self.hub
        if self.carrier is not None:
            raise SwitchError(f"{self.label} runs already, and the hub switches to it; to end a task, kill it")
        idle = hub.carriers.idle
        if idle:
            idle[-1].job = self
            return idle.pop().go()
        return hub.carriers.start_one(self)


class Carrier(greenlet.greenlet):
    """A greenlet that runs jobs; `job` is the one it runs now, and `go()` switches to it."""

    __slots__ = ("go", "hub", "job")

    def __init__(self, hub: Hub, job: Job) -> None:
        super().__init__(parent=hub.greenlet)
        self.hub = hub
        self.job: Job | None = job
        self.go = self.switch
        hub.carriers.all.add(self)

    def run(self) -> None:
        hub = self.hub
        carriers, ready = hub.carriers, hub.ready
        job: Any = self.job
        references = getrefcount(self)
        while job is not None:
            function = job.function
            if function is not None:
                job.carrier = self
                self.gr_context = job.context
                try:
                    value = function(*job.args, **job.kwargs)
                except BaseException as error:
                    # This frame stays out of the traceback: it would keep all later jobs' locals alive with it.
                    if error.__traceback__ is not None:
                        error.__traceback__ = error.__traceback__.tb_next
                    job.finish(None, error)
                else:
                    job.finish(value, None)
                function = value = None
            job = None
            if getrefcount(self) > references or getweakrefcount(self) > carriers.observers or self.__dict__:
                self.job = None  # something may know it by now, so another job must not run here
                break
            hub.left -= 1
            if hub.left > 0 and ready and isinstance(ready[0], Job):
                self.job = job = ready.popleft()  # type: ignore[assignment]
            else:
                job = carriers.rest(self)
        self.go = None  # type: ignore[assignment]  # it refers to this very greenlet
        carriers.all.discard(self)


class Carriers:
    """The carriers of one hub: all of them, and those at rest."""

    __slots__ = ("__weakref__", "_hub", "all", "idle", "observers")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.all: set[Carrier] = set()
        self.idle: list[Carrier] = []
        self.observers = 0
        """How many weak references tools of this package keep to each carrier: a stepper keeps one."""
        _everywhere.add(ref(self, _everywhere.discard))

    def start_one(self, job: Job) -> Any:
        """Make the hub start a new carrier with `job`."""
        return self._hub.call_now(Carrier(self._hub, job).go)

    def rest(self, carrier: Carrier) -> Job | None:
        """Park `carrier` until it gets a job, and return that; return None at once if it is one too many."""
        hub = self._hub
        ready = hub.ready
        carrier.job = None
        if len(self.idle) >= _MAX_IDLE or hub.closed:
            return None  # dying, it hands over to its parent, the hub
        carrier.gr_context = None
        self.idle.append(carrier)
        next_one = ready.popleft() if hub.left > 0 and ready else hub.greenlet
        go = next_one.go if type(next_one) is Carrier else next_one.switch
        del next_one
        go()
        return carrier.job

    def jobs(self) -> list[Job]:
        """Return every job that is running or parked, or waits for its start, in the ready queue or by a timer."""
        # A list is made in one step: a signal handler may come amid a loop.
        started = [carrier.job for carrier in list(self.all) if carrier.job is not None]
        starting = [entry for entry in list(self._hub.ready) if isinstance(entry, Job)]
        return started + starting + [job for job, _ in self.starting_later()]

    def starting_later(self) -> list[tuple[Job, float]]:
        """Return the jobs that a timer will put into the ready queue, and when. Any thread."""
        start = self._hub.ready.append
        timers = [(timer, timer.args) for timer in self._hub.timers.pending()]  # the arguments go when it fires
        return [(args[0], timer.when) for timer, args in timers if args and timer.callback == start]

    def close(self) -> None:
        """End the carriers at rest."""
        for carrier in self.idle:
            carrier.parent = getcurrent()
            carrier.throw(GreenletExit)
        self.idle.clear()


_everywhere: set[ref[Carriers]] = set()


def open_hubs() -> list[Hub]:
    """Return every hub of this process that is not closed, in whatever thread. Any thread."""
    # A list of them is made in one step: other threads open hubs meanwhile.
    hubs = {one._hub for reference in list(_everywhere) if (one := reference()) is not None}
    return [hub for hub in hubs if not hub.closed]
