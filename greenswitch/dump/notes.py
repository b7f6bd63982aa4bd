"""What is worth knowing in a dump and too dear to be noted always: since when each one waits, and who has spawned whom.

While nothing is noted this costs nothing, since nothing of it is there. To note times, a hub's `parked` becomes a dict
that looks at the clock; to note spawns, `Task` gets another `__init__`. Both go for all threads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import greenlet

from greenswitch.hub import Hub, Waiter, os_ident
from greenswitch.hub.carriers import open_hubs
from greenswitch.hub.frames import ours, place
from greenswitch.hub.naming import brief
from greenswitch.tasks import Task, getcurrent


class Since(NamedTuple):
    """When somebody has parked, in seconds by the hub's clock; not `exact`: he was parked then already."""

    time: float
    exact: bool


class NotingTimes(dict[greenlet.greenlet, Waiter]):
    """A hub's `parked` that notes when each one has come."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub.parked)
        self._clock = hub.clock
        now = hub.clock()
        self.since = {one: Since(now, exact=False) for one in self}

    def __setitem__(self, one: greenlet.greenlet, waiter: Waiter) -> None:
        super().__setitem__(one, waiter)
        self.since[one] = Since(self._clock(), exact=True)

    def __delitem__(self, one: greenlet.greenlet) -> None:
        self.since.pop(one, None)
        super().__delitem__(one)

    def pop(self, one: greenlet.greenlet, *default: Any) -> Any:
        self.since.pop(one, None)
        return super().pop(one, *default)


class Spawn(NamedTuple):
    """Who has spawned a task, as far as he is still there, what he is called, and where he did it."""

    by: ref[Any]
    name: str
    at: str


_spawns: WeakKeyDictionary[Task, Spawn] = WeakKeyDictionary()
_inits: dict[type, Callable[..., None]] = {}


def note_times(on: bool = True) -> None:
    """Note from now on when each one parks, in every hub, those to come included; or stop that.

    Costs some 0.3 µs a wait. Who is parked already is known to be so for at least that long. Hubs of other threads
    begin, and stop, at their next turn.
    """
    change = _note_times_in if on else _note_no_times_in
    _after_init(Hub, _note_times_in, on)
    for hub in open_hubs():
        if hub.thread_id == os_ident():
            change(hub)
        else:
            hub.call_soon(change, hub)  # in their own thread, where nobody parks amid the change


def note_spawns(on: bool = True) -> None:
    """Note from now on, in all threads, who spawns which task, and where; or stop that. Costs some 3 µs a spawn."""
    _after_init(Task, _note_spawn, on)
    if not on:
        _spawns.clear()


def notes_times() -> bool:
    """Return whether times are noted."""
    return Hub in _inits


def notes_spawns() -> bool:
    """Return whether spawns are noted."""
    return Task in _inits


def since_of(hub: Hub, one: greenlet.greenlet | None) -> Since | None:
    """Return since when `one` is parked in `hub`, if that has been noted."""
    parked = hub.parked
    return parked.since.get(one) if isinstance(parked, NotingTimes) and one is not None else None


def spawn_of(task: object) -> Spawn | None:
    """Return who has spawned `task`, if that has been noted."""
    return _spawns.get(task) if isinstance(task, Task) else None


def _note_times_in(hub: Hub) -> None:
    if not isinstance(hub.parked, NotingTimes):
        hub.parked = NotingTimes(hub)


def _note_no_times_in(hub: Hub) -> None:
    if isinstance(hub.parked, NotingTimes):
        hub.parked = dict(hub.parked)


def _in_child() -> None:
    if notes_times():
        note_times()  # the child's hub has begun afresh


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _note_spawn(task: Task) -> None:
    frame = sys._getframe(1)
    while ours(frame) and frame.f_back is not None:
        frame = frame.f_back
    by = getcurrent()
    name = "a callback of the hub" if by is task.hub.greenlet else brief(by)
    _spawns[task] = Spawn(ref(by), name, place(frame))


def _after_init(kind: type, note: Callable[[Any], None], on: bool) -> None:
    """Have `note` called with each new object of `kind`, or no longer."""
    if on and kind not in _inits:
        before = _inits[kind] = vars(kind)["__init__"]

        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            before(self, *args, **kwargs)
            note(self)

        __init__.__wrapped__ = before  # type: ignore[attr-defined]
        setattr(kind, "__init__", __init__)  # noqa: B010  # mypy forbids to assign to a method
    elif not on and kind in _inits:
        setattr(kind, "__init__", _inits.pop(kind))  # noqa: B010
