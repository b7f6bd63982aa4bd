"""What feeds a pool from iterables: `map`, and the iterators of `imap` and `imap_unordered`.

Knows a pool by its places, and the calls that it starts there. Each call tells its end to the one who has started it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from greenswitch.hub import Waiter, get_hub
from greenswitch.locks import Semaphore
from greenswitch.queues import SimpleQueue
from greenswitch.tasks import Task, spawn
from greenswitch.timeouts import shield

if TYPE_CHECKING:
    from greenswitch.pools import Call, Pool

T = TypeVar("T")

_AHEAD = 1000  # calls of an imap that are begun and not yet taken, if nothing else sets a bound


class Map:
    """One `map`: its results, and how many calls have not ended."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.results: list[Any] = []
        self.left = 0
        self.failure: Call | None = None
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
        take_place, begin = pool.places.acquire, pool.begin
        for position, args in enumerate(items):
            take_place()
            if self.failure is not None:
                pool.places.release()
                return
            results.append(None)
            begin(self, function, args, kwargs, position)
            self.left += 1

    def ended(self, call: Call) -> None:
        self.left -= 1
        if call._state == "done":
            self.results[call.position] = call._value
        elif self.failure is None:
            self.failure = call
        self.pool.leave(call)
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
        for call in list(self.pool.tasks):
            if call.owner is self:
                call.kill(block=False)
        with shield():
            self.wait("wait for killed calls of", lambda: False)


class Feed:
    """One `imap`: calls are begun by a task, the feeder, and pass through a queue."""

    def __init__(self, pool: Pool, ordered: bool, maxsize: int | None) -> None:
        if maxsize is not None and maxsize < 1:
            raise ValueError(f"maxsize must be at least one, not {maxsize!r}")
        self.pool = pool
        self.ordered = ordered
        if maxsize is None:
            maxsize = _AHEAD if pool.size is None else 2 * pool.size
        self.room = Semaphore(maxsize)
        self.calls: SimpleQueue[Call | None] = SimpleQueue()
        self.left = 0
        self.fed = False

    def start(self, function: Callable[..., Any], items: Iterator[tuple[Any, ...]]) -> Task:
        feeder = spawn(self.feed, function, items)
        self.pool.feeders.add(feeder)
        feeder.add_link(self.feeder_ended)
        return feeder

    def feed(self, function: Callable[..., Any], items: Iterator[tuple[Any, ...]]) -> None:
        room, places = self.room, self.pool.places
        while room.acquire():
            args = next(items, None)
            if args is None:
                return
            places.acquire()
            call = self.pool.begin(self, function, args, {})
            self.left += 1
            if self.ordered:
                self.calls.put(call)

    def feeder_ended(self, feeder: Task) -> None:
        self.pool.feeders.discard(feeder)
        self.fed = True
        if self.ordered or not self.left:
            self.calls.put(None)

    def ended(self, call: Call) -> None:
        self.left -= 1
        self.pool.leave(call)
        if not self.ordered:
            self.calls.put(call)
            if self.fed and not self.left:
                self.calls.put(None)

    def stop(self, feeder: Task) -> None:
        feeder.kill(block=False)
        for call in list(self.pool.tasks):
            if call.owner is self:
                call.kill(block=False)


class Results(Generic[T]):
    """The iterator over the results of `imap` and `imap_unordered`."""

    def __init__(self, feed: Feed, function: Callable[..., T], items: Iterator[tuple[Any, ...]]) -> None:
        self._hub = get_hub()
        self._feed = feed
        self._next: Call | None = None
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
