"""Turn a function that pushes into an iterator that is pulled.

Why: some code hands out its results by calling you (a parser with handlers, a tree walk with a visitor), and some code
wants to ask for them (a `for` loop, `zip`, `islice`). A generator turns the first into the second only if every
function on the way down is a generator too, with `yield from` at each call, and never through a callback made by C
code. A greenlet is left from any depth: `emit(x)` switches to whoever asked for the next item, and the calls in between
never notice.

How it behaves is what a generator has taught to expect: the function starts at the first `next`, runs only while
somebody waits for an item, and what it returns is the StopIteration's value. Its exceptions are raised at `next`, as
they are, causes included. It sees the context variables as they were when `iterate` was called. An iterator that is
closed, left by `with`, or dropped early has `GreenletExit` raised at its `emit`, so `finally` blocks run.

Knows raw greenlets and the context stacks. Knows no hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec

from greenlet import getcurrent, greenlet

from greenswitch.core import stacks
from greenswitch.errors import SwitchError

__hidden_from_stacks__ = __file__

P = ParamSpec("P")


class _Tray:
    """Where one item lies between `emit` and `next`. The switch passes the tray itself: so `next` knows it for ours."""

    __slots__ = ("item",)

    def __init__(self) -> None:
        self.item: Any = None


class Iteration(Iterator[Any]):
    """An iterator over what a function emits; made by `iterate`, to be used on the thread that made it.

    `greenlet` is the raw greenlet that the function runs in; read its stack by all means, but leave switching to
    `next`.
    """

    __slots__ = ("__weakref__", "_asked", "_home", "_tray", "greenlet")

    def __init__(self, run: Callable[[], Any], name: str) -> None:
        # Invariant: the function's frames never refer to this object, so dropping it ends the function.
        self._tray = _Tray()
        self._asked = False
        self._home = stacks.main_of(getcurrent())
        self.greenlet = greenlet(partial(_produce, run), self._home)
        self.greenlet.gr_context = copy_context()  # a greenlet starts with none: decimal would forget its precision
        vars(self.greenlet).update(name=name, _tray=self._tray)

    def __next__(self) -> Any:
        """Run the function to its next `emit`, return the item; raise what it raises, StopIteration if it returns."""
        self._refuse("next()")
        if self.greenlet.dead:
            raise StopIteration
        value = self._resume(self.greenlet.switch)
        if self.greenlet.dead:
            raise StopIteration(value)
        item, self._tray.item = self._tray.item, None
        return item

    def close(self) -> None:
        """End the function now: its `finally` blocks run before this returns. One that never started never runs.

        Do nothing if it has ended. Raise what its `finally` blocks raise, and SwitchError if it goes on emitting.
        """
        self._refuse("close()")
        if self.greenlet.dead:
            return
        self._resume(self.greenlet.throw)
        if not self.greenlet.dead:
            raise SwitchError(
                f"{self!r} went on emitting after close(): let GreenletExit pass through the function, "
                "and don't emit in finally"
            )

    def __enter__(self) -> Iteration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _resume(self, resume: Callable[[], Any]) -> Any:
        """Switch to the function with the caller as its parent, so that its end and its exceptions come here too."""
        self._adopt(getcurrent())
        self._asked = True
        try:
            back = resume()
            if back is not self._tray and not self.greenlet.dead:
                raise SwitchError(
                    f"the greenlet that waits for an item of {self!r} was switched to by hand, with {back!r}: only "
                    "emit() may resume it"
                )
            return back
        except BaseException:
            if not self.greenlet.dead:  # the wait was broken off: nobody will take the item
                self.greenlet.throw()
            raise
        finally:
            self._asked = False
            self.greenlet.parent = self._home  # or a finished iterator would keep its last consumer alive

    def _adopt(self, consumer: greenlet) -> None:
        try:
            self.greenlet.parent = consumer
        except ValueError as error:  # a cycle of parents
            raise SwitchError(
                f"{stacks.name_of(consumer)!r} can't take items of {self!r}: it was started inside that function, and "
                "is to return there. Take them elsewhere, or give it another parent"
            ) from error

    def _refuse(self, verb: str) -> None:
        if stacks.main_of(getcurrent()) is not self._home:
            raise SwitchError(
                f"{verb} on {self!r} from a thread that didn't make it: a greenlet can't move to another thread. "
                "Iterate where iterate() was called, and pass the items on with a queue.Queue"
            )
        if self._asked:
            raise SwitchError(
                f"{verb} on {self!r} while its function runs: it was asked for an item, and has to emit or return "
                "before it is asked again"
            )

    def __repr__(self) -> str:
        frame = stacks.standing_at(self.greenlet)
        place = "" if frame is None else f" at {frame.where}"
        return f"<Iteration of {stacks.name_of(self.greenlet)!r} {stacks.state_of(self.greenlet)}{place}>"


def iterate(function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Iteration:
    """Return an iterator over what `function(*args, **kwargs)` emits; it starts at the first `next`, on this thread.

    >>> def walk(tree):
    ...     for branch in tree:
    ...         if isinstance(branch, list):
    ...             walk(branch)
    ...         else:
    ...             emit(branch)
    >>> list(iterate(walk, [1, [2, [3]], 4]))
    [1, 2, 3, 4]
    """
    if not callable(function):
        raise TypeError(f"iterate needs a function, not {function!r}: don't call it yourself")
    return Iteration(partial(function, *args, **kwargs), getattr(function, "__name__", type(function).__name__))


def emit(item: Any) -> None:
    """Hand one item to whoever asked for the next, and wait here until the one after it is wanted.

    Only for functions that run under `iterate`, at any call depth, and in the same greenlet; raise SwitchError
    elsewhere.
    """
    here = getcurrent()
    tray: _Tray | None = vars(here).get("_tray")
    consumer = here.parent
    if tray is None or consumer is None:
        raise SwitchError(
            f"emit({item!r}) was called in {stacks.name_of(here)!r}, which nobody iterates over: call it in a function "
            "run by iterate(function, ...), and not from another greenlet or thread that this function starts"
        )
    tray.item = item
    del here, item  # a suspended frame that refers to its own greenlet would keep it, and the item, alive for ever
    consumer.switch(tray)


def _produce(run: Callable[[], Any]) -> Any:
    """Be the outermost frame. A StopIteration from inside would end the consumer's loop without a word."""
    try:
        return run()
    except StopIteration as error:
        raise RuntimeError("a function under iterate() raised StopIteration: return instead, to end it") from error
