"""Waiting for a file descriptor: who waits for which direction of which fd, until when.

Knows the hub and its poller. Knows no socket: whoever owns an fd asks its hub for a `Registration` and waits on one
of its two directions. A wake is a hint: a batch of events may still hold one for an fd number that was closed and
given out again, so whoever waits tries the system call and, if need be, waits once more.

`kept` registrations belong to sockets of ours: with an edge-triggered poller they are registered once and say nothing
more to the kernel until they are closed. Fds that others own are armed at each wait, because nobody tells us when
they close.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Protocol

from greenlet import getcurrent, greenlet

from greenswitch.errors import BusyError
from greenswitch.hub.hub import Hub, get_hub, step_aside
from greenswitch.hub.naming import describe
from greenswitch.hub.pollers import HANGUP, READ, WRITE, EpollPoller
from greenswitch.hub.timers import Timer
from greenswitch.hub.waiters import TIMED_OUT, OutsideWaiter, Waiter


class HasFileno(Protocol):
    """Anything with an fd."""

    def fileno(self) -> int:
        """Return the file descriptor."""


_NO_LINE: deque[Waiter] = deque(maxlen=0)  # shared by all directions: a deque for each would cost 600 bytes


class Direction(OutsideWaiter):
    """One direction of one registered fd: who waits, until when, and whether we know that there is nothing to get.

    It is the waiter of each wait for it, one after another. Others make a new one each time, because a late waker may
    still hold the old one; nobody but the registration ever holds this.
    """

    __slots__ = ("deadline", "drained", "holder", "line", "registration", "timer")

    def __init__(self, hub: Hub, verb: str, registration: Registration) -> None:
        super().__init__(hub, verb, registration)
        self.greenlet = None
        self.registration = registration
        self.holder: greenlet | None = None
        """Who waits, until it has gone on: longer than `greenlet`, which is claimed by the waker."""
        self.line: deque[Waiter] = _NO_LINE
        """What waits until the holder has gone on, if the registration `queues`."""
        self.deadline: float | None = None
        self.timer: Timer | None = None
        self.drained: bool | None = False
        """True: the last read emptied it, and no event has come since. Only a stream's owner may set it: to None
        before the read, and to True after it if it still is None. So an event that comes in between has the last
        word, even when the hub runs in another thread than the reader."""

    def wait(self, deadline: float | None = None) -> None:
        """Park until the fd may be ready in this direction.

        Raises TimeoutError when the hub's clock shows `deadline`, and OSError(EBADF) when the fd is closed meanwhile.
        If another greenlet waits for the same, raises BusyError, or waits until that has gone on, if the registration
        `queues`: then what it waited for may be there as well.
        """
        registration = self.registration
        hub = registration.hub
        if hub is None:
            raise closed_error()
        if self.holder is not None:
            if not registration.queues:
                raise BusyError(self._busy(self.holder))
            self._wait_in_line(hub, deadline)
            return
        if deadline is not None:
            self._set_deadline(hub, deadline)  # first: it raises for NaN
        self.holder = self.greenlet = getcurrent()
        try:
            if registration.kept or registration.arm():
                hub.park(self)
            else:
                self.greenlet = None  # it stands in the ready queue: a waker would put it there twice
                step_aside()  # always ready, as regular files are
        finally:
            self.holder = self.greenlet = None
            self.deadline = self.error = None
            self.drained = False
            if self.line:
                self._wake_line()
            if not registration.kept:
                if self.timer is not None:
                    self.timer.cancel()  # nobody will tell when an fd of others is closed
                registration.disarm()

    def _wait_in_line(self, hub: Hub, deadline: float | None) -> None:
        waiter = OutsideWaiter(hub, self.verb, self.registration)
        if self.line is _NO_LINE:
            self.line = deque()
        self.line.append(waiter)
        try:
            woken = hub.wait(waiter, None if deadline is None else max(deadline - hub.clock(), 0.0))
        finally:
            if waiter in self.line:
                self.line.remove(waiter)
        if woken is TIMED_OUT:
            raise TimeoutError("timed out")

    def _wake_line(self) -> None:
        """Let all that wait in line try again: an event tells once of all that has come. They keep their order."""
        line, self.line = self.line, _NO_LINE
        for waiter in line:
            waiter.wake()

    # A socket's timeout is one lazy timer: most waits end long before it, so the timer of an earlier wait stays in the
    # heap and, when it fires, looks whether anybody's deadline has really passed.

    def _set_deadline(self, hub: Hub, deadline: float) -> None:
        self.deadline = deadline
        timer = self.timer
        if timer is not None and timer.active:
            if timer.when <= deadline:
                return
            timer.cancel()
        self.timer = hub.timers.add(deadline, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        deadline, hub = self.deadline, self.hub
        if deadline is None:
            return
        if deadline <= hub.clock():
            self.fail(TimeoutError("timed out"))
        else:
            self.timer = hub.timers.add(deadline, self._look_at_deadline)

    def forsake(self) -> None:
        """Fail whoever waits with EBADF: the fd is gone."""
        if self.timer is not None:
            self.timer.cancel()
        while self.line:
            self.line.popleft().fail(closed_error())
        self.fail(closed_error())

    def _busy(self, holder: greenlet) -> str:
        return (
            f"fd {self.registration.fd}: {describe(holder)} already waits to {self.verb}, "
            f"so {describe(getcurrent())} can't; let one task do it and pass the data on, or use a dup() of the socket"
        )


class Registration:
    """What one hub knows of one fd. Once the fd, or the hub, is gone, `hub` is None."""

    __slots__ = ("fd", "hub", "kept", "label", "queues", "read", "unsure", "write")

    def __init__(self, hub: Hub, fd: int, kept: bool, label: object = None) -> None:
        self.hub: Hub | None = hub
        self.fd = fd
        self.kept = kept
        self.label = label
        self.queues = False
        """True: several tasks may wait for the same direction, first come, first served. Else that is a BusyError."""
        self.unsure = False
        """True: a short read doesn't prove that nothing is left. An event has told of an end of file, which makes no
        second edge if it came together with data, or of urgent data, before which reads stop; or the owner knows
        other reasons."""
        self.read = Direction(hub, "read", self)
        self.write = Direction(hub, "write", self)

    def notify(self, events: int) -> None:
        """Take the poller's report."""
        if events & HANGUP:
            self.unsure = True
            events |= READ | WRITE
        # Written out for both: with an edge-triggered poller nearly every event names both directions.
        if events & READ:
            direction = self.read
            direction.drained = False
            waiting, direction.greenlet = direction.greenlet, None
            if waiting is not None:
                direction.hub.ready.append(waiting)
        if events & WRITE and self.write.greenlet is not None:
            self.write.wake()

    def arm(self) -> bool:
        """Tell the poller what is waited for; return False if the fd is always ready."""
        if self.hub is None:
            raise closed_error()
        try:
            _tell_poller(self.hub, "arm", self.fd, self._wanted())
        except PermissionError:
            return False
        return True

    def disarm(self) -> None:
        """Tell a level-triggered poller what is still waited for; it would repeat itself. An edge is told just once."""
        hub = self.hub
        if hub is not None and not hub.poller.keeps:
            hub.poller.arm(self.fd, self._wanted())

    def _wanted(self) -> int:
        return (READ if self.read.holder is not None else 0) | (WRITE if self.write.holder is not None else 0)

    def close(self) -> None:
        """Forget the fd, and fail with EBADF whoever waits for it. Call it before the fd is closed. Any thread."""
        hub = self.hub
        if hub is not None and hub.registrations.get(self.fd) is self:
            del hub.registrations[self.fd]
            hub.poller.unregister(self.fd)
        self.forsake()

    def renew(self) -> None:
        """Tell a new poller of the fd, and wake what waits: it tries again. Raises OSError if the fd is closed."""
        hub = self.hub
        if hub is not None and self.kept and hub.poller.keeps:
            hub.poller.register(self.fd)
        self.read.drained = False
        self.read.wake()
        self.write.wake()

    def forsake(self) -> None:
        """Fail with EBADF whoever waits: the fd, or the hub, is gone."""
        self.hub = None
        self.read.forsake()
        self.write.forsake()

    def abandon(self) -> list[Waiter]:
        """In a forked child: forget the parent's waiters, without waking them, and return them."""
        self.hub = None
        self.read.deadline = self.read.timer = self.write.deadline = self.write.timer = None
        both = (self.read, self.write)
        in_line = [waiter for direction in both for waiter in direction.line]
        for direction in both:
            direction.line = _NO_LINE
        return [*(direction for direction in both if direction.greenlet is not None), *in_line]

    def __repr__(self) -> str:
        return f"<fd {self.fd}>" if self.label is None else f"<fd {self.fd}: {self.label}>"


def closed_error() -> OSError:
    """Return what a wait for a closed fd raises."""
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


def register(hub: Hub, fd: int) -> Registration:
    """Return `hub`'s registration of `fd` for its owner, who tells when it closes it.

    What is ready already gets reported. One that is there already is taken over with its waiters: the owner may have
    come from another thread, or somebody may wait for this fd by its number.
    """
    registration = _registered(hub, fd)
    if registration is None:
        registration = hub.registrations[fd] = Registration(hub, fd, kept=False)
    if hub.poller.keeps:
        _tell_poller(hub, "register", fd)
        registration.kept = True
    registration.unsure = registration.read.drained = False
    return registration


def _registered(hub: Hub, fd: int) -> Registration | None:
    registration: Any = hub.registrations.get(fd)
    if registration is hub.alarm:  # the program has closed all descriptors, and this number is another file's now
        hub._replace_poller()
        return None
    return registration  # type: ignore[no-any-return]


def _tell_poller(hub: Hub, verb: str, fd: int, *args: int) -> None:
    """Call a method of the hub's poller. If the program has closed the poller's own descriptor, make a new poller."""
    try:
        getattr(hub.poller, verb)(fd, *args)
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.EINVAL) or not isinstance(hub.poller, EpollPoller):
            raise
        os.fstat(fd)  # raises if it is this one that is closed
        hub._replace_poller()
        getattr(hub.poller, verb)(fd, *args)


def _wait_foreign(fd: int | HasFileno, direction: Callable[[Registration], Direction], timeout: float | None) -> None:
    number = fd if isinstance(fd, int) else fd.fileno()
    if number < 0:
        raise closed_error()
    hub = get_hub()
    registration = _registered(hub, number)
    if registration is None:
        registration = hub.registrations[number] = Registration(hub, number, kept=False)
    elif registration.kept:
        _tell_poller(hub, "register", number)  # again: what is ready already had its edge before this wait
    direction(registration).wait(None if timeout is None else hub.clock() + timeout)


_READ: Callable[[Registration], Direction] = attrgetter("read")
_WRITE: Callable[[Registration], Direction] = attrgetter("write")


def wait_readable(fd: int | HasFileno, timeout: float | None = None) -> None:
    """Park until `fd` (a number, or anything with `fileno()`) may be read from without blocking.

    For file descriptors that others own; sockets of ours wait by themselves. Raises TimeoutError after `timeout`
    seconds, BusyError if another task waits for the same, OSError(EBADF) for a closed fd. Not from inside the hub.
    """
    _wait_foreign(fd, _READ, timeout)


def wait_writable(fd: int | HasFileno, timeout: float | None = None) -> None:
    """Park until `fd` may be written to without blocking; otherwise as `wait_readable`."""
    _wait_foreign(fd, _WRITE, timeout)
