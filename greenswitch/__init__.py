"""greenswitch: concurrency on one thread that you can read from top to bottom."""

from greenswitch.errors import BusyError, DeadlockError, GreenswitchError, HubError, ScopeError, SwitchError
from greenswitch.groups import TaskGroup
from greenswitch.hub import Hub, get_hub, wait_readable, wait_writable
from greenswitch.local import local
from greenswitch.locks import AsyncResult, Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore
from greenswitch.pools import Pool
from greenswitch.queues import Channel, LifoQueue, PriorityQueue, Queue, SimpleQueue
from greenswitch.running import run
from greenswitch.tasks import Task, getcurrent, sleep, spawn, spawn_later
from greenswitch.threads import ThreadPool, to_thread, wrap_future
from greenswitch.timeouts import move_on_after, shield, timeout
from greenswitch.waiting import iwait, joinall, killall, wait

__version__ = "0.1.0"

__all__ = [
    "AsyncResult",
    "Barrier",
    "BoundedSemaphore",
    "BusyError",
    "Channel",
    "Condition",
    "DeadlockError",
    "Event",
    "GreenswitchError",
    "Hub",
    "HubError",
    "LifoQueue",
    "Lock",
    "Pool",
    "PriorityQueue",
    "Queue",
    "RLock",
    "ScopeError",
    "Semaphore",
    "SimpleQueue",
    "SwitchError",
    "Task",
    "TaskGroup",
    "ThreadPool",
    "get_hub",
    "getcurrent",
    "iwait",
    "joinall",
    "killall",
    "local",
    "move_on_after",
    "run",
    "shield",
    "sleep",
    "spawn",
    "spawn_later",
    "timeout",
    "to_thread",
    "wait",
    "wait_readable",
    "wait_writable",
    "wrap_future",
]
