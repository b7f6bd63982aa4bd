"""The twin of the standard library's `signal`: waiting for a signal parks the task.

Handlers may wait, spawn and wake tasks, and what they raise is raised in main: see `greenswitch.hub.signals`, which
does that also in a program that is not patched. Replaced are only the calls that wait: pause, sigwait, sigwaitinfo,
sigtimedwait. Neither the wakeup fd nor SIGCHLD is touched.

Knows the hub, and the standard library's `signal`.
"""

from __future__ import annotations

import signal as original
from _thread import get_ident  # the original, also after monkey patching
from collections.abc import Callable, Iterable
from contextlib import suppress
from signal import getsignal as _getsignal
from signal import signal as _set_handler
from threading import main_thread
from types import FrameType
from typing import Any

from greenlet import greenlet

from greenswitch.green import rest_of
from greenswitch.green._thread import os_thread_of
from greenswitch.hub import OutsideWaiter, current_hub, get_hub
from greenswitch.tasks import sleep

_pause: Any = getattr(original, "pause", None)
_sigtimedwait: Any = getattr(original, "sigtimedwait", None)
_sigwaitinfo: Any = getattr(original, "sigwaitinfo", None)
_sigwait: Any = getattr(original, "sigwait", None)
_pthread_kill: Any = getattr(original, "pthread_kill", None)

_FIRST, _LONGEST = 0.001, 0.02  # seconds between two looks for a signal that is blocked


def pthread_kill(thread_id: int, signalnum: int, /) -> None:
    """Send a signal to the OS thread in which the thread `thread_id` runs, as `signal.pthread_kill`."""
    _pthread_kill(os_thread_of(thread_id), signalnum)


# -- pause: until a handler has run ------------------------------------------------------------------------------------

_pausing: list[OutsideWaiter] = []
_told: dict[int, tuple[Any, Any]] = {}
"""By signal, while anybody pauses: its handler, and the one in its place that tells who pauses."""


def pause() -> None:
    """Park until a signal's handler has run, as `signal.pause`.

    Handlers that are set meanwhile don't count. In another thread than the main one, and in a thread without a hub, it
    is the original's.
    """
    hub = current_hub()
    if hub is None or get_ident() != main_thread().ident:
        _pause()
        return
    waiter = OutsideWaiter(hub, "pause until a signal")
    hub.check(waiter)
    try:  # a handler may raise in any of these lines
        _pausing.append(waiter)
        if len(_pausing) == 1:
            _listen()
        hub.park(waiter)
    finally:
        with suppress(ValueError):
            _pausing.remove(waiter)
        if not _pausing:
            _listen_no_more()


def _listen() -> None:
    for number in original.valid_signals():
        handler = _getsignal(number)
        if callable(handler):
            _told[number] = handler, _telling(handler)
            _set_handler(number, _told[number][1])


def _telling(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
    def tell(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except BaseException:
            _wake(besides=get_hub().main)  # where it will be raised, also if main pauses
            raise
        _wake()

    return tell


def _wake(besides: greenlet | None = None) -> None:
    for waiter in list(_pausing):
        if besides is None or waiter.greenlet is not besides:
            waiter.wake()


def _listen_no_more() -> None:
    while _told:
        number, (handler, telling) = _told.popitem()
        if _getsignal(number) is telling:
            _set_handler(number, handler)


# -- sigwait: until a blocked signal is pending ------------------------------------------------------------------------


def sigtimedwait(sigset: Iterable[int], timeout: float, /) -> Any:
    """Park at most `timeout` seconds until a signal of `sigset` is pending, and take it, as `signal.sigtimedwait`.

    The signals have to be blocked, as for the original. The task looks every few milliseconds: a thread that waits for
    it couldn't be called off, and wouldn't see signals that are for this thread.
    """
    if current_hub() is None or timeout <= 0:
        return _sigtimedwait(sigset, timeout)
    return _look_for(set(sigset), get_hub().clock() + timeout)


def sigwaitinfo(sigset: Iterable[int], /) -> Any:
    """Park until a signal of `sigset` is pending, and take it, as `signal.sigwaitinfo`."""
    return _sigwaitinfo(sigset) if current_hub() is None else _look_for(set(sigset), None)


def sigwait(sigset: Iterable[int]) -> int:
    """Park until a signal of `sigset` is pending, and take it, as `signal.sigwait`; return its number."""
    if current_hub() is None:
        return _sigwait(sigset)  # type: ignore[no-any-return]
    number = _look_for(set(sigset), None).si_signo
    try:
        return original.Signals(number)
    except ValueError:  # a real-time signal without a name
        return number  # type: ignore[no-any-return]


def _look_for(signals: set[int], deadline: float | None) -> Any:
    hub, wait = get_hub(), _FIRST
    while True:
        found = _sigtimedwait(signals, 0)
        left = wait if deadline is None else deadline - hub.clock()
        if found is not None or left <= 0:
            return found
        sleep(min(wait, left))
        wait = min(wait * 2, _LONGEST)


REPLACED: tuple[str, ...] = ("pause",) if _pause is not None else ()
if _sigtimedwait is not None:
    REPLACED += ("sigtimedwait", "sigwait", "sigwaitinfo")

if _pthread_kill is not None:
    REPLACED += ("pthread_kill",)

for _name in {"pthread_kill", "pause", "sigtimedwait", "sigwait", "sigwaitinfo"} - set(REPLACED):
    del globals()[_name]  # found in the original, or not there either

__all__ = [name for name in dir(original) if not name.startswith("_")]

__getattr__, __dir__ = rest_of(original, globals())
