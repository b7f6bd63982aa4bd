"""Nobody left who could wake anyone: how to know, and what to say.

Knows waiters, threads and signal handlers. Knows no hub.
"""

from __future__ import annotations

import _thread
import signal
import threading

import greenlet

from greenswitch.hub.ctrl_c import wakes_nobody
from greenswitch.hub.naming import describe, where
from greenswitch.hub.waiters import Waiter


def others_could_wake() -> bool:
    """Return whether another OS thread or a signal handler is there, which could wake a greenlet of this thread."""
    if threading.get_ident() != threading.main_thread().ident:
        return True  # the main thread
    # Not sys._current_frames(): on CPython 3.11 two threads that ask it at once hang if the collector runs within.
    if _thread._count():
        return True
    return not all(wakes_nobody(signal.getsignal(number)) for number in signal.valid_signals())


def deadlock_report(parked: dict[greenlet.greenlet, Waiter]) -> str:
    """Return who waits, for what and where, a line each."""
    if not parked:
        return "main has switched away by hand, and no greenlet waits for anything that could happen"
    lines = [f"  {describe(waiting)}: {waiter.reason}{where(waiting)}" for waiting, waiter in parked.items()]
    return "everybody waits and nobody is left who could wake anyone:\n" + "\n".join(lines)
