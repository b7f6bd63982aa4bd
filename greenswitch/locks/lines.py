"""The waiting line beneath every lock and queue: who waits for one thing, first come, first served.

Knows waiters. Knows no lock, no queue, and nothing of what is given to those who wait.

How to build a primitive on it
==============================

There is no guard: OS threads, finalisers and signal handlers may do anything to the same primitive between any two
lines. What keeps it whole is an order, and it is the same for all:

1. Who wants something looks first, and takes it if it is there **and nobody stands in line** (no barging).
2. Else it stands in line *first*, and *then looks again*; only then does it park. `Line.wait` does that.
3. Who gives something gives it to the first in line (`give`, which returns False when there is nobody). Else it puts
   the thing down where all can see it *first*, and *then looks at the line again*, because of 2.

So either the one who waits sees the thing, or the one who gives sees the waiter. To take the thing must be one step
that nobody can come in between: a `deque.popleft()`, or one line that swaps (see `Semaphore._take`).

    def get(self, timeout=None):
        if not self._line and <take a thing>:
            return thing
        waiter = new_waiter("get", self)
        return self._line.wait(waiter, timeout, self._match)      # what was given, or TIMED_OUT

    def put(self, thing):
        if not self._line.give(thing):
            <put it down>
            if self._line:
                self._match()

    def _match(self):                                             # "look again", for both sides
        while self._line and <take a thing>:
            if not self._line.give(thing):
                <put it back>                                     # everybody has left; the loop looks again

A waiter that is killed or timed out leaves the line by itself. One that somebody has woken keeps what it was given,
even if it is killed in the same turn: the kill is kept for its next wait (see `Hub.interrupt`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from greenswitch.hub import TIMED_OUT, Awaited, Waiter


class Standing(Protocol):
    """What stands in line: a waiter, or whatever acts like one when its turn comes."""

    def wake(self, value: Any = None, /) -> bool:
        """Take `value` and go on; return False if it can't any more. It neither switches nor raises."""


class Line(deque[Any]):
    """Waiters (see `Standing`) in the order of their arrival. `len(line)` of them wait. Any thread may call any method.

    A deque, because its `append`, `popleft` and `remove` are single steps for threads, and call no Python code.
    """

    __slots__ = ()

    def wait(self, waiter: Waiter, timeout: float | None, look_again: Callable[[], object]) -> Any:
        """Stand in line and park until `waiter` gets something; return that, or TIMED_OUT after `timeout` seconds.

        `look_again` is called when the waiter stands in line, to give what came in between to the first in line (who
        may be this very waiter). It must not wait. A kill, a deadline or Ctrl-C raises. If that hits a waiter that has
        just been given something (Ctrl-C as it goes on), its `value` says so, and the caller must pass the thing on.
        """
        try:
            self.append(waiter)
            look_again()
        except BaseException:
            self.abandon(waiter)
            raise
        return self.stay(waiter, timeout)

    def stay(self, waiter: Waiter, timeout: float | None) -> Any:
        """Park a waiter that stands in line already; else as `wait`. For whoever looks and lines up in one step."""
        try:
            value = waiter.hub.park(waiter) if timeout is None else waiter.hub.wait(waiter, timeout)
        except BaseException:
            self.abandon(waiter)
            raise
        if value is TIMED_OUT:
            self.leave(waiter)
        return value

    def abandon(self, waiter: Waiter) -> None:
        """Take `waiter` out, and make sure that nobody wakes it any more."""
        waiter.cancel()
        self.leave(waiter)

    def leave(self, waiter: Standing) -> bool:
        """Take out `waiter`, which has been woken or cancelled; return False if it doesn't stand here any more."""
        try:
            self.remove(waiter)
        except ValueError:  # a giver has taken it out, finds that it can't be woken any more, and goes on to the next
            return False
        return True

    def give(self, thing: Any = True) -> bool:
        """Wake the first who still waits, with `thing`; return False if there is nobody. Never switches."""
        while self:
            try:
                waiter = self.popleft()
            except IndexError:  # another thread was faster
                break
            if waiter.wake(thing):
                return True
        return False

    def give_all(self, thing: Any = True) -> None:
        """Wake everybody who stands in line, with `thing`. Never switches."""
        while self.give(thing):
            pass

    @property
    def text(self) -> str:
        """How many wait, for the end of a repr."""
        return f", {len(self)} waiting" if self else ""

    def __repr__(self) -> str:
        return f"<Line: {len(self)} waiting>"


class WaitableLock(Awaited):
    """A lock that `greenswitch.wait` and `iwait` can wait for, among others.

    They are told when it is ready, and take nothing: a semaphore that is ready may have been taken by another when they
    come to it, so acquire it then with `blocking=False`.
    """

    __slots__ = ("__weakref__", "_line", "_links")

    def __init__(self) -> None:
        self._line = Line()
        self._links: list[Callable[[Any], Any]] = []

    def ready(self) -> bool:
        """Return whether one who asked now would not have to wait."""
        raise NotImplementedError

    def add_link(self, notify: Callable[[Any], Any]) -> None:
        """Have `notify(self)` called once it is ready, at once if it is; it neither switches nor raises."""
        self._links.append(notify)
        if self.ready():
            self._tell()

    def remove_link(self, notify: Callable[[Any], Any]) -> None:
        """Take `notify` back; one that isn't linked is no error."""
        try:
            self._links.remove(notify)
        except ValueError:
            pass

    def _tell(self) -> None:
        """Call the links there are now, each once. Whoever makes it ready does that last."""
        links = self._links
        for _ in range(len(links)):
            try:
                notify = links.pop(0)
            except IndexError:  # another thread was faster
                return
            notify(self)

    def _at_fork_reinit(self) -> None:
        """Forget, in a forked child, who waited in the parent: as the standard library's locks do."""
        self._line.clear()
        self._links.clear()
