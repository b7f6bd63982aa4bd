"""Nobody left who could wake anyone: how to know, and what to say.

Knows waiters, jobs, threads and signal handlers. Knows no hub, no task and no lock: what is waited for tells itself who
keeps it, and what has not happened, if it is an `Awaited`.
"""

from __future__ import annotations

import signal
import threading
from _thread import get_ident  # the original, as in the hub
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple

import greenlet

from greenswitch.hub.bystanders import there_are_others
from greenswitch.hub.carriers import Job
from greenswitch.hub.frames import where
from greenswitch.hub.naming import brief, few
from greenswitch.hub.signals import wakes_nobody
from greenswitch.hub.waiters import Waiter

_LISTED = 20  # of those who wait; a server may have ten thousand


class Awaited:
    """What a waiter's `target` may be, to have more to say than its repr. Asked only when somebody wants a report."""

    __slots__ = ()

    one_will_do = False
    """True: a wait ends when any one of its keepers does something, as for a place in a pool."""

    def keepers(self) -> Iterable[object]:
        """Return the jobs and greenlets who all have to do something before a wait for this can end; maybe nobody."""
        return ()

    def lack(self, verb: str) -> str:
        """Return what would have to happen for a wait by `verb` to end, as in 'nobody sets it'; '' if keepers say so.

        It completes a sentence that has begun with the repr.
        """
        return ""


class Wait(NamedTuple):
    """One who waits, and for whom. `one_will_do`: any of them may end it; else all of them have to do something."""

    who: object
    standing: greenlet.greenlet
    waiter: Waiter
    keepers: list[object]
    one_will_do: bool

    @property
    def lacks(self) -> list[str]:
        """What has not happened, of each thing that is waited for."""
        targets = [target for target in _targets(self.waiter) if isinstance(target, Awaited)]
        return [f"{brief(target)}: {lack}" for target in targets if (lack := target.lack(self.waiter.verb))]

    @property
    def text(self) -> str:
        """Who, for what and where, as text."""
        return f"{brief(self.who)}: {self.waiter.reason}{where(self.standing)}"


def others_could_wake() -> bool:
    """Return whether another OS thread or a signal handler is there, which could wake a greenlet of this thread."""
    if get_ident() != threading.main_thread().ident:
        return True  # the main thread
    # Not sys._current_frames(): on CPython 3.11 two threads that ask it at once hang if the collector runs within.
    if there_are_others():
        return True
    return not all(wakes_nobody(signal.getsignal(number)) for number in signal.valid_signals())


def deadlock_report(parked: Mapping[greenlet.greenlet, Waiter]) -> str:
    """Return who waits, for what and where, a line each, and why nobody goes on as far as that is known.

    Those who are to blame come first, and of the others not more than a few.
    """
    if not parked:
        return "main has switched away by hand, and no greenlet waits for anything that could happen"
    waits = waits_of(parked)
    rings = circles(waits)
    culprits = {id(who) for ring in rings for who in ring} | {id(wait.who) for wait in waits if wait.lacks}
    waits.sort(key=lambda wait: id(wait.who) not in culprits)
    listed = few([wait.text for wait in waits[:_LISTED]], len(waits))
    why = [*map(circle_text, rings[:_LISTED]), *few_lacks(waits)]
    lines = ["everybody waits and nobody is left who could wake anyone:", *(f"  {line}" for line in listed)]
    return "\n".join(lines + (["because:", *(f"  {line}" for line in why)] if why else []))


# -- who waits for whom ----------------------------------------------------------------------------------------------


def waits_of(parked: Mapping[greenlet.greenlet, Waiter]) -> list[Wait]:
    """Return everybody who is parked, with those for whom he waits."""
    return [_wait(one, waiter) for one, waiter in parked.items()]


def _wait(one: greenlet.greenlet, waiter: Waiter) -> Wait:
    who = getattr(one, "job", None) or one
    targets = _targets(waiter)
    keepers = [keeper for target in targets for keeper in keepers_of(target)]
    return Wait(who, one, waiter, keepers, len(targets) > 1 or getattr(targets[0], "one_will_do", False) is True)


def keepers_of(target: object) -> list[object]:
    """Return the jobs and greenlets on whom `target` depends, as far as it says so. A job depends on itself."""
    if isinstance(target, Awaited):
        return list(target.keepers())
    return [target] if isinstance(target, Job) else []


def _targets(waiter: Waiter) -> list[object]:
    several = waiter.target
    return several if isinstance(several, list) and several else [several]


def few_lacks(waits: Iterable[Wait]) -> list[str]:
    """Return what has not happened, a line for each thing that is waited for, and not too many lines."""
    lines = list(dict.fromkeys(chain.from_iterable(wait.lacks for wait in waits)))
    return few(lines[:_LISTED], len(lines))


def circles(waits: Iterable[Wait]) -> list[list[object]]:
    """Return each circle of those who wait for one another, so that none of them can ever go on unless he gives up."""
    stuck = _stuck(waits)
    rings: list[list[object]] = []
    seen: set[int] = set()
    for key in stuck:
        path: dict[int, object] = {}  # from each of the stuck there is a way to another; it ends in a circle
        while key not in seen:
            seen.add(key)
            path[key] = stuck[key].who
            key = next(id(keeper) for keeper in stuck[key].keepers if id(keeper) in stuck)
        if key in path:
            rings.append(list(path.values())[list(path).index(key) :])
    return rings


def _stuck(waits: Iterable[Wait]) -> dict[int, Wait]:
    """Return, by id, those who wait for others who wait, and so on without an end."""
    stuck = {id(wait.who): wait for wait in waits if wait.keepers}
    waited_for_by: dict[int, list[int]] = {}
    left = {}  # how many have to be freed before this one is
    for key, wait in stuck.items():
        keepers = {id(keeper) for keeper in wait.keepers}
        for keeper in keepers & stuck.keys():
            waited_for_by.setdefault(keeper, []).append(key)
        held = len(keepers & stuck.keys())
        left[key] = 1 - (held < len(keepers)) if wait.one_will_do else held
    freed = [key for key, number in left.items() if number == 0]
    while freed:
        key = freed.pop()
        del stuck[key]
        for other in waited_for_by.get(key, ()):
            left[other] -= 1
            if left[other] == 0:
                freed.append(other)
    return stuck


def circle_text(ring: list[object]) -> str:
    """Return a circle as a sentence."""
    first, *others = map(brief, ring)
    return f"{first} waits for {', which waits for '.join([*others, first] if others else ['itself'])}"
