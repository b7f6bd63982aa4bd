"""greenswitch: concurrency on one thread that you can read from top to bottom."""

from greenswitch.errors import BusyError, DeadlockError, GreenswitchError, HubError, SwitchError
from greenswitch.hub import Hub, get_hub, wait_readable, wait_writable
from greenswitch.tasks import Task, getcurrent, iwait, joinall, killall, run, sleep, spawn, spawn_later, wait

__version__ = "0.1.0"

__all__ = [
    "BusyError",
    "DeadlockError",
    "GreenswitchError",
    "Hub",
    "HubError",
    "SwitchError",
    "Task",
    "get_hub",
    "getcurrent",
    "iwait",
    "joinall",
    "killall",
    "run",
    "sleep",
    "spawn",
    "spawn_later",
    "wait",
    "wait_readable",
    "wait_writable",
]
