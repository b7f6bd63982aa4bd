"""Things due at a time: a heap of one-shot callbacks, cancelled lazily.

Knows a clock's numbers (seconds, from any origin) and callables. Knows no hub, no greenlet and no clock.

Cancelling only marks: most timers are deadlines that never come, and finding one inside a heap costs more than leaving
it there. When the marked ones outnumber the live ones the heap is rebuilt without them, so memory stays proportional to
what is really awaited (asyncio does the same).

Even that is too dear for a deadline around every `recv`. Such ones stand in `young` first, in no order, and leave it
without a trace; only those that live until the earliest of them may be due are sorted into the heap, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Protocol

_LATE = 1 << 60  # more than any number of timers
_COMPACT_FROM = 64  # below this a rebuild saves nothing worth having


class Young(Protocol):
    """A deadline that expects to be forgotten before it comes."""

    def grow_old(self) -> None:
        """Become a timer: it has been taken out of `Timers.young`."""


class Timer:
    """One callback due at one time; `Timers.add` makes it."""

    __slots__ = ("_timers", "args", "callback", "when")

    def __init__(self, timers: Timers, when: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._timers = timers
        self.when = when
        self.callback: Callable[..., Any] | None = callback
        self.args = args

    @property
    def active(self) -> bool:
        """True until it has fired or has been cancelled."""
        return self.callback is not None

    def cancel(self) -> None:
        """Make sure that it never fires (again). Cancelling twice, or after it fired, does nothing."""
        if self.callback is not None:
            self.callback = None
            self.args = ()
            self._timers._forget_one()

    def __repr__(self) -> str:
        if self.callback is None:
            return f"<Timer at {self.when:.6f}, fired or cancelled>"
        return f"<Timer at {self.when:.6f} for {getattr(self.callback, '__qualname__', self.callback)}>"


class Timers:
    """All timers of one hub, the earliest first; those due at the same time fire in the order they were added.

    Deadlines fire after the others of their time.
    """

    __slots__ = ("_cancelled", "_heap", "added", "soonest", "young")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self.added = 1
        """The number of the newest timer. Each takes the next one."""
        self.young: dict[Young, None] = {}
        """Deadlines, the oldest first. Whoever enters one lowers `soonest`, and takes it out by itself."""
        self.soonest = math.inf
        """None of the young ones is due before this; maybe none is due even then."""

    def __len__(self) -> int:
        """The number of timers that still may fire."""
        return len(self._heap) - self._cancelled + len(self.young)

    def add(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Have `callback(*args)` called at the first `expire(now)` with `now >= when`. NaN raises ValueError."""
        if math.isnan(when):
            raise ValueError("a timer needs a time; this one is NaN")
        timer = Timer(self, when, callback, args)
        self.added += 1
        heappush(self._heap, (when, self.added, timer))
        return timer

    def add_deadline(self, when: float, callback: Callable[..., Any]) -> Timer:
        """As `add`, but after all others that are due at the same time: what comes just in time has come in time."""
        timer = Timer(self, when, callback, ())
        self.added += 1
        heappush(self._heap, (when, _LATE + self.added, timer))
        return timer

    def pending(self) -> list[Timer]:
        """Return the timers that may still fire, in no order, but for the young deadlines. Any thread."""
        # The copy is one step: the hub may run in another thread, and change it meanwhile.
        return [timer for _, _, timer in self._heap.copy() if timer.active]

    def next_due(self) -> float | None:
        """Return a time before which no timer is due, mostly that of the earliest; None where there is none."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heappop(heap)
            self._cancelled -= 1
        if not self.young:
            self.soonest = math.inf
            return heap[0][0] if heap else None
        return heap[0][0] if heap and heap[0][0] < self.soonest else self.soonest

    def pop_due(self, now: float) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
        """Take out what is due at `now`, earliest first, as (callback, args); those timers count as fired.

        A timer that an earlier callback of the same batch may want to cancel has fired already: whoever is woken twice
        must not mind, and a `Waiter` does not.
        """
        if self.soonest <= now:
            self._sort_in()
        heap = self._heap
        due = []
        while heap and heap[0][0] <= now:
            timer = heappop(heap)[2]
            if timer.callback is None:
                self._cancelled -= 1
            else:
                due.append((timer.callback, timer.args))
                timer.callback = None
                timer.args = ()
        return due

    def clear(self) -> None:
        """Cancel all of them."""
        for _, _, timer in self._heap:
            timer.callback = None
            timer.args = ()
        self._heap.clear()
        self._cancelled = 0
        self.young.clear()
        self.soonest = math.inf

    def _sort_in(self) -> None:
        grown = list(self.young)
        self.young.clear()
        self.soonest = math.inf
        for one in grown:
            one.grow_old()

    def _forget_one(self) -> None:
        self._cancelled += 1
        if self._cancelled > _COMPACT_FROM and self._cancelled * 2 > len(self._heap):
            # In place: pop_due may be iterating over this very list further up the stack.
            self._heap[:] = [entry for entry in self._heap if entry[2].callback is not None]
            heapify(self._heap)
            self._cancelled = 0
