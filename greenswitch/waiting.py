"""Waiting for several at once: all of them, the first of them, each as it comes; and ending several.

Knows tasks, and whatever else says when it is ready (`greenswitch.tasks.Waitable`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from greenlet import GreenletExit

from greenswitch.hub import Waiter, get_hub
from greenswitch.tasks import Task, Waitable, getcurrent


class _Arrivals:
    """Those of several waitables that are ready, in the order in which they became so."""

    def __init__(self, objects: Iterable[Waitable]) -> None:
        self.hub = get_hub()
        self.arrived: deque[Waitable] = deque()
        self.waiter: Waiter | None = None
        self.left = dict.fromkeys(objects)
        for one in self.left:
            if not hasattr(one, "add_link"):
                raise TypeError(
                    f"can't wait for {one!r}: it is no task, event, semaphore or result; spawn a task that waits for it"
                )
        for one in self.left:
            one.add_link(self._arrive)

    def _arrive(self, one: Waitable) -> None:
        self.arrived.append(one)
        waiter = self.waiter
        if waiter is not None:
            waiter.wake()

    def next(self, deadline: float | None) -> Waitable | None:
        """Return the next one, or None when the deadline has passed."""
        while not self.arrived:
            left = None if deadline is None else deadline - self.hub.clock()
            if left is not None and left <= 0:
                return None
            self.waiter = Waiter(self.hub, "wait for any of", list(self.left))
            if self.arrived:  # by another thread, before it could see the waiter
                self.waiter.wake()
            try:
                self.hub.wait(self.waiter, left)
            finally:
                self.waiter = None
        one = self.arrived.popleft()
        del self.left[one]
        return one

    def close(self) -> None:
        for one in self.left:
            one.remove_link(self._arrive)


def iwait(objects: Iterable[Waitable], timeout: float | None = None, count: int | None = None) -> Iterator[Any]:
    """Yield `objects` (tasks, events, …) as they become ready, each once; stop after `count`, or `timeout` seconds."""
    arrivals = _Arrivals(objects)
    deadline = None if timeout is None else arrivals.hub.clock() + timeout
    wanted = len(arrivals.left) if count is None else min(count, len(arrivals.left))
    try:
        for _ in range(wanted):
            one = arrivals.next(deadline)
            if one is None:
                return
            yield one
    finally:
        arrivals.close()


def wait(
    objects: Iterable[Waitable] | None = None, timeout: float | None = None, count: int | None = None
) -> list[Any]:
    """Park until all `objects` (or `count` of them) are ready or `timeout` seconds have passed; return those that are.

    Without `objects`, wait for every task of this hub that there is now, also those that `spawn_later` will start, but
    not for the calling one.
    """
    if objects is None:
        current = getcurrent()
        objects = [job for job in get_hub().carriers.jobs() if isinstance(job, Task) and job is not current]
    return list(iwait(objects, timeout, count))


def joinall(
    tasks: Iterable[Task], timeout: float | None = None, raise_error: bool = False, count: int | None = None
) -> list[Task]:
    """Park until all `tasks` (or `count` of them) have ended or `timeout` seconds have passed; return those that have.

    With `raise_error` the first failure is raised as soon as it happens.
    """
    if raise_error or count is not None:
        ended = []
        for task in iwait(tasks, timeout, count):
            if raise_error and task.exception is not None:
                task.get()
            ended.append(task)
        return ended
    # One after another: nothing has to be noted of those that have ended already, or end meanwhile.
    tasks = list(tasks)
    hub = get_hub()
    deadline = None if timeout is None else hub.clock() + timeout
    for task in tasks:
        task.join(None if deadline is None else deadline - hub.clock())
    return [task for task in tasks if task.ready()]


def killall(
    tasks: Iterable[Task],
    exception: BaseException | type[BaseException] = GreenletExit,
    block: bool = True,
    timeout: float | None = None,
) -> None:
    """Kill `tasks` (see `Task.kill`), then wait up to `timeout` seconds in all until they have ended."""
    current = getcurrent()
    others = [task for task in tasks if task is not current]
    for task in others:
        task.kill(exception, block=False)
    if block:
        joinall(others, timeout)
