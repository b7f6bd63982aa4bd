"""Locks that one at a time holds: `Lock`, and `RLock`, which its owner may take again.

Knows the line, and who runs: a lock's owner is a task, or the greenlet where there is no task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import TIMEOUT_MAX
from types import TracebackType
from typing import Any

import greenlet

from greenswitch.errors import GreenswitchError
from greenswitch.hub import TIMED_OUT, brief, describe, get_hub, main_greenlet, new_waiter
from greenswitch.locks.lines import WaitableLock
from greenswitch.tasks import Task, getcurrent

_GIVEN = object()


class Lock(WaitableLock):
    """A lock that anybody may release, as `threading.Lock`.

    >>> lock = Lock()
    >>> with lock:
    ...     lock
    <Lock held by main greenlet>
    >>> lock
    <Lock free>
    """

    # `_owner` is the whole state. It goes straight from one owner to the next, so that nobody barges in between, and a
    # finaliser that interrupts us anywhere finds either of them, never a lock on its way.
    __slots__ = ("_owner",)

    def __init__(self) -> None:
        super().__init__()
        self._owner: Any = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; park until it is free, at most `timeout` seconds; return whether it was. Not in the hub.

        With `blocking=False` never wait: that may be called anywhere.
        """
        if timeout != -1:
            _check(blocking, timeout)
        me = getcurrent()
        if not self._line and self._take(me):
            return True
        if not blocking or timeout == 0:
            return False
        return self._wait(me, timeout)

    __enter__ = acquire

    def release(self) -> None:
        """Hand the lock to the first in line, or set it free. Never switches; anywhere, any thread.

        RuntimeError if nobody holds it.
        """
        if self._owner is None:
            raise RuntimeError(f"release unlocked lock: {_name(getcurrent())} releases {self!r}, which nobody holds")
        self._pass_on()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def locked(self) -> bool:
        """Return whether somebody holds it."""
        return self._owner is not None

    def ready(self) -> bool:
        """Return whether it is free."""
        return self._owner is None

    def _take(self, me: Any) -> bool:
        # One line on purpose, as in Waiter.wake: nobody comes between looking and taking.
        before, self._owner = self._owner, me if self._owner is None else self._owner
        return before is None

    def _wait(self, me: Any, timeout: float) -> bool:
        # This is Line.wait, written out: half of the time of a lock that is waited for goes into calls.
        line = self._line
        waiter = new_waiter("acquire", self)
        hub = waiter.hub
        waiter.value = me  # until it is woken: for _hand_over
        try:
            line.append(waiter)
            if self._owner is None and self._take(me):
                self._pass_on()
            value = hub.park(waiter) if timeout == -1 else hub.wait(waiter, timeout)
        except BaseException:
            line.abandon(waiter)
            if waiter.value is _GIVEN:  # Ctrl-C came as it went on with the lock
                self._pass_on()
            raise
        if value is TIMED_OUT:
            line.leave(waiter)
            return False
        return True

    def _pass_on(self) -> None:
        """Hand it over or set it free; whoever calls this holds it until then."""
        line = self._line
        while not (line and self._hand_over()):
            self._owner = None
            # Who lined up after we had looked, and before it was free, has seen neither.
            if not line or not self._take(getcurrent()):
                break
        if self._links and self._owner is None:
            self._tell()

    def _hand_over(self) -> bool:
        """Make the first who still waits the owner, and wake him; return False if there is nobody."""
        line = self._line
        while line:
            try:
                waiter = line.popleft()
            except IndexError:  # another thread was faster
                break
            # This is Waiter.wake with one step more, the change of owners. No call stands between claiming the greenlet
            # and queueing it, so nobody (no thread, finaliser or signal handler) finds a lock that is on its way.
            claimed, waiter.greenlet = waiter.greenlet, None
            if claimed is not None:
                self._owner = waiter.value
                waiter.value = _GIVEN
                hub = waiter.hub
                hub.ready.append(claimed)
                if hub.asleep:
                    hub.ring()
                return True
        return False

    def _at_fork_reinit(self) -> None:
        super()._at_fork_reinit()
        self._owner = None

    def keepers(self) -> Iterable[object]:
        return () if self._owner is None else (self._owner,)

    def lack(self, verb: str) -> str:
        owner = self._owner
        return f"{brief(owner)} has ended and has not released it" if owner is not None and owner.dead else ""

    def _times(self) -> str:
        return ""

    @property
    def text(self) -> str:
        """Who holds it and how many wait, for a repr."""
        owner = self._owner
        state = "free" if owner is None else f"held by {_name(owner)}{self._times()}"
        return f"{state}{self._line.text}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.text}>"


class RLock(Lock):
    """A lock that its owner may take again, and only its owner release, as `threading.RLock`.

    >>> lock = RLock()
    >>> with lock, lock:
    ...     lock
    <RLock held by main greenlet, 2 times>
    """

    # Beyond the first acquisition. 0 whenever the lock changes owners; only the owner changes it.
    __slots__ = ("_again",)

    def __init__(self) -> None:
        super().__init__()
        self._again = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, at once if it is yours already; otherwise as `Lock.acquire`."""
        if self._owner is getcurrent():
            if timeout != -1:
                _check(blocking, timeout)
            self._again += 1
            return True
        return super().acquire(blocking, timeout)

    __enter__ = acquire

    def release(self) -> None:
        """Undo one `acquire`; the last one hands the lock on, or sets it free. Never switches.

        RuntimeError if you don't hold it.
        """
        me = getcurrent()
        if self._owner is not me:
            raise RuntimeError(f"cannot release un-acquired lock: {_name(me)} releases {self!r}")
        if self._again:
            self._again -= 1
        else:
            self._pass_on()

    def _at_fork_reinit(self) -> None:
        super()._at_fork_reinit()
        self._again = 0

    # What threading.Condition, and ours, ask of a lock that may be held several times.

    def _is_owned(self) -> bool:
        return self._owner is getcurrent()

    def _release_save(self) -> int:
        if self._owner is not getcurrent():
            raise RuntimeError(f"cannot release un-acquired lock: {_name(getcurrent())} releases {self!r}")
        again, self._again = self._again, 0
        self._pass_on()
        return again

    def _acquire_restore(self, again: int) -> None:
        super().acquire()
        self._again = again

    def _recursion_count(self) -> int:
        return self._again + 1 if self._is_owned() else 0

    def _times(self) -> str:
        return f", {self._again + 1} times" if self._again else ""


def whatever_comes(acquire: Callable[..., object], *args: Any) -> None:
    """Take a lock that the caller's `with` will release: what would interrupt that is kept for the next wait."""
    late: list[BaseException] = []
    while True:
        try:
            acquire(*args)
            break
        except GreenswitchError:  # a deadlock, a closed hub: there is no use in trying again
            raise
        except BaseException as error:
            late.append(error)
    for kept in late:
        get_hub().interrupt(greenlet.getcurrent(), kept)


def _check(blocking: bool, timeout: float) -> None:
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if not timeout >= 0:
        raise ValueError(f"timeout value must be a non-negative number, not {timeout!r}")
    if timeout > TIMEOUT_MAX:
        raise OverflowError(f"timeout value is too large: {timeout!r}")


def _name(owner: Any) -> str:
    """Return how to call an owner in a message."""
    if isinstance(owner, Task):
        return f"{owner.label}, which has ended" if owner.dead else owner.label
    if owner.parent is None and owner is not main_greenlet():
        return f"{describe(owner)} of another thread"
    return describe(owner)
