"""Things due at a time: a heap of one-shot callbacks, cancelled lazily.

Knows a clock's numbers (seconds, from any origin) and callables. Knows no hub, no greenlet and no clock.

Cancelling only marks: most timers are deadlines that never come, and finding one inside a heap costs more than leaving it
there. When the marked ones outnumber the live ones the heap is rebuilt without them, so memory stays proportional to what
is really awaited (asyncio does the same).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

COMPACT_FROM = 64  # below this a rebuild saves nothing worth having


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
            self._timers.cancelled += 1
            if self._timers.cancelled > COMPACT_FROM:
                self._timers.compact()

    def __repr__(self) -> str:
        if self.callback is None:
            return f"<Timer at {self.when:.6f}, fired or cancelled>"
        return f"<Timer at {self.when:.6f} for {getattr(self.callback, '__qualname__', self.callback)}>"


class Timers:
    """All timers of one hub, the earliest first; those due at the same time fire in the order they were added.

    A deadline around every `recv` can't afford two more calls: `greenswitch.timeouts` pushes and cancels by itself, as
    `add` and `Timer.cancel` do it.
    """

    __slots__ = ("added", "cancelled", "heap")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Timer]] = []
        self.added = 0
        """How many there have been so far; the number of the newest."""
        self.cancelled = 0
        """How many in the heap will never fire."""

    def __len__(self) -> int:
        """The number of timers that still may fire."""
        return len(self.heap) - self.cancelled

    def add(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Have `callback(*args)` called at the first `expire(now)` with `now >= when`. NaN raises ValueError."""
        if math.isnan(when):
            raise ValueError("a timer needs a time; this one is NaN")
        timer = Timer(self, when, callback, args)
        self.added += 1
        heappush(self.heap, (when, self.added, timer))
        return timer

    def next_due(self) -> float | None:
        """Return when the earliest live timer is due, or None where there is none."""
        heap = self.heap
        while heap and heap[0][2].callback is None:
            heappop(heap)
            self.cancelled -= 1
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
        """Take out what is due at `now`, earliest first, as (callback, args); those timers count as fired.

        A timer that an earlier callback of the same batch may want to cancel has fired already: whoever is woken twice
        must not mind, and a `Waiter` does not.
        """
        heap = self.heap
        due = []
        while heap and heap[0][0] <= now:
            timer = heappop(heap)[2]
            if timer.callback is None:
                self.cancelled -= 1
            else:
                due.append((timer.callback, timer.args))
                timer.callback = None
                timer.args = ()
        return due

    def clear(self) -> None:
        """Cancel all of them."""
        for _, _, timer in self.heap:
            timer.callback = None
            timer.args = ()
        self.heap.clear()
        self.cancelled = 0

    def compact(self) -> None:
        """Rebuild the heap without the cancelled ones, if they outnumber the live ones."""
        if self.cancelled * 2 > len(self.heap):
            # In place: pop_due may be iterating over this very list further up the stack.
            self.heap[:] = [entry for entry in self.heap if entry[2].callback is not None]
            heapify(self.heap)
            self.cancelled = 0
