"""A forked child gets a fresh hub, and none of the parent's tasks.

Knows the hub inside out: it takes one apart and sets it up anew. Imported for its effect, a handler that runs in the
child.
"""

from __future__ import annotations

import os
from typing import Any

import greenlet

from greenswitch.hub.carriers import Carrier, Carriers
from greenswitch.hub.hub import Hub, current_hub
from greenswitch.hub.pollers import make_poller
from greenswitch.hub.signals import Turn, interrupted
from greenswitch.hub.timers import Timers
from greenswitch.hub.waiters import Waiter

_never_freed: list[Any] = []


def _start_afresh(hub: Hub) -> None:
    """In a forked child: keep the hub object, and none of what the parent's hub was about to do.

    The greenlet that forked goes on in the child; the thread's main greenlet still may wait for it. Everybody else
    is kept unreachable but referenced: were their greenlets freed, the parent's `finally` blocks would run here.
    """
    current, before = interrupted(), hub.greenlet
    _never_freed.extend((before, hub.carriers, hub.poller, list(hub.parked), list(hub.ready)))
    hub.is_orphan = hub.is_orphan or getattr(getattr(current, "job", None), "is_thread", False)
    going_on = (current,) if hub.is_orphan else (current, hub.main)
    for one, waiter in hub.parked.items():
        if one not in going_on:
            waiter.cancel()  # a lock that it stands in line for goes to the next
    hub.parked = {one: waiter for one, waiter in hub.parked.items() if one in going_on}
    turns = [entry for entry in hub.ready if isinstance(entry, Turn) or entry in going_on]
    hub.ready.clear()
    hub.ready.extend(turns)
    hub.arrivals.clear()
    hub.interrupts.clear()
    hub.shields.clear()
    hub.owed.clear()
    hub.at_rest.clear()
    hub.local.clear()
    hub.timers = Timers()
    hub.carriers = Carriers(hub)
    hub.asleep = False
    left_waiting = _abandon_registrations(hub)
    hub.alarm.close()
    hub.poller.close()
    hub.open(make_poller())
    if current is before:  # a callback has forked: this very loop goes on
        hub.greenlet = before
    else:
        _adopt(hub, current, before)
    for waiter in left_waiting:
        waiter.wake()


def _adopt(hub: Hub, current: greenlet.greenlet, before: greenlet.greenlet) -> None:
    """Have who forked hand over to the new loop when it dies, and count among the living."""
    if current.parent is before:
        current.parent = hub.greenlet
    if isinstance(current, Carrier):
        hub.carriers.all.add(current)


def _abandon_registrations(hub: Hub) -> list[Waiter]:
    """Forget what is watched: sockets register again. Return main's waiter if it waits for one: it shall look."""
    del hub.registrations[hub.alarm.fd]
    abandoned = [waiter for registration in hub.registrations.values() for waiter in registration.abandon()]
    hub.registrations.clear()
    return [waiter for waiter in hub.parked.values() if waiter in abandoned]


def _in_child() -> None:
    hub = current_hub()
    while hub is not None:
        if not hub.closed:
            _start_afresh(hub)
        hub = hub.previous


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
