"""The stepper, with eyes for the hub: who is ready, who is parked on what, and tasks instead of carriers.

    from greenswitch.stepper import Stepper

    stepper = Stepper(greenswitch.run, main)

`greenswitch.core.stepper` does the work, and knows no hub; `HubBooks` tells it what the hub knows. Where a program
switches by hand and has no hub, both steppers show the same.

Knows the hub's books and its names. Nothing below knows it: a program that isn't stepped through pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from greenlet import greenlet

from greenswitch.core import stepper
from greenswitch.core.passed import label_of, short
from greenswitch.core.steps import Step, Steps
from greenswitch.core.switches import Books, End, in_library
from greenswitch.hub import Carrier, Hub, Job, brief, current_hub, describe

__all__ = ["HubBooks", "Step", "Stepper", "Steps"]

__hidden_from_stacks__ = __file__

_SHOWN = ("greenswitch.core.", "greenswitch.echo")  # of this package: what people read, and step through
_KERNEL = ("greenswitch.hub.", "greenswitch.tasks", "greenswitch.waiting", "greenswitch.running")
_ENDS: dict[str, End] = {"done": "returned", "failed": "raised", "killed": "killed"}

label_of.register(Job, brief)  # its repr says what it waits for, and may go in circles
label_of.register(greenlet, describe)


class HubBooks(Books):
    """Tells a stepper what the hub of the program's thread knows."""

    def __init__(self) -> None:
        self._hub: Hub | None = None

    def _look(self) -> Hub | None:
        """Return the hub, and remember it for other threads."""
        hub = current_hub()
        if hub is not self._hub and hub is not None:
            hub.carriers.observers = 1  # the stepper keeps a weak reference to each greenlet
        self._hub = hub
        return hub

    # -- who is who ------------------------------------------------------------------------------------------------

    def who(self, green: greenlet) -> object:
        """Return the task that a carrier runs, and any other greenlet itself; None for a carrier or hub at rest."""
        if isinstance(green, Carrier):
            return getattr(green, "job", None)
        hub = self._look()
        return None if hub is not None and hub.closed and green is hub.greenlet else green

    def name(self, who: object) -> str | None:
        """Return a task's name; the main greenlet is told from a task called main."""
        if isinstance(who, Job):
            return _name_of_job(who)
        if isinstance(who, greenlet) and (hub := self._look()) is not None:
            return "hub" if who is hub.greenlet else "main greenlet" if who is hub.main else None
        return None

    def is_chooser(self, green: greenlet) -> bool:
        """Return whether this is the hub's own greenlet."""
        hub = self._look()
        return hub is not None and green is hub.greenlet

    def starts(self, green: greenlet) -> bool:
        """Return whether a carrier that has been given a task is about to start it."""
        job = getattr(green, "job", None)
        return isinstance(job, Job) and job.carrier is None

    def end(self, who: object) -> End:
        """Return how a task has ended."""
        return _ENDS.get(getattr(who, "state", ""), "") if isinstance(who, Job) else ""

    # -- where they stand ------------------------------------------------------------------------------------------

    def hides(self, frame: FrameType) -> bool:
        """Return whether this is a line of greenswitch's, or of the standard library called by one.

        Not what is spawned, and not those lines of greenswitch's that are there to be read.
        """
        caller: FrameType | None = frame
        while caller is not None and in_library(caller):
            caller = caller.f_back
        if caller is None or (caller.f_code is Carrier.run.__code__ and caller is not frame):
            return False
        name = str(caller.f_globals.get("__name__", ""))
        return name.startswith("greenswitch.") and not name.startswith(_SHOWN)

    def instead(self, hidden: Sequence[FrameType]) -> FrameType | None:
        """Return the function that a task was started with, if it is greenswitch's own and stands in nobody else's."""
        beyond = [frame for frame in hidden if not str(frame.f_globals.get("__name__", "")).startswith(_KERNEL)]
        return beyond[-1] if beyond else None

    # -- who waits -------------------------------------------------------------------------------------------------

    def handed(self, green: greenlet) -> tuple[str, bool] | None:
        """Return what a waiter was woken with."""
        hub = self._look()
        waiter = None if hub is None else hub.parked.get(green)
        if waiter is None or waiter.greenlet is not None:
            return None
        if waiter.error is not None:
            return short(waiter.error), True
        return "" if waiter.value is None else short(waiter.value), False

    def ready(self) -> Iterable[str]:
        """Return who stands in the ready queue; before them the task whose carrier the hub is about to start."""
        hub = self._look()
        if hub is None:
            return ()
        starting = [getattr(callback.function, "__self__", callback.function) for callback in list(hub.arrivals)]
        while True:
            with suppress(RuntimeError):  # another thread has let somebody in meanwhile
                entries = [*starting, *hub.ready]
                return map(self._name_of_entry, entries)

    def _name_of_entry(self, entry: Any) -> str:
        if isinstance(entry, greenlet):
            job = self.who(entry)
            return self.name(entry if job is None else job) or describe(entry)
        return _name_of_job(entry) if isinstance(entry, Job) else brief(getattr(entry, "function", entry))

    def parked(self) -> Sequence[greenlet]:
        """Return who is parked, and has not been woken."""
        hub = self._look()
        parked = {} if hub is None else hub.parked
        return [green for green, waiter in parked.items() if waiter.greenlet is not None]

    def waits_for(self, green: greenlet) -> str:
        """Return the reason that its waiter tells."""
        hub = self._look()
        waiter = None if hub is None else hub.parked.get(green)
        return "" if waiter is None or waiter.greenlet is None else waiter.reason

    def knows(self, green: greenlet) -> bool:
        """Return whether the hub is going to go on with a greenlet."""
        hub = self._look()
        return hub is not None and (
            isinstance(green, Carrier) or green is hub.greenlet or green in hub.parked or green in hub.ready
        )

    # -- the end ---------------------------------------------------------------------------------------------------

    def may_be_thrown_into(self, green: greenlet) -> bool:
        """Return whether there is a task, or main, that would take it: not the hub, and not a carrier between tasks."""
        who = self.who(green)
        return not self.is_chooser(green) and who is not None and not self.starts(green)

    def interrupt(self, error: BaseException, claim: Callable[[], bool]) -> bool:
        """Have the hub raise it in the main greenlet, as it does with Ctrl-C, if `claim()` says so then."""
        hub = self._hub
        if hub is None or hub.closed:
            return False
        hub.call_threadsafe(self._interrupt_main, hub, error, claim)
        return True

    @staticmethod
    def _interrupt_main(hub: Hub, error: BaseException, claim: Callable[[], bool]) -> None:
        if claim():
            hub.interrupt_main(error)

    def close(self) -> None:
        """Close a hub that the program has made and not closed, as the end of its thread would."""
        hub = self._look()
        if hub is not None and not hub.closed:
            hub.close()


class Stepper(stepper.Stepper[stepper.Outcome]):
    """Step through a program that runs on the hub, or switches by hand; see `greenswitch.core.stepper.Stepper`.

    The program has a hub of its own, in its own thread. `function` may be `greenswitch.run`, or may use `spawn` and
    `joinall` as any main program does.
    """

    books = HubBooks


def _name_of_job(job: Job) -> str:
    return str(getattr(job, "name", None) or job.label)
