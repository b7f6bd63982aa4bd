"""Locks: how tasks wait for each other. The standard library's names and signatures (`AsyncResult`: gevent's).

Each is first come, first served: what is let go is handed to the first in line, and nobody who comes later takes it
before him. Each works between the tasks of one hub, between hubs in several OS threads, and with threads that have no
hub (one that has to wait gets a hub by it). `acquire(blocking=False)`, `release`, `set`, `is_set` and `locked` never
switch, and may be called anywhere: in the hub, in a finaliser, in a signal handler.

Beneath them all is the line (`greenswitch.locks.lines`), on which you can build a primitive of your own.
"""

from threading import BrokenBarrierError

from greenswitch.locks.barriers import Barrier
from greenswitch.locks.conditions import Condition
from greenswitch.locks.events import AsyncResult, Event
from greenswitch.locks.mutexes import Lock, RLock
from greenswitch.locks.semaphores import BoundedSemaphore, Semaphore

__all__ = [
    "AsyncResult",
    "Barrier",
    "BoundedSemaphore",
    "BrokenBarrierError",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "Semaphore",
]
