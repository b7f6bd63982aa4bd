"""`Condition`: to wait, holding a lock, until somebody else who holds it says that something has changed.

Knows the line, and what the standard library's conditions ask of their lock, which may be any.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from greenswitch.hub import TIMED_OUT, Awaited, get_hub, new_waiter
from greenswitch.locks.lines import Line
from greenswitch.locks.mutexes import RLock, whatever_comes

Answer = TypeVar("Answer")
_HELD: Any = object()


class Condition(Awaited):
    """Tasks that hold a lock and wait until another, holding it, notifies them; as `threading.Condition`.

    `lock` may be any lock; without one it is a new RLock.
    """

    __slots__ = (
        *("__weakref__", "_acquire_restore", "_is_owned", "_line", "_lock", "_release_save", "acquire", "release"),
    )

    def __init__(self, lock: Any = None) -> None:
        self._lock = lock = RLock() if lock is None else lock
        self.acquire: Callable[..., bool] = lock.acquire
        self.release: Callable[[], None] = lock.release
        # As the standard library's conditions do: a lock may know a way of its own to be let go, and taken again.
        self._is_owned: Callable[[], bool] = getattr(lock, "_is_owned", partial(_is_held, lock))
        self._release_save: Callable[[], Any] = getattr(lock, "_release_save", lock.release)
        self._acquire_restore: Callable[[Any], Any] = getattr(lock, "_acquire_restore", partial(_acquire, lock))
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
        if not self._is_owned():
            raise self._not_owned("wait for")
        if timeout is not None:
            timeout = max(0.0, timeout)
        waiter = new_waiter("wait for", target)
        waiter.hub.check(waiter)
        line = self._line
        saved = _HELD
        try:
            # In line before the lock is let go: who notifies must hold it, so no notification falls in between.
            line.append(waiter)
            saved = self._release_save()
            return line.stay(waiter, timeout) is not TIMED_OUT
        except BaseException:
            line.abandon(waiter)
            if waiter.value is True:  # Ctrl-C came as it went on
                line.give()
            raise
        finally:
            if saved is not _HELD:
                whatever_comes(self._acquire_restore, saved)

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
        if not self._is_owned():
            raise self._not_owned("notify")
        line = self._line
        while n > 0 and line and line.give():
            n -= 1

    def notify_all(self) -> None:
        """Wake all who wait; each goes on when it has the lock. RuntimeError if the lock isn't held."""
        if not self._is_owned():
            raise self._not_owned("notify")
        self._line.give_all()

    def _not_owned(self, verb: str) -> RuntimeError:
        return RuntimeError(f"cannot {verb} un-acquired lock: take it first, `with condition:` ({self!r})")

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()
        self._line.clear()

    def lack(self, verb: str) -> str:
        return "nobody notifies it"

    def __repr__(self) -> str:
        return f"<Condition on {self._lock!r}, {len(self._line)} waiting>"


def _is_held(lock: Any) -> bool:
    """Return whether a lock that doesn't say so is held, as the standard library finds it out."""
    if lock.acquire(False):
        lock.release()
        return False
    return True


def _acquire(lock: Any, _: object) -> None:
    lock.acquire()
