"""The twin of the standard library's `queue`: the same names, for tasks.

Patching replaces `SimpleQueue` only: the standard library's other queues are made of locks, which are ours then.

Knows the package's queues, and the standard library's `queue`.
"""

from __future__ import annotations

import _queue
import queue as original
from collections.abc import Callable

from greenswitch.green import rest_of
from greenswitch.queues import Empty, Full, LifoQueue, PriorityQueue, Queue, SimpleQueue
from greenswitch.queues import ShutDown as ShutDown  # the original's, from Python 3.13 on

REPLACED = ("SimpleQueue",)


def patch(replace: Callable[[object, str, object], None]) -> None:
    """Replace it where the original comes from, too."""
    replace(_queue, "SimpleQueue", SimpleQueue)
    replace(_queue, "Empty", Empty)  # the same, unless the module is imported anew: then it is the one that ours raises


__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"]
__all__ += [name for name in original.__all__ if name not in __all__]

__getattr__, __dir__ = rest_of(original, globals())
