"""What queues and channels have in common: two lines of those who wait, one to get and one to put; and `select`.

Knows waiters and their lines. Knows neither how a queue keeps its items nor how a channel passes them on.

What holds at every moment, in all of them
==========================================

- Who waits to get, waits because there is nothing; who waits to put, because there is no room. Never is there both a
  thing and somebody who waits for it: so nobody overtakes those in line, and nothing is left lying.
- There is no guard, because a finaliser or a signal handler may put in the middle of a put. Instead a decision and what
  follows from it are *one line* with a single call at its end ("pop the first getter if there is one, else store the
  item"): before that call the interpreter neither changes threads nor runs handlers. `Waiter.wake` relies on the same.
- An item belongs to its putter until it is taken, and then to the one who took it, even if that one is killed in the
  same turn (see `Hub.interrupt`). A putter that gives up takes its item back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty
from typing import Any, Final, Generic, NoReturn, TypeVar

from greenswitch.errors import ShutDown
from greenswitch.hub import TIMED_OUT, Awaited, Hub, Waiter, describe, get_hub
from greenswitch.locks.lines import Line

Item = TypeVar("Item")

# What a look for an item returns if it returns none.
NOTHING: Final[Any] = object()
SHUT: Final[Any] = object()
IN_LINE: Final[Any] = object()


class Offer(Waiter):
    """A putter that waits, and its item. Taking the item is a claim of its own: first take it, then wake the putter."""

    __slots__ = ("item",)

    def __init__(self, hub: Hub, target: object, item: Any) -> None:
        super().__init__(hub, "put into", target)
        self.item = item

    def take(self) -> Any:
        """Return the item, or NOTHING if it has been taken, or if its putter has been woken by a timeout or a kill."""
        if self.greenlet is None:
            return NOTHING
        item, self.item = self.item, NOTHING
        return item

    def take_back(self) -> bool:
        """For a putter that gives up: return False if the item is gone, so that it was put after all."""
        item, self.item = self.item, NOTHING
        return item is not NOTHING


class Exchange(Awaited, Generic[Item]):
    """A place where items change hands. Queues and channels say how."""

    __slots__ = ("__weakref__", "_getters", "_links", "_putters", "is_shutdown")

    def __init__(self) -> None:
        # Typed Any, because one line that looks and lines up ends with `append(waiter) or IN_LINE`.
        self._getters: Any = Line()
        self._putters: Any = Line()
        self._links: list[Callable[[Any], Any]] | None = None
        self.is_shutdown = False

    # -- what each kind does in its own way ------------------------------------------------------------------------

    def ready(self) -> bool:
        """Return whether a get would go on at once, with an item or with ShutDown."""
        raise NotImplementedError

    def _look(self) -> Any:
        """Take an item and return it, or return NOTHING, or SHUT."""
        raise NotImplementedError

    def _line_up_unless_ready(self, waiter: Waiter) -> bool:
        """Put `waiter` in line if a get would wait; return whether it stands there."""
        raise NotImplementedError

    def _give_back(self, item: Any) -> None:
        """Take an item back from a getter that was hit by Ctrl-C as it went on with it."""
        raise NotImplementedError

    # -- getting ---------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Take the next item and return it; wait up to `timeout` seconds (None: no limit) until there is one.

        Raises queue.Empty when the time is over, or at once with `block=False` (such a call never switches, and may be
        made anywhere); ShutDown when nothing is left and nothing can come; ValueError for a negative timeout.
        """
        raise NotImplementedError

    def get_nowait(self) -> Item:
        """Take the next item and return it, or raise queue.Empty (or ShutDown) at once. Never switches; any thread."""
        return self.get(False)

    def _raise(self, found: Any) -> NoReturn:
        raise Empty if found is NOTHING else ShutDown(self._why_shut())

    def _give_up(self, waiter: Waiter) -> None:
        """Clean up after a getter that something was raised in."""
        self._getters.leave(waiter)
        if waiter.value is not None and waiter.value is not TIMED_OUT:
            self._give_back(waiter.value)

    def __iter__(self) -> Iterator[Item]:
        """Get items until it is shut down and empty, or until an item is the class StopIteration (gevent's custom)."""
        return self

    def __next__(self) -> Item:
        try:
            item = self.get()
        except ShutDown:
            raise StopIteration from None
        if item is StopIteration:
            raise item
        return item

    # -- the end ---------------------------------------------------------------------------------------------------

    def _shut(self) -> None:
        self.is_shutdown = True
        why = self._why_shut()
        while (getter := self._getters.popleft() if self._getters else None) is not None:
            getter.fail(ShutDown(why))
        while (offer := self._putters.popleft() if self._putters else None) is not None:
            if offer.take() is not NOTHING:
                offer.fail(ShutDown(why))
        self._tell_links()

    def _why_shut(self) -> str:
        return f"{self!r}: nothing can be put any more, and only what is left can be gotten"

    # -- what `greenswitch.wait` and `iwait` ask for ----------------------------------------------------------------

    def add_link(self, notify: Callable[[Any], Any]) -> None:
        """Have `notify(self)` called once when a get would not wait; it must neither switch nor raise. Any thread."""
        if self._links is None:
            self._links = []
        self._links.append(notify)
        if self.ready():
            self._tell_links()

    def remove_link(self, notify: Callable[[Any], Any]) -> None:
        """Take `notify` back; one that isn't linked is no error."""
        try:
            (self._links or []).remove(notify)
        except ValueError:
            pass

    def _tell_links(self) -> None:
        links = self._links
        while (notify := links.pop(0) if links else None) is not None:
            notify(self)

    # -- looking at it ---------------------------------------------------------------------------------------------

    def lack(self, verb: str) -> str:
        return "nobody takes anything out" if verb == "put into" else "nobody puts anything in"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self._traits())}>"

    def _traits(self) -> Iterator[str]:
        for line, verb in ((self._getters, "get"), (self._putters, "put")):
            waiters = list(line)
            if waiters:
                first = waiters[0].greenlet
                yield f"{len(waiters)} waiting to {verb}" + ("" if first is None else f", {describe(first)} first")
        if self.is_shutdown:
            yield "shut down"


def check_timeout(timeout: float) -> None:
    """Raise ValueError, in the standard library's words, unless `timeout` is a number from 0 on."""
    if not timeout >= 0:
        raise ValueError("'timeout' must be a non-negative number")


def refuse_in_hub(waiter: Waiter) -> None:
    """Raise HubError for one made inside the hub, or for a closed hub: before it stands in line."""
    hub = waiter.hub
    if waiter.greenlet is hub.greenlet or hub.closed:
        hub.park(waiter)


# -- waiting for several -------------------------------------------------------------------------------------------


def select(*sources: Exchange[Any], timeout: float | None = None) -> tuple[Exchange[Any], Any]:
    """Take one item from the first of `sources` (queues, channels) that has one; return (the source, the item).

    Exactly one item is taken, in one step: the caller stands in the line of every source with the same waiter, and a
    waiter is woken once. (`iwait` only says that a get would not wait *now*; somebody else may be faster.) Of several
    that are ready the one named first goes first. A source that is shut down and empty is passed over; ShutDown is
    raised when no other is left. TimeoutError after `timeout` seconds (0: don't wait, don't switch).
    """
    if not sources:
        raise ValueError("select() needs at least one queue or channel to take from")
    if timeout is not None:
        check_timeout(timeout)
    deadline = get_hub().clock() + timeout if timeout else None
    while True:
        waiting_for, found = _look_at_all(sources)
        if found is None:
            left = timeout if deadline is None else deadline - get_hub().clock()
            found = TIMED_OUT if left is not None and left <= 0 else _wait_for_any(waiting_for, left)
        if found is TIMED_OUT:
            raise TimeoutError(f"nothing to take from {_names(sources)} within {timeout} seconds")
        if found is not None:
            return found  # type: ignore[no-any-return]


def _look_at_all(sources: tuple[Exchange[Any], ...]) -> tuple[list[Exchange[Any]], Any]:
    """Return (those that may have something later, (source, item) of the first that has something now, or None)."""
    waiting_for = []
    for source in sources:
        item = source._look()
        if item is NOTHING:
            waiting_for.append(source)
        elif item is not SHUT:
            return waiting_for, (source, item)
    if not waiting_for:
        raise ShutDown(f"nothing can come any more: {_names(sources)}")
    return waiting_for, None


def _names(sources: tuple[Exchange[Any], ...]) -> str:
    return ", ".join(map(repr, sources))


class _Choice(Waiter):
    """One source's share in a waiter that stands in several lines."""

    __slots__ = ("waiter",)

    def __init__(self, waiter: Waiter, source: Exchange[Any]) -> None:
        super().__init__(waiter.hub, waiter.verb, source)
        self.waiter = waiter

    def wake(self, value: Any = None) -> bool:
        return self.waiter.wake((self.target, value))

    def fail(self, error: BaseException) -> bool:
        """Have it look at all sources again: this one has been shut down, the others may go on."""
        return self.waiter.wake(None)


def _wait_for_any(sources: list[Exchange[Any]], timeout: float | None) -> Any:
    """Park until given (source, item), or until one of them has something or is shut down: None. Or TIMED_OUT."""
    hub = get_hub()
    waiter = Waiter(hub, "select from", sources)
    refuse_in_hub(waiter)
    choices = [(source, _Choice(waiter, source)) for source in sources]
    try:
        for source, choice in choices:
            if not source._line_up_unless_ready(choice):
                waiter.wake(None)  # does nothing if one of the others has given us an item meanwhile
                break
        return hub.wait(waiter, timeout)
    except BaseException:
        if isinstance(waiter.value, tuple):
            source, item = waiter.value
            source._give_back(item)
        raise
    finally:
        for source, choice in choices:
            source._getters.leave(choice)
