"""Waiting for file descriptors that others own: for many at once, and by many waiters at once.

A direction of a descriptor has room for one waiter (`greenswitch.hub.readiness`): more would mean that two tasks read
one stream. To `select` and `poll` nothing of that applies: they only look. So each of their waits watches what it waits
for by an epoll object of its own, and the hub watches that. Edge-triggered and emptied at every wake: what has been
seen, and is not what the caller wants, doesn't wake it again.

Where there is no epoll, or no descriptor left for it, an OS thread asks poll() or select(), for a short while at a
time.

Knows the hub, and the system's own select module. Knows nothing of the standard library's interfaces to it.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from greenlet import getcurrent

from greenswitch.hub import (
    READ,
    WRITE,
    Hub,
    OutsideWaiter,
    Registration,
    Waiter,
    closed_error,
    current_hub,
    get_hub,
    step_aside,
    wait_readable,
    wait_writable,
)
from greenswitch.threads import to_thread

T = TypeVar("T")

# The originals, which monkey patching replaces.
_epoll: Any = getattr(select, "epoll", None)
_poll: Any = getattr(select, "poll", None)
_select = select.select

_PRI: Final = 0x002
_EDGE: Final = 1 << 31
_SLICE = 0.1  # seconds for which a thread asks: so long it may outlive the wait that asked for it
_STREAK = 64  # operations in a row that had not to wait, after which a task lets others go first
_KEY: Final = "greenswitch.descriptors"


def until_ready(look: Callable[[], T], events: Mapping[int, int], deadline: float | None, verb: str = "wait for") -> T:
    """Return the first true value of `look()`, which is asked whenever one of `events` may have happened.

    `events` are READ, WRITE and 2 (urgent data) bits by fd; what is ready already counts as happening now. When the
    hub's clock shows `deadline`, return what `look()` says then. Raises HubError inside the hub.
    """
    hub = get_hub()
    try:
        watch = _Watch(hub, events, verb).__enter__() if _epoll is not None else None
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        watch = None  # no descriptor is left for an epoll object
    if watch is None:
        return _until_a_thread_says_so(hub, look, events, deadline)
    try:
        while watch.wait(deadline):
            found = look()
            if found:
                return found
    finally:
        watch.__exit__()
    return look()


class _Watch:
    """One wait's own epoll object, and how the hub watches it."""

    def __init__(self, hub: Hub, events: Mapping[int, int], verb: str) -> None:
        self._hub = hub
        self._events = events
        self._verb = verb
        self._waiter: Waiter | None = None
        self._inherited = False
        self._epoll: Any = None

    def __enter__(self) -> _Watch:
        self._epoll = _epoll()
        try:
            for fd, wanted in self._events.items():
                with suppress(PermissionError):  # always ready, as files are, and for nothing else than was found
                    self._epoll.register(fd, wanted | _EDGE)
            self._hub.poller.arm(self._epoll.fileno(), READ)
        except BaseException:
            self._epoll.close()
            raise
        self._hub.registrations[self._epoll.fileno()] = self
        return self

    def wait(self, deadline: float | None) -> bool:
        """Park until something happens; return False if it is past `deadline`."""
        hub = self._hub
        self._waiter = OutsideWaiter(hub, self._verb, self)
        hub.wait(self._waiter, None if deadline is None else max(deadline - hub.clock(), 0.0))
        if self._inherited:
            self._inherited = False
            self.__exit__()
            self.__enter__()
        self._epoll.poll(0)  # emptied before the caller looks: what happens from now on makes another edge
        return deadline is None or hub.clock() < deadline

    def notify(self, events: int) -> None:
        """Wake who waits: for the hub."""
        if self._waiter is not None:
            self._waiter.wake()

    def renew(self) -> None:
        """Make the wait begin anew: the hub has a new poller."""
        self._inherited = True
        if self._waiter is not None:
            self._waiter.wake()

    def forsake(self) -> None:
        """Fail who waits: the hub is closed."""
        if self._waiter is not None:
            self._waiter.fail(closed_error())

    def abandon(self) -> list[Waiter]:
        """In a forked child, which shares the epoll object: return the waiter, if it waits."""
        self._inherited = True
        return [] if self._waiter is None or self._waiter.greenlet is None else [self._waiter]

    def __exit__(self, *error: object) -> None:
        fd = self._epoll.fileno()
        if self._hub.registrations.get(fd) is self:
            del self._hub.registrations[fd]
        self._hub.poller.unregister(fd)
        self._epoll.close()

    def __repr__(self) -> str:
        fds = sorted(self._events)
        shown = ", ".join(map(str, fds[:5])) + (f" and {len(fds) - 5} more" if len(fds) > 5 else "")
        return f"fd {shown}" if len(fds) == 1 else f"fds {shown}"


def _until_a_thread_says_so(hub: Hub, look: Callable[[], T], events: Mapping[int, int], deadline: float | None) -> T:
    while True:
        left = _SLICE if deadline is None else min(deadline - hub.clock(), _SLICE)
        if left > 0:
            to_thread(_ask, dict(events), left)
        found = look()
        if found or left <= 0:
            return found


def _ask(events: dict[int, int], seconds: float) -> None:
    """Block this thread until something may have happened, or the time is over."""
    if _poll is None:
        r, w, x = ([fd for fd, wanted in events.items() if wanted & bit] for bit in (READ, WRITE, _PRI))
        _select(r, w, x, seconds)
        return
    asked = _poll()
    for fd, wanted in events.items():
        asked.register(fd, wanted)
    asked.poll(seconds * 1000)


def is_ready(fd: int, events: int) -> bool:
    """Return whether `fd` is ready for one of `events`, has an error, was hung up or is closed. Never waits."""
    asked = _poll()
    asked.register(fd, events)
    return bool(asked.poll(0))


def wait_for(fd: int, events: int, timeout: float | None = None) -> bool:
    """Park until `fd` may be ready to READ, or to WRITE; return False after `timeout` seconds.

    Unlike `wait_readable` it refuses nobody. Raises OSError(EBADF) if the fd is closed by `forget` meanwhile.
    """
    hub = get_hub()
    registration = hub.registrations.get(fd)
    if registration is None or _is_free(registration, events):
        try:
            (wait_readable if events == READ else wait_writable)(fd, timeout)
        except TimeoutError:
            return False
        return True
    deadline = None if timeout is None else hub.clock() + timeout
    return until_ready(lambda: is_ready(fd, events), {fd: events}, deadline)


def _is_free(registration: object, events: int) -> bool:
    """Return whether nobody waits there, and nobody but us is going to: no socket."""
    if not isinstance(registration, Registration) or registration.kept:
        return False
    return (registration.read if events == READ else registration.write).holder is None


def forget(fd: int) -> None:
    """Fail with EBADF whoever waits for `fd` alone, in this thread: it is about to be closed."""
    hub = current_hub()
    if hub is not None:
        registration = hub.registrations.get(fd)
        if isinstance(registration, Registration):
            registration.close()


def breathe() -> None:
    """Let others go first, now and then: called before each operation that may find that it has not to wait.

    Before, because whoever is killed here would lose what the operation has taken. In the hub it does nothing.
    """
    hub = current_hub()
    if hub is None or getcurrent() is hub.greenlet:
        return
    streak = hub.local.get(_KEY, 0) + 1
    hub.local[_KEY] = streak % _STREAK
    if streak == _STREAK:
        step_aside()
