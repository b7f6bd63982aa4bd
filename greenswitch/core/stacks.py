"""Read where a suspended greenlet stands: its frames, and the greenlets that it would return to.

Why: a thread has one stack, a program that switches has many. When something hangs, the question is "who waits where,
and who called whom". Two chains answer it, and they are easily mixed up:

- the *frames* of one greenlet: its function called another, which called another, which switched away. These are calls.
- the *parents*: the greenlet that runs on when this one's function ends, then that one's parent, up to the thread's
  main greenlet. A parent called nothing: it is only where the result, or the exception, goes.

Knows raw greenlets, and anything that shows one as `.greenlet`. Must not know how a coroutine, an iterator or a task
works: a module whose own frames would only be noise says so itself, with a global `__hidden_from_stacks__ = __file__`.
A greenlet's name is its attribute `name`, which anyone may set: greenlets have a `__dict__`.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Literal, Protocol

from greenlet import getcurrent, greenlet

__hidden_from_stacks__ = __file__


class HasGreenlet(Protocol):
    """Anything that stands on one greenlet and shows it."""

    @property
    def greenlet(self) -> greenlet: ...


# Jupyter gives each cell a file with a hash for its name, IPython a name that is no file's.
_CELL = re.compile(r"[/\\]ipykernel_\d+[/\\]\d+\.py$|^<ipython-input-")

Target = greenlet | HasGreenlet
Standing = Literal["new", "running", "suspended", "finished"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One call in progress: which function, and the line that it has reached."""

    function: str
    file: str
    line: int

    @property
    def where(self) -> str:
        """Return the place in short, as `file.py:12`; of a notebook's cell only the line."""
        if _CELL.search(self.file):
            return f"cell line {self.line}"
        return f"{os.path.basename(self.file)}:{self.line}"

    @property
    def source(self) -> str:
        """Return the text of the line, or an empty string where there is no source."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{self.function}  {self.where}  {self.source}".rstrip()


@dataclass(frozen=True, slots=True)
class ContextStack:
    """One greenlet's frames, caller first, and the same of its parent; `str()` of it is made to be read.

    A snapshot: it doesn't keep the greenlet alive, and doesn't change when the greenlet runs on.
    """

    name: str
    state: Standing
    frames: tuple[Frame, ...]
    parent: ContextStack | None

    @property
    def parents(self) -> tuple[ContextStack, ...]:
        """Return the nearest parent first, the thread's main greenlet last."""
        return () if self.parent is None else (self.parent, *self.parent.parents)

    def text(self, limit: int | None = None) -> str:
        """Write both chains down, of every greenlet the innermost `limit` frames (all if None)."""
        parts = [f"{self.name!r} is {self.state}" + _frame_lines(self.frames, limit)]
        parts += [f"its parent {up.name!r} is {up.state}" + _frame_lines(up.frames, limit) for up in self.parents]
        return "\n".join(parts)

    def __str__(self) -> str:
        return self.text()


def context_stack(target: Target) -> ContextStack:
    """Return the frames of a greenlet and of all its parents. Anyone may ask, at any time, about any greenlet.

    >>> def outer():
    ...     inner()
    >>> def inner():
    ...     getcurrent().parent.switch()
    >>> green = greenlet(outer)
    >>> green.name = "reader"
    >>> _ = green.switch()
    >>> stack = context_stack(green)
    >>> stack.name, stack.state, [frame.function for frame in stack.frames], stack.parent.name
    ('reader', 'suspended', ['outer', 'inner'], 'main')
    """
    green = of_greenlet(target)
    parent = None if green.parent is None else context_stack(green.parent)
    return ContextStack(name_of(green), state_of(green), frames(green), parent)


def frames(target: Target) -> tuple[Frame, ...]:
    """Return the calls in progress in a greenlet, caller first, callee last; none if it is new or finished."""
    return tuple(_as_data(frame) for frame in _visible(of_greenlet(target)))[::-1]


def parents(target: Target) -> tuple[greenlet, ...]:
    """Return the greenlets that run on when this one ends: the nearest first, the thread's main greenlet last."""
    chain = []
    above = of_greenlet(target).parent
    while above is not None:
        chain.append(above)
        above = above.parent
    return tuple(chain)


def standing_at(target: Target) -> Frame | None:
    """Return the innermost call alone: where a greenlet will run on."""
    frame = next(_visible(of_greenlet(target)), None)
    return None if frame is None else _as_data(frame)


def state_of(target: Target) -> Standing:
    """Return what the greenlet is doing; one that runs in another thread is running too."""
    green = of_greenlet(target)
    if green.dead:
        return "finished"
    if not green:
        return "new"
    return "running" if green.gr_frame is None else "suspended"


def name_of(target: Target) -> str:
    """Return the greenlet's `name`; without one, `main` for a thread's first greenlet, else its address."""
    green = of_greenlet(target)
    name = getattr(green, "name", None)
    if isinstance(name, str):
        return name
    return "main" if green.parent is None else f"greenlet at {id(green):#x}"


def main_of(green: greenlet) -> greenlet:
    """Return the main greenlet of the thread that a greenlet belongs to: every chain of parents ends there."""
    while (above := green.parent) is not None:
        green = above
    return green


def of_greenlet(target: Target) -> greenlet:
    """Return the raw greenlet of a coroutine, an iterator or a greenlet; raise TypeError for anything else."""
    green = target if isinstance(target, greenlet) else getattr(target, "greenlet", None)
    if not isinstance(green, greenlet):
        raise TypeError(f"expected a greenlet, or something with one as its .greenlet, not {target!r}")
    return green


def _visible(green: greenlet) -> Iterator[FrameType]:
    """Yield the frames, innermost first, without those of modules that only do the switching."""
    frame = sys._getframe() if green is getcurrent() else green.gr_frame
    while frame is not None:
        if frame.f_code.co_filename != frame.f_globals.get("__hidden_from_stacks__"):
            yield frame
        frame = frame.f_back


def _as_data(frame: FrameType) -> Frame:
    return Frame(frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno)


def _frame_lines(calls: tuple[Frame, ...], limit: int | None) -> str:
    shown = calls if limit is None else calls[max(0, len(calls) - limit):]
    lines = [f"    ... {len(calls) - len(shown)} more callers"] if len(shown) < len(calls) else []
    return "".join(f"\n{line}" for line in lines + [f"    {frame}" for frame in shown])
