"""Nobody left who could wake anyone: how to know, and what to say.

Knows waiters, threads and signal handlers. Knows no hub.
"""

from __future__ import annotations

import signal
import sys
import threading

import greenlet

from greenswitch.hub.ctrl_c import wakes_nobody
from greenswitch.hub.naming import describe, where
from greenswitch.hub.waiters import Waiter


def others_could_wake() -> bool:
    """Return whether another OS thread or a signal handler is there, which could wake a greenlet of this thread."""
    if len(sys._current_frames()) > 1:
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    return not all(wakes_nobody(signal.getsignal(number)) for number in signal.valid_signals())


def deadlock_report(parked: dict[greenlet.greenlet, Waiter]) -> str:
    """Return who waits, for what and where, a line each."""
    if not parked:
        return "main has switched away by hand, and no greenlet waits for anything that could happen"
    lines = [f"  {describe(waiting)}: {waiter.reason}{where(waiting)}" for waiting, waiter in parked.items()]
    return "everybody waits and nobody is left who could wake anyone:\n" + "\n".join(lines)
