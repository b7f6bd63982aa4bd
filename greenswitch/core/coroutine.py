"""A greenlet with a name, that can tell where it stands and why a switch can't work.

Why: a raw greenlet is the smallest tool that there is. It is started, switched to, and it ends; but it prints as an
address, and its mistakes are silent. Switch to a finished one and you land in its parent; switch to yourself and
nothing happens. `Coroutine` is the same switch with eyes: a state, the line where it stands, who resumed it, its
result, and an error that names the cure.

The rules, all of them greenlet's own:

1. The first switch calls the function: the values switched are its arguments. Each later switch passes one value, which
   becomes the result of the switch that the coroutine left by.
2. Nobody is chosen for you: whoever you don't switch to stays where it is.
3. When the function ends, its *parent* runs on, with the result or the exception: not the one who resumed it last. The
   parent is the coroutine that made it, unless another is given.
4. A suspended coroutine that nobody refers to any more gets a `GreenletExit` thrown in, so that its `finally` blocks
   run. It must be nobody: one that is referred to by its own function's variables is never freed, so end it with
   `throw(GreenletExit)`. That is an end, not a failure: the parent gets the GreenletExit as a value.

Knows greenlet and the context stacks. Knows no hub: a task of a hub is not to be switched to by hand.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Literal

from greenlet import GreenletExit, getcurrent, greenlet

from greenswitch.core import stacks
from greenswitch.errors import SwitchError

__hidden_from_stacks__ = __file__

State = Literal["new", "running", "suspended", "finished", "failed"]


class _Record:
    """What is known about one greenlet. It lives in the greenlet's `__dict__` and in its outermost frame.

    Invariant: it refers strongly neither to the greenlet nor to a Coroutine. Otherwise a suspended greenlet would keep
    itself alive, and its `finally` blocks would never run.
    """

    __slots__ = ("exception", "function", "resumer", "resumer_name", "resumes", "thread", "value", "view")

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        self.function = function  # until it starts, to explain a wrong first switch
        self.thread = "another thread"
        self.value: Any = None
        self.exception: BaseException | None = None
        self.resumer: weakref.ref[greenlet] | None = None
        self.resumer_name: str | None = None
        self.resumes = 0
        self.view: weakref.ref[Coroutine] | None = None


class Coroutine:
    """Name a function that can be left in the middle and resumed there, by anyone on the same thread.

    `name` defaults to the function's; `parent` (a Coroutine or a greenlet) runs on when the function ends, and defaults
    to whoever makes the coroutine. Context variables are copied from the maker, once.

    >>> def add_up(first):
    ...     second = hand_back("one more, please")
    ...     return first + second
    >>> adder = Coroutine(add_up, name="adder")
    >>> adder.switch(1)
    'one more, please'
    >>> adder.state, adder.resumed_by.name
    ('suspended', 'main')
    >>> adder.switch(2)
    3
    >>> adder
    <Coroutine 'adder' finished: 3>
    """

    __slots__ = ("__weakref__", "_record", "greenlet")

    def __init__(
        self, function: Callable[..., Any], *, name: str | None = None, parent: stacks.Target | None = None
    ) -> None:
        if not callable(function):
            raise TypeError(f"Coroutine needs a function, not {function!r}: pass the function itself, don't call it")
        record = _Record(function)
        above = getcurrent() if parent is None else stacks.of_greenlet(parent)
        green = greenlet(partial(_run, record, function), above)
        green.gr_context = copy_context()  # a greenlet starts with none
        self._bind(green, record, name or str(getattr(function, "__name__", type(function).__name__)))

    def _bind(self, green: greenlet, record: _Record, name: str) -> None:
        self.greenlet, self._record = green, record
        record.view = weakref.ref(self)
        if stacks.main_of(green) is stacks.main_of(getcurrent()):
            record.thread = f"thread {threading.current_thread().name!r}"
        vars(green).update(name=name, _coroutine=record)

    @classmethod
    def of(cls, target: stacks.Target) -> Coroutine:
        """Return the coroutine that stands on a greenlet, made now if it has none: `main`, say, or a raw greenlet.

        The same object is returned for as long as somebody keeps it.
        """
        green = stacks.of_greenlet(target)
        record: _Record = vars(green).get("_coroutine") or _Record()
        view = record.view() if record.view is not None else None
        if view is None:
            view = cls.__new__(cls)
            view._bind(green, record, stacks.name_of(green))
        return view

    @property
    def name(self) -> str:
        """Return the name that errors and stacks call it by."""
        return stacks.name_of(self.greenlet)

    @property
    def state(self) -> State:
        """Return `new`, `running`, `suspended`, `finished` (see `value`) or `failed` (see `exception`)."""
        return "failed" if self._record.exception is not None else stacks.state_of(self.greenlet)

    @property
    def value(self) -> Any:
        """Return what the function returned, or the GreenletExit that ended it; None until it has finished."""
        return self._record.value

    @property
    def exception(self) -> BaseException | None:
        """Return what the function raised; None unless it has failed."""
        return self._record.exception

    @property
    def where(self) -> stacks.Frame | None:
        """Return the call that it stands in: function, file and line; None if it is new or has ended."""
        return stacks.standing_at(self.greenlet)

    @property
    def parent(self) -> Coroutine | None:
        """Return who runs on when this one ends; None for a thread's main greenlet."""
        return None if self.greenlet.parent is None else Coroutine.of(self.greenlet.parent)

    @property
    def resumed_by(self) -> Coroutine | None:
        """Return who switched to it last; None if nobody has, if that one is freed, or if a raw greenlet did."""
        green = self._record.resumer() if self._record.resumer is not None else None
        return None if green is None else Coroutine.of(green)

    def switch(self, /, *args: Any, **kwargs: Any) -> Any:
        """Leave the running greenlet and run this one, until somebody switches back; return what they pass.

        The first switch's values are the function's arguments; later ones pass one value (None if there is none). Raise
        SwitchError, and switch nowhere, if this one has ended, runs already, belongs to another thread, or can't take
        the values. If the function raises and the caller is its parent, that exception is raised here.
        """
        self._refuse("switch to")
        if self.greenlet:
            return self._go(self.greenlet.switch, self._one_value(args, kwargs))
        self._refuse_arguments(args, kwargs)
        return self._go(self.greenlet.switch, *args, **kwargs)

    def throw(self, exception: BaseException | type[BaseException]) -> Any:
        """Run this one with an exception raised at the line where it stands; return as `switch` does.

        A new one fails without ever running. `GreenletExit` is the way to end one: its parent gets it as a value. Raise
        SwitchError as `switch` does, and TypeError for what is no exception.
        """
        self._refuse("throw into")
        error = exception() if isinstance(exception, type) and issubclass(exception, BaseException) else exception
        if not isinstance(error, BaseException):
            raise TypeError(f"throw needs an exception, not {exception!r}")
        if not self.greenlet:
            _note_end(self._record, error)  # its function never runs, so nobody else would note it
        return self._go(self.greenlet.throw, error)

    def _go(self, leave: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        here = getcurrent()
        self._record.resumer, self._record.resumer_name = weakref.ref(here), stacks.name_of(here)
        self._record.resumes += 1
        mine: _Record | None = vars(here).get("_coroutine")
        resumes = mine.resumes if mine is not None else 0
        del here  # while suspended, a frame that refers to its own greenlet would keep it alive for ever
        try:
            return leave(*args, **kwargs)
        finally:
            # We run again. If nobody said "it was me", a raw switch or a child's end did it: forget who it was.
            if mine is not None and mine.resumes == resumes:
                mine.resumer = mine.resumer_name = None

    def _refuse(self, verb: str) -> None:
        here = getcurrent()
        if stacks.main_of(self.greenlet) is not stacks.main_of(here):
            raise SwitchError(
                f"can't {verb} {self!r}: it belongs to {self._record.thread}, and a greenlet can't move to "
                "another. Pass data between threads with a queue.Queue, and switch only within one"
            )
        if self.greenlet is here:
            raise SwitchError(
                f"can't {verb} {self!r}: it is the one that runs, so there is nobody to leave. "
                + ("Raise the exception" if verb == "throw into" else "Use the value directly")
            )
        if self.greenlet.dead:
            kept = "its exception is in .exception" if self.state == "failed" else "its result is in .value"
            raise SwitchError(
                f"can't {verb} {self!r}: it has ended, and {kept}. Check .state before, or make a new Coroutine"
            )

    def _refuse_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Explain a first switch whose values don't fit, before anything has run: the coroutine stays new."""
        function = self._record.function or self.greenlet.run
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            return  # many built-in functions don't tell
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            called = getattr(function, "__name__", repr(function))
            given = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
            raise SwitchError(
                f"the first switch to {self.name!r} calls {called}{signature} with the values switched as its "
                f"arguments, and ({given}) doesn't fit: {error}. It is still new: switch again with its arguments"
            ) from error

    def _one_value(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs or len(args) > 1:
            raise SwitchError(
                f"{self!r} has started, so a switch to it passes one value, not {len(args) + len(kwargs)}: only the "
                "first switch's values are arguments. Pass a tuple"
            )
        return args[0] if args else None

    def __repr__(self) -> str:
        record, state = self._record, self.state
        text = f"<Coroutine {self.name!r} {state}"
        if state == "finished":
            return f"{text}: {record.value!r}>"
        if state == "failed":
            return f"{text}: {record.exception!r}>"
        if (frame := self.where) is not None:
            text += f" at {frame.where}"
        if record.resumer_name is not None:
            text += f", resumed by {record.resumer_name!r}"
        return text + ">"


def current() -> Coroutine:
    """Return the coroutine that calls this; outside of any, the thread's `main`, so that one can switch back to it."""
    return Coroutine.of(getcurrent())


def hand_back(value: Any = None) -> Any:
    """Switch to whoever resumed the running coroutine, as `yield` does but from any call depth; return what comes back.

    Raise SwitchError if nobody is known to have resumed it, or if that one has ended.
    """
    here = current()
    resumer = here.resumed_by
    if resumer is None:
        raise SwitchError(
            f"{here!r} can't hand back: no Coroutine that is still there resumed it. "
            "Name the next one: other.switch(value)"
        )
    del here  # as in Coroutine._go
    return resumer.switch(value)


def _run(record: _Record, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Be the outermost frame of a coroutine: call the function and note how it ended."""
    record.function = None
    try:
        record.value = function(*args, **kwargs)
    except BaseException as error:
        _note_end(record, error)
        raise
    return record.value


def _note_end(record: _Record, error: BaseException) -> None:
    if isinstance(error, GreenletExit):
        record.value = error
    else:
        record.exception = error
