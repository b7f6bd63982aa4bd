"""Looking at a hub from outside, whatever it is doing, and in whatever thread: who there is, and what each is doing.

Knows hubs, tasks and deadlines inside out, and changes none of them: nothing here switches, waits, or calls what might.
What is copied is copied in one step, since other threads go on meanwhile; so does a signal handler's own thread, once
it returns. Knows no text: that is `greenswitch.dump.report`.
"""

from __future__ import annotations

import os
import stat
from _socket import getdefaulttimeout, socket  # the originals, which never park
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain, takewhile
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import greenlet

from greenswitch.hub import Carrier, Direction, Hub, Job, Waiter
from greenswitch.hub.frames import frames_of, ours
from greenswitch.timeouts import Deadline

T = TypeVar("T")


def snapshot(copy: Callable[[], T]) -> T:
    """Return `copy()` of something that other threads change: a copy is one step, unless the collector comes in."""
    for _ in range(100):
        with suppress(RuntimeError):
            return copy()
    return copy()


class Being(NamedTuple):
    """A task or a greenlet, and what it is doing."""

    who: Job | greenlet.greenlet
    standing: greenlet.greenlet | None
    """Where it runs; None for a task that has not begun."""
    state: str
    """One of running, ready, parked, new, or away: it has switched away by hand, and by hand it may be resumed."""
    waiter: Waiter | None
    frames: list[FrameType]
    """Where it stands, the innermost first."""


class Until(NamedTuple):
    """When a wait, or else the block of a scope, is over at the latest, by the hub's clock."""

    scope: str | None
    when: float


# -- who there is ----------------------------------------------------------------------------------------------------


def beings(hub: Hub, running: list[FrameType]) -> list[Being]:
    """Return everybody whom `hub` has to do with, but for the hub itself; `running` is where its thread stands.

    A new task is missing at the very moment of its first turn, when it has left the queue and nothing runs it yet.
    """
    parked = snapshot(lambda: dict(hub.parked))
    ready = snapshot(lambda: list(hub.ready))
    carriers = snapshot(lambda: list(hub.carriers.all))
    standing: dict[greenlet.greenlet, None] = {hub.main: None}
    standing.update(dict.fromkeys(one for one in carriers if one.job is not None))
    standing.update(dict.fromkeys(parked))
    standing.update(dict.fromkeys(one for one in ready if isinstance(one, greenlet.greenlet)))
    found = [_being(one, parked.get(one), one in ready, running) for one in standing if one is not hub.greenlet]
    new = [one for one in ready if isinstance(one, Job)] + [job for job, _ in hub.carriers.starting_later()]
    return found + [Being(job, None, "new", None, []) for job in new]


def _being(one: greenlet.greenlet, waiter: Waiter | None, is_ready: bool, running: list[FrameType]) -> Being:
    who: Job | greenlet.greenlet = getattr(one, "job", None) or one
    frames = frames_of(one)
    if isinstance(who, Job) and who.carrier is None:
        return Being(who, one, "new", None, [])
    if not frames and not one.dead:  # it runs, and may be about to park
        return Being(who, one, "running", None, running)
    if waiter is not None and waiter.greenlet is not None:
        return Being(who, one, "parked", waiter, frames)
    return Being(who, one, "ready" if is_ready or waiter is not None else "away", None, frames)


# -- until when ------------------------------------------------------------------------------------------------------


def deadlines(hub: Hub) -> tuple[dict[int, Until], dict[int, list[Until]]]:
    """Return the deadlines of waits, by the id of the waiter, and of blocks, by the id of the greenlet."""
    of_waits: dict[int, Until] = {}
    of_blocks: dict[int, list[Until]] = {}
    timers = hub.timers.pending()
    scopes = [getattr(timer.callback, "__self__", None) for timer in timers]
    for owner, timer in zip(scopes, timers, strict=True):
        if isinstance(owner, Waiter) and not isinstance(owner, Direction):
            of_waits[id(owner)] = Until(None, timer.when)
    for scope in chain(scopes, snapshot(lambda: list(hub.timers.young))):
        if isinstance(scope, Deadline) and scope.deadline is not None:
            text = f"{scope.made_by}({scope.seconds})"
            of_blocks.setdefault(id(scope._greenlet), []).append(Until(text, scope.deadline))
    for several in of_blocks.values():
        several.sort(key=lambda until: until.when)
    return of_waits, of_blocks


def deadline_of(waiter: Waiter, of_waits: dict[int, Until]) -> Until | None:
    """Return the deadline that belongs to this wait itself."""
    if isinstance(waiter, Direction):
        return None if waiter.deadline is None else Until(None, waiter.deadline)
    return of_waits.get(id(waiter))


# -- where -----------------------------------------------------------------------------------------------------------


def call_of(frames: list[FrameType], target: object) -> str | None:
    """Return which of this package's functions the program has called and is in, as 'Socket.recv'.

    A method of `target` that comes from a base of its class is called by the class's own name.
    """
    inner = [frame.f_code for frame in takewhile(ours, frames) if frame.f_code is not Carrier.run.__code__]
    if not inner:
        return None
    base, _, method = inner[-1].co_qualname.rpartition(".")
    inherited = base in (kind.__name__ for kind in type(target).__mro__)
    return f"{type(target).__name__}.{method}" if inherited else inner[-1].co_qualname


# -- what an fd is ---------------------------------------------------------------------------------------------------


def ends_of(fd: int, nonblocking: bool) -> str:
    """Return the addresses of a socket, or what else `fd` is, as text. `nonblocking`: it is a socket of ours."""
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            # With a default timeout a new socket object makes its fd non-blocking, for everybody who shares it.
            if nonblocking or getdefaulttimeout() is None:
                return _addresses(fd)
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _addresses(fd: int) -> str:
    copy = socket(fileno=os.dup(fd))
    try:
        here = _address(copy.getsockname())
        there = _address(copy.getpeername())
    except OSError:  # it listens, or is not connected yet
        return here
    finally:
        copy.close()
    return f"{here or 'unnamed'}, peer {there or 'unnamed'}"


def _address(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return os.fsdecode(address) if isinstance(address, bytes) else str(address)


def thread_name(thread_id: int, threads: Iterable[Any]) -> str:
    """Return what `threading` calls an OS thread, or ''."""
    return next((thread.name for thread in threads if thread.ident == thread_id), "")
