"""The hub names the next greenlet: parking, waking, timers, readiness. Knows no socket, no task, no lock."""

from greenswitch.hub import fork  # noqa: F401  # for its effect: a child's hub starts afresh
from greenswitch.hub.carriers import Carrier, Job
from greenswitch.hub.deadlock import Awaited
from greenswitch.hub.hub import (
    Hub,
    Switchable,
    call_signal_handler,
    current_hub,
    get_hub,
    has_hub,
    leave_by,
    leave_no_more_by,
    main_greenlet,
    new_waiter,
    step_aside,
)
from greenswitch.hub.naming import brief, describe
from greenswitch.hub.os_threads import OSLock, os_ident
from greenswitch.hub.pollers import HANGUP, READ, WRITE, EpollPoller, Poller, SelectorPoller, make_poller
from greenswitch.hub.readiness import Direction, Registration, closed_error, register, wait_readable, wait_writable
from greenswitch.hub.timers import Timer, Timers
from greenswitch.hub.waiters import TIMED_OUT, OutsideWaiter, Waiter

__all__ = [
    "HANGUP",
    "READ",
    "TIMED_OUT",
    "WRITE",
    "Awaited",
    "Carrier",
    "Direction",
    "EpollPoller",
    "Hub",
    "Job",
    "OSLock",
    "OutsideWaiter",
    "Poller",
    "Registration",
    "SelectorPoller",
    "Switchable",
    "Timer",
    "Timers",
    "Waiter",
    "brief",
    "call_signal_handler",
    "closed_error",
    "current_hub",
    "describe",
    "get_hub",
    "has_hub",
    "leave_by",
    "leave_no_more_by",
    "main_greenlet",
    "make_poller",
    "new_waiter",
    "os_ident",
    "register",
    "step_aside",
    "wait_readable",
    "wait_writable",
]
