"""The twin of the standard library's `queue`: the same names, for tasks.

`Queue`, `LifoQueue` and `PriorityQueue` are the standard library's own text, run once more over the twin of
`threading`: with `mutex`, `not_empty` and the rest, and for subclasses with `_init`, `_put` and `_get`. `SimpleQueue`
is this package's. Patching replaces `SimpleQueue`, and what the original queues make their lock with: a `put` that has
room never raises a kill or a deadline that is pending. `greenswitch.Queue` is faster.

Knows the package's queues, the twin of `threading`, and how to run a module again.
"""

from __future__ import annotations

import _queue
import queue as original
import threading as _original_threading
import time
from collections.abc import Callable
from typing import Any

from greenswitch import queues
from greenswitch.copies import Namespace, run_again
from greenswitch.green import _thread, rest_of, threading
from greenswitch.hub import get_hub
from greenswitch.queues import SimpleQueue

REPLACED = ("SimpleQueue",)


def patch(replace: Callable[[object, str, object], None]) -> None:
    """Replace it where the original comes from, too, and the lock of the original queues."""
    replace(_queue, "SimpleQueue", SimpleQueue)
    replace(_queue, "Empty", Empty)  # the same, unless the module is imported anew: then it is the one that ours raises
    replace(original, "threading", Namespace(_original_threading, {"Lock": _thread.BriefLock}, {}))


Empty, Full = original.Empty, original.Full
ShutDown = getattr(original, "ShutDown", queues.ShutDown)  # from Python 3.13 on

_copy: Any = run_again(
    "queue",
    {
        "threading": Namespace(threading, {"Lock": _thread.BriefLock}, {}),
        "time": Namespace(time, {"monotonic": lambda: get_hub().clock()}, {}),
        "_queue": Namespace(_queue, {"SimpleQueue": SimpleQueue, "Empty": Empty}, {}),
    },
)
vars(_copy).update(Full=Full, ShutDown=ShutDown)  # so one `except` serves the original's and ours
Queue, LifoQueue, PriorityQueue = _copy.Queue, _copy.LifoQueue, _copy.PriorityQueue

__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"]
__all__ += [name for name in original.__all__ if name not in __all__]

__getattr__, __dir__ = rest_of(original, globals())
