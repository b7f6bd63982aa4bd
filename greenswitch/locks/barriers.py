"""`Barrier`: a point where several wait for each other. It stands on a condition."""

from __future__ import annotations

from collections.abc import Callable
from threading import BrokenBarrierError

from greenswitch.hub import Awaited
from greenswitch.locks.conditions import Condition
from greenswitch.locks.mutexes import Lock


class _Round:
    """Those who come to a barrier together."""

    __slots__ = ("broken", "came", "freed", "passed")

    def __init__(self) -> None:
        self.came = 0
        self.freed: list[int] = []  # the places of those who were killed while they waited
        self.passed = False
        self.broken = False


class Barrier(Awaited):
    """A point where tasks wait until `parties` of them have come, then all go on; as `threading.Barrier`.

    The last to come calls `action()` first. Once somebody's time is over, or the action fails, the barrier is broken
    for all until it is `reset`. One that is killed while it waits just has not come.
    """

    __slots__ = ("__weakref__", "_action", "_condition", "_parties", "_round", "_timeout")

    def __init__(self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None) -> None:
        if parties < 1:
            raise ValueError("parties must be > 0")
        self._condition = Condition(Lock())
        self._parties = parties
        self._action = action
        self._timeout = timeout
        self._round = _Round()

    def wait(self, timeout: float | None = None) -> int:
        """Park until all have come; return a number from 0 to `parties` - 1, different for each. Not in the hub.

        Raises BrokenBarrierError when `timeout` seconds (default: the barrier's) are over, for one and all.
        """
        timeout = self._timeout if timeout is None else timeout
        with self._condition:
            this = self._round
            if this.broken:
                raise BrokenBarrierError(f"{self!r}: reset() it first")
            place = this.freed.pop() if this.freed else this.came
            this.came += 1
            if this.came == self._parties:
                self._pass(this)
            else:
                self._wait(this, place, timeout)
            return place

    def _pass(self, this: _Round) -> None:
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            self._break(this)
            raise
        this.passed = True
        self._round = _Round()
        self._condition.notify_all()

    def _wait(self, this: _Round, place: int, timeout: float | None) -> None:
        try:
            self._condition._wait_for(lambda: this.passed or this.broken, timeout, self)
        except BaseException:
            this.came -= 1
            this.freed.append(place)
            raise
        if not this.passed:
            if this.broken:
                raise BrokenBarrierError(f"{self!r}: somebody has reset or aborted it, or failed to come in time")
            self._break(this)
            missing = self._parties - this.came
            raise BrokenBarrierError(f"{missing} of {self._parties} did not come within {timeout} seconds")

    def _break(self, this: _Round) -> None:
        this.broken = True
        self._condition.notify_all()

    def reset(self) -> None:
        """Begin again: those who wait get BrokenBarrierError, those who come from now on don't."""
        with self._condition:
            self._break(self._round)
            self._round = _Round()

    def abort(self) -> None:
        """Break it: those who wait, and those who come until `reset`, get BrokenBarrierError."""
        with self._condition:
            self._break(self._round)

    @property
    def parties(self) -> int:
        """How many have to come."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many have come, and wait for the rest."""
        return 0 if self._round.broken else self._round.came

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return self._round.broken

    def lack(self, verb: str) -> str:
        missing = self._parties - self._round.came
        return f"{missing} more {'has' if missing == 1 else 'have'} to come"

    def __repr__(self) -> str:
        return f"<Barrier {'broken' if self.broken else f'{self.n_waiting} of {self._parties} here'}>"
