"""Pools: tasks of which only so many run at a time.

A pool is a number of places. Who spawns waits in line for one; each task gives its place back when it ends. `map`,
`imap` and `imap_unordered` feed a pool from iterables, from which they take one item ahead of the places, no more.

Knows tasks, and a semaphore for the places. A pool is for the tasks of one thread.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import index
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from greenlet import GreenletExit

from greenswitch.errors import HubError
from greenswitch.feeds import Feed, Map, Results
from greenswitch.hub import TIMED_OUT, Awaited, Waiter, get_hub
from greenswitch.locks import Semaphore
from greenswitch.locks.lines import Line
from greenswitch.tasks import Task, getcurrent, spawn
from greenswitch.timeouts import shield
from greenswitch.waiting import joinall, wait

T = TypeVar("T")

_FAILURES = 1000  # kept for the next join; earlier ones are reported as those of any task that nobody asked


class Owner(Protocol):
    """Who has started a call, and wants to hear of its end."""

    def ended(self, call: Call, /) -> None:
        """Take note, and have the pool take its place back; neither switch nor raise."""


class Call(Task):
    """A task that has a place in a pool."""

    __slots__ = ("owner", "position")

    owner: Owner | None
    """None once it has ended."""
    position: int

    def finish(self, value: Any, error: BaseException | None) -> None:
        super().finish(value, error)
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.ended(self)

    def _is_awaited(self) -> bool:
        owner = self.owner
        return not isinstance(owner, Pool) or owner._will_tell() or super()._is_awaited()


class _Places(Semaphore):
    __slots__ = ("_tasks",)

    one_will_do = True

    def __init__(self, value: int, tasks: set[Call]) -> None:
        super().__init__(value)
        self._tasks = tasks

    def keepers(self) -> Iterable[object]:
        return list(self._tasks)

    def lack(self, verb: str) -> str:
        return ""

    def __repr__(self) -> str:
        return f"<place in a Pool, {self.value or 'none'} free{self._line.text}>"


class Pool(Awaited):
    """At most `size` tasks at a time. With `with`, the block ends when all have ended, and raises what they raised.

    Without a size the pool has no bound, and `spawn` never waits. ValueError for a size below one.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = None if size is None else index(size)
        self._bound = sys.maxsize if self.size is None else self.size
        if self._bound < 1:
            raise ValueError(f"a pool needs at least one place, not {size!r}")
        self.tasks: set[Call] = set()
        self.places = _Places(self._bound, self.tasks)
        self.feeders: set[Task] = set()
        self._failures: deque[Call] = deque(maxlen=_FAILURES)
        self._joiners = Line()
        self._entered = False

    # -- starting --------------------------------------------------------------------------------------------------

    def spawn(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Wait for a free place, first come, first served; start `function(*args, **kwargs)` there; return the task.

        What it raises is kept for `join(raise_error=True)`. Not from inside the hub, unless a place is free.
        """
        _check(function)
        self.places.acquire()
        return self.begin(self, function, args, kwargs)

    def apply(self, function: Callable[..., T], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None) -> T:
        """Run `function(*args, **kwds)` in the pool, wait for it, and return or raise what it does.

        One of the pool's own tasks runs it itself: it could wait for its own place for ever. Who is killed or timed out
        kills the call.
        """
        _check(function)
        if getcurrent() in self.tasks:
            return function(*args, **kwds or {})
        return Map(self).run(function, [tuple(args)], kwds or {})[0]

    def apply_async(
        self,
        function: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
    ) -> Task:
        """As `spawn`, but return a task at once, also if no place is free; its value is the result of the call.

        `callback(result)` is called inside the hub, where nothing may wait, if the call succeeds. May be called inside
        the hub.
        """
        _check(function)
        if self.full():
            task = spawn(self.apply, function, args, kwds)
        else:
            task = self.spawn(function, *args, **kwds or {})
        if callback is not None:
            task.link_value(partial(_pass_value, callback))
        return task

    def map(self, function: Callable[..., T], *iterables: Iterable[Any]) -> list[T]:
        """Call `function` with each item and return the results, in the order of the items.

        Of several iterables it gets one item each, until the shortest ends. The first failure is raised as soon as it
        happens; then no more items are taken, and calls that still run are killed and waited for. The same if the
        caller is killed or timed out.
        """
        return Map(self).run(_checked(function, iterables), zip(*iterables, strict=False), {})

    def map_async(
        self,
        function: Callable[..., T],
        *iterables: Iterable[Any],
        callback: Callable[[list[T]], Any] | None = None,
    ) -> Task:
        """As `map`, but return a task at once; its value is the list of the results. Killing it ends the calls.

        `callback(results)` is called inside the hub, where nothing may wait, if all calls succeed. May be called inside
        the hub.
        """
        task = spawn(self.map, _checked(function, iterables), *iterables)
        if callback is not None:
            task.link_value(partial(_pass_value, callback))
        return task

    def imap(self, function: Callable[..., T], *iterables: Iterable[Any], maxsize: int | None = None) -> Results[T]:
        """As `map`, but start at once and return an iterator over the results, in the order of the items.

        At most `maxsize` calls are begun and not yet taken, so the iterables may be endless. None: twice the pool's
        size, or 1000 where it has none. A call's exception is raised where its result would come; you may go on with
        the next one. To leave early `close()` the iterator, or let go of it: the calls that still run are killed.
        """
        return Results(Feed(self, True, maxsize), _checked(function, iterables), zip(*iterables, strict=False))

    def imap_unordered(
        self, function: Callable[..., T], *iterables: Iterable[Any], maxsize: int | None = None
    ) -> Results[T]:
        """As `imap`, with the results in the order in which they come."""
        return Results(Feed(self, False, maxsize), _checked(function, iterables), zip(*iterables, strict=False))

    def begin(
        self,
        owner: Owner,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        position: int = 0,
    ) -> Call:
        """Start a call on a place that has been taken; give the place back if that fails."""
        try:
            hub = get_hub()
            if hub.closed:
                raise HubError("this hub is closed: nothing can be spawned in it any more")
            call = Call(hub, function, args, kwargs)
            call.owner = owner
            call.position = position
            self.tasks.add(call)
            hub.begin(call)
        except BaseException:
            self.places.release()
            raise
        return call

    def ended(self, call: Call) -> None:
        """For its calls."""
        if call._state == "failed" and not isinstance(call._error, (KeyboardInterrupt, SystemExit)):
            self._failures.append(call)
        self.leave(call)

    def _will_tell(self) -> bool:
        """Return True if something joins the pool, or is about to: it waits for a place, or in a `with` block."""
        return self._entered or bool(self._joiners) or bool(self.places._line)

    def leave(self, call: Call) -> None:
        """Take a call's place back."""
        self.tasks.discard(call)
        self.places.release()
        if self._joiners and self._idle():
            self._joiners.give_all()

    def _idle(self) -> bool:
        return not self.tasks and self.places.value == self._bound  # else a place is on its way to who waited for it

    # -- waiting for all, and ending all ---------------------------------------------------------------------------

    def join(self, timeout: float | None = None, raise_error: bool = False) -> bool:
        """Park until no task is left, and nobody waits to spawn one; return False after `timeout` seconds.

        With `raise_error` raise all that spawned tasks have failed with since the last time, as an ExceptionGroup.
        HubError in one of the pool's own tasks, that would wait for itself.
        """
        if getcurrent() in self.tasks:
            raise HubError(f"{getcurrent()!r} would wait for itself: join {self!r} from outside of it")
        hub = get_hub()
        deadline = None if timeout is None else hub.clock() + timeout
        while not self._idle():
            left = None if deadline is None else deadline - hub.clock()
            if left is not None and left <= 0:
                return False
            waiter = Waiter(hub, "join", self)
            if self._joiners.wait(waiter, left, lambda: None) is TIMED_OUT:
                return False
        if raise_error and self._failures:
            errors = [error for call in self._failures if (error := call.exception) is not None]
            self._failures.clear()
            raise BaseExceptionGroup(f"{len(errors)} of a pool's tasks failed", errors)
        return True

    def kill(
        self,
        exception: BaseException | type[BaseException] = GreenletExit,
        block: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Kill every task (see `Task.kill`), and what feeds the pool; wait up to `timeout` seconds for their ends.

        Who waits in line for a place gets it: the pool can be used again. `map` and `imap` raise what their calls were
        killed with.
        """
        killed = [task for task in (*self.feeders, *self.tasks) if task is not getcurrent()]
        for task in killed:
            task.kill(exception, block=False)
        if block:
            joinall(killed, timeout)

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._entered = False
        try:
            if error is None:
                self.join(raise_error=True)
        finally:
            if self.tasks or self.feeders:
                with shield():
                    self.kill()

    # -- looking ---------------------------------------------------------------------------------------------------

    def free_count(self) -> int:
        """Return how many more tasks could be spawned without waiting."""
        return 0 if self.places.locked() else self.places.value

    def full(self) -> bool:
        """Return whether `spawn` would have to wait."""
        return self.places.locked()

    def wait_available(self, timeout: float | None = None) -> bool:
        """Park until `spawn` would not have to wait, at most `timeout` seconds; return whether that is so."""
        return bool(wait([self.places], timeout))

    def __len__(self) -> int:
        """The number of tasks that have a place."""
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(list(self.tasks))

    def __contains__(self, task: object) -> bool:
        return task in self.tasks

    def __bool__(self) -> bool:
        return True  # an empty one is no false one

    def keepers(self) -> Iterable[object]:
        return list(self.tasks)

    def __repr__(self) -> str:
        of = "without a bound" if self.size is None else f"of {self.size}"
        return f"<Pool {of}: {len(self.tasks)} running{self.places._line.text}>"


def _pass_value(callback: Callable[[Any], Any], task: Task) -> None:
    callback(task.value)


def _check(function: object) -> None:
    if not callable(function):
        raise TypeError(f"a pool needs a function and its arguments, not {function!r}")


def _checked(function: Callable[..., T], iterables: tuple[Iterable[Any], ...]) -> Callable[..., T]:
    _check(function)
    if not iterables:
        raise TypeError("a pool maps a function over at least one iterable")
    return function
