"""The twin of the standard library's `queue`: the same classes, which park a task where they would block a thread.

`Queue`, `LifoQueue` and `PriorityQueue` are the standard library's own text, run once more over locks and conditions of
ours: so they have its attributes (`mutex`, `queue`, `not_empty`, …), and a subclass may replace `_init`, `_put`, `_get`
and `_qsize`. Patching leaves the original's classes where they are and gives those made from then on the same locks.
`SimpleQueue` is the one of `greenswitch.queues`. (`greenswitch.queues.Queue` is faster, and has no such attributes.)

Knows locks, `SimpleQueue`, the hub's clock, and how to run a module again.
"""

from __future__ import annotations

import _queue
import queue as original
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from greenswitch import locks, queues
from greenswitch.copies import Namespace, run_again
from greenswitch.green import rest_of
from greenswitch.green._thread import _TAKEN, BriefLock, _calls, _end_spin, _fail
from greenswitch.hub import get_hub
from greenswitch.queues import Empty
from greenswitch.queues import ShutDown as ShutDown  # the original's, from Python 3.13 on
from greenswitch.tasks import getcurrent

REPLACED = ("SimpleQueue",)


class SimpleQueue(queues.SimpleQueue[Any]):
    """`queue.SimpleQueue`, for tasks. A task that asks it in vain again and again lets the others run."""

    __slots__ = ()
    __module__ = "_queue"

    def empty(self) -> bool:
        """Return whether no item is in it."""
        return not self._items and not _fail()

    def _raise(self, found: Any) -> NoReturn:
        _fail()
        super()._raise(found)


class _Condition(locks.Condition):
    """A condition over a `BriefLock`, with as few calls as can be: a `put` and a `get` enter and leave one each."""

    __slots__ = ()

    _lock: BriefLock

    def __enter__(self) -> bool:
        if next(_calls) % _TAKEN == 0:
            _end_spin()
        lock = self._lock
        me = getcurrent()
        # One line on purpose, as in `Lock._take`.
        before, lock._owner = lock._owner, me if lock._owner is None else lock._owner
        return before is None or lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        lock = self._lock
        lock._owner = None
        if lock._line or lock._links:
            lock._wake_one_if_free()

    def notify(self, n: int = 1) -> None:
        """Wake the `n` first who wait; each goes on when it has the lock. RuntimeError if the lock isn't held."""
        if self._line or self._lock._owner is None:
            super().notify(n)


def _lock() -> Any:
    """Return a lock for a queue: ours, if `threading` is patched."""
    made: Any = threading.Lock()
    return BriefLock() if isinstance(made, locks.Lock) else made


def _condition(lock: Any) -> Any:
    return _Condition(lock) if isinstance(lock, BriefLock) else threading.Condition(lock)


def patch(replace: Callable[[object, str, object], None]) -> None:
    """Replace `SimpleQueue` where it comes from, too, and what the other queues make their locks with."""
    replace(_queue, "SimpleQueue", SimpleQueue)
    replace(_queue, "Empty", Empty)  # the same, unless the module is imported anew: then it is the one that ours raises
    replace(original, "threading", Namespace(threading, {"Lock": _lock, "Condition": _condition}, {}))


def _now() -> float:
    return get_hub().clock()


_copy: Any = run_again(
    "queue",
    {
        "_queue": Namespace(_queue, {"SimpleQueue": SimpleQueue, "Empty": Empty}, {}),
        "threading": Namespace(threading, {"Lock": BriefLock, "Condition": _Condition}, {}),
        "time": Namespace(time, {"monotonic": _now}, {}),
    },
)
_copy.Full = Full = original.Full
_copy.ShutDown = ShutDown

if TYPE_CHECKING:
    from queue import LifoQueue, PriorityQueue, Queue
else:
    Queue, LifoQueue, PriorityQueue = _copy.Queue, _copy.LifoQueue, _copy.PriorityQueue

__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"]
__all__ += [name for name in original.__all__ if name not in __all__]

__getattr__, __dir__ = rest_of(original, globals())
