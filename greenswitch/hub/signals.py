"""Signal handlers beside greenlets: they may wait, what they raise goes to main, and no turn is lost.

Python runs a handler in the main OS thread, between any two bytecodes. There a task may run, or the hub, which may be
about to switch to the greenlet that it has just taken out of the ready queue. With threads it is the main thread that
runs the handler, and nothing else notices. So while the main thread has an open hub, `SignalHandlers` stands in the
place of each handler that is written in Python, whatever function the program sets it with. `signal.getsignal` still
returns the program's own.

The invariant: nothing that a handler does or raises shows in lines of this package, in the hub, or in another task.

- Main runs lines of the program: the handler is called there, as without us. What it raises is raised there.
- Anything else runs: the handler runs at once, on a greenlet of its own that counts as main: it has main's locks and
  its thread ident. If it waits, what it has interrupted goes on before anything else does. What it raises is raised in
  main where main waits. If it has hit a task in lines of the program, the task then steps aside, so that main meets
  the error even if the task never waits.
- Main runs lines of this package, and may go on without a wait: it is reminded every millisecond, until it waits or
  runs lines of the program.
- A hub is being closed: the handler runs as soon as it is closed.

Afterwards a hub that is asleep is woken, because the handler may have started something.

Main is the main greenlet, or the task that `run` runs. KeyboardInterrupt and SystemExit, if they are not raised in
main's own lines, are for the main greenlet: they end `run`.

Knows signals, frames and carriers. Of the hub it knows who waits and who is main.
"""

from __future__ import annotations

import signal
import sys
from _thread import get_ident, interrupt_main
from collections.abc import Callable
from operator import index
from threading import main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import greenlet
from greenlet import getcurrent

from greenswitch.hub.bystanders import Bystander
from greenswitch.hub.carriers import Carrier
from greenswitch.hub.frames import ours

if TYPE_CHECKING:
    from greenswitch.hub.hub import Hub

_signal: Any = sys.modules["_signal"]
_REMIND = 0.001  # seconds
_RUN_PROGRAMS: Final = tuple(f"greenswitch.{name}" for name in "core echo event_loops monkey programs testing".split())
"""Modules that call a program's own lines as a matter of course."""


class _Aside(greenlet.greenlet):
    """Runs one handler. `greenswitch.tasks.getcurrent` takes it for `stands_for`, main."""

    __slots__ = ("failure", "hub", "stands_for", "turn")

    def __init__(self, hub: Hub) -> None:
        interrupted = getcurrent()
        super().__init__(parent=interrupted)
        self.gr_context = hub.main.gr_context
        self.hub = hub
        self.stands_for = hub.main
        self.turn = Turn(interrupted)
        self.failure: BaseException | None = None

    def run(self, handler: Callable[..., Any], number: int, frame: FrameType | None) -> None:
        """Call the handler. At the end its parent goes on: what was interrupted, or the hub if that has gone on."""
        try:
            self.hub.call_as(_mains(self.hub)[-1], handler, number, frame)
        except BaseException as error:
            if self.turn.over:
                _raise_in_main(self.hub, error)
            else:
                self.failure = error
        if self.turn.over:
            self.parent = self.hub.greenlet


class PollerGone(Exception):
    """Gets the hub out of a poller that has been closed: a signal handler has forked, and this is the child."""


class Turn:
    """The turn of what a handler has interrupted. It is the first in the ready queue while the handler runs."""

    __slots__ = ("interrupted", "over")

    def __init__(self, interrupted: greenlet.greenlet) -> None:
        self.interrupted: greenlet.greenlet | None = interrupted
        self.over = False

    def switch(self) -> Any:
        """Go on with it: the handler waits."""
        self.over = True
        interrupted, self.interrupted = self.interrupted, None
        assert interrupted is not None
        return interrupted.switch()


def interrupted() -> greenlet.greenlet:
    """Return the current greenlet; for a signal handler that has not waited, what it has interrupted."""
    current = getcurrent()
    while isinstance(current, _Aside) and current.turn.interrupted is not None:
        current = current.turn.interrupted
    return current


def _run_aside(
    hub: Hub, handler: Callable[..., Any], number: int, frame: FrameType | None
) -> BaseException | None:
    """Run `handler` until it ends or waits, and nothing else; return what it has raised by then."""
    aside = _Aside(hub)
    slept_in = hub.poller if hub.asleep else None
    hub.ready.appendleft(aside.turn)
    hub.left = max(hub.left, 1) + 1  # so a park of the handler's takes the next turn from the ready queue
    hub.leave(lambda: aside.switch(handler, number, frame))
    if not aside.turn.over:
        aside.turn.over = True
        hub.ready.remove(aside.turn)
    if hub.asleep:
        hub.ring()
    error, aside.failure = aside.failure, None
    if slept_in is not None and slept_in is not hub.poller:
        if error is not None:
            _raise_in_main(hub, error)
        raise PollerGone
    return error


class SignalHandlers:
    """The program's signal handlers, and what stands in their place while the main thread has an open hub."""

    def __init__(self, current_hub: Callable[[], Hub | None], step_aside: Callable[[], None]) -> None:
        self._current_hub = current_hub
        self._step_aside = step_aside
        self._hubs: WeakSet[Hub] = WeakSet()
        self._handlers: dict[int, Any] = {}
        self._in_place = self._handle  # one object: `is` recognises it
        self._module = _Module(self)
        self._reminder: tuple[Hub, BaseException] | None = None
        """What main has not met yet, while a thread reminds it."""
        self._reminded = False
        self._late: list[tuple[Any, int, FrameType | None]] = []
        """The calls of handlers that have to wait until the hub that is being closed has been."""

    # -- taking the place ------------------------------------------------------------------------------------------

    def attach(self, hub: Hub) -> None:
        """Note that `hub` has been opened. In another thread than the main one it does nothing."""
        if get_ident() != main_thread().ident:
            return
        self._hubs.add(hub)
        if vars(signal).get("_signal") != _signal:  # the attribute that `signal.signal` and `getsignal` call
            return
        signal._signal = self._module  # type: ignore[attr-defined]
        for number in _signal.valid_signals():
            handler = _signal.getsignal(number)
            if callable(handler):
                self.set(number, handler)

    def detach(self, hub: Hub, unmet: list[BaseException]) -> None:
        """Note that `hub` is closed; with the last one the handlers are put back.

        Calls the handlers of the signals that came while it was being closed; raises what main has not met.
        """
        self._hubs.discard(hub)
        if not self._hubs and vars(signal).get("_signal") is self._module and get_ident() == main_thread().ident:
            for number, handler in self._handlers.items():
                if _signal.getsignal(number) is self._in_place:
                    _signal.signal(number, handler)
            signal._signal = _signal  # type: ignore[attr-defined]
        try:
            self._call_late()
        finally:
            if unmet:
                raise unmet[0]

    def _call_late(self) -> None:
        while self._late:
            try:
                self.call(*self._late.pop(0))
            finally:  # also if it raises
                self._call_late()

    def set(self, number: int, handler: Any) -> Any:
        """Set a handler, as `signal.signal`; return the one before."""
        if not callable(handler) or get_ident() != main_thread().ident:
            before = self.get(number)
            _signal.signal(number, handler)
            return before
        number = index(number)
        before = self.get(number)
        known = self._handlers.get(number)
        self._handlers[number] = handler
        try:
            _signal.signal(number, self._in_place)
        except BaseException:
            self._handlers[number] = known
            raise
        return before

    def get(self, number: int) -> Any:
        """Return the program's handler, as `signal.getsignal`."""
        handler = _signal.getsignal(number)
        return self._handlers[number] if handler is self._in_place else handler

    # -- a signal comes --------------------------------------------------------------------------------------------

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._reminded and self._remind(frame):
            return
        handler = self._handlers[number]
        if getattr(getattr(handler, "__self__", None), "in_place", False) is True:
            handler(number, frame)
        else:
            self.call(handler, number, frame)

    def call(self, handler: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None) -> None:
        """Call a handler where `frame` has been interrupted, so that it may wait and raise. Main thread only."""
        hub = self._current_hub()
        if hub is None:
            handler(number, frame)
        elif hub.closed and amid_ours(frame):  # it is being closed, which must not stop half way
            self._late.append((handler, number, frame))
        elif hub.closed or (_is_main(hub) and not amid_ours(frame)):
            handler(number, frame)
        else:
            error = _run_aside(hub, handler, number, frame)
            if error is not None:
                self._pass_on(hub, error, number, frame)

    def _pass_on(self, hub: Hub, error: BaseException, number: int, frame: FrameType | None) -> None:
        _raise_in_main(hub, error)
        current = getcurrent()
        if current is not hub.greenlet and not _is_main(hub) and not amid_ours(frame):
            self._step_aside()
        if _is_unmet(hub, error):
            self._reminder = hub, error
            Bystander(lambda: self._is_to_be_reminded(number), _REMIND)

    # -- main has something pending, and does not wait -------------------------------------------------------------

    def _is_to_be_reminded(self, number: int) -> bool:
        """Make the interpreter call the handler again if main has not met the error yet. In another thread."""
        if self._unmet() is None:
            return False
        self._reminded = True
        interrupt_main(number)  # type: ignore[arg-type] # no signal: it does nothing if the handler has gone meanwhile
        return True

    def _unmet(self) -> BaseException | None:
        if self._reminder is None:
            return None
        hub, error = self._reminder
        return error if _is_unmet(hub, error) else None

    def _remind(self, frame: FrameType | None) -> bool:
        """Raise what main has not met, if main runs lines of the program; return False if it was no reminder."""
        self._reminded = False
        error = self._unmet()
        if error is None:
            return False
        hub = self._current_hub()
        if hub is None:
            return True
        direct = _is_main(hub) and not amid_ours(frame)
        for one in _mains(hub):
            if (direct or one in hub.parked) and hub.withdraw(one, error):
                if direct:
                    raise error
                hub.interrupt(one, error)  # it came when the wait had begun, but was not known yet
        return True


class _Module:
    """What the standard library's `signal` calls instead of `_signal`: the same, but for the handlers' place."""

    def __init__(self, handlers: SignalHandlers) -> None:
        self.signal = handlers.set
        self.getsignal = handlers.get

    def __getattr__(self, name: str) -> Any:
        return getattr(_signal, name)


def wakes_nobody(handler: Any) -> bool:
    """Return whether a signal's `handler` wakes nobody: it is no function, or its object has a true `wakes_nobody`."""
    return (
        not callable(handler)
        or handler is signal.default_int_handler
        or getattr(getattr(handler, "__self__", None), "wakes_nobody", False) is True
    )


# -- who is main -------------------------------------------------------------------------------------------------------


def _mains(hub: Hub) -> list[greenlet.greenlet]:
    """Return the main greenlet and, after it, the one that runs the task of `run`."""
    job = hub.main_job
    return [hub.main] if job is None or job.carrier is None else [hub.main, job.carrier]


def _raise_in_main(hub: Hub, error: BaseException) -> None:
    *_, of_program = _mains(hub)
    if of_program is hub.main or isinstance(error, (KeyboardInterrupt, SystemExit)):
        hub.interrupt_main(error)
    else:
        hub.interrupt(of_program, error)
        hub.owed = [one for one in [*hub.owed, error] if _is_unmet(hub, one)]


def _is_unmet(hub: Hub, error: BaseException) -> bool:
    return not hub.closed and any(one is error for main in _mains(hub) for one in hub.interrupts.get(main, ()))


# -- what has been interrupted -----------------------------------------------------------------------------------------


def _is_main(hub: Hub) -> bool:
    """Return whether main runs, or a greenlet that main has switched to by hand."""
    current: greenlet.greenlet | None = getcurrent()
    main = hub.main
    if current in _mains(hub):
        return True
    if (main in hub.parked or main in hub.ready):
        return False
    while current is not None and current is not main:
        if current is hub.greenlet or isinstance(current, Carrier):
            return False
        current = current.parent
    return current is main


def amid_ours(frame: FrameType | None) -> bool:
    """Return whether `frame` is a line of this package, or such a line waits for it to end.

    A finaliser, a comparison that a queue asks for, or a trace function may run between two lines of a lock. What runs
    a program, as a carrier does, does not count.
    """
    innermost = frame
    while frame is not None:
        if ours(frame) and not _runs_programs(frame, frame is innermost):
            return True
        frame = frame.f_back
    return False


def _runs_programs(frame: FrameType, is_innermost: bool) -> bool:
    if frame.f_code is Carrier.run.__code__:
        return not is_innermost
    return str(frame.f_globals["__name__"]).startswith(_RUN_PROGRAMS)
