"""Waiting as an object: who waits for what, to be woken once.

Knows which greenlet waits, and the ready queue that a woken one goes to. Knows nothing of who wakes it, or why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import greenlet
from greenlet import getcurrent

from greenswitch.hub.naming import brief

if TYPE_CHECKING:
    from greenswitch.hub.hub import Hub


class _TimedOut:
    def __repr__(self) -> str:
        return "TIMED_OUT"


TIMED_OUT: Final = _TimedOut()
"""What `Hub.wait` returns when the timeout woke the waiter."""


class Waiter:
    """One greenlet's one wait. Make it, hand it to whoever shall wake it, then `hub.park(waiter)`.

    `verb` and `target` say what is waited for, as in `read` of a registration or `join` of a task; they are only looked
    at when somebody asks who waits for what.
    """

    __slots__ = ("error", "greenlet", "hub", "target", "value", "verb")

    def __init__(self, hub: Hub, verb: str, target: object = None) -> None:
        self.hub = hub
        self.greenlet: greenlet.greenlet | None = getcurrent()
        self.verb = verb
        self.target = target
        self.value: Any = None
        self.error: BaseException | None = None

    def wake(self, value: Any = None) -> bool:
        """Have `park` return `value`; return False if it has been woken before, or has left. Any thread."""
        # Claiming is one line on purpose: between reading and clearing a slot the interpreter neither changes threads
        # nor runs signal handlers or finalisers (nor a tracing debugger's line hook), so just one of two wakers gets
        # the greenlet.
        claimed, self.greenlet = self.greenlet, None
        if claimed is None:
            return False
        self.value = value
        hub = self.hub
        hub.ready.append(claimed)
        if hub.asleep:
            hub.ring()
        return True

    def fail(self, error: BaseException) -> bool:
        """Have `park` raise `error`; return False if it has been woken before, or has left. Any thread."""
        claimed, self.greenlet = self.greenlet, None
        if claimed is None:
            return False
        self.error = error
        hub = self.hub
        hub.ready.append(claimed)
        if hub.asleep:
            hub.ring()
        return True

    def cancel(self) -> bool:
        """Make later wakes do nothing; return False if it has been woken before."""
        claimed, self.greenlet = self.greenlet, None
        return claimed is not None

    def take_error(self) -> BaseException:
        """Return what it was failed with and let go of it: kept here, the error's traceback would hold itself alive."""
        error, self.error = self.error, None
        assert error is not None
        return error

    @property
    def reason(self) -> str:
        """What is waited for, as text."""
        return self.verb if self.target is None else f"{self.verb} {brief(self.target)}"

    def __repr__(self) -> str:
        return f"<Waiter {'woken' if self.greenlet is None else 'live'}: {self.reason}>"


class BareWaiter(Waiter):
    """A waiter that `new_waiter` fills in: to call a class with an `__init__` in Python costs as much again."""

    __slots__ = ()

    __init__ = object.__init__


class OutsideWaiter(Waiter):
    """A waiter that something outside of the hub may wake: while one is parked, nobody speaks of a deadlock."""

    __slots__ = ()
