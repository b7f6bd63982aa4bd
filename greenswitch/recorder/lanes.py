"""Who is on the thread, as lanes: one a task, one a greenlet, one for the hub. Never one a carrier.

Knows how tasks and greenlets are told apart and what they are called. Keeps none of them alive: a lane is a name, found
by the identity of what it stands for as long as that lives. Knows no events.
"""

from __future__ import annotations

import sys
import weakref
from itertools import count
from types import FrameType
from typing import Any

from greenlet import greenlet

from greenswitch.hub import Carrier, Hub, Job, describe

HUB = "hub"
"""The name of the hub's lane, and of no other."""
_OURS = __name__.rpartition(".")[0]
_numbers = count(1)


class Lane:
    """One task or greenlet, as the recorder sees it."""

    __slots__ = ("name", "number", "ran", "ready", "reason")

    def __init__(self, name: str | None) -> None:
        self.name = name
        """None until it is known: a greenlet without a name is called after its outermost function."""
        self.number = next(_numbers)
        """Tells lanes of the same name apart, and grows with each new lane."""
        self.ready = False
        """True from its wake, which has been noted, until it runs."""
        self.ran = False
        self.reason = ""
        """What it waited for at its last park."""


class Lanes:
    """The lanes of one thread, by what they stand for."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Lane]] = {}
        self._by_label: dict[str, Lane] = {}

    def of_greenlet(self, one: greenlet, hub: Hub | None) -> Lane | None:
        """Return the lane of whom `one` runs; None for a carrier that runs nothing."""
        if isinstance(one, Carrier):
            job = getattr(one, "job", None)
            return None if job is None else self.of_job(job)
        found = self._known.get(id(one))
        if found is not None:
            return found[1]
        lane = self._add(one, _name(one))
        if hub is not None and one is hub.greenlet:
            lane.name = HUB
        return lane

    def of_entry(self, entry: object, hub: Hub | None) -> Lane | None:
        """Return the lane of what the ready queue holds; None for a callback."""
        if isinstance(entry, Job):
            return self.of_job(entry)
        return self.of_greenlet(entry, hub) if isinstance(entry, greenlet) else None

    def of_job(self, job: Job) -> Lane:
        """Return the lane of a task, known already or new."""
        found = self._known.get(id(job))
        return found[1] if found is not None else self._add(job, str(getattr(job, "name", None) or job.label))

    def _add(self, one: Any, name: str | None) -> Lane:
        key, lane = id(one), Lane(repr(name) if name == HUB else name)
        known = self._known

        def forget(reference: weakref.ref[Any]) -> None:
            if key in known and known[key][0] is reference:
                del known[key]

        try:
            known[key] = weakref.ref(one, forget), lane
        except TypeError:  # a job of somebody's own that takes no weak references: its label has to do
            return self._by_label.setdefault(str(name), lane)
        return lane


def _name(one: greenlet) -> str | None:
    if one.parent is None:
        return describe(one)
    name = getattr(one, "name", None)
    return None if name is None else str(name)


def outermost_function(innermost: FrameType | None) -> str | None:
    """Return the name of the function that a greenlet was started with, seen from its innermost frame."""
    frame = innermost
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    # Just started, it has no frame yet but the recorder's, which runs in it.
    if frame is None or str(frame.f_globals.get("__name__", "")).startswith(_OURS):
        return None
    return frame.f_code.co_name


def running_function() -> str | None:
    """Return the name of the function that the running greenlet was started with."""
    return outermost_function(sys._getframe())
