"""Deadlines by scope: a `with` block that is given up when its time has passed, and one that nobody may interrupt.

    with timeout(5):            # TimeoutError after 5 seconds, here and nowhere else
        ...
    with move_on_after(5) as scope:
        ...
    if scope.expired: ...       # the block was cut short
    with shield():              # kills and deadlines from outside come later
        ...

A deadline interrupts the block at a place where it waits, and only there: with a `Token`, a BaseException that belongs
to its scope alone, so that neither a nested scope nor an `except TimeoutError` further in can take it for its own. A
block that gets what it waited for before that has won, however late: its deadline is forgotten when it ends. A deadline
fires once; code that swallows the token (`except BaseException:` with no `raise`) goes on, and only `expired` tells.

Knows the hub and its timers. Knows no task, but that a deadline meant for a job must not strike the carrier's next one.
"""

from __future__ import annotations

import math
import sys
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import greenlet
from greenlet import getcurrent

from greenswitch.errors import DeadlockError, ScopeError
from greenswitch.hub import Hub, Job, Timer, describe, get_hub

_LEFT: Final = -1
_PASS: Final = (KeyboardInterrupt, SystemExit, DeadlockError)  # no shield is made against these


class Token(BaseException):
    """What interrupts the block of an expired deadline. It ends at that block's `with`; let it pass."""


_MET: Final = Token()


def timeout(seconds: float | None) -> Deadline:
    """Raise TimeoutError from the `with` block unless it ends within `seconds`.

    None: no deadline. 0 or less: given up at the first wait inside, while what needs no waiting is still done.
    `expired` says whether the block was interrupted. A scope is entered once, and left by the task that entered it:
    ScopeError.
    """
    scope = Deadline()
    scope.seconds = seconds
    scope._number = 0
    scope._token = scope._timer = None
    return scope


def move_on_after(seconds: float | None) -> Deadline:
    """Leave the `with` block quietly unless it ends within `seconds`; then `expired` is true. Else as `timeout`."""
    scope = _QuietDeadline()
    scope.seconds = seconds
    scope._number = 0
    scope._token = scope._timer = None
    return scope


class Deadline:
    """The scope that `timeout` and `move_on_after` make."""

    # A deadline around each `recv` may cost a tenth of it, so entering and leaving make no call they can do without,
    # and there is no `__init__`: calling a class that has one costs as much as all that it does.
    __slots__ = ("_greenlet", "_hub", "_job", "_number", "_timer", "_token", "_when", "seconds")

    made_by: ClassVar[str] = "timeout"

    seconds: float | None
    _number: int  # that of the newest timer when it was entered; _LEFT in the end
    _token: Token | None
    _timer: Timer | None  # when it is no longer young

    def __enter__(self) -> Self:
        if self._number:
            raise ScopeError(f"{self!r} has been entered before: make a new one for each `with`")
        current: Any = getcurrent()
        try:
            self._job: Job | None = current.job
            hub: Hub = current.hub
        except AttributeError:  # no carrier
            self._job = None
            hub = get_hub()
        self._greenlet: greenlet.greenlet = current
        self._hub = hub
        timers = hub.timers
        self._number = timers.added  # those entered before a shield have a smaller one than the shield
        seconds = self.seconds
        if seconds is not None and seconds > 0:
            clock = hub.clock  # two steps: a call of an attribute that is no method costs twice as much
            self._when = when = clock() + seconds
            timers.young[self] = None
            if when < timers.soonest:
                timers.soonest = when
        else:
            self._set(seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool | None:
        self._number = _LEFT
        if self._greenlet is getcurrent():
            try:
                del self._hub.timers.young[self]
            except KeyError:
                return self._leave(error)
            return None
        self._disarm()
        raise ScopeError(_stranger(self, self._greenlet))

    def _leave(self, error: BaseException | None) -> bool | None:
        token = self._token
        self._disarm()
        if token is None or self._token is None:
            return None
        self._token = _MET  # what the real one's traceback refers to shall not live as long as this scope
        return self._settle(token) if error is token else None

    def _settle(self, token: Token) -> bool | None:
        raise TimeoutError(f"the block was not done within {self.seconds} seconds") from token

    def _disarm(self) -> None:
        self._hub.timers.young.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._token is not None and self._hub.withdraw(self._greenlet, self._token):
            self._token = None

    def _set(self, seconds: float | None) -> None:
        if seconds is None:
            self._when = math.inf
            return
        if math.isnan(seconds):
            raise ValueError("a deadline needs a number of seconds; this one is NaN")
        self._when = self._hub.clock() + seconds
        if seconds > 0:
            timers = self._hub.timers
            timers.young[self] = None
            timers.soonest = min(timers.soonest, self._when)
        else:
            self._expire()

    def grow_old(self) -> None:
        """Become a timer. For the hub's timers."""
        self._timer = self._hub.timers.add_deadline(self._when, self._expire)

    def _expire(self) -> None:
        self._timer = None
        job = self._job
        if job is not None and job.carrier is not self._greenlet:
            return  # the task has ended without leaving the block, and its carrier runs another one
        self._token = Token(f"{self.seconds} seconds have passed; the deadline's own `with` block ends this")
        self._hub.interrupt(self._greenlet, self._token, self._number)

    @property
    def expired(self) -> bool:
        """True from the time of the deadline on; after a block that was faster than its interrupt, False again."""
        return self._token is not None

    @property
    def deadline(self) -> float | None:
        """When it expires or has expired, by the hub's clock, in seconds; None if never, and before it is entered."""
        return self._when if self._number and self._when < math.inf else None

    def reschedule(self, seconds: float | None) -> None:
        """Set the deadline anew, `seconds` from now; None takes it away.

        For the block itself and for other tasks of its thread. ScopeError outside the block, and once it has been
        interrupted.
        """
        if self._number <= 0:
            raise ScopeError(f"{self!r} has no deadline to move: that goes inside its `with` block only")
        self._disarm()
        if self._token is not None:
            raise ScopeError(f"{self!r} has interrupted its block already: there is no deadline left to move")
        self.seconds = seconds
        self._set(seconds)

    def cancel(self) -> None:
        """Take the deadline away. Once the block is interrupted, or over, this does nothing."""
        if self._number > 0:
            self._disarm()
            self._when = math.inf

    def __repr__(self) -> str:
        state = "not entered" if not self._number else "left" if self._number == _LEFT else "open"
        return f"<{self.made_by}({self.seconds}), {state}{', expired' if self.expired else ''}>"


class _QuietDeadline(Deadline):
    __slots__ = ()

    made_by = "move_on_after"

    def _settle(self, token: Token) -> bool | None:
        return True


class shield:
    """Let nobody interrupt the `with` block: kills, and deadlines that were set outside of it, come when it has ended.

    They are then met at the next wait. Deadlines set inside work, so give what might hang one: `with shield(),
    timeout(5):`. Ctrl-C passes. Entered once, and left by the task that entered it: ScopeError.
    """

    __slots__ = ("_greenlet", "_hub", "_kept", "_number", "_outer")

    def __init__(self) -> None:
        self._number = 0

    def __enter__(self) -> Self:
        if self._number:
            raise ScopeError(f"{self!r} has been entered before: make a new one for each `with`")
        self._hub = hub = get_hub()
        self._greenlet = current = getcurrent()
        hub.timers.added = self._number = hub.timers.added + 1
        self._outer: Any = hub.shields.get(current)
        # What is pending has passed the outer shields, so it shall pass them again.
        self._kept = [(error, sys.maxsize) for error in hub.withdraw(current)]
        hub.shields[current] = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._take_away()
        for kept, number in self._kept:
            self._hub.interrupt(self._greenlet, kept, number)
        self._kept.clear()
        if self._greenlet is not getcurrent():
            raise ScopeError(_stranger(self, self._greenlet))

    def _take_away(self) -> None:
        shields = self._hub.shields
        inner: Any = shields.get(self._greenlet)
        if inner is self:
            if self._outer is None:
                del shields[self._greenlet]
            else:
                shields[self._greenlet] = self._outer
            return
        while isinstance(inner, shield):  # left before one that was entered later
            if inner._outer is self:
                inner._outer = self._outer
            inner = inner._outer

    def postpone(self, error: BaseException, number: int) -> bool:
        """Keep an interrupt until the end of the block, unless its deadline was set inside. For the hub."""
        if number >= self._number or isinstance(error, _PASS):
            return False
        self._kept.append((error, number))
        return True

    def keeps(self, kind: type[BaseException]) -> bool:
        """Return whether an interrupt of this very class is postponed. For the hub."""
        kept = any(type(error) is kind for error, _ in self._kept)
        return kept or (self._outer is not None and self._outer.keeps(kind))

    def withdraw(self, error: BaseException) -> bool:
        """Forget a postponed interrupt; return False if there is none such. For the hub."""
        for position, (kept, _) in enumerate(self._kept):
            if kept is error:
                del self._kept[position]
                return True
        return self._outer is not None and self._outer.withdraw(error)

    def __repr__(self) -> str:
        return f"<shield {'not entered' if not self._number else f'of {describe(self._greenlet)}'}>"


class unswallowable(shield):
    """Raise again what has interrupted the `with` block from outside, if code in the block has swallowed it.

    For blocks whose inner code catches everything, as an event loop does. Interrupts come when they come. One that was
    swallowed is raised by `check()`, or else by the end of the block.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        super().__enter__()
        pending, self._kept = self._kept, []
        for error, number in pending:
            self._hub.interrupt(self._greenlet, error, number)
        return self

    def postpone(self, error: BaseException, number: int) -> bool:
        """Note an interrupt that comes from outside of the block. For the hub."""
        if number >= self._number or isinstance(error, _PASS):
            return False
        if self._outer is not None and self._outer.postpone(error, number):
            return True
        self._kept.append((error, number))
        return False

    def withdraw(self, error: BaseException) -> bool:
        """Forget an interrupt, which may still be pending. For the hub."""
        self._kept = [(kept, number) for kept, number in self._kept if kept is not error]
        return self._outer is not None and self._outer.withdraw(error)

    def check(self) -> None:
        """Raise an interrupt that was met in the block and swallowed. For the code that entered the block."""
        pending = self._hub.interrupts.get(self._greenlet, ())
        swallowed = [one for one in self._kept if not any(one[0] is other for other in pending)]
        self._kept = [one for one in self._kept if one not in swallowed]
        for error, number in swallowed[1:]:
            self._hub.interrupt(self._greenlet, error, number)
        if swallowed:
            raise swallowed[0][0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._take_away()
        if error is None:
            self.check()
        self._kept.clear()


def _stranger(scope: object, owner: greenlet.greenlet) -> str:
    return (
        f"{scope!r} was entered by {describe(owner)} and is left by {describe(getcurrent())}: a block must end where "
        "it began; a generator that yields inside of one may be finished by anybody"
    )
