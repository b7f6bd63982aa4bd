"""From what the interpreter tells about one thread to steps: who left whom for whom, where, and what crossed.

Two trace functions tell it. `greenlet.settrace`'s is called in the midst of each switch, in the greenlet that is
switched to. It doesn't see a greenlet's function start, nor what it returns or raises; `sys.settrace`'s does. Where a
debugger has taken that one already, starts and results are told without their lines and values.

Whoever chooses the next greenlet, if somebody does, speaks through `Books`. A step is told at the moment at which it
has happened, by a call of `stop` that may take as long as it likes, and may raise.

Knows greenlets, frames and steps. Must not know a hub or a task, nor threads.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from opcode import opname
from types import CodeType, FrameType
from typing import Any, Literal, TypeVar

import greenlet as raw
from greenlet import getcurrent, greenlet

from greenswitch.core.passed import CallSites, arguments, short
from greenswitch.core.stacks import Frame
from greenswitch.core.steps import Side, Step

__hidden_from_stacks__ = __file__

T = TypeVar("T")
End = Literal["", "returned", "raised", "killed"]

_LISTED = 100  # of those who are ready, parked or suspended; there may be ten thousand
_AND_MORE = Side("…", "and more")
_LIBRARY = os.path.dirname(os.__file__) + os.sep


class Books:
    """What whoever chooses the next greenlet has to say. As it stands it is for programs where nobody does.

    Asked in the program's thread, while the program stands still; but for `interrupt`.
    """

    def who(self, green: greenlet) -> object:
        """Return whom a greenlet runs: itself, or a task; None if it is between two tasks. Takes weak references."""
        return green

    def name(self, who: object) -> str | None:
        """Return what to call one whom `who` has returned; None to have it called as greenlets are."""
        return None

    def is_chooser(self, green: greenlet) -> bool:
        """Return whether this is the greenlet that chooses the next one."""
        return False

    def starts(self, green: greenlet) -> bool:
        """Return whether this greenlet, which has run before, is about to call a new task's function."""
        return False

    def hides(self, frame: FrameType) -> bool:
        """Return whether this is a line of the chooser's own, which only does the switching."""
        return False

    def instead(self, hidden: Sequence[FrameType]) -> FrameType | None:
        """Return which of these to show (innermost first) where a greenlet has no others; None if none."""
        return None

    def end(self, who: object) -> End:
        """Return how one who is no greenlet has ended; an empty string if it hasn't."""
        return ""

    def handed(self, green: greenlet) -> tuple[str, bool] | None:
        """Return what a greenlet is woken with, and whether it is thrown; None if it is switched to by hand."""
        return None

    def ready(self) -> Iterable[str]:
        """Return the names of those who could go on at once, in their order."""
        return ()

    def parked(self) -> Iterable[greenlet]:
        """Return the greenlets that wait for something."""
        return ()

    def waits_for(self, green: greenlet) -> str:
        """Return what a greenlet waits for; an empty string if it is not parked."""
        return ""

    def knows(self, green: greenlet) -> bool:
        """Return whether a greenlet that is suspended is one that the chooser will go on with."""
        return False

    def may_be_thrown_into(self, green: greenlet) -> bool:
        """Return whether an exception may be raised in this greenlet; if not, `interrupt` does it elsewhere."""
        return True

    def interrupt(self, error: BaseException, claim: Callable[[], bool]) -> bool:
        """Have `error` raised in the main greenlet, if `claim()` says so then; return False if the caller has to raise.

        Any thread.
        """
        return False

    def close(self) -> None:
        """End what the program has left behind. Called when it has ended, in its thread."""


@dataclass(frozen=True, slots=True)
class _Result:
    """What an outermost function has returned or raised, as text, and in which line."""

    who: int
    returned: str
    raised: str
    frame: Frame


class Switches:
    """Follows the switches of the thread that calls `start`; calls `stop(step)` at each."""

    def __init__(self, books: Books, stop: Callable[[Step], None]) -> None:
        self._books = books
        self._stop = stop
        self._number = 0
        self._sites = CallSites()
        self._names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._called: Counter[str] = Counter()
        self._seen: weakref.WeakKeyDictionary[greenlet, None] = weakref.WeakKeyDictionary()
        self._starting: Step | None = None
        """The step to a greenlet that hasn't called anything yet."""
        self._result: _Result | None = None
        self._raised: tuple[str, Frame] | None = None
        self._sees_calls = False
        self._bottom: CodeType | None = None
        """What lies below the program on its stack, and is none of it."""
        self._begun = False
        self._left_at: Frame | None = None
        """The line in which the program's function has ended."""

    @property
    def _running(self) -> Any:
        """Who runs, as the books call him."""
        return self._who_runs()

    @_running.setter
    def _running(self, who: Any) -> None:
        # A greenlet that nobody holds any more runs once again, for its `finally` blocks. To hold it then would bring
        # it back to life, in the midst of a garbage collection mostly: CPython 3.13.0 dies of that.
        self._who_runs: Callable[[], Any] = weakref.ref(who) if isinstance(who, greenlet) else lambda: who

    def start(self) -> None:
        """Begin, in the greenlet that runs. The caller is not followed, only what it calls from now on."""
        self._bottom = sys._getframe(1).f_code
        self._running = self._books.who(getcurrent())
        self._running_name = self._name(self._running)
        self._seen[getcurrent()] = None
        raw.settrace(self._switched)
        self._sees_calls = sys.gettrace() is None
        if self._sees_calls:
            sys.settrace(self._called_one)

    def end(self) -> None:
        """Have no more steps told."""
        raw.settrace(None)
        if self._sees_calls and sys.gettrace() == self._called_one:
            sys.settrace(None)

    def last(self, did: str) -> Step:
        """Return the step by which the program ends; `did` tells how."""
        return self._told(Step(0, _side(self._running_name, did, self._left_at), None, ""))

    def left_over(self) -> list[greenlet]:
        """Return the greenlets that have been seen, and have not ended."""
        return [green for green in list(self._seen) if green and green.parent is not None and not green.dead]

    def place(self, frame: FrameType | None) -> Frame | None:
        """Return where a stack stands whose innermost frame is `frame`. Any thread."""
        found = self._shown(frame)
        return None if found is None else _data(found)

    # -- told by greenlet ------------------------------------------------------------------------------------------

    def _switched(self, event: Literal["switch", "throw"], ends: tuple[greenlet, greenlet]) -> None:
        origin, target = ends
        self._catch_up(origin)
        if self._books.who(target) in (None, self._running):
            return  # inside the chooser: to one of its greenlets that rests, and back
        self._seen[target] = None
        passed, thrown = self._crossed(event, origin, target)
        step = Step(0, self._leaving(event, origin), None, passed, thrown)
        del origin, ends, event
        self._running, found = self._books.who(target), self._shown(sys._getframe())
        self._running_name = self._name(self._running)
        self._result = None
        if self._books.is_chooser(target):
            self._tell(step, Side(self._running_name, "looks who can go on"))
        elif found is None and self._is_new(target, sys._getframe().f_back):
            self._starting = replace(step, passed="" if not thrown else passed)
            if not self._sees_calls:
                self._flush()
        else:
            frame = None if found is None else _data(found)
            del found
            self._tell(step, _side(self._running_name, "gets it" if thrown else "goes on", frame))

    def _is_new(self, target: greenlet, below: FrameType | None) -> bool:
        return below is None or self._books.starts(target)

    def _catch_up(self, origin: greenlet) -> None:
        """Tell of those who have run, and called no function that could be seen."""
        self._flush()
        who = self._books.who(origin)
        if who is not None and who is not self._running:
            self._change_to(who)
            self._flush()

    def _flush(self) -> None:
        step, self._starting = self._starting, None
        if step is not None:
            self._tell(step, Side(self._running_name, "gets it, and ends" if step.thrown else "starts"))

    def _change_to(self, who: Any) -> None:
        self._starting = Step(0, self._leaving("switch", None), None, "")
        self._running, self._running_name = who, self._name(who)
        self._result = None

    def _leaving(self, event: str, origin: greenlet | None) -> Side:
        """Say what became of the one who ran."""
        who, name, result = self._running, self._name(self._running), self._result
        end: End = self._books.end(who)
        if isinstance(who, greenlet) and who.dead:
            end = "raised" if event == "throw" else "returned"
        if end:
            if result is None or result.who != id(who):
                return Side(name, {"returned": "returns", "raised": "fails", "killed": "is killed"}[end])
            return _side(name, _ending(end, result), result.frame)
        if origin is None:
            return Side(name, "ends")
        if self._books.is_chooser(origin):
            return Side(name, "chooses")
        found = self._shown(origin.gr_frame)
        if found is None and event == "throw":
            return Side(name, "lets go of it")
        return _side(name, self._reason(origin), None if found is None else _data(found))

    def _reason(self, origin: greenlet) -> str:
        reason = self._books.waits_for(origin)
        if reason:
            return f"waits: {reason}"
        return "steps aside" if self._books.knows(origin) else "switches away"

    def _crossed(self, event: str, origin: greenlet, target: greenlet) -> tuple[str, bool]:
        handed = self._books.handed(target)
        if handed is not None:
            return handed
        thrown = event == "throw"
        if origin.dead:
            result = self._result if self._result is not None and self._result.who == id(self._running) else None
            return ("", thrown) if result is None else (result.raised or result.returned, thrown)
        frame = origin.gr_frame
        if frame is not None and self._books.hides(frame):
            return "", thrown
        # Without a line of the program's, it is thrown into a greenlet that was the last thing to be let go.
        passed = "" if self._visible(frame) is None or frame is None else self._sites.passed(frame)
        return passed or ("GreenletExit" if thrown else ""), thrown

    # -- told by sys -----------------------------------------------------------------------------------------------

    def _called_one(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        """Be `sys.settrace`'s function, called for each call: the outermost one that is to be seen starts something."""
        if self._is_hidden(frame) or self._visible(frame.f_back) is not None:
            return None
        green = getcurrent()
        who = self._books.who(green)
        if who is None or self._books.is_chooser(green) or (green.parent is None and not self._is_program(frame)):
            return None  # a finaliser, say, or a callback: nobody's function
        if who is not self._running:  # without a switch: a task has ended, and its greenlet goes on with another one
            self._flush()
            self._change_to(who)
        del green, who
        frame.f_trace_lines = False
        step, self._starting = self._starting, None
        if step is not None:
            self._begin(step, frame)
        return self._in_outermost

    def _is_program(self, frame: FrameType) -> bool:
        """Return whether this is the program's function: the first that is called from the bottom."""
        is_first = not self._begun and frame.f_back is not None and frame.f_back.f_code is self._bottom
        self._begun = self._begun or is_first
        return is_first

    def _begin(self, step: Step, frame: FrameType) -> None:
        code = frame.f_code
        self._running_name = self._name(self._running, code.co_name)
        place = _side(self._running_name, "starts", Frame(code.co_name, code.co_filename, frame.f_lineno))
        self._tell(replace(step, passed=step.passed or _arguments(frame)), place)

    def _in_outermost(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any]:
        if event == "exception":
            self._raised = short(arg[1]), _data(frame)
        elif event == "return":
            raised, at = ("", _data(frame)) if _returns(frame) or self._raised is None else self._raised
            self._result = _Result(id(self._running), short(arg), raised, at)
            if frame.f_back is not None and frame.f_back.f_code is self._bottom:
                self._left_at = at
            self._raised = None
        return self._in_outermost

    # -- telling ---------------------------------------------------------------------------------------------------

    def _tell(self, step: Step, entered: Side) -> None:
        self._stop(self._told(replace(step, entered=entered)))

    def _told(self, step: Step) -> Step:
        self._number += 1
        if step.entered is None:
            return replace(step, number=self._number)
        return replace(
            step,
            number=self._number,
            ready=tuple(_most(self._books.ready(), "…")),
            parked=tuple(_most(map(self._standing, self._books.parked()), _AND_MORE)),
            suspended=tuple(_most(map(self._standing, self._suspended()), _AND_MORE)),
        )

    def _suspended(self) -> Iterator[greenlet]:
        here = getcurrent()
        for green in list(self._seen):
            if green is not here and green and not green.dead and not self._books.knows(green):
                yield green

    def _standing(self, green: greenlet) -> Side:
        found = self._shown(sys._getframe() if green is getcurrent() else green.gr_frame)
        name, reason = self._name(self._books.who(green)), self._books.waits_for(green)
        return _side(name, reason, None if found is None else _data(found))

    def _name(self, who: Any, function: str = "") -> str:
        """Return what to call somebody. A greenlet without a name is called by its function, and by a number."""
        if who is None:
            return "nobody"
        name = self._books.name(who) or getattr(who, "name", None) or self._names.get(who)
        if name is None and isinstance(who, greenlet) and who.parent is None:
            name = "main"
        if name is None and function:
            self._called[function] += 1
            number = self._called[function]
            name = self._names[who] = function if number == 1 else f"{function} #{number}"
        return "a new greenlet" if name is None else str(name)

    def _shown(self, frame: FrameType | None) -> FrameType | None:
        """Return the innermost frame that is to be seen, from `frame` outwards."""
        return self._visible(frame) or self._books.instead(list(self._outwards(frame)))

    def _visible(self, frame: FrameType | None) -> FrameType | None:
        return next((outer for outer in self._outwards(frame) if not self._books.hides(outer)), None)

    def _is_hidden(self, frame: FrameType) -> bool:
        return _hides_itself(frame) or self._books.hides(frame)

    def _outwards(self, frame: FrameType | None) -> Iterator[FrameType]:
        while frame is not None and frame.f_code is not self._bottom:
            if not _hides_itself(frame):
                yield frame
            frame = frame.f_back


def _most(several: Iterable[T], mark: T) -> Iterator[T]:
    """Yield the first of them, and `mark` if there are more."""
    for number, one in enumerate(several):
        if number == _LISTED:
            yield mark
            return
        yield one


def in_library(frame: FrameType) -> bool:
    """Return whether this is a line of the standard library."""
    file = frame.f_code.co_filename
    return file.startswith(_LIBRARY) and "-packages" not in file


def _hides_itself(frame: FrameType) -> bool:
    return bool(frame.f_globals.get("__hidden_from_stacks__") == frame.f_code.co_filename)


def _data(frame: FrameType) -> Frame:
    return Frame(frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno)


def _returns(frame: FrameType) -> bool:
    """Return whether a frame that is left is left by a return, not by an exception."""
    return opname[frame.f_code.co_code[frame.f_lasti]].startswith("RETURN")


def _side(name: str, did: str, frame: Frame | None) -> Side:
    return Side(name, did, frame, "" if frame is None else frame.source)


def _ending(end: End, result: _Result) -> str:
    if end == "raised":
        return f"raises {result.raised}" if result.raised else "raises an exception"
    if end == "killed" or result.raised:
        return "is ended by GreenletExit"
    return f"returns {result.returned}"


def _arguments(frame: FrameType) -> str:
    """Return what a function that has just been called was given, by name."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)  # *args and **kwargs
    names = frame.f_locals
    given = {name: names[name] for name in code.co_varnames[:count] if name in names and name != "self"}
    return arguments((), given)
