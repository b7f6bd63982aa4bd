"""Pools: tasks of which only so many run at a time.

A pool is a number of places. Who spawns waits in line for one; each task gives its place back when it ends. `map`,
`imap` and `imap_unordered` feed a pool from iterables, from which they take one item ahead of the places, no more.

Knows tasks, a semaphore for the places and a queue for the results. A pool is for the tasks of one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from operator import index
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from greenlet import GreenletExit

from greenswitch.errors import HubError
from greenswitch.hub import TIMED_OUT, Waiter, get_hub
from greenswitch.lines import Line
from greenswitch.locks import Semaphore
from greenswitch.queues import SimpleQueue
from greenswitch.tasks import Task, getcurrent, joinall, spawn, wait
from greenswitch.timeouts import shield

T = TypeVar("T")

_FAILURES = 1000  # kept for the next join; earlier ones are reported as those of any task that nobody asked


class _Owner(Protocol):
    """Who has started a call, and wants to hear of its end."""

    def _ended(self, call: _Call, /) -> None:
        """Take note: called where it ends; neither switches nor raises."""


class _Call(Task):
    """A task that has a place in a pool."""

    __slots__ = ("_owner", "_position")

    _owner: _Owner | None
    _position: int
    """Which of the owner's calls it is."""

    def finish(self, value: Any, error: BaseException | None) -> None:
        super().finish(value, error)
        owner, self._owner = self._owner, None
        if owner is not None:
            owner._ended(self)


class _Places(Semaphore):
    __slots__ = ()

    def __repr__(self) -> str:
        return f"<the places of a pool, {self.value or 'none'} free{self._line.text}>"


class Pool:
    """At most `size` tasks at a time. With `with`, the block ends when all have ended, and raises what they raised.

    ValueError for a size below one.
    """

    def __init__(self, size: int) -> None:
        self.size = index(size)
        if self.size < 1:
            raise ValueError(f"a pool needs at least one place, not {size!r}")
        self._places = _Places(self.size)
        self._tasks: set[_Call] = set()
        self._feeders: set[Task] = set()
        self._failures: deque[_Call] = deque(maxlen=_FAILURES)
        self._joiners = Line()

    # -- starting --------------------------------------------------------------------------------------------------

    def spawn(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Task:
        """Wait for a free place, first come, first served; start `function(*args, **kwargs)` there; return the task.

        What it raises is kept for `join(raise_error=True)`. Not from inside the hub, unless a place is free.
        """
        _check(function)
        self._places.acquire()
        return self._start(self, function, args, kwargs)

    def apply(self, function: Callable[..., T], args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None) -> T:
        """Run `function(*args, **kwargs)` in the pool, wait for it, and return or raise what it does.

        One of the pool's own tasks runs it itself: it could wait for its own place for ever. Who is killed or timed out
        kills the call.
        """
        _check(function)
        if getcurrent() in self._tasks:
            return function(*args, **kwargs or {})
        return _Map(self).run(function, [tuple(args)], kwargs or {})[0]

    def map(self, function: Callable[..., T], *iterables: Iterable[Any]) -> list[T]:
        """Call `function` with each item and return the results, in the order of the items.

        Of several iterables it gets one item each, until the shortest ends. The first failure is raised as soon as it happens; then no more items are
        taken, and calls that still run are killed and waited for. The same if the caller is killed or timed out.
        """
        return _Map(self).run(_checked(function, iterables), zip(*iterables, strict=False), {})

    def imap(self, function: Callable[..., T], *iterables: Iterable[Any], maxsize: int | None = None) -> Results[T]:
        """As `map`, but start at once and return an iterator over the results, in the order of the items.

        At most `maxsize` calls are begun and not yet taken (None: twice the pool's size), so the iterables may be
        endless. A call's exception is raised where its result would come; you may go on with the next one. To leave
        early `close()` the iterator, or let go of it: the calls that still run are killed.
        """
        return Results(_Feed(self, True, maxsize), _checked(function, iterables), zip(*iterables, strict=False))

    def imap_unordered(
        self, function: Callable[..., T], *iterables: Iterable[Any], maxsize: int | None = None
    ) -> Results[T]:
        """As `imap`, with the results in the order in which they come."""
        return Results(_Feed(self, False, maxsize), _checked(function, iterables), zip(*iterables, strict=False))

    def _start(
        self,
        owner: _Owner,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        position: int = 0,
    ) -> _Call:
        """Start a call on a place that has been taken; give the place back if that fails."""
        try:
            hub = get_hub()
            if hub.closed:
                raise HubError("this hub is closed: nothing can be spawned in it any more")
            call = _Call(hub, function, args, kwargs)
            call._owner = owner
            call._position = position
            self._tasks.add(call)
            hub.ready.append(call)
        except BaseException:
            self._places.release()
            raise
        return call

    def _ended(self, call: _Call) -> None:
        if call._state == "failed" and not isinstance(call._error, (KeyboardInterrupt, SystemExit)):
            self._failures.append(call)
        self._leave(call)

    def _leave(self, call: _Call) -> None:
        self._tasks.discard(call)
        self._places.release()
        if self._joiners and self._idle():
            self._joiners.give_all()

    def _idle(self) -> bool:
        return not self._tasks and self._places.value == self.size  # else a place is on its way to who waited for it

    # -- waiting for all, and ending all ---------------------------------------------------------------------------

    def join(self, timeout: float | None = None, raise_error: bool = False) -> bool:
        """Park until no task is left, and nobody waits to spawn one; return False after `timeout` seconds.

        With `raise_error` raise all that spawned tasks have failed with since the last time, as an ExceptionGroup.
        HubError in one of the pool's own tasks, that would wait for itself.
        """
        if getcurrent() in self._tasks:
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
        killed = [task for task in (*self._feeders, *self._tasks) if task is not getcurrent()]
        for task in killed:
            task.kill(exception, block=False)
        if block:
            joinall(killed, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.join(raise_error=True)
        finally:
            if self._tasks or self._feeders:
                with shield():
                    self.kill()

    # -- looking ---------------------------------------------------------------------------------------------------

    def free_count(self) -> int:
        """Return how many more tasks could be spawned without waiting."""
        return 0 if self._places.locked() else self._places.value

    def full(self) -> bool:
        """Return whether `spawn` would have to wait."""
        return self._places.locked()

    def wait_available(self, timeout: float | None = None) -> bool:
        """Park until `spawn` would not have to wait, at most `timeout` seconds; return whether that is so."""
        return bool(wait([self._places], timeout))

    def __len__(self) -> int:
        """The number of tasks that have a place."""
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(list(self._tasks))

    def __contains__(self, task: object) -> bool:
        return task in self._tasks

    def __bool__(self) -> bool:
        return True  # an empty one is no false one

    def __repr__(self) -> str:
        return f"<Pool of {self.size}: {len(self._tasks)} running{self._places._line.text}>"


class _Map:
    """One `map`: its results, and how many calls have not ended."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.results: list[Any] = []
        self.left = 0
        self.failure: _Call | None = None
        self.waiter: Waiter | None = None

    def run(self, function: Callable[..., T], items: Iterable[tuple[Any, ...]], kwargs: dict[str, Any]) -> list[T]:
        try:
            self.feed(function, items, kwargs)
            self.wait("map", lambda: self.failure is not None)
        finally:
            if self.left:
                self.end()
        if self.failure is not None:
            self.failure.get()
        return self.results

    def feed(self, function: Callable[..., Any], items: Iterable[tuple[Any, ...]], kwargs: dict[str, Any]) -> None:
        pool, results = self.pool, self.results
        take_place, start = pool._places.acquire, pool._start
        for position, args in enumerate(items):
            take_place()
            if self.failure is not None:
                pool._places.release()
                return
            results.append(None)
            start(self, function, args, kwargs, position)
            self.left += 1

    def _ended(self, call: _Call) -> None:
        self.left -= 1
        if call._state == "done":
            self.results[call._position] = call._value
        elif self.failure is None:
            self.failure = call
        self.pool._leave(call)
        waiter = self.waiter
        if waiter is not None and (not self.left or self.failure is call):
            waiter.wake()

    def wait(self, verb: str, enough: Callable[[], bool]) -> None:
        """Park until no call is left, or it is enough."""
        hub = get_hub()
        while self.left and not enough():
            self.waiter = Waiter(hub, verb, self.pool)
            try:
                hub.park(self.waiter)
            finally:
                self.waiter = None

    def end(self) -> None:
        """Kill the calls that are left, and wait for them."""
        for call in list(self.pool._tasks):
            if call._owner is self:
                call.kill(block=False)
        with shield():
            self.wait("wait for killed calls of", lambda: False)


class _Feed:
    """One `imap`: calls are begun by a task, the feeder, and pass through a queue."""

    def __init__(self, pool: Pool, ordered: bool, maxsize: int | None) -> None:
        if maxsize is not None and maxsize < 1:
            raise ValueError(f"maxsize must be at least one, not {maxsize!r}")
        self.pool = pool
        self.ordered = ordered
        self.room = Semaphore(2 * pool.size if maxsize is None else maxsize)
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()
        self.left = 0
        self.fed = False

    def start(self, function: Callable[..., Any], items: Iterator[tuple[Any, ...]]) -> Task:
        feeder = spawn(self.feed, function, items)
        self.pool._feeders.add(feeder)
        feeder.add_link(self.feeder_ended)
        return feeder

    def feed(self, function: Callable[..., Any], items: Iterator[tuple[Any, ...]]) -> None:
        room, places = self.room, self.pool._places
        while room.acquire():
            args = next(items, None)
            if args is None:
                return
            places.acquire()
            call = self.pool._start(self, function, args, {})
            self.left += 1
            if self.ordered:
                self.calls.put(call)

    def feeder_ended(self, feeder: Task) -> None:
        self.pool._feeders.discard(feeder)
        self.fed = True
        if self.ordered or not self.left:
            self.calls.put(None)

    def _ended(self, call: _Call) -> None:
        self.left -= 1
        self.pool._leave(call)
        if not self.ordered:
            self.calls.put(call)
            if self.fed and not self.left:
                self.calls.put(None)

    def stop(self, feeder: Task) -> None:
        feeder.kill(block=False)
        for call in list(self.pool._tasks):
            if call._owner is self:
                call.kill(block=False)


class Results(Generic[T]):
    """The iterator over the results of `imap` and `imap_unordered`."""

    def __init__(self, feed: _Feed, function: Callable[..., T], items: Iterator[tuple[Any, ...]]) -> None:
        self._hub = get_hub()
        self._feed = feed
        self._next: _Call | None = None
        self._over = False
        self._feeder = feed.start(function, items)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """Park until there is a result, and return or raise it."""
        if self._next is None and not self._over:
            self._next = self._feed.calls.get()
            if self._next is None:
                self._over = True
                self._feeder.get()  # raises what the iterables have raised, or what the feeder was killed with
        call = self._next
        if call is None:
            raise StopIteration
        call.join()  # killed or timed out here, we find the same call next time
        self._next = None
        self._feed.room.release()
        return call.get()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Take no more items, and kill the calls that still run; don't wait for them. Afterwards nothing more comes."""
        self._over = True
        self._next = None
        self._feed.stop(self._feeder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A finaliser runs anywhere, in the very task that it would kill, or in another thread.
        feeder = getattr(self, "_feeder", None)
        if feeder is not None and not (feeder.dead and not self._feed.left) and not self._hub.closed:
            self._hub.call_soon(self._feed.stop, feeder)

    def __repr__(self) -> str:
        return f"<Results of {self._feed.pool!r}, {self._feed.left} to come>"


def _check(function: object) -> None:
    if not callable(function):
        raise TypeError(f"a pool needs a function and its arguments, not {function!r}")


def _checked(function: Callable[..., T], iterables: tuple[Iterable[Any], ...]) -> Callable[..., T]:
    _check(function)
    if not iterables:
        raise TypeError("a pool maps a function over at least one iterable")
    return function
