"""Step through a program that switches, one switch at a time.

Why: a program that switches is hard to follow because it never stands still. Here it does: `step()` lets it run to its
next switch, and tells who left whom for whom, from which line to which, what crossed, and where everybody else stands.

    stepper = Stepper(ping_pong, 3)
    print(stepper.step())

How: the program runs in an OS thread of its own, and its trace functions (see `switches`) stop it at each switch, until
the next step lets it go on. So nothing in it has to be changed, and nothing of it moves meanwhile. Two threads never
run at once: whoever calls `step()` waits.

What to know: a greenlet belongs to its thread, so the program has to make its greenlets itself, and can't be switched
to from outside. When its function ends, the greenlets that it leaves suspended are ended too, since their thread goes.
A stepper that is dropped, or closed, ends its program as Ctrl-C would end it.

Knows threads, and what a step is. Knows no hub: `greenswitch.stepper` is this one with eyes for the hub.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import weakref
from _thread import allocate_lock, get_ident
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from html import escape
from time import monotonic
from types import BuiltinFunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from greenlet import GreenletExit, getcurrent

from greenswitch.core import prints
from greenswitch.core.passed import short
from greenswitch.core.stacks import Frame
from greenswitch.core.steps import Step, Steps
from greenswitch.core.switches import Books, Switches, in_library
from greenswitch.errors import SwitchError

if TYPE_CHECKING:
    from greenswitch.core.steps import Pretty

__hidden_from_stacks__ = __file__

Outcome = TypeVar("Outcome")

TIMEOUT = 10.0  # seconds that one step may take, unless you say otherwise
_GRACE = 1.0  # seconds that a program has for its `finally` blocks, at each of the two ways of ending it
_KEPT = 1000  # steps


class Closed(KeyboardInterrupt):
    """Raised in a program whose stepper is closed: whatever Ctrl-C ends, this ends."""


class _Gate:
    """A place where the program stands still until it is let go on; once, however often that is asked for."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire()

    def open(self) -> None:
        with suppress(RuntimeError):  # open already
            self._lock.release()


class _Stop(_Gate):
    """The gate after a step."""

    __slots__ = ("step",)

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step


class _Program(Generic[Outcome]):
    """A function in a thread of its own. It refers to no Stepper: so that one can be dropped while this runs."""

    def __init__(self, call: Callable[[], Outcome], books: Books) -> None:
        self.books = books
        self.thread: int | None = None
        self.entry = _Gate()
        """Where it waits before it begins."""
        self.stop: _Stop | None = None
        """Where it has stopped last."""
        self.ended = False
        self.closing = False
        self._unclaimed = True
        self._stands = True
        self._worker: threading.Thread | None = None
        self.result: Outcome | None = None
        self.error: BaseException | None = None
        self._call = call
        self._switches = Switches(books, self._stand)
        self._texts: deque[tuple[Any, str]] = deque()
        self._bell = allocate_lock()
        self._bell.acquire()

    # -- in its own thread -----------------------------------------------------------------------------------------

    def run(self) -> None:
        self.thread = get_ident()
        self._ring()
        self.entry.wait()
        self._stands = False
        if not self.closing:
            self._run_function()
        self._end_left_over()
        self._ring(ended=True)

    def _run_function(self) -> None:
        switches, did = self._switches, "is closed"
        call, self._call = self._call, _nothing
        try:
            switches.start()
            self.result = call()
        except BaseException as error:
            switches.end()
            if not self.closing or not isinstance(error, Closed):
                self.error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
                did = f"raises {short(error)}"
        else:
            switches.end()
            did = f"returns {short(self.result)}"
        del call
        self.stop = _Stop(switches.last(did))

    def _stand(self, step: Step) -> None:
        """Stop at a switch: called in the midst of it."""
        if not self.closing:
            self.stop = stop = _Stop(step)
            self._stands = True
            self._ring()
            stop.wait()
            self._stands = False
        if self.closing:
            self._switches.end()
            closed = Closed("the stepper has been closed")
            if not self.books.may_be_thrown_into(getcurrent()):
                self.books.interrupt(closed, self._claim)
            elif self._claim():
                raise closed

    def _end_left_over(self) -> None:
        """End what is suspended, while there still is a thread in which it can run its `finally` blocks."""
        try:
            self.books.close()
            for _ in range(3):  # one of them may go on, or start others
                for green in self._switches.left_over():
                    green.parent = getcurrent()
                    green.throw(GreenletExit)
        except BaseException as error:
            if self.error is None:
                self.error = error

    def put(self, stream: Any, text: str) -> None:
        """Take what is printed, for the one who waits to print it."""
        self._texts.append((stream, text))
        self._ring()

    def _ring(self, ended: bool = False) -> None:
        self.ended = self.ended or ended
        with suppress(RuntimeError):  # rung already
            self._bell.release()

    # -- in the thread of whoever steps ----------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start the thread, up to the entry. Called again if Ctrl-C has broken it off."""
        if self._worker is None:
            self._worker = threading.Thread(target=self.run, name=f"stepper of {name}", daemon=True)
            try:
                self._worker.start()
            except Exception:
                self._worker = None
                raise
        while self.thread is None:
            self._bell.acquire()

    @contextmanager
    def printing(self) -> Iterator[None]:
        """Have what the program prints printed by `wait`."""
        with prints.handed_over(self.thread or 0, self.put):
            try:
                yield
            finally:
                self._print()

    def wait(self, arrived: Callable[[], bool], seconds: float | None) -> bool:
        """Wait until `arrived()`, and print meanwhile what the program prints; return False if it takes longer."""
        until = None if seconds is None else monotonic() + seconds
        while not (there := arrived()) and (until is None or monotonic() < until):
            self._print()
            self._bell.acquire(timeout=-1 if until is None else max(0.0, until - monotonic()))
        self._print()
        return there

    def _print(self) -> None:
        while self._texts:
            stream, text = self._texts.popleft()
            stream.write(text)

    def close(self) -> None:
        """Have it end where it stands, or at its next switch, and don't wait for that."""
        self.closing = True
        self.entry.open()
        stop = self.stop
        if stop is not None:
            stop.open()

    def abandon(self) -> None:
        """Have it end as soon as may be, since nobody will step or wait any more. Any thread, and finalisers."""
        self.close()
        if not self._stands:
            self.interrupt_at_once()
            self.books.interrupt(Closed(), self._claim)  # to wake a chooser that sleeps, if for nothing else

    def interrupt(self) -> None:
        """Raise Closed in it, though it hasn't come to a switch."""
        if not self.ended and not self.books.interrupt(Closed(), self._claim):
            self.interrupt_at_once()

    def interrupt_at_once(self) -> None:
        """Raise Closed in whatever Python code it runs, unless it has been raised by now."""
        if not self.ended and self._claim():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread or 0), ctypes.py_object(Closed))

    def _claim(self) -> bool:
        """Return True to the first who asks, who then raises Closed: a second one would break off `finally` blocks."""
        claimed, self._unclaimed = self._unclaimed, False
        return claimed

    def place(self) -> Frame | None:
        """Return where it is now, while it runs: the line that has called the standard library, if it is in there."""
        # On CPython 3.11 this hangs if the garbage collector runs in the midst of it and lets go of the interpreter.
        collects = gc.isenabled()
        gc.disable()
        try:
            frame = sys._current_frames().get(self.thread or 0)
        finally:
            if collects:
                gc.enable()
        outer = frame
        while outer is not None and in_library(outer):
            outer = outer.f_back
        return self._switches.place(outer) or self._switches.place(frame)


def _nothing() -> Any:
    raise SwitchError("the program has been started before")


class Stepper(Generic[Outcome]):
    """Step through `function(*args, **kwargs)`. It starts at the first step, in a thread of its own.

    To be used by one thread at a time, other than the program's own. Use it in a `with` block, or `close()` it, or step
    to the end, or drop it: each of them ends the program. Shows its last step when a notebook displays it.

    >>> from greenswitch.core import relay
    >>> stepper = Stepper(relay.ping_pong, 2)
    >>> print(stepper.step().title)
    main → play_ping, passes ball=0
    >>> print(stepper.step().title)
    play_ping → play_pong, passes ball=1
    >>> stepper.finish()
    [('ping', 0), ('pong', 1), ('ping', 2), ('pong', 3)]
    """

    books: Callable[[], Books] = Books
    """Makes what speaks for whoever chooses the next greenlet."""

    def __init__(self, function: Callable[..., Outcome], /, *args: Any, **kwargs: Any) -> None:
        if not callable(function):
            raise TypeError(f"Stepper needs a function and its arguments, not {function!r}: don't call it yourself")
        self.name = str(getattr(function, "__name__", type(function).__name__))
        call = partial(copy_context().run, function, *args, **kwargs)
        self._program: _Program[Outcome] = _Program(call, self.books())
        self._told: _Stop | None = None
        self._steps: deque[Step] = deque(maxlen=_KEPT)
        self._closed = False
        self._using = allocate_lock()
        self._drop = weakref.finalize(self, self._program.abandon)

    # -- stepping --------------------------------------------------------------------------------------------------

    def step(self, timeout: float | None = TIMEOUT) -> Step:
        """Let the program run to its next switch, or to its end; return what has happened.

        TimeoutError if that takes longer than `timeout` seconds (None: no limit): the program goes on meanwhile, and
        the next call waits for the same switch. So it does after Ctrl-C. SwitchError if the program has ended.
        """
        with self._used("step"):
            if self._is_over():
                raise SwitchError(
                    f"{self!r} can't step: make a new Stepper to see it again, and call finish() for its result"
                ) from self._program.error
            return self._advance(timeout)

    def run(self, steps: int, timeout: float | None = TIMEOUT) -> Steps:
        """Make up to `steps` steps, fewer if the program ends; return them. `timeout` is for each; see `step`."""
        taken: list[Step] = []
        while len(taken) < steps and not self._is_over():
            taken.append(self.step(timeout))
        return Steps(taken)

    def until(self, wanted: str | Callable[[Step], object], timeout: float | None = TIMEOUT) -> Steps:
        """Step until one of that name goes on, or until `wanted(step)` is true; return the steps, this one included.

        Stop at the program's end all the same. `timeout` is for each step; see `step`.
        """
        taken: list[Step] = []
        while not self._is_over():
            step = self.step(timeout)
            taken.append(step)
            if wanted(step) if callable(wanted) else step.entered is not None and step.entered.name == wanted:
                break
        return Steps(taken)

    def finish(self, timeout: float | None = TIMEOUT) -> Outcome:
        """Step to the end; return the function's result, or raise what it has raised. Again and again, if you like."""
        while not self._is_over():
            self.step(timeout)
        if self._program.error is not None:
            raise self._program.error
        if self._closed and not self._has_ended():
            raise SwitchError(f"{self!r} has no result: it was closed before the program's end")
        return self._program.result  # type: ignore[return-value]

    def __iter__(self) -> Iterator[Step]:
        """Yield the steps that are still to come."""
        while not self._is_over():
            yield self.step()

    @property
    def steps(self) -> Steps:
        """Return the steps made so far, the last thousand of them."""
        return Steps(self._steps)

    def _advance(self, timeout: float | None) -> Step:
        program, told = self._program, self._told
        if program.thread is None:
            _refuse_green_threads()
            program.start(self.name)
        with program.printing():
            (program.entry if told is None else told).open()
            if not program.wait(lambda: self._has_arrived(told), timeout):
                raise TimeoutError(self._still_runs(timeout or 0.0))
        stop = program.stop
        if stop is None:
            raise SwitchError(f"{self!r}: its thread has ended without a word")
        self._steps.append(stop.step)
        self._told = stop  # last: a step that Ctrl-C has kept from being returned is told by the next call
        return stop.step

    def _has_arrived(self, told: _Stop | None) -> bool:
        stop = self._program.stop
        if stop is told or stop is None:
            return self._program.ended
        return not stop.step.ended or self._program.ended  # at the end, wait until the thread is through

    def _still_runs(self, seconds: float) -> str:
        last, frame = (self._steps[-1] if self._steps else None), self._program.place()
        who = last.entered.name if last is not None and last.entered is not None else "main"
        text = f"no switch within {seconds:g} s: {who!r} still runs"
        if frame is not None:
            text += f", at {frame.where} in {frame.function}: {frame.source}"
        if last is not None and last.parked:
            text += "; parked: " + ", ".join(f"{side.name} ({side.did})" for side in last.parked)
        return text + ". Call step() again to go on waiting, or close() to end the program"

    # -- ending ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the program now, as Ctrl-C would: its `finally` blocks run before this returns. Twice does nothing more.

        Raise what they raise. TimeoutError if the program still runs after two seconds (in a call that blocks, say):
        its thread ends as soon as that returns, and doesn't keep Python from exiting.
        """
        with self._used("close"):
            self._closed = True
            program = self._program
            if program.thread is None or self._has_ended():
                return
            with program.printing():
                program.close()
                for hurry in (program.interrupt, program.interrupt_at_once):
                    if program.wait(lambda: program.ended, _GRACE / 4):
                        break
                    hurry()
                ended = program.wait(lambda: program.ended, _GRACE)
            if not ended:
                frame = program.place()
                place = "" if frame is None else f" at {frame.where} in {frame.function}: {frame.source}"
                raise TimeoutError(f"{self.name} has been told to end, and still runs{place}")
            if program.error is not None:
                raise program.error

    def __enter__(self) -> Stepper[Outcome]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with suppress(TimeoutError):  # there is something worse to tell
            self.close()

    # -- looking at it ---------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        return self._closed or self._has_ended()

    def _has_ended(self) -> bool:
        return self._told is not None and self._told.step.ended

    @contextmanager
    def _used(self, verb: str) -> Iterator[None]:
        if self._program.thread == get_ident() and not self._program.ended:
            raise SwitchError(f"can't {verb} {self!r} from inside its own program: it would wait for itself")
        if not self._using.acquire(blocking=False):
            raise SwitchError(f"can't {verb} {self!r}: another thread is using it. Step from one thread at a time")
        try:
            yield
        finally:
            self._using.release()

    def __repr__(self) -> str:
        return f"<Stepper of {self.name} {self._state()}>"

    def _state(self) -> str:
        last = self._steps[-1] if self._steps else None
        if self._closed:
            return "closed"
        if last is None:
            return "not started"
        return f"ended after {last.number} steps: {last.left.did}" if last.ended else f"after {last.title}"

    def __str__(self) -> str:
        return str(self._steps[-1]) if self._steps else repr(self)

    def _repr_html_(self) -> str:
        return self._steps[-1]._repr_html_() if self._steps else f"<code>{escape(repr(self))}</code>"

    def _repr_pretty_(self, printer: Pretty, cycle: bool) -> None:
        printer.text(str(self))


def _refuse_green_threads() -> None:
    """The program needs an OS thread; under monkey patching, `threading` makes tasks."""
    start = getattr(threading, "_start_joinable_thread", None) or getattr(threading, "_start_new_thread", None)
    if not isinstance(start, BuiltinFunctionType):
        raise SwitchError("a Stepper needs an OS thread, and threading has been monkey-patched: step without patching")
