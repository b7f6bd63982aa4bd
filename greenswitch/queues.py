"""Queues: tasks and OS threads hand things to each other, and wait while there are none, or too many.

The standard library's names, signatures and errors, for tasks and threads together. What holds at every moment is
written at the top of `greenswitch.exchanges`; here it means:

- either items are in the queue, or getters wait, or neither;
- putters wait only while no slot is free. Who takes an item moves the first putter's item into the slot at once, so a
  queue with waiting putters stays full, and one `get_nowait` after the other finds them all.
"""

from __future__ import annotations

from _thread import RLock  # the original, also after monkey patching: it keeps OS threads apart, and only for moments
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from queue import Empty, Full
from typing import Any, Final

from greenswitch.channels import Channel
from greenswitch.errors import BusyError, ShutDown
from greenswitch.exchanges import (
    IN_LINE,
    NOTHING,
    SHUT,
    Exchange,
    Item,
    Offer,
    check_timeout,
    refuse_in_hub,
    select,
)
from greenswitch.hub import TIMED_OUT, Waiter, get_hub, new_waiter
from greenswitch.locks.lines import Line

__all__ = ["Channel", "Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "ShutDown", "SimpleQueue", "select"]

_BUSY: Final[Any] = object()


class SimpleQueue(Exchange[Item]):
    """An unbounded queue, first in, first out. `put` never waits, and may be called anywhere, in a finaliser too."""

    __slots__ = ("_items", "_slots", "_store", "_take")

    _items: Any
    _take: Callable[[], Any]
    _store: Callable[[Any], Any]

    def __init__(self) -> None:
        super().__init__()
        self._slots: list[bool] | None = None  # one entry for each that is free; None: no bound
        self._set_up()

    def _set_up(self) -> None:
        self._items = items = deque[Any]()
        self._take = items.popleft
        self._store = items.append

    # -- getting ---------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Take the next item and return it; wait up to `timeout` seconds (None: no limit) until there is one.

        Raises queue.Empty when the time is over, or at once with `block=False` (such a call never switches, and may be
        made anywhere); ShutDown when nothing is left and nothing can come; ValueError for a negative timeout.
        """
        if timeout is not None and block:
            check_timeout(timeout)
        item = self._take() if self._items else SHUT if self.is_shutdown else NOTHING
        if item is NOTHING and block and timeout != 0:
            waiter = new_waiter("get from", self)
            hub = waiter.hub
            getters = self._getters
            while item is NOTHING:  # where taking is more than one step another thread may be faster
                item = self._take() if self._items else SHUT if self.is_shutdown else getters.append(waiter) or IN_LINE
            if item is IN_LINE:
                try:
                    item = hub.park(waiter) if timeout is None else hub.wait(waiter, timeout)
                except BaseException:
                    self._give_up(waiter)
                    raise
                if item is not TIMED_OUT:
                    return item  # type: ignore[no-any-return]
                getters.leave(waiter)
                item = NOTHING
        if item is NOTHING or item is SHUT:
            self._raise(item)
        if self._slots is not None:
            self._free_slot()
        return item  # type: ignore[no-any-return]

    def _look(self) -> Any:
        item = self._take() if self._items else SHUT if self.is_shutdown else NOTHING
        if self._slots is not None and item is not NOTHING and item is not SHUT:
            self._free_slot()
        return item

    def _line_up_unless_ready(self, waiter: Waiter) -> bool:
        return not (self._items or self.is_shutdown or self._getters.append(waiter))

    def _give_back(self, item: Any) -> None:
        # Nobody knows any more whether it had a slot: the queue may hold one too many after a Ctrl-C.
        if not self._getters.give(item):
            self._put_in_front(item)
            self._tell_links()

    def _put_in_front(self, item: Any) -> None:
        self._items.appendleft(item)

    def _free_slot(self) -> None:
        """An item has been taken: give its slot to the first putter in line, or to whoever comes."""
        raise NotImplementedError

    # -- peeking ---------------------------------------------------------------------------------------------------

    def peek(self, block: bool = True, timeout: float | None = None) -> Item:
        """Return the next item and leave it there; otherwise as `get`. Those who wait to get go first."""
        if timeout is not None and block:
            check_timeout(timeout)
        item = self._front()
        if item is NOTHING and block and timeout != 0:
            item = self._wait_to_peek(timeout)
        if item is NOTHING or item is SHUT:
            self._raise(item)
        return item  # type: ignore[no-any-return]

    def peek_nowait(self) -> Item:
        """Return the next item and leave it there, or raise queue.Empty at once. Never switches; any thread."""
        return self.peek(False)

    def _front(self) -> Any:
        return self._items[0] if self._items else SHUT if self.is_shutdown else NOTHING

    def _wait_to_peek(self, timeout: float | None) -> Any:
        hub = get_hub()
        deadline = None if timeout is None else hub.clock() + timeout
        while (item := self._front()) is NOTHING:
            waiter = Waiter(hub, "peek at", self)
            refuse_in_hub(waiter)
            self.add_link(waiter.wake)
            try:
                woken = hub.wait(waiter, None if deadline is None else deadline - hub.clock())
            finally:
                self.remove_link(waiter.wake)
            if woken is TIMED_OUT:
                break
        return item

    # -- putting ---------------------------------------------------------------------------------------------------

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in, at once: without a bound `block` and `timeout` mean nothing. Never switches; any thread."""
        self._place(item)

    def put_nowait(self, item: Item) -> None:
        """Put an item in, or raise queue.Full (or ShutDown) at once. Never switches; any thread."""
        self.put(item, False)

    def _place(self, item: Any) -> bool:
        """Give `item` to the first getter and return True; or store it, in a slot that is held, and return False."""
        while True:
            getter = self._getters.popleft() if self._getters else SHUT if self.is_shutdown else self._store(item)
            if getter is None:
                if self._links:
                    self._tell_links()
                return False
            if getter is SHUT:
                raise ShutDown(self._why_shut())
            if getter.wake(item):
                return True

    # -- looking at it ---------------------------------------------------------------------------------------------

    def ready(self) -> bool:
        """Return whether a get would go on at once, with an item or with ShutDown."""
        return bool(self._items) or self.is_shutdown

    def qsize(self) -> int:
        """Return how many items are in it."""
        return len(self._items)

    def empty(self) -> bool:
        """Return whether no item is in it."""
        return not self._items

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        """True, also when it is empty: `if queue` asks whether there is a queue."""
        return True

    def _traits(self) -> Iterator[str]:
        yield self._filling()
        yield from super()._traits()

    def _filling(self) -> str:
        return "1 item" if len(self._items) == 1 else f"{len(self._items)} items"


class Queue(SimpleQueue[Item]):
    """A queue, first in, first out, for at most `maxsize` items (0 or less: any number), as `queue.Queue`.

    `items` (as in gevent) are put in first. Tasks and OS threads may use it together.
    """

    __slots__ = ("_joiners", "_maxsize", "_unfinished", "_unissued")

    def __init__(self, maxsize: int | None = 0, items: Iterable[Item] = ()) -> None:
        super().__init__()
        self._maxsize = maxsize or 0
        if self._maxsize > 0:
            self._slots = []
        self._unissued = self._maxsize  # slots never used so far: a great maxsize costs no memory
        self._unfinished = 0
        self._joiners = Line()
        for item in items:
            self.put_nowait(item)

    # -- putting ---------------------------------------------------------------------------------------------------

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in; wait up to `timeout` seconds (None: no limit) while the queue is full.

        Raises queue.Full when the time is over, or at once with `block=False` (such a call never switches, and may be
        made anywhere); ShutDown when the queue has been shut down; ValueError for a negative timeout.
        """
        if timeout is not None and block:
            check_timeout(timeout)
        if self._slots is None:
            self._unfinished += 1  # before anybody can get it, and say that it is done
            try:
                self._place(item)
            except BaseException:
                self._finish_one()
                raise
        elif self._take_slot():
            self._fill_slot(item)
        elif self.is_shutdown:
            raise ShutDown(self._why_shut())
        elif block and timeout != 0:
            self._wait_to_put(item, timeout)
        else:
            raise Full

    def _take_slot(self) -> bool:
        if self._slots.pop() if self._slots else False:
            return True
        self._unissued = (unissued := self._unissued) - (unissued > 0)
        return unissued > 0

    def _fill_slot(self, item: Any) -> None:
        self._unfinished += 1
        try:
            handed_over = self._place(item)
        except BaseException:
            self._finish_one()
            self._free_slot()
            raise
        if handed_over:
            self._free_slot()

    def _free_slot(self) -> None:
        slots: Any = self._slots
        while (offer := self._putters.popleft() if self._putters else slots.append(True)) is not None:
            item = offer.take()
            if item is NOTHING:
                continue
            self._unfinished += 1
            try:
                handed_over = self._place(item)
            except Exception as error:  # the putter's: its item can't be compared with the others, or it came too late
                self._finish_one()
                offer.fail(error)
                continue
            offer.wake()
            if not handed_over:
                break

    def _wait_to_put(self, item: Any, timeout: float | None) -> None:
        offer = Offer(get_hub(), self, item)
        refuse_in_hub(offer)
        slots: Any = self._slots
        found = slots.pop() if slots else SHUT if self.is_shutdown else self._putters.append(offer) or IN_LINE
        if found is SHUT:
            raise ShutDown(self._why_shut())
        if found is not IN_LINE:
            self._fill_slot(item)
            return
        try:
            woken = self._putters.stay(offer, timeout)
        except BaseException:
            offer.take_back()
            raise
        if woken is TIMED_OUT and offer.take_back():
            raise Full

    # -- finishing -------------------------------------------------------------------------------------------------

    @property
    def unfinished_tasks(self) -> int:
        """How many items have been put in and not been marked as done so far."""
        return self._unfinished

    def task_done(self) -> None:
        """Say that the work on one item that was gotten is done. ValueError if said more often than items were put."""
        if not self._finish_one():
            raise ValueError("task_done() called too many times")

    def _finish_one(self) -> bool:
        self._unfinished = left = self._unfinished - 1
        if left < 0:
            self._unfinished += 1
        elif left == 0:
            self._joiners.give_all()
        return left >= 0

    def join(self, timeout: float | None = None) -> None:
        """Wait until every item that was put in has been marked as done. TimeoutError after `timeout` seconds."""
        if timeout is not None:
            check_timeout(timeout)
        if not self._unfinished:
            return
        hub = get_hub()
        deadline = None if timeout is None else hub.clock() + timeout
        while self._unfinished:
            left = None if deadline is None else deadline - hub.clock()
            if left is not None and left <= 0:
                raise TimeoutError(f"{self!r}: {self._unfinished} unfinished after {timeout} seconds")
            waiter = Waiter(hub, "join", self)
            refuse_in_hub(waiter)
            self._joiners.wait(waiter, left, self._look_for_joiners)

    def _look_for_joiners(self) -> None:
        if not self._unfinished:
            self._joiners.give_all()

    def shutdown(self, immediate: bool = False) -> None:
        """Let nothing be put in any more. Whoever waits to put gets ShutDown; so does a get once nothing is left.

        With `immediate` what is in the queue is thrown away, and counts as done. Never switches; any thread.
        """
        self._shut()
        while immediate and self._items:
            if self._look() is not NOTHING:
                self._finish_one()

    # -- looking at it ---------------------------------------------------------------------------------------------

    @property
    def maxsize(self) -> int:
        """How many items it holds; 0 or less: any number."""
        return self._maxsize

    def lack(self, verb: str) -> str:
        taken = self._unfinished - len(self._items)
        if verb != "join":
            return super().lack(verb)
        if taken <= 0:
            return "nobody takes anything out"
        items = "1 item that has" if taken == 1 else f"{taken} items that have"
        return f"task_done() has not been called for {items} been taken out"

    def full(self) -> bool:
        """Return whether it holds as many items as it may."""
        return 0 < self._maxsize <= len(self._items)

    def _filling(self) -> str:
        return f"{len(self._items)}/{self._maxsize} items" if self._maxsize > 0 else super()._filling()

    def _traits(self) -> Iterator[str]:
        yield from super()._traits()
        if self._joiners:
            yield f"{len(self._joiners)} waiting to join ({self._unfinished} unfinished)"


class LifoQueue(Queue[Item]):
    """A queue, last in, first out, as `queue.LifoQueue`; otherwise as `Queue`."""

    __slots__ = ()

    def _set_up(self) -> None:
        self._items = items = list[Any]()
        self._take = items.pop
        self._store = items.append

    def _front(self) -> Any:
        return self._items[-1] if self._items else SHUT if self.is_shutdown else NOTHING

    def _put_in_front(self, item: Any) -> None:
        self._items.append(item)


class PriorityQueue(Queue[Item]):
    """A queue that gives the least item first, as `queue.PriorityQueue`; otherwise as `Queue`.

    Comparing items may run code of theirs, so here a change takes many steps, and a guard keeps other OS threads out.
    Code that runs amid a change (`__lt__`, a finaliser, a signal handler) may put; its get raises BusyError.
    """

    __slots__ = ("_changing", "_guard", "_late")

    def _set_up(self) -> None:
        self._items = list[Any]()
        self._take = self._take_least
        self._store = self._store_in_order
        self._guard = RLock()
        self._changing = False
        self._late = deque[Any]()  # what was put amid a change; whoever makes the change sees to it

    def _take_least(self) -> Any:
        with self._guard:
            item = self._change(_pop_least)
            if item is not _BUSY:
                self._settle()
                return item
        raise BusyError(
            f"{self!r} is being changed further up the stack: its items' __lt__, a finaliser or a signal handler "
            "may put something in meanwhile, but not get anything"
        )

    def _store_in_order(self, item: Any) -> Any:
        with self._guard:
            if self.is_shutdown:
                return SHUT
            if self._change(_push, item) is _BUSY:
                self._late.append(item)
            else:
                self._settle()
        return None

    def _change(self, change: Callable[..., Any], *args: Any) -> Any:
        with self._guard:
            if self._changing:
                return _BUSY
            self._changing = True
            try:
                return change(self._items, *args)
            finally:
                self._changing = False

    def _settle(self) -> None:
        """After a change: see to what came meanwhile, from the same thread (`_late`) or from others (`_getters`).

        Within the guard: no shutdown may find nothing left while an item is on its way.
        """
        while (item := self._late.popleft() if self._late else NOTHING) is not NOTHING:
            if self._change(_push, item) is _BUSY:
                self._late.append(item)
                return
        while self._getters and self._items:
            item = self._change(_pop_least)
            if item is _BUSY:
                return
            if item is NOTHING:
                continue
            if not self._getters.give(item):
                self._put_in_front(item)
            elif self._slots is not None:
                self._free_slot()

    def _put_in_front(self, item: Any) -> None:
        if self._change(_push, item) is _BUSY:
            self._late.append(item)

    def _front(self) -> Any:
        if self._items:
            item = self._change(_least)
            return self._take_least() if item is _BUSY else item  # (which says why not)
        return SHUT if self.is_shutdown else NOTHING

    def shutdown(self, immediate: bool = False) -> None:
        """Let nothing be put in any more. Whoever waits to put gets ShutDown; so does a get once nothing is left.

        With `immediate` what is in the queue is thrown away, and counts as done. Never switches; any thread.
        """
        with self._guard:  # nothing may be stored after the end that a getter has seen
            super().shutdown(immediate)


def _push(heap: list[Any], item: Any) -> None:
    try:
        heappush(heap, item)
    except BaseException:
        # It can't be compared, and is somewhere in the heap now: nobody could get past it.
        del heap[next(index for index, other in enumerate(heap) if other is item)]
        heapify(heap)
        raise


def _pop_least(heap: list[Any]) -> Any:
    return heappop(heap) if heap else NOTHING


def _least(heap: list[Any]) -> Any:
    return heap[0] if heap else NOTHING
