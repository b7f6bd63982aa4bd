"""Assertions about switching: a block in which nobody else may run, and one in which somebody else must get a chance.

    with no_switch():               # the two sums belong together, and nobody shall see them in between
        here.sum -= 5
        there.sum += 5
    with must_switch():             # a loop that never waits would hold up everybody
        work_on_some()

They use `greenlet.settrace`, for as long as their blocks last, so they know of switches by hand too.
A tracer that is there already goes on being told.

Knows the hub, frames, and greenlet's tracing. Knows no task.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

import greenlet
from greenlet import getcurrent, gettrace, settrace

from greenswitch.errors import ScopeError, SwitchError
from greenswitch.hub import current_hub, describe
from greenswitch.hub.frames import frames_here, outside, place, where


class _Asserts:
    """A block that notes whether, where and why the greenlet that has entered it switches to another."""

    __slots__ = ("_before", "_greenlet", "_seen")

    def __init__(self) -> None:
        self._greenlet: greenlet.greenlet | None = None
        self._seen: str | None = None

    def __enter__(self) -> Self:
        if self._greenlet is not None:
            raise ScopeError(f"{self!r} has been entered before: make a new one for each `with`")
        self._greenlet = getcurrent()
        self._before: Any = settrace(self._trace)
        return self

    def _trace(self, event: str, ends: tuple[greenlet.greenlet, greenlet.greenlet]) -> None:
        origin, target = ends
        if self._seen is None:  # until the first switch nobody but our greenlet can run in this thread
            self._seen = _why(origin, target)
            self._leave()  # nothing more is to be known
        if self._before is not None:
            self._before(event, ends)

    def _leave(self) -> None:
        if gettrace() == self._trace:  # else somebody has come after us, who calls us, and we call who was before
            settrace(self._before)

    def _end(self) -> None:
        self._leave()
        if self._greenlet is not getcurrent():
            raise ScopeError(f"{self!r} is left by {describe(getcurrent())}, and others may have switched meanwhile")
        self._seen = self._seen or ""  # a tracer that still calls us shall not be told of later switches

    def __repr__(self) -> str:
        entered = "" if self._greenlet is None else f", entered by {describe(self._greenlet)}"
        return f"<{type(self).__name__}(){entered}>"


class no_switch(_Asserts):
    """Raise SwitchError at the end of the `with` block if its greenlet has switched to another in it.

    It says at which line, and what it waited for there. `sleep(0)` counts, though nobody may be ready. If the block
    raises an error of its own, that gets a note instead. For code whose data must not be seen half changed.
    """

    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._end()
        if self._seen:
            text = f"{describe(getcurrent())} has let others run in a no_switch() block: {self._seen}"
            if error is None:
                raise SwitchError(text)
            error.add_note(text)


class must_switch(_Asserts):
    """Raise SwitchError at the end of the `with` block unless its greenlet has switched to another in it.

    For a loop that is meant to let others run, or a test that something waits. A block that raises an error of its own
    need not.
    """

    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._end()
        if not self._seen and error is None:
            at = place(outside([sys._getframe(1)])[0])
            raise SwitchError(
                f"{describe(getcurrent())} has let nobody else run in a must_switch() block, which ends at {at}: "
                "nothing in it had to wait; sleep(0) lets others go first"
            )


def _why(origin: greenlet.greenlet, target: greenlet.greenlet) -> str:
    """Return why `origin`, suspended just now, has switched to `target`, and where."""
    if origin is target:  # the next one in line was itself
        return f"let others go first at {place(outside(frames_here(sys._getframe(2)))[0])}"
    hub = current_hub()
    waiter = None if hub is None else hub.parked.get(origin)
    if waiter is not None:
        why = waiter.reason
    elif hub is not None and origin in hub.ready:
        why = "let others go first"
    else:
        why = f"switched by hand to {describe(target)}"
    return why + where(origin)
