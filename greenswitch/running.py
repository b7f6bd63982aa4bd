"""A whole program: a fresh hub, its main function as a task, and the end of all that is left over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import greenlet

from greenswitch.errors import HubError
from greenswitch.hub import Hub, describe
from greenswitch.tasks import Task, spawn
from greenswitch.waiting import killall

_GRACE = 5.0  # seconds that left-over tasks get for their `finally` blocks when `run` ends

Outcome = TypeVar("Outcome")


def run(main: Callable[..., Outcome], *args: Any, hub: Hub | None = None, grace: float = _GRACE) -> Outcome:
    """Run `main(*args)` as a task in a fresh hub (or in `hub`), and return its result or raise what it raises.

    When it ends, and on Ctrl-C and SystemExit, the tasks that are left are killed and get `grace` seconds for their
    `finally` blocks; then the hub is closed. Raises HubError inside a task or a callback: there the hub runs already.
    """
    if greenlet.getcurrent().parent is not None:
        who = describe(greenlet.getcurrent())
        raise HubError(f"run() starts a hub, and {who} runs inside one: spawn() a task instead")
    hub = hub or Hub()
    with hub:
        task = hub.main_job = spawn(main, *args)
        task.name = getattr(main, "__name__", "main")
        try:
            outcome: Outcome = task.get()
            return outcome
        finally:
            _kill_left_over(hub, grace)
            late = hub.withdraw(hub.main)
            if late:  # a task's Ctrl-C or SystemExit, which came when main had been woken already
                raise late[0]


def _kill_left_over(hub: Hub, grace: float) -> None:
    deadline = hub.clock() + grace
    while left := [job for job in hub.carriers.jobs() if isinstance(job, Task) and not job.dead]:
        if hub.clock() >= deadline:
            names = ", ".join(repr(task) for task in left)
            hub.on_error("closing the hub", HubError(f"still running {grace} seconds after being killed: {names}"))
            break
        killall(left, timeout=max(0.0, deadline - hub.clock()))
