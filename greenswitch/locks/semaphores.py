"""Permits to hand out: `Semaphore`, and `BoundedSemaphore`, which takes back no more than it had.

Knows the line. Knows no owner: whoever likes may give a permit back.
"""

from __future__ import annotations

from operator import index
from types import TracebackType

from greenswitch.hub import TIMED_OUT, new_waiter
from greenswitch.locks.lines import WaitableLock


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
        waiter = new_waiter("acquire", self)
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
