"""Things that happen once, for many to wait for: `Event` and `AsyncResult`.

Knows the line. Knows no owner: whoever likes may make it happen.

When it happens, the line that there is now is taken away and an empty one put in its place, in the same step: whoever
lines up after that waits for the next time. (An event may be cleared and waited for again, by other threads, while the
one who has set it is still busy waking people.) Who has looked before that step and lines up after it stands in a line
that has been taken away; so he looks again, and sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from greenlet import GreenletExit

from greenswitch.hub import TIMED_OUT, Awaited, new_waiter
from greenswitch.locks.lines import Line


class _Link:
    """Stands in line for one who waits for several things (`wait`, `iwait`): to wake it is to tell him."""

    __slots__ = ("happening", "notify")

    def __init__(self, happening: _Happening, notify: Callable[[Any], Any]) -> None:
        self.happening = happening
        self.notify = notify

    def wake(self, value: Any = None) -> bool:
        self.notify(self.happening)
        return True


class _Happening(Awaited):
    """What has happened or not, and the wait for it."""

    __slots__ = ("__weakref__", "_happened", "_line")

    def __init__(self) -> None:
        self._happened = False
        self._line = Line()

    def ready(self) -> bool:
        """Return whether it has happened."""
        return self._happened

    def wait(self, timeout: float | None = None) -> Any:
        """Park until it happens, at most `timeout` seconds; return False if that came first. Not in the hub.

        Who has been woken returns True, even if it was undone (`Event.clear`) before he could go on.
        """
        if self._happened:
            return True
        if timeout is not None and timeout <= 0:
            return False
        # This is Line.stay, written out: half of the time of an event that is waited for goes into calls.
        waiter = new_waiter("wait for", self)
        line = self._line
        try:
            # Looking and lining up are one step, from `self._line` on: nobody comes between them (see Waiter.wake).
            if self._happened or line.append(waiter):  # type: ignore[func-returns-value, redundant-expr]
                return True  # type: ignore[unreachable]
            value = waiter.hub.park(waiter) if timeout is None else waiter.hub.wait(waiter, timeout)
        except BaseException:
            line.abandon(waiter)
            raise
        if value is TIMED_OUT:
            line.leave(waiter)
            return False
        return True

    def _happen(self) -> None:
        empty = Line()
        # One line on purpose, as in Waiter.wake: nobody looks or lines up in the midst of it.
        line, self._line, self._happened = self._line, empty, True
        if line:
            line.give_all()

    def add_link(self, notify: Callable[[Any], Any]) -> None:
        """Have `notify(self)` called once it happens, at once if it has; it neither switches nor raises."""
        link = _Link(self, notify)
        line = self._line
        line.append(link)
        if (self._happened or self._line is not line) and line.leave(link):
            notify(self)

    def remove_link(self, notify: Callable[[Any], Any]) -> None:
        """Take `notify` back; one that isn't linked is no error."""
        line = self._line
        for link in list(line):
            if isinstance(link, _Link) and link.notify == notify:
                line.leave(link)
                break

    def lack(self, verb: str) -> str:
        return "nobody sets it"

    def _at_fork_reinit(self) -> None:
        """Forget, in a forked child, who waited in the parent: as the standard library's events do."""
        self._line.clear()
        self._happened = False


class Event(_Happening):
    """A flag to wait for, as `threading.Event`.

    >>> event = Event()
    >>> event.wait(timeout=0)
    False
    >>> event.set()
    >>> event.wait()
    True
    """

    __slots__ = ("_spare",)

    def __init__(self) -> None:
        super().__init__()
        self._spare: Line | None = None

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._happened

    def set(self) -> None:
        """Set it, and wake all who wait. Never switches; anywhere, any thread."""
        # As _happen and Line.give_all do, for the price of three calls less: the line that the last one has emptied
        # serves again. (Who still lines up in it, for having looked before that, looks again as ever.)
        empty, self._spare = self._spare, None
        if empty is None:
            empty = Line()
        line, self._line, self._happened = self._line, empty, True
        while line:
            try:
                waiter = line.popleft()
            except IndexError:  # another thread was faster
                break
            waiter.wake(True)
        self._spare = line

    def clear(self) -> None:
        """Have those who come from now on wait again. Never switches; anywhere, any thread."""
        self._happened = False

    def __repr__(self) -> str:
        return f"<Event {'set' if self._happened else 'not set'}{self._line.text}>"


class Outcome(Protocol):
    """What an `AsyncResult` takes over when it is called: tasks, other results."""

    def successful(self) -> bool:
        """Return whether there is a value."""

    @property
    def value(self) -> Any:
        """The value, if it was successful."""

    @property
    def exception(self) -> BaseException | None:
        """What it failed with; None for one that was killed."""


class AsyncResult(_Happening):
    """A value or an exception that somebody will set, as `gevent.event.AsyncResult`.

    >>> result = AsyncResult()
    >>> result.set(7)
    >>> result.get()
    7

    Calling it takes over a task's outcome, so it can be a link: `task.link(result)`.
    """

    __slots__ = ("_error", "_traceback", "_value")

    def __init__(self) -> None:
        super().__init__()
        self._value: Any = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None

    @property
    def value(self) -> Any:
        """The value; None until it is set, and if an exception was."""
        return self._value

    @property
    def exception(self) -> BaseException | None:
        """The exception, if one was set."""
        return self._error

    def successful(self) -> bool:
        """Return whether a value has been set."""
        return self._happened and self._error is None

    def set(self, value: Any = None) -> None:
        """Set the value, and wake all who wait. Never switches; anywhere, any thread. Setting again replaces it."""
        self._value, self._error = value, None
        self._happen()

    def set_exception(self, exception: BaseException) -> None:
        """Have `get` raise `exception`, and wake all who wait. Never switches; anywhere, any thread."""
        if not isinstance(exception, BaseException):
            raise TypeError(f"set_exception needs an exception, not {exception!r}")
        self._value, self._error, self._traceback = None, exception, exception.__traceback__
        self._happen()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Park until it is set; return the value or raise the exception. Not in the hub, unless it is set already.

        Raises TimeoutError after `timeout` seconds, or at once with `block=False`.
        """
        if not self._happened:
            if not block:
                raise TimeoutError(f"{self!r} has nothing to get yet")
            if not super().wait(timeout):
                raise TimeoutError(f"{self!r} has been set by nobody within {timeout} seconds")
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)  # no call adds to what the next one shows
        return self._value

    def get_nowait(self) -> Any:
        """Return the value or raise the exception; TimeoutError if there is none yet. Never switches."""
        return self.get(block=False)

    def wait(self, timeout: float | None = None) -> Any:
        """Park until it is set, at most `timeout` seconds; return the value, None if there is none. Not in the hub."""
        super().wait(timeout)
        return self._value

    def __call__(self, source: Outcome) -> None:
        """Take over the outcome of `source`; one that was killed counts as GreenletExit."""
        if source.successful():
            self.set(source.value)
        else:
            self.set_exception(source.exception or GreenletExit())

    def __repr__(self) -> str:
        if not self._happened:
            return f"<AsyncResult not set{self._line.text}>"
        return f"<AsyncResult {f'value {self._value!r}' if self._error is None else f'exception {self._error!r}'}>"
