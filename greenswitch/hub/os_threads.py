"""OS threads, as they were before monkey patching could give their words another meaning; and a fair share for them.

The hub is always imported before: whoever may be imported only after patching, when `_thread` speaks of tasks, takes
these words from here. Knows nothing else.

A thread that waits for the GIL asks for it when it has waited for 5 ms without being woken. But whoever holds it lets
go of it at each system call, and has it back before the other is awake: a hub with always somebody ready, which asks
its poller a thousand times a second, would keep a thread of `to_thread`'s from running for seconds.
"""

from __future__ import annotations

from _thread import RLock as OSLock
from _thread import _count as count_os_threads
from _thread import get_ident as os_ident
from sys import getswitchinterval
from time import monotonic, sleep

__all__ = ["OSLock", "count_os_threads", "give_way", "os_ident"]

_MOMENT = 1e-6  # seconds; the kernel makes some 60 µs of it, which is long enough for another thread to wake up


def give_way(when: float) -> float:
    """Let the other threads have the GIL if it is `when`, a time of `time.monotonic`; return when the next time is."""
    now = monotonic()
    if now < when:
        return when
    sleep(_MOMENT)
    return now + getswitchinterval()
