"""How greenlets, jobs, places and what is waited for are called in messages.

Knows what a greenlet and a job look like. Knows no hub.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate, chain, repeat
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType
from typing import Any, Final

import greenlet

from greenswitch.hub.carriers import Carrier, Job

_FUNCTIONS = FunctionType, BuiltinFunctionType, MethodType
_MOST = 200  # characters of a repr
_FEW = 5  # of several things that are waited for
_DEEP = 10_000  # frames
_attribute: Final[Callable[[Any, Any], Any]] = getattr


def describe(one: greenlet.greenlet) -> str:
    """Return how to call `one` in a message: the job that it carries, or the greenlet itself."""
    job = getattr(one, "job", None)
    if job is not None:
        return brief(job)
    if one.parent is None:
        return "main greenlet"
    return f"greenlet {getattr(one, 'name', None) or hex(id(one))}"


def brief(target: object) -> str:
    """Return a job's label, a function's name, else the repr of `target`, not too long; never raise.

    A job's repr would not do: it says what it waits for, and may go in circles.
    """
    if isinstance(target, Job):
        return target.label
    if isinstance(target, greenlet.greenlet):
        return describe(target)
    if isinstance(target, _FUNCTIONS):
        return target.__name__
    if isinstance(target, list):
        return f"[{', '.join(few([brief(one) for one in target[:_FEW]], len(target)))}]"
    try:
        text = repr(target)
    except Exception as error:
        text = f"<{type(target).__name__}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"


def few(shown: list[str], number: int) -> list[str]:
    """Return `shown`, and how many are left out if there are `number` of them."""
    return shown if number <= len(shown) else [*shown, f"and {number - len(shown):,} more"]


def where(waiting: greenlet.greenlet) -> str:
    """Where outside this package `waiting` stands, as ' at file:line in function'."""
    frames = outside(frames_of(waiting))
    return f" at {place(frames[0])}" if frames else ""


def place(frame: FrameType) -> str:
    """Return 'file:line in function'."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def frames_of(suspended: greenlet.greenlet) -> list[FrameType]:
    """Return where `suspended` stands, the innermost frame first; nothing for one that runs, or never did. Any thread.

    In one step, with no Python code in between: from CPython 3.12 on a frame's way back leads over the C stack, which
    is somebody else's as soon as another thread lets the greenlet go on.
    """
    found: list[Any] = []
    with suppress(AttributeError):  # the outermost frame's f_back is None, and what came before that has been kept
        found.extend(accumulate(chain([suspended, "gr_frame"], repeat("f_back", _DEEP)), _attribute))
    return found[1:-1]


def outside(frames: list[FrameType]) -> list[FrameType]:
    """Return `frames` (innermost first) from the first that is not this package's on.

    One that stands in this package only, as a task of `greenswitch.echo` does, keeps the function that it was
    started with. What a carrier does to run it is nobody's concern.
    """
    if frames and frames[-1].f_code is Carrier.run.__code__:
        frames = frames[:-1]
    number = next((number for number, frame in enumerate(frames) if not ours(frame)), None)
    return frames[-1:] if number is None else frames[number:]


def ours(frame: FrameType) -> bool:
    """Return whether `frame` runs a line of this package."""
    return str(frame.f_globals.get("__name__", "")).startswith("greenswitch.")
