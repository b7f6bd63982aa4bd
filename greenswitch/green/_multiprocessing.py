"""The twin of the standard library's `_multiprocessing`: a task that waits for a semaphore of several processes parks.

`multiprocessing` builds its locks, semaphores, conditions, events, barriers and queues on `SemLock`. No descriptor
tells when another process has released a semaphore, so a task that waits for one looks again and again, first after
half a millisecond, later every 20 ms. A task of this process needs no look: whoever releases hands over to the first
that waits. Where nobody else could run meanwhile, as in most worker processes, the semaphore is waited for in C.

Another way would be an OS thread that waits in C. But it might take the semaphore when the task that asked for it has
been killed, or when the process ends, and each wait would need a thread of its own.

An owner is a task here, as it is a thread in the original: so two tasks of one OS thread don't share a recursive lock.

Knows the hub, and the standard library's `_multiprocessing`. Knows no class of `multiprocessing`.
"""

from __future__ import annotations

import _multiprocessing as original  # type: ignore[import-not-found]
from time import monotonic
from typing import Any, Final, Self

from greenlet import getcurrent

from greenswitch.green import rest_of
from greenswitch.green._thread import get_ident
from greenswitch.hub import TIMED_OUT, Hub, OutsideWaiter, current_hub
from greenswitch.locks.lines import Line

_RECURSIVE_MUTEX, _SEMAPHORE = range(2)
_FIRST_PAUSE: Final = 0.0005  # seconds until a task that waits looks for the first time
_LONGEST_PAUSE: Final = 0.02
_SLICE: Final = 0.05  # seconds for which nobody else runs, though a signal handler or an OS thread may start a task

_SemLock: Any = getattr(original, "SemLock", None)  # not where the system has no named semaphores

REPLACED: tuple[str, ...] = () if _SemLock is None else ("SemLock",)


class SemLock:
    """As `_multiprocessing.SemLock`, and `acquire` parks the task."""

    __slots__ = ("__weakref__", "_depth", "_line", "_owner", "_raw", "kind")
    __module__ = "_multiprocessing"

    SEM_VALUE_MAX: Final[int] = getattr(_SemLock, "SEM_VALUE_MAX", 0)

    def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:
        if kind not in (_RECURSIVE_MUTEX, _SEMAPHORE):
            raise ValueError("unrecognized kind")
        self._begin(kind, _SemLock(_SEMAPHORE, value, maxvalue, name, unlink))

    @classmethod
    def _rebuild(cls, handle: int, kind: int, maxvalue: int, name: str | None, /) -> Self:
        """Return one for a semaphore that another process has made."""
        made = cls.__new__(cls)
        made._begin(kind, _SemLock._rebuild(handle, _SEMAPHORE, maxvalue, name))
        return made

    def _begin(self, kind: int, raw: Any) -> None:
        self.kind = kind
        self._raw = raw  # never a recursive one: it would take all tasks of an OS thread for one owner
        self._line = Line()
        self._owner = 0
        self._depth = 0  # of a recursive one: how many times its owner has acquired it

    @property
    def handle(self) -> int:
        """The operating system's handle, as the original's."""
        return self._raw.handle  # type: ignore[no-any-return]

    @property
    def name(self) -> str | None:
        """The semaphore's name, as the original's."""
        return self._raw.name  # type: ignore[no-any-return]

    @property
    def maxvalue(self) -> int:
        """The greatest value that the semaphore may have."""
        return self._raw.maxvalue  # type: ignore[no-any-return]

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take it; park until that can be done, at most `timeout` seconds (None: no limit); return whether it was."""
        recursive = self.kind == _RECURSIVE_MUTEX
        if recursive and self._is_mine():
            self._depth += 1
            return True
        limit = None if timeout is None or not block else max(timeout, 0.0)
        if not ((not block or not self._line) and self._raw.acquire(False)) and not (block and self._wait(limit)):
            return False
        self._owner = get_ident()
        if recursive:
            self._depth = 1
        return True

    def release(self) -> None:
        """Give it back: to the first task that waits, or to whoever comes first in any process. Never switches."""
        mine = self._is_mine()
        if self.kind == _RECURSIVE_MUTEX:
            if not mine:
                raise AssertionError("attempt to release recursive lock not owned by thread")
            self._depth -= 1
            if self._depth:
                return
        if mine and self._raw._count() == 1:
            self._owner = 0  # before another task can be given it
        self._raw.release()
        self._hand_over()

    def _wait(self, timeout: float | None) -> bool:
        hub = current_hub()
        if hub is None:
            return self._raw.acquire(True, timeout)  # type: ignore[no-any-return]
        deadline = None if timeout is None else hub.clock() + timeout
        while not self._line and _is_alone(hub):
            left = _SLICE if deadline is None else min(deadline - hub.clock(), _SLICE)
            if self._raw.acquire(True, left):
                return True
            if left < _SLICE:
                return False
        return self._stand_in_line(hub, None if deadline is None else max(deadline - hub.clock(), 0.0))

    def _stand_in_line(self, hub: Hub, timeout: float | None) -> bool:
        waiter = OutsideWaiter(hub, "acquire", self)
        looking = _Looking(self, waiter)
        try:
            return self._line.wait(waiter, timeout, self._hand_over) is not TIMED_OUT
        except BaseException:
            if waiter.value is True:  # given just now
                self._raw.release()
                self._hand_over()
            raise
        finally:
            looking.timer.cancel()

    def _hand_over(self) -> None:
        """Take it for the first who waits, if it can be had. Any thread."""
        while self._line and self._raw.acquire(False):
            if not self._line.give():
                self._raw.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    def _count(self) -> int:
        """Return how many times this process has acquired it and not released it."""
        if self.kind == _RECURSIVE_MUTEX:
            return self._depth
        return self._raw._count()  # type: ignore[no-any-return]

    def _is_mine(self) -> bool:
        """Return whether the caller, a task or thread, was the last of this process to acquire it, and has it."""
        return self._owner == get_ident() and self._count() > 0

    def _get_value(self) -> int:
        return self._raw._get_value()  # type: ignore[no-any-return]

    def _is_zero(self) -> bool:
        return self._raw._is_zero()  # type: ignore[no-any-return]

    def _after_fork(self) -> None:
        """Forget, in a forked child, what the parent has acquired."""
        self._raw._after_fork()
        self._line.clear()
        self._owner = self._depth = 0


class _Looking:
    """Looks for the semaphore while a waiter is the first in line, at intervals that grow."""

    __slots__ = ("pause", "semaphore", "timer", "waiter")

    def __init__(self, semaphore: SemLock, waiter: OutsideWaiter) -> None:
        self.semaphore = semaphore
        self.waiter = waiter
        self.pause = _FIRST_PAUSE
        self.timer = waiter.hub.call_later(self.pause, self.look)

    def look(self) -> None:
        line = self.semaphore._line
        if line and line[0] is self.waiter:
            self.semaphore._hand_over()
        self.pause = min(self.pause * 2, _LONGEST_PAUSE)
        if self.waiter.greenlet is not None:
            self.timer = self.waiter.hub.call_later(self.pause, self.look)


def _is_alone(hub: Hub) -> bool:
    """Return whether the caller is main, nobody is there who could run while it waits, and nothing interrupts it."""
    if getcurrent() is not hub.main or hub.clock is not monotonic:  # a clock of its own, as in a simulation
        return False
    return not (hub.ready or hub.parked or hub.interrupts or len(hub.timers))


__all__ = [name for name in dir(original) if not name.startswith("_")]

__getattr__, __dir__ = rest_of(original, globals())
