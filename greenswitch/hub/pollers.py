"""Asking the kernel which file descriptors are ready: the four verbs a hub needs, and two ways to say them.

Knows file descriptors and event bits. Knows no greenlet, no hub, no clock.

`EpollPoller` keeps a file descriptor registered for both directions, edge-triggered, for as long as it is open:
waiting on it again costs no system call. `SelectorPoller` stands on the standard library's `selectors` (so on select,
poll, kqueue, /dev/poll and epoll) and is told at each wait what to look for. Which of the two a poller is, it says by
`keeps`.
"""

from __future__ import annotations

import os
import select
import selectors
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

# The bits of <sys/epoll.h>, so that what epoll returns needs no translation. Other pollers speak them too.
READ = 0x001
WRITE = 0x004
_PRI = 0x002
_RDHUP = 0x2000
HANGUP = _PRI | 0x008 | 0x010 | _RDHUP  # urgent data, ERR, HUP, RDHUP: both directions must look again

_EDGE = 1 << 31
_MAX_SLEEP = 86_400.0  # seconds; the kernel's timeouts are small integers, and a hub may well wake once a day
_FD_SETSIZE = 1024

_epoll: Any = getattr(select, "epoll", None)  # the original, also after monkey patching

_SELECTORS: dict[str, type[selectors.BaseSelector]] = {}
"""The standard library's selectors, best first. The hub's own: monkey patching changes what the originals call."""
for _name in ("epoll", "kqueue", "devpoll", "poll", "select"):
    _kind = getattr(selectors, f"{_name.capitalize()}Selector", None)
    if _kind is not None:
        _kept = {name: value for name, value in vars(_kind).items() if name in ("_selector_cls", "_select")}
        _SELECTORS[_name] = type(_kind.__name__, (_kind,), _kept)


class Poller(Protocol):
    """What a hub asks of its poller. Only the hub's thread calls it, but for `unregister`, which any thread may."""

    keeps: bool
    """True: `register` once and every later change is reported (edge-triggered). False: `arm` before each wait."""

    def register(self, fd: int) -> None:
        """Report every change of `fd`, both directions, until `unregister`. Only asked of a poller that `keeps`."""

    def arm(self, fd: int, events: int) -> None:
        """Report `events` of `fd` from now on, also if they are there already; 0 stops the reports.

        Raises PermissionError for an fd that is always ready (a regular file), OSError(EBADF) for a closed one.
        """

    def unregister(self, fd: int) -> None:
        """Forget `fd`; one that is unknown or closed is no error."""

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most `timeout` seconds (None: for ever, 0: not at all) and return (fd, events) pairs. Never early."""

    def close(self) -> None:
        """Give back what the poller holds. Registered fds stay open."""


class EpollPoller:
    """Linux's epoll, edge-triggered, registrations kept."""

    keeps = True

    def __init__(self) -> None:
        self._epoll: select.epoll = _epoll()

    def __repr__(self) -> str:
        return "<EpollPoller closed>" if self._epoll.closed else f"<EpollPoller fd={self._epoll.fileno()}>"

    def fileno(self) -> int:
        """Return the fd that becomes readable when anything registered does."""
        return self._epoll.fileno()

    def register(self, fd: int) -> None:
        mask = READ | WRITE | _PRI | _RDHUP | _EDGE
        try:
            self._epoll.register(fd, mask)
        except FileExistsError:
            self._epoll.modify(fd, mask)

    def arm(self, fd: int, events: int) -> None:
        if not events:
            self.unregister(fd)
            return
        # MOD first: it reports what is there already, and a foreign fd mostly is known from its last wait.
        mask = events | _RDHUP | _EDGE
        try:
            self._epoll.modify(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)

    def unregister(self, fd: int) -> None:
        # OSError: closed before us; the kernel has forgotten it. ValueError: negative, or the epoll itself is closed.
        with suppress(OSError, ValueError):
            self._epoll.unregister(fd)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        if timeout is None:
            return self._epoll.poll(-1)
        return self._epoll.poll(timeout if timeout < _MAX_SLEEP else _MAX_SLEEP)

    def close(self) -> None:
        self._epoll.close()


class SelectorPoller:
    """Any selector of the standard library: `SelectorPoller(selectors.SelectSelector())`. Level-triggered."""

    keeps = False

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = next(iter(_SELECTORS.values()))() if selector is None else selector
        self._limit = _FD_SETSIZE if isinstance(self._selector, selectors.SelectSelector) and os.name != "nt" else None

    def __repr__(self) -> str:
        return f"<SelectorPoller over {type(self._selector).__name__}>"

    def register(self, fd: int) -> None:
        raise NotImplementedError(f"{self!r} keeps no registration: arm(fd, events) before each wait")

    def arm(self, fd: int, events: int) -> None:
        if self._limit is not None and fd >= self._limit:
            raise ValueError(
                f"fd {fd}: select() can't watch file descriptors from {self._limit} on; "
                "set GREENSWITCH_POLLER to epoll, poll or kqueue"
            )
        wanted = (selectors.EVENT_READ if events & READ else 0) | (selectors.EVENT_WRITE if events & WRITE else 0)
        if not wanted:
            self.unregister(fd)
        elif fd in self._selector.get_map():
            self._selector.modify(fd, wanted)
        else:
            if os.name != "nt":  # where a socket is no file descriptor
                os.fstat(fd)  # a closed one: select and poll would find that out too late, or never
            self._selector.register(fd, wanted)

    def unregister(self, fd: int) -> None:
        # KeyError: unknown. ValueError: negative. RuntimeError: the selector is closed.
        with suppress(KeyError, ValueError, RuntimeError, AttributeError):
            self._selector.unregister(fd)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        if timeout is not None:
            timeout = min(timeout, _MAX_SLEEP)
        try:
            ready = self._selector.select(timeout)
        except (OSError, ValueError):
            # select() fails as a whole when one of its fds was closed behind our back.
            closed = self._drop_closed()
            if not closed:
                raise
            return [(fd, HANGUP) for fd in closed]
        return [
            (key.fd, (READ if mask & selectors.EVENT_READ else 0) | (WRITE if mask & selectors.EVENT_WRITE else 0))
            for key, mask in ready
        ]

    def _drop_closed(self) -> list[int]:
        closed = []
        for fd in [key.fd for key in self._selector.get_map().values()]:
            try:
                os.fstat(fd)
            except OSError:
                self.unregister(fd)
                closed.append(fd)
        return closed

    def close(self) -> None:
        self._selector.close()


def _choices() -> dict[str, Callable[[], Poller]]:
    """What this platform offers, best first."""
    found: dict[str, Callable[[], Poller]] = {}
    if _epoll is not None:
        found["epoll"] = EpollPoller
    for name, selector in _SELECTORS.items():
        found.setdefault(name, lambda selector=selector: SelectorPoller(selector()))  # type: ignore[misc]
    return found


def make_poller(name: str | None = None) -> Poller:
    """Return a new poller: the one called `name`, else the one that GREENSWITCH_POLLER names, else the platform's best.

    Names are epoll, kqueue, devpoll, poll and select, as far as the platform has them; another raises ValueError.
    """
    choices = _choices()
    wanted = name or os.environ.get("GREENSWITCH_POLLER") or next(iter(choices))
    if wanted not in choices:
        source = "" if name else " (from the environment's GREENSWITCH_POLLER)"
        raise ValueError(f"no poller {wanted!r}{source} on {sys.platform}; there are: {', '.join(choices)}")
    return choices[wanted]()
