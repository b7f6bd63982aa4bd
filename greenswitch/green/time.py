"""The twin of the standard library's `time`: `sleep` parks the task; everything else is the original's own.

Knows tasks and hubs, and the standard library's `time`.
"""

from __future__ import annotations

import sys
import time as original
from collections.abc import Callable
from time import sleep as _sleep  # the original, also after monkey patching
from typing import Any

from greenswitch import tasks
from greenswitch.green import rest_of
from greenswitch.green._thread import os_thread_of
from greenswitch.hub import current_hub

_pthread_getcpuclockid: Any = getattr(original, "pthread_getcpuclockid", None)

REPLACED: tuple[str, ...] = ("sleep",)


def patch(replace: Callable[[object, str, object], None]) -> None:
    """Replace it where the standard library has kept the original, as the default of an argument."""
    if "sched" in sys.modules:
        init = sys.modules["sched"].scheduler.__init__
        replace(init, "__defaults__", tuple(sleep if value is _sleep else value for value in init.__defaults__))


def sleep(seconds: float, /) -> None:
    """Park the task for `seconds`, as `time.sleep`; 0 lets everybody go first who is ready now. Not in the hub.

    In a thread that has no hub nobody else could run meanwhile: there it is the original's sleep.
    """
    if current_hub() is None:
        _sleep(seconds)
    elif 0 <= seconds <= _LONGEST:
        tasks.sleep(seconds)
    else:
        _refuse(seconds)


if hasattr(original, "pthread_getcpuclockid"):
    REPLACED += ("pthread_getcpuclockid",)

    def pthread_getcpuclockid(thread_id: int, /) -> int:
        """Return the clock of the OS thread in which the thread `thread_id` runs, as the original."""
        return _pthread_getcpuclockid(os_thread_of(thread_id))  # type: ignore[no-any-return]


_LONGEST = 2.0**63 / 1e9  # seconds; the original counts nanoseconds in 64 bits


def _refuse(seconds: float) -> None:
    """Raise what the original raises for a number of seconds that nobody can sleep."""
    if seconds != seconds:
        raise ValueError("Invalid value NaN (not a number)")
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    raise OverflowError("timestamp too large to convert to C PyTime_t")


__all__ = [*REPLACED]
__all__ += [name for name in dir(original) if not name.startswith("_") and name not in REPLACED]

__getattr__, __dir__ = rest_of(original, globals())
