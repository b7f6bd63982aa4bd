"""The twin of the standard library's `select`: select, poll and epoll park the task instead of blocking the thread.

Each looks first, by the original with a timeout of 0, so results and errors are the original's; only when nothing is
ready does it wait, by `greenswitch.descriptors`. Any number of tasks may wait for the same descriptor. `devpoll` and
`kqueue` are the originals.

Knows the standard library's `select`. Knows no task.
"""

from __future__ import annotations

import select as original
from collections.abc import Sequence
from operator import index
from select import select as _select
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from greenswitch.descriptors import breathe, forget, until_ready, wait_for
from greenswitch.green import rest_of
from greenswitch.hub import READ, WRITE, current_hub, get_hub

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

REPLACED: tuple[str, ...] = ("select",)

_PRI = 0x002
_LONGEST = 2.0**63 / 1e9  # seconds; the original counts nanoseconds in 64 bits
_INT_MAX = 2**31 - 1


def select(
    rlist: Sequence[Any], wlist: Sequence[Any], xlist: Sequence[Any], timeout: float | None = None, /
) -> tuple[list[Any], list[Any], list[Any]]:
    """Park until something is ready, as `select.select`; `timeout` in seconds. In a thread without a hub, block."""
    r, w, x = (one if isinstance(one, (list, tuple)) else list(one) for one in (rlist, wlist, xlist))
    seconds = _number(timeout, "timeout must be a float or None")
    if seconds is not None and seconds < 0:
        raise ValueError("timeout must be non-negative")
    if current_hub() is None or seconds == 0:
        return _select(r, w, x, timeout)

    def look() -> tuple[list[Any], list[Any], list[Any]] | None:
        ready = _select(r, w, x, 0)
        return ready if any(ready) else None

    breathe()
    return look() or until_ready(look, _wanted(r, w, x), _deadline(seconds), "select") or ([], [], [])


def _wanted(rlist: Sequence[Any], wlist: Sequence[Any], xlist: Sequence[Any]) -> dict[int, int]:
    events: dict[int, int] = {}
    for bit, files in ((READ, rlist), (WRITE, wlist), (_PRI, xlist)):
        for file in files:
            fd = _fd(file)
            events[fd] = events.get(fd, 0) | bit
    return events


def _number(timeout: Any, complaint: str) -> float | None:
    """Return a timeout as a float, or raise what the original raises for it."""
    if timeout is None:
        return None
    try:
        seconds = float(timeout if isinstance(timeout, float) else index(timeout))
    except TypeError:
        raise TypeError(complaint) from None
    if seconds != seconds:
        raise ValueError("Invalid value NaN (not a number)")
    if abs(seconds) >= _LONGEST:
        raise OverflowError("timestamp too large to convert to C PyTime_t")
    return seconds


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else get_hub().clock() + seconds


if hasattr(original, "poll"):
    from select import poll as _poll

    REPLACED += ("poll",)

    class PollObject:
        """What `poll()` returns: as the original's, and its `poll` parks."""

        __slots__ = ("_busy", "_events", "_poll")

        _busy: bool
        _events: dict[int, int]
        _poll: original.poll

        def __new__(cls) -> Self:
            raise TypeError(f"cannot create '{cls.__module__}.{cls.__name__}' instances")

        def register(self, fd: FileDescriptorLike, eventmask: int = READ | WRITE | _PRI, /) -> None:
            """As the original's `register`."""
            self._poll.register(fd, eventmask)
            self._events[_fd(fd)] = eventmask

        def modify(self, fd: FileDescriptorLike, eventmask: int, /) -> None:
            """As the original's `modify`."""
            self._poll.modify(fd, eventmask)
            self._events[_fd(fd)] = eventmask

        def unregister(self, fd: FileDescriptorLike, /) -> None:
            """As the original's `unregister`."""
            self._poll.unregister(fd)
            self._events.pop(_fd(fd), None)

        def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
            """Park until something is ready, at most `timeout` milliseconds; None or less than 0: no limit.

            In a thread without a hub, block. Raises RuntimeError, as the original, while another task polls it.
            """
            milliseconds = _number(timeout, "timeout must be an integer or None")
            if milliseconds is not None and milliseconds > _INT_MAX:
                raise OverflowError("timeout is too large")
            if self._busy:
                raise RuntimeError("concurrent poll() invocation")
            if current_hub() is None or milliseconds == 0:
                return self._poll.poll(timeout)
            breathe()
            self._busy = True
            try:
                seconds = None if milliseconds is None or milliseconds < 0 else milliseconds / 1000
                return self._look() or until_ready(self._look, dict(self._events), _deadline(seconds), "poll")
            finally:
                self._busy = False

        def _look(self) -> list[tuple[int, int]]:
            return self._poll.poll(0)

    def poll() -> PollObject:
        """Return a new polling object, as `select.poll`."""
        made = object.__new__(PollObject)
        made._poll, made._events, made._busy = _poll(), {}, False
        return made


def _fd(file: FileDescriptorLike) -> int:
    return file if isinstance(file, int) else file.fileno()


if hasattr(original, "epoll"):
    from select import epoll as _epoll

    REPLACED += ("epoll",)
    _DEFAULT_MASK = original.EPOLLIN | original.EPOLLOUT | original.EPOLLPRI

    class epoll:
        """As `select.epoll`, and `poll` parks. The system's object is made when it is first needed."""

        def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
            if sizehint != -1 and sizehint <= 0:
                raise ValueError("negative sizehint")
            if flags & ~original.EPOLL_CLOEXEC:
                raise OSError(22, "Invalid argument")
            self._made: original.epoll | None = None
            self._is_closed = False

        @classmethod
        def fromfd(cls, fd: int, /) -> Self:
            """Return one for an epoll object's file descriptor, as `select.epoll.fromfd`."""
            self = cls()
            self._made = _epoll.fromfd(fd)
            return self

        @property
        def _epoll(self) -> original.epoll:
            if self._made is None:
                if self._is_closed:
                    raise ValueError("I/O operation on closed epoll object")
                self._made = _epoll()
            return self._made

        @property
        def closed(self) -> bool:
            """True once it is closed."""
            return self._is_closed

        def fileno(self) -> int:
            """Return its file descriptor, which becomes readable when something registered is ready."""
            return self._epoll.fileno()

        def register(self, fd: FileDescriptorLike, eventmask: int = _DEFAULT_MASK) -> None:
            """As `select.epoll.register`."""
            self._epoll.register(fd, eventmask)

        def modify(self, fd: FileDescriptorLike, eventmask: int) -> None:
            """As `select.epoll.modify`."""
            self._epoll.modify(fd, eventmask)

        def unregister(self, fd: FileDescriptorLike) -> None:
            """As `select.epoll.unregister`."""
            self._epoll.unregister(fd)

        def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
            """Park until something is ready, at most `timeout` seconds; None or less than 0: no limit.

            In a thread without a hub, block. Raises OSError(EBADF) if it is closed meanwhile.
            """
            asked = self._epoll
            if timeout == 0 or current_hub() is None:
                return asked.poll(timeout, maxevents)
            seconds = _number(timeout, "timeout must be an integer or None")
            breathe()
            deadline = None if seconds is None or seconds < 0 else _deadline(seconds)
            while True:
                ready = asked.poll(0, maxevents)
                if ready:
                    return ready
                left = None if deadline is None else deadline - get_hub().clock()
                if (left is not None and left <= 0) or not wait_for(asked.fileno(), READ, left):
                    return asked.poll(0, maxevents)

        def close(self) -> None:
            """As `select.epoll.close`; whoever polls gets OSError(EBADF). Closing twice does nothing."""
            made, self._made, self._is_closed = self._made, None, True
            if made is not None and not made.closed:
                forget(made.fileno())
                made.close()

        def __enter__(self) -> Self:
            self._epoll  # noqa: B018  # raises if it is closed
            return self

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
        ) -> None:
            self.close()


__all__ = [name for name in dir(original) if not name.startswith("_")]

__getattr__, __dir__ = rest_of(original, globals())
