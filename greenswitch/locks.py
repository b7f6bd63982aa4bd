"""Locks: how tasks wait for each other. The standard library's names and signatures (`AsyncResult`: gevent's).

Each is first come, first served: what is let go is handed to the first in line, and nobody who comes later takes it
before him. Each works between the tasks of one hub, between hubs in several OS threads, and with threads that have no
hub (one that has to wait gets a hub by it). `acquire(blocking=False)`, `release`, `set`, `is_set` and `locked` never
switch, and may be called anywhere: in the hub, in a finaliser, in a signal handler.

Knows the line (`greenswitch.lines`), and who runs: a lock's owner is a task, or the greenlet where there is no task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import index
from threading import TIMEOUT_MAX, BrokenBarrierError
from types import TracebackType
from typing import Any, TypeVar

import greenlet

from greenswitch.errors import GreenswitchError
from greenswitch.events import AsyncResult, Event
from greenswitch.hub import TIMED_OUT, Awaited, Waiter, brief, describe, get_hub, new_waiter
from greenswitch.lines import Line, WaitableLock
from greenswitch.tasks import Task, getcurrent

__all__ = [
    "AsyncResult",
    "Barrier",
    "BoundedSemaphore",
    "BrokenBarrierError",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "Semaphore",
]

_GIVEN = object()
Answer = TypeVar("Answer")


class Lock(WaitableLock):
    """A lock that anybody may release, as `threading.Lock`.

    >>> lock = Lock()
    >>> with lock:
    ...     lock
    <Lock held by main greenlet>
    >>> lock
    <Lock free>
    """

    # `_owner` is the whole state. It goes straight from one owner to the next, so that nobody barges in between, and a
    # finaliser that interrupts us anywhere finds either of them, never a lock on its way.
    __slots__ = ("_owner",)

    def __init__(self) -> None:
        super().__init__()
        self._owner: Any = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; park until it is free, at most `timeout` seconds; return whether it was. Not in the hub.

        With `blocking=False` never wait: that may be called anywhere.
        """
        if timeout != -1:
            _check(blocking, timeout)
        me = getcurrent()
        if not self._line and self._take(me):
            return True
        if not blocking or timeout == 0:
            return False
        return self._wait(me, timeout)

    __enter__ = acquire

    def release(self) -> None:
        """Hand the lock to the first in line, or set it free. Never switches; anywhere, any thread.

        RuntimeError if nobody holds it.
        """
        if self._owner is None:
            raise RuntimeError(f"release unlocked lock: {_name(getcurrent())} releases {self!r}, which nobody holds")
        self._pass_on()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def locked(self) -> bool:
        """Return whether somebody holds it."""
        return self._owner is not None

    def ready(self) -> bool:
        """Return whether it is free."""
        return self._owner is None

    def _take(self, me: Any) -> bool:
        # One line on purpose, as in Waiter.wake: nobody comes between looking and taking.
        before, self._owner = self._owner, me if self._owner is None else self._owner
        return before is None

    def _wait(self, me: Any, timeout: float) -> bool:
        # This is Line.wait, written out: half of the time of a lock that is waited for goes into calls.
        line = self._line
        waiter = new_waiter("acquire", self)
        hub = waiter.hub
        waiter.value = me  # until it is woken: for _hand_over
        try:
            line.append(waiter)
            if self._owner is None and self._take(me):
                self._pass_on()
            value = hub.park(waiter) if timeout == -1 else hub.wait(waiter, timeout)
        except BaseException:
            line.abandon(waiter)
            if waiter.value is _GIVEN:  # Ctrl-C came as it went on with the lock
                self._pass_on()
            raise
        if value is TIMED_OUT:
            line.leave(waiter)
            return False
        return True

    def _pass_on(self) -> None:
        """Hand it over or set it free; whoever calls this holds it until then."""
        line = self._line
        while not (line and self._hand_over()):
            self._owner = None
            # Who lined up after we had looked, and before it was free, has seen neither.
            if not line or not self._take(getcurrent()):
                break
        if self._links and self._owner is None:
            self._tell()

    def _hand_over(self) -> bool:
        """Make the first who still waits the owner, and wake him; return False if there is nobody."""
        line = self._line
        while line:
            try:
                waiter = line.popleft()
            except IndexError:  # another thread was faster
                break
            # This is Waiter.wake with one step more, the change of owners. No call stands between claiming the greenlet
            # and queueing it, so nobody (no thread, finaliser or signal handler) finds a lock that is on its way.
            claimed, waiter.greenlet = waiter.greenlet, None
            if claimed is not None:
                self._owner = waiter.value
                waiter.value = _GIVEN
                hub = waiter.hub
                hub.ready.append(claimed)
                if hub.asleep:
                    hub.ring()
                return True
        return False

    def _at_fork_reinit(self) -> None:
        super()._at_fork_reinit()
        self._owner = None

    def keepers(self) -> Iterable[object]:
        return () if self._owner is None else (self._owner,)

    def lack(self, verb: str) -> str:
        owner = self._owner
        return f"{brief(owner)} has ended and has not released it" if owner is not None and owner.dead else ""

    def _times(self) -> str:
        return ""

    @property
    def text(self) -> str:
        """Who holds it and how many wait, for a repr."""
        owner = self._owner
        state = "free" if owner is None else f"held by {_name(owner)}{self._times()}"
        return f"{state}{self._line.text}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.text}>"


class RLock(Lock):
    """A lock that its owner may take again, and only its owner release, as `threading.RLock`.

    >>> lock = RLock()
    >>> with lock, lock:
    ...     lock
    <RLock held by main greenlet, 2 times>
    """

    # Beyond the first acquisition. 0 whenever the lock changes owners; only the owner changes it.
    __slots__ = ("_again",)

    def __init__(self) -> None:
        super().__init__()
        self._again = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, at once if it is yours already; otherwise as `Lock.acquire`."""
        if self._owner is getcurrent():
            if timeout != -1:
                _check(blocking, timeout)
            self._again += 1
            return True
        return super().acquire(blocking, timeout)

    __enter__ = acquire

    def release(self) -> None:
        """Undo one `acquire`; the last one hands the lock on, or sets it free. Never switches.

        RuntimeError if you don't hold it.
        """
        me = getcurrent()
        if self._owner is not me:
            raise RuntimeError(f"cannot release un-acquired lock: {_name(me)} releases {self!r}")
        if self._again:
            self._again -= 1
        else:
            self._pass_on()

    def _at_fork_reinit(self) -> None:
        super()._at_fork_reinit()
        self._again = 0

    # What threading.Condition, and ours, ask of a lock that may be held several times.

    def _is_owned(self) -> bool:
        return self._owner is getcurrent()

    def _release_save(self) -> int:
        if self._owner is not getcurrent():
            raise RuntimeError(f"cannot release un-acquired lock: {_name(getcurrent())} releases {self!r}")
        again, self._again = self._again, 0
        self._pass_on()
        return again

    def _acquire_restore(self, again: int) -> None:
        super().acquire()
        self._again = again

    def _recursion_count(self) -> int:
        return self._again + 1 if self._is_owned() else 0

    def _times(self) -> str:
        return f", {self._again + 1} times" if self._again else ""


class Semaphore(WaitableLock):
    """`value` permits, as `threading.Semaphore`.

    >>> free = Semaphore(2)
    >>> with free:
    ...     free
    <Semaphore 1 free>
    """

    __slots__ = ("_value",)

    def __init__(self, value: int = 1) -> None:
        super().__init__()
        self._value = index(value)
        if self._value < 0:
            raise ValueError(f"semaphore initial value must be >= 0, not {value}")

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a permit; park until there is one, at most `timeout` seconds; return whether there was. Not in the hub.

        With `blocking=False` never wait: that may be called anywhere.
        """
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        if not self._line and self._take():
            return True
        if not blocking or (timeout is not None and timeout <= 0):
            return False
        waiter = Waiter(get_hub(), "acquire", self)
        try:
            return self._line.wait(waiter, timeout, self._match) is not TIMED_OUT
        except BaseException:
            if waiter.value is True:  # Ctrl-C came as it went on with the permit
                self._put_back()
            raise

    __enter__ = acquire

    def release(self, n: int = 1) -> None:
        """Give back `n` permits, each to the first in line. Never switches; anywhere, any thread."""
        if n < 1:
            raise ValueError("n must be one or more")
        for _ in range(n):
            self._put_back()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def locked(self) -> bool:
        """Return whether one who asked now would have to wait."""
        return self._value == 0 or bool(self._line)

    def ready(self) -> bool:
        """Return whether one who asked now would not have to wait."""
        return not self.locked()

    @property
    def value(self) -> int:
        """How many permits are free."""
        return self._value

    def _take(self) -> bool:
        # One line on purpose, as in Waiter.wake: nobody comes between looking and taking.
        before, self._value = self._value, self._value - (self._value > 0)
        return before > 0

    def _put_back(self) -> None:
        if self._line and self._line.give():
            return
        self._value += 1
        if self._line:
            self._match()
        if self._links and not self.locked():
            self._tell()

    def _match(self) -> None:
        """Bring those who wait and the permits that are free together, as long as there are both."""
        while self._line and self._take():
            if not self._line.give():
                self._value += 1

    def lack(self, verb: str) -> str:
        return "nobody releases it"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._value or 'none'} free{self._line.text}>"


class BoundedSemaphore(Semaphore):
    """A semaphore that refuses to be given more permits than it had at first, as `threading.BoundedSemaphore`."""

    __slots__ = ("_initial_value",)

    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self._initial_value = self._value

    def release(self, n: int = 1) -> None:
        """Give back `n` permits. ValueError, and nothing is given, if more would be free than there were at first."""
        if self._value + n > self._initial_value:
            raise ValueError(f"released too many times: {self!r} of {self._initial_value}")
        super().release(n)


class Condition(Awaited):
    """Tasks that hold a lock and wait until another, holding it, notifies them; as `threading.Condition`.

    `lock` may be any lock; without one it is a new RLock.
    """

    __slots__ = ("__weakref__", "_line", "_lock", "acquire", "release")

    def __init__(self, lock: Any = None) -> None:
        self._lock = RLock() if lock is None else lock
        self.acquire: Callable[..., bool] = self._lock.acquire
        self.release: Callable[[], None] = self._lock.release
        self._line = Line()

    def __enter__(self) -> bool:
        return bool(self._lock.__enter__())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.__exit__(kind, error, at)

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, park until notified, at most `timeout` seconds, and take the lock again.

        Return False if the time came first. RuntimeError if the lock isn't held. A kill or a deadline raises here, with
        the lock held again; one that arrives while the lock is taken again is kept for the next wait. Not in the hub.
        """
        return self._wait(timeout, self)

    def _wait(self, timeout: float | None, target: object) -> bool:
        self._must_own("wait for")
        if timeout is not None:
            timeout = max(0.0, timeout)
        hub = get_hub()
        waiter = Waiter(hub, "wait for", target)
        hub.check(waiter)
        saved: list[Any] = []
        try:
            # In line before the lock is let go: who notifies must hold it, so no notification falls in between.
            return self._line.wait(waiter, timeout, lambda: saved.append(self._let_go())) is not TIMED_OUT
        except BaseException:
            if waiter.value is True:  # Ctrl-C came as it went on
                self._line.give()
            raise
        finally:
            if saved:
                self._take_again(saved[0])

    def wait_for(self, predicate: Callable[[], Answer], timeout: float | None = None) -> Answer:
        """Wait until `predicate()` is true, at most `timeout` seconds; return what it returned last."""
        return self._wait_for(predicate, timeout, self)

    def _wait_for(self, predicate: Callable[[], Answer], timeout: float | None, target: object) -> Answer:
        answer = predicate()
        if timeout is None:
            while not answer:
                self._wait(None, target)
                answer = predicate()
            return answer
        clock = get_hub().clock
        deadline = clock() + timeout
        while not answer and (left := deadline - clock()) > 0:
            self._wait(left, target)
            answer = predicate()
        return answer

    def notify(self, n: int = 1) -> None:
        """Wake the `n` first who wait; each goes on when it has the lock. RuntimeError if the lock isn't held."""
        self._must_own("notify")
        for _ in range(n):
            if not self._line.give():
                break

    def notify_all(self) -> None:
        """Wake all who wait; each goes on when it has the lock. RuntimeError if the lock isn't held."""
        self._must_own("notify")
        self._line.give_all()

    def _must_own(self, verb: str) -> None:
        lock = self._lock
        if hasattr(lock, "_is_owned"):
            owned = lock._is_owned()
        else:  # as the standard library finds it out
            owned = not lock.acquire(False)
            if not owned:
                lock.release()
        if not owned:
            raise RuntimeError(f"cannot {verb} un-acquired lock: take it first, `with condition:` ({self!r})")

    def _let_go(self) -> Any:
        lock = self._lock
        return lock._release_save() if hasattr(lock, "_release_save") else lock.release()

    def _take_again(self, saved: Any) -> None:
        lock = self._lock
        if hasattr(lock, "_acquire_restore"):
            whatever_comes(lock._acquire_restore, saved)
        else:
            whatever_comes(lock.acquire)

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()
        self._line.clear()

    def lack(self, verb: str) -> str:
        return "nobody notifies it"

    def __repr__(self) -> str:
        return f"<Condition on {self._lock!r}, {len(self._line)} waiting>"


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


def whatever_comes(acquire: Callable[..., object], *args: Any) -> None:
    """Take a lock that the caller's `with` will release: what would interrupt that is kept for the next wait."""
    late: list[BaseException] = []
    while True:
        try:
            acquire(*args)
            break
        except GreenswitchError:  # a deadlock, a closed hub: there is no use in trying again
            raise
        except BaseException as error:
            late.append(error)
    for kept in late:
        get_hub().interrupt(greenlet.getcurrent(), kept)


def _check(blocking: bool, timeout: float) -> None:
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if not timeout >= 0:
        raise ValueError(f"timeout value must be a non-negative number, not {timeout!r}")
    if timeout > TIMEOUT_MAX:
        raise OverflowError(f"timeout value is too large: {timeout!r}")


def _name(owner: Any) -> str:
    """Return how to call an owner in a message."""
    if isinstance(owner, Task):
        return f"{owner.label}, which has ended" if owner.dead else owner.label
    if owner.parent is None and owner is not _main():
        return f"{describe(owner)} of another thread"
    return describe(owner)


def _main() -> greenlet.greenlet:
    current = greenlet.getcurrent()
    while current.parent is not None:
        current = current.parent
    return current
