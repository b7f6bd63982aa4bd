"""From what `greenlet` and the probes tell to events: who left whom for whom, why, and with what.

Knows greenlets, the hub's books (its ready queue, who is parked) and lanes. Keeps nothing but the state of the moment:
each event goes straight to whoever records. Must not know what a recording does with it.

It works in the thread that started it, for `greenlet.settrace` is per thread: from inside a trace function in the
midst of every switch, and from inside the probes. So it must neither switch nor raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from greenlet import getcurrent, gettrace, greenlet, settrace

from greenswitch.core.passed import CallSites, arguments, label_of, short, shorten
from greenswitch.hub import Carrier, Hub, Job, brief, current_hub, describe, os_ident
from greenswitch.recorder import probes
from greenswitch.recorder.lanes import Lane, Lanes, outermost_function, running_function

label_of.register(Job, brief)  # its repr says what it waits for, and may go in circles
label_of.register(greenlet, describe)

Entry = Job | greenlet
Tracing = Callable[[Literal["switch", "throw"], tuple[greenlet, greenlet]], object]


class Note(Protocol):
    """Takes one event; see `greenswitch.recorder.recording.Event` for what its fields mean."""

    def __call__(
        self, time: float, kind: str, source: Lane, target: Lane | None, state: str, why: str, passed: str, /
    ) -> None: ...


class Tracer:
    """Follows one thread's switches from `start` to `stop`."""

    def __init__(self, note: Note, clock: Callable[[], float]) -> None:
        self._note = note
        self._clock = clock
        self._lanes = Lanes()
        self._sites = CallSites()
        self._births: dict[int, float] = {}
        self._last: object = None
        """What was last in the ready queue when it was looked at: what stands behind it has come since."""
        self._left = ("", "")
        """What became of whom the running one took over from: state and reason."""
        self._at_work = False
        self._thread = 0
        self._previous: Tracing | None = None
        self._function: Tracing = self._traced  # one object: a bound method is a new one each time

    # -- beginning and end -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, in the calling thread."""
        self._thread = os_ident()
        hub = current_hub()
        for entry in [] if hub is None else self._arrivals(hub):
            ready = self._lanes.of_entry(entry, hub)
            if ready is not None:
                ready.ready = True  # since before it began
        lane = self._lanes.of_greenlet(getcurrent(), hub)
        self._running = Lane("nobody") if lane is None else lane
        self._running.ran = True
        if self._running.name is None:
            self._running.name = running_function()
        self._at_work = True
        self._previous = settrace(self._function)
        probes.begin(self)

    def stop(self) -> bool:
        """End; return False if tracing was switched off meanwhile, so that switches may be missing.

        Called in another thread than `start`, or below another trace function, it can't take the own one out. That one
        only passes on from now on, and takes itself out as soon as it can.
        """
        if os_ident() == self._thread:
            self.look()
        self._at_work = False
        probes.end(self, self._thread)
        complete = gettrace() is not None or os_ident() != self._thread
        self._take_out()
        self._last = None  # somebody else may call on to this tracer, and so keep it
        return complete

    def _take_out(self) -> None:
        if os_ident() == self._thread and gettrace() is self._function:
            settrace(self._previous)

    def _traced(self, event: Literal["switch", "throw"], ends: tuple[greenlet, greenlet]) -> None:
        """Be the trace function: called in the midst of each switch, in the greenlet that is switched to."""
        if self._at_work:
            self._follow(event, *ends)
        else:
            self._take_out()
        if self._previous is not None:
            self._previous(event, ends)

    # -- a switch --------------------------------------------------------------------------------------------------

    def _follow(self, event: str, origin: greenlet, target: greenlet) -> None:
        now, hub = self._clock(), current_hub()
        leaving = self._lanes.of_greenlet(origin, hub)
        if leaving is not None:  # else a carrier, which has left its job already
            self._running = leaving
        self._look(hub, now, _popped(target, hub))
        if leaving is not None:
            self._left = self._what_became(leaving, origin, hub, event)
        passed = self._passed(event, origin, target, hub)
        entered = self._entered(target, hub, now)
        if entered is not None:
            self._arrive(event, entered, passed, now)

    def change_jobs(self, carrier: Carrier, job: Job | None) -> None:
        """Be told by a probe that the running carrier leaves its job for another one, or for none."""
        now, old = self._clock(), getattr(carrier, "job", None)
        ended = None if old is None else self._lanes.of_job(old)
        if old is not None and ended is not None and ended.ran:  # it may have been called off, and never run
            self._running = ended
            self._look(carrier.hub, now, job)
            self._left = _ending(old)
        if job is not None:
            entered = self._entered_job(job, now)
            if entered is not None:
                self._arrive("switch", entered, arguments(job.args, job.kwargs), now)

    def _arrive(self, kind: str, entered: Lane, passed: str, now: float) -> None:
        if entered is not self._running:
            self._note(now, kind, self._running, entered, *self._left, passed)
        self._running = entered
        entered.ready, entered.ran = False, True

    def _entered(self, target: greenlet, hub: Hub | None, now: float) -> Lane | None:
        if isinstance(target, Carrier):
            job = target.job
            return None if job is None else self._entered_job(job, now)
        lane = self._lanes.of_greenlet(target, hub)
        if lane is not None and lane.name is None:
            lane.name = running_function()
        return lane

    def _entered_job(self, job: Job, now: float) -> Lane | None:
        """Return the lane of a job that goes on or starts; None if it was called off before it could start."""
        lane = self._lanes.of_job(job)
        if job.function is not None:
            return lane
        if lane.ready:
            lane.ready = False
            self._note(now, "end", lane, None, *_ending(job), "")
        return None

    def _what_became(self, lane: Lane, origin: greenlet, hub: Hub | None, event: str) -> tuple[str, str]:
        if origin.dead:
            return ("failed" if event == "throw" else "done"), ""
        if lane.name is None:
            lane.name = outermost_function(origin.gr_frame)
        waiter = None if hub is None else hub.parked.get(origin)
        if waiter is None:
            return ("ready" if lane.ready else "suspended"), ""
        lane.reason = shorten(waiter.reason)
        return ("ready" if lane.ready else "parked"), lane.reason

    def _passed(self, event: str, origin: greenlet, target: greenlet, hub: Hub | None) -> str:
        if isinstance(target, Carrier) and target.job is not None and target.job.carrier is None:
            return arguments(target.job.args, target.job.kwargs)
        waiter = None if hub is None else hub.parked.get(target)
        if waiter is not None and waiter.greenlet is None:
            if waiter.error is not None:
                return f"raises {short(waiter.error)}"
            return "" if waiter.value is None else short(waiter.value)
        frame = origin.gr_frame
        if frame is None:
            return "raises its exception" if event == "throw" else "its result"
        if event == "throw":
            return f"raises {self._sites.passed(frame) or 'GreenletExit'}"
        if str(frame.f_globals.get("__name__", "")).startswith("greenswitch.hub."):
            return ""  # the hub's own switches carry nothing: what a waiter is woken with lies in the waiter
        return self._sites.passed(frame)

    # -- the ready queue -------------------------------------------------------------------------------------------

    def look(self) -> None:
        """See who has become ready."""
        self._look(current_hub(), self._clock(), None)

    def note_birth(self, job: Job) -> None:
        """Keep the time: a task has been made, and may enter the ready queue at once."""
        self._births[id(job)] = self._clock()

    def _look(self, hub: Hub | None, now: float, popped: Entry | None) -> None:
        """Note who has entered the ready queue since the last look: the running one has let them in.

        `popped` has left it again already, to run next; so it was the first.
        """
        if hub is None:
            return
        for entry in (popped, *self._arrivals(hub)):
            lane = self._lanes.of_entry(entry, hub)
            if lane is None or lane.ready:
                continue
            lane.ready = True
            if lane is self._running:
                continue  # who steps aside isn't woken by anybody
            if isinstance(entry, Job):
                born = self._births.get(id(entry), now)
                self._note(born, "spawn", self._running, lane, "ready", "", "")
            else:
                self._note(now, "wake", self._running, lane, "ready", lane.reason or _reason(entry, hub), "")
        self._births.clear()

    def _arrivals(self, hub: Hub) -> list[object]:
        """Return what has entered the ready queue since the last look, the oldest first."""
        ready = hub.ready
        found: list[object] = []
        # By index, from the left: other threads may let somebody in meanwhile, and that changes none of these.
        for index in range(len(ready) - 1, -1, -1):
            entry = ready[index]
            if entry is self._last:
                break
            found.append(entry)
        if found:
            self._last = found[0]
        elif not ready:
            self._last = None
        return found[::-1]


def _reason(entry: object, hub: Hub) -> str:
    waiter = hub.parked.get(entry)  # type: ignore[call-overload]
    return "" if waiter is None else shorten(waiter.reason)


def _popped(target: greenlet, hub: Hub | None) -> Entry | None:
    """Return who was taken out of the ready queue to be switched to; None if `target` was switched to by hand."""
    if hub is None:
        return None
    if target is hub.greenlet:  # it may have to start a carrier for a task whose turn has come
        target = getattr(hub.arrivals[-1].function, "__self__", target) if hub.arrivals else target
    job = target.job if isinstance(target, Carrier) else None
    if job is not None and job.carrier is None:
        return job
    waiter = hub.parked.get(target)
    return target if waiter is not None and waiter.greenlet is None else None


def _ending(job: Job) -> tuple[str, str]:
    """Return how a job has ended, and with which error. A task's repr tells; asking for its exception would count."""
    state = getattr(job, "state", "done")
    text, beginning = repr(job), f"<{job.label} failed: "
    return state, (shorten(text[len(beginning) : -1]) if text.startswith(beginning) else "")
