"""Signal handlers beside greenlets: where a handler runs, and what receives its exception.

Python calls a handler in the main thread between two bytecodes, whatever runs there: main, a task, the hub in its
poller, or the kernel amid its own lines. With OS threads a handler belongs to main alone. So each handler is wrapped:

- In main's own lines it is called as ever: it may wait, and what it raises is raised there.
- Anywhere else it runs at once, on a greenlet of its own. Nothing else runs before it ends or waits, so the kernel's
  lines are not torn. It may wait: then what it interrupted goes on. It counts as main: it has main's locks and ident.
- What it raises on its own greenlet is raised in main, where main waits. Main is what `run` runs; SystemExit and
  KeyboardInterrupt go to the main greenlet. KeyboardInterrupt ends a task that it hits amid the task's own lines: a
  task that computes for ever could not be stopped otherwise.

Knows signals, frames and the hub. Handlers are wrapped while `run` runs, and for good under monkey patching.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from signal import getsignal as _getsignal  # the originals, also after monkey patching
from signal import signal as _set
from types import FrameType
from typing import Any

from greenlet import getcurrent, greenlet

from greenswitch.hub.carriers import Carrier
from greenswitch.hub.frames import ours
from greenswitch.hub.hub import Hub, call_as, current_hub, leave

# Modules of this package beneath whose lines a program's own lines run as a matter of course.
_RUN_PROGRAMS = tuple(f"greenswitch.{name}" for name in "core echo event_loops monkey programs testing".split())


class Wrapped:
    """What the interpreter calls in the place of the program's handler."""

    __slots__ = ("wrapped_handler",)

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.wrapped_handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        hub, current = current_hub(), getcurrent()
        own_lines = not _amid_the_kernel(frame)
        if hub is None or hub.closed or (own_lines and _is_main(hub, current)):
            self.wrapped_handler(number, frame)
            return
        error = _run_aside(hub, current, self.wrapped_handler, number, frame)
        if error is None:
            return
        if own_lines and isinstance(error, KeyboardInterrupt) and current is not hub.greenlet:
            raise error
        _raise_in_main(hub, error)


def _amid_the_kernel(frame: FrameType | None) -> bool:
    """Return True if lines of the kernel wait for `frame` to end, or are `frame` itself.

    A finaliser or a program's callback may run between two lines of a lock, for instance.
    """
    innermost = frame
    while frame is not None:
        if ours(frame) and not _runs_programs(frame):
            runs_a_job = frame.f_code is Carrier.run.__code__ and frame is not innermost
            if not runs_a_job:
                return True
        frame = frame.f_back
    return False


def _runs_programs(frame: FrameType) -> bool:
    return str(frame.f_globals["__name__"]).startswith(_RUN_PROGRAMS)


class _Aside(greenlet):
    """Runs one handler. `getcurrent()` of tasks takes it for main, `stands_for`."""

    __slots__ = ("failure", "handler", "hub", "return_", "stands_for")

    def __init__(self, hub: Hub, interrupted: greenlet, handler: Callable[..., Any]) -> None:
        super().__init__(parent=interrupted)
        self.hub = hub
        self.stands_for = hub.main
        self.handler = handler
        self.return_ = _Return(interrupted)
        self.failure: BaseException | None = None

    def run(self, number: int, frame: FrameType | None) -> None:
        try:
            call_as(_main(self.hub), self.handler, number, frame)
        except BaseException as error:
            if self.return_.over:
                _raise_in_main(self.hub, error)
            else:
                self.failure = error
        if self.return_.over:
            self.parent = self.hub.greenlet


class _Return:
    """Stands first in the ready queue while a handler runs: if the handler waits, what it interrupted goes on."""

    __slots__ = ("interrupted", "over")

    def __init__(self, interrupted: greenlet) -> None:
        self.interrupted: greenlet | None = interrupted
        self.over = False

    def switch(self) -> Any:
        """Go on with what the handler interrupted."""
        self.over = True
        interrupted, self.interrupted = self.interrupted, None
        return interrupted.switch()  # type: ignore[union-attr]


def _run_aside(
    hub: Hub, current: greenlet, handler: Callable[..., Any], number: int, frame: FrameType | None
) -> BaseException | None:
    """Run `handler` until it ends or waits; return what it has raised by then."""
    aside = _Aside(hub, current, handler)
    hub.left = max(hub.left, 1) + 1  # its first wait must switch to the first in the queue, not to the hub
    hub.ready.appendleft(aside.return_)
    try:
        leave(partial(aside.switch, number, frame))
    finally:
        with suppress(ValueError):
            hub.ready.remove(aside.return_)
        if hub.asleep:
            hub.ring()  # the handler may have spawned a task or set a timer
    error, aside.failure = aside.failure, None
    return error


def _main(hub: Hub) -> greenlet:
    job = hub.main_job
    return hub.main if job is None or job.carrier is None else job.carrier


def _is_main(hub: Hub, current: greenlet) -> bool:
    return current is hub.main or (hub.main_job is not None and hub.main_job.carrier is current)


def _raise_in_main(hub: Hub, error: BaseException) -> None:
    job = hub.main_job
    if isinstance(error, (KeyboardInterrupt, SystemExit)) or job is None or job.carrier is None:
        hub.interrupt_main(error)
    else:
        hub.interrupt(job.carrier, error)


# -- who sets handlers -------------------------------------------------------------------------------------------------


def set_handler(signalnum: int, handler: Any) -> Any:
    """Set a signal's handler, as `signal.signal`; it is called as this module's docstring says."""
    return _unwrapped(_set(signalnum, _wrapped(handler)))


def get_handler(signalnum: int) -> Any:
    """Return a signal's handler as the program has set it, as `signal.getsignal`."""
    return _unwrapped(_getsignal(signalnum))


for _ours, _original in ((set_handler, _set), (get_handler, _getsignal)):
    _ours.__name__ = _ours.__qualname__ = _original.__name__
    _ours.__module__ = "signal"


def _wrapped(handler: Any) -> Any:
    if not callable(handler) or isinstance(handler, Wrapped):
        return handler
    # A dump's handler says that it must run where the signal hits.
    return handler if getattr(getattr(handler, "__self__", None), "in_place", False) is True else Wrapped(handler)


def _unwrapped(handler: Any) -> Any:
    return handler.wrapped_handler if isinstance(handler, Wrapped) else handler


def wrap_all() -> None:
    """Wrap every handler that is set. Main thread only."""
    _change_all(_wrapped)


def unwrap_all() -> None:
    """Undo `wrap_all` and `set_handler`. Main thread only."""
    _change_all(_unwrapped)


def _change_all(change: Callable[[Any], Any]) -> None:
    for number in signal.valid_signals():
        handler = _getsignal(number)
        changed = change(handler)
        if changed is not handler:
            _set(number, changed)


class Handlers:
    """A context manager for `run`: handlers are wrapped meanwhile. Does nothing outside the main thread."""

    def __enter__(self) -> None:
        self._wraps = threading.current_thread() is threading.main_thread() and signal.signal is _set
        if self._wraps:
            wrap_all()
            signal.signal, signal.getsignal = set_handler, get_handler

    def __exit__(self, *error: object) -> None:
        if self._wraps:
            signal.signal, signal.getsignal = _set, _getsignal
            unwrap_all()
