"""OS threads that only look on: they wake nobody, so a deadlock is one although they run.

Knows threads, and holds what they are made of as it was before any monkey patching.
"""

from __future__ import annotations

import _thread
import os
from _thread import allocate_lock, get_ident, start_new_thread
from collections.abc import Callable

from greenswitch.hub.os_threads import count_os_threads

__all__ = ["Bystander", "allocate_lock", "pause", "pool_calls", "pool_threads", "there_are_others"]

_running: set[Bystander] = set()
pool_threads: set[int] = set()
"""Idents of the threads of pools. They wake nothing, unless a call is on its way to them or runs."""
pool_calls: set[object] = set()
"""The calls that pools have been given and that have not ended. Both sets are kept by `greenswitch.threads`."""


class Bystander:
    """An OS thread that calls `look()` every `seconds`, until it is stopped or `look` returns False.

    It starts at once. In a forked child it is gone, as every other thread is.
    """

    def __init__(self, look: Callable[[], bool], seconds: float) -> None:
        self._look = look
        self._seconds = seconds
        self._stopping = allocate_lock()
        self._ended = allocate_lock()
        self._ident = 0
        self._stopping.acquire()
        self._ended.acquire()
        begun = allocate_lock()
        begun.acquire()
        _running.add(self)
        try:
            start_new_thread(self._run, (begun,))
        except BaseException:
            _running.discard(self)
            raise
        begun.acquire()  # from here on the interpreter counts it: `there_are_others` is never wrong by it

    def _run(self, begun: _thread.LockType) -> None:
        self._ident = get_ident()
        begun.release()
        try:
            while not self._stopping.acquire(timeout=self._seconds) and self._look():
                pass
        finally:
            _running.discard(self)
            self._ended.release()

    def stop(self) -> None:
        """End it, and wait for that (at most for one `look`). Any thread; in its own it ends after this `look`."""
        counted = count_os_threads()
        try:
            self._stopping.release()
        except RuntimeError:  # it has been told so already
            return
        if self not in _running or get_ident() == self._ident:
            return
        self._ended.acquire(timeout=1)
        # The interpreter counts a thread a moment longer. A hub that looks in this moment, and goes to sleep because
        # somebody else might wake it, would not look again.
        for _ in range(100):
            if count_os_threads() < counted:
                break
            pause(0.0001)


def there_are_others() -> bool:
    """Return whether there is an OS thread besides the main one, those that only look on, and idle ones of pools."""
    return bool(pool_calls) or count_os_threads() > len(_running) + len(pool_threads)


def pause(seconds: float) -> None:
    """Have this OS thread do nothing, whatever it runs. Not for tasks: this stops all of them."""
    lock = allocate_lock()
    lock.acquire()
    lock.acquire(timeout=seconds)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)
