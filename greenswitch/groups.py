"""Structured concurrency: a block that ends when all the tasks that were started in it have ended.

    with TaskGroup() as group:
        group.spawn(fetch, a)
        group.spawn(fetch, b)       # after the block both have ended, whatever happened

As `asyncio.TaskGroup`: the first failure kills the siblings and interrupts the block itself where it waits; their
`finally` blocks are waited for; then all errors are raised together, as one ExceptionGroup.

Knows tasks, and the deadlines' way of interrupting a block and taking that back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import greenlet
from greenlet import GreenletExit, getcurrent

from greenswitch.errors import HubError, ScopeError
from greenswitch.hub import Awaited, Hub, Waiter, describe, get_hub
from greenswitch.tasks import Task
from greenswitch.timeouts import Token, shield


class _Child(Task):
    """A task of a group, to which it tells its end."""

    __slots__ = ("_group",)

    _group: TaskGroup | None

    def finish(self, value: Any, error: BaseException | None) -> None:
        super().finish(value, error)
        group, self._group = self._group, None
        if group is not None:
            group._ended(self)

    def _failed(self, error: BaseException) -> None:
        """Leave it to the group: there it is not lost, and nobody else need hear of it."""


class TaskGroup(Awaited):
    """A `with` block that waits for the tasks spawned in it, and ends them all when one fails.

    Raises a BaseExceptionGroup (an ExceptionGroup, if they all are Exceptions) of what the tasks and the block itself
    have raised. KeyboardInterrupt and SystemExit come out bare, and so does what interrupted the block from outside, a
    kill or a deadline, if no task failed of it. A task that was killed is no failure. Entered once, and left by the
    task that entered it: ScopeError. Not in the hub.
    """

    def __init__(self) -> None:
        self._tasks: set[_Child] = set()
        self._errors: list[BaseException] = []
        self._exit: BaseException | None = None  # the first KeyboardInterrupt or SystemExit
        self._state = "not entered"  # then open, closing, aborting (with the block still running, or not), closed
        self._block_runs = False
        self._token: Token | None = None
        self._waiter: Waiter | None = None
        self._number = 0

    def __enter__(self) -> Self:
        if self._state != "not entered":
            raise ScopeError(f"{self!r} has been entered before: make a new one for each `with`")
        self._hub: Hub = get_hub()
        self._owner: greenlet.greenlet = getcurrent()
        if self._owner is self._hub.greenlet:
            raise HubError("a group waits for its tasks, and the hub can't wait: spawn a task that has the group")
        self._number = self._hub.timers.added  # as a deadline's: older shields let its interrupt pass
        self._state = "open"
        self._block_runs = True
        return self

    def spawn(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Start `function(*args, **kwargs)` as a task of the group at the hub's next turn; return the task.

        The block and its tasks may call it as long as any of them runs. ScopeError before, after, once a task has
        failed, and from another thread.
        """
        if not callable(function):
            raise TypeError(f"spawn needs a function and its arguments, not {function!r}")
        if self._state not in ("open", "closing"):
            raise ScopeError(f"{self!r} takes no more tasks: spawn inside its `with` block, before anything has failed")
        if get_hub() is not self._hub:
            raise ScopeError(f"{self!r} belongs to another thread: spawn there, or have a group here")
        child = _Child(self._hub, function, args, kwargs)
        child._group = self
        self._tasks.add(child)
        self._hub.begin(child)
        return child

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool | None:
        self._block_runs = False
        if self._token is not None:
            self._hub.withdraw(self._owner, self._token)
        if self._owner is not getcurrent():
            self._abort()
            raise ScopeError(f"{self!r} was entered by {describe(self._owner)} and is left by {describe(getcurrent())}")
        if self._state == "open":
            self._state = "closing"
        try:
            interrupt = self._wait_for_all(self._met(error))
            self._raise(interrupt, error)
            return error is not None and error is self._token
        finally:
            self._state = "closed"
            self._token = None
            self._errors = []

    def _met(self, error: BaseException | None) -> BaseException | None:
        """Take note of what the block has raised; return it if it is an interrupt from outside, and no failure."""
        if error is None or error is self._token:
            return None
        self._abort()
        if isinstance(error, (GreenletExit, GeneratorExit, Token)):
            return error
        self._note(error)
        return None

    def _wait_for_all(self, interrupt: BaseException | None) -> BaseException | None:
        """Park until no task is left; return the first interrupt. One is heard, and then nothing until the end."""
        if interrupt is None and self._tasks:
            try:
                self._park()
            except BaseException as error:
                interrupt = error
                self._abort()
        if self._tasks:
            with shield():
                while self._tasks:
                    try:
                        self._park()
                    except (KeyboardInterrupt, SystemExit) as error:
                        if self._exit is not None or isinstance(interrupt, (KeyboardInterrupt, SystemExit)):
                            raise  # the second Ctrl-C is for those who hang in their `finally`
                        self._note(error)
        return interrupt

    def _park(self) -> None:
        while self._tasks:
            self._waiter = Waiter(self._hub, "wait for", self)
            try:
                self._hub.park(self._waiter)
            finally:
                self._waiter = None

    def _raise(self, interrupt: BaseException | None, raised: BaseException | None) -> None:
        if isinstance(interrupt, (KeyboardInterrupt, SystemExit)):
            raise interrupt
        if self._exit is not None:
            if self._exit is not raised:
                raise self._exit
        elif self._errors:
            if isinstance(interrupt, Exception):
                self._errors.append(interrupt)
            raise BaseExceptionGroup(f"{len(self._errors)} of a group's tasks failed", self._errors) from None
        elif interrupt is not None and interrupt is not raised:
            raise interrupt

    def _ended(self, child: _Child) -> None:
        self._tasks.discard(child)
        if child._state == "failed" and child._error is not None:
            self._note(child._error)
            self._abort()
        waiter = self._waiter
        if waiter is not None and not self._tasks:
            waiter.wake()

    def _note(self, error: BaseException) -> None:
        if not isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._errors.append(error)
        elif self._exit is None:
            self._exit = error

    def _abort(self) -> None:
        if self._state == "aborting":
            return
        self._state = "aborting"
        for task in list(self._tasks):
            task.kill(block=False)
        if self._block_runs:
            self._token = Token("a task of the group has failed; the group's own `with` block ends this")
            self._hub.interrupt(self._owner, self._token, self._number)

    def keepers(self) -> Iterable[object]:
        return list(self._tasks)

    def __repr__(self) -> str:
        return f"<TaskGroup {self._state}, {len(self._tasks)} tasks>"
