"""Where greenlets and threads stand: their frames, and which of those are a person's own lines.

Knows frames, greenlets and carriers. Knows no hub.

Frames of somebody else are listed in one step, with no Python code in between: from CPython 3.12 on a frame's way back
leads over the C stack, which is another's as soon as another thread lets a greenlet go on.
"""

from __future__ import annotations

import gc
import sys
from _thread import allocate_lock
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate, chain, repeat, starmap
from operator import getitem
from types import FrameType
from typing import Any, Final

import greenlet

from greenswitch.hub.carriers import Carrier

_DEEP: Final = 10_000  # frames
_COLLECTS_ANYWHERE: Final = sys.version_info < (3, 12)
_collecting = allocate_lock()
_attribute: Final[Callable[[Any, Any], Any]] = getattr


def where(waiting: greenlet.greenlet) -> str:
    """Where outside this package `waiting` stands, as ' at file:line in function'."""
    frames = outside(frames_of(waiting))
    return f" at {place(frames[0])}" if frames else ""


def place(frame: FrameType) -> str:
    """Return 'file:line in function'."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def frames_of(suspended: greenlet.greenlet) -> list[FrameType]:
    """Return where `suspended` stands, the innermost frame first; nothing for one that is not. Any thread."""
    found: list[Any] = []
    with suppress(AttributeError):  # the outermost frame's f_back is None, and what came before that has been kept
        found.extend(accumulate(chain([suspended, "gr_frame"], repeat("f_back", _DEEP)), _attribute))
    return found[1:-1]


def frames_of_thread(thread_id: int) -> list[FrameType]:
    """Return where an OS thread stands, the innermost frame first; nothing for one that is gone. Any thread.

    Up to CPython 3.11 without the collector: it might let another thread run amid the step, which would wait for a lock
    that is held here, for ever.
    """
    found: list[FrameType] = []
    first = map(getitem, starmap(sys._current_frames, [()]), [thread_id])
    steps = accumulate(chain(first, repeat("f_back", _DEEP)), _attribute)
    with suppress(AttributeError, KeyError), _NoCollection():
        found.extend(steps)
    return found[:-1]


class _NoCollection:
    """Keeps the collector away from a block, for all threads; one thread at a time."""

    def __enter__(self) -> None:
        self._was_on = False
        # The time limit is for a signal handler, which may have come in between the lines of this very block.
        self._holds = _COLLECTS_ANYWHERE and _collecting.acquire(timeout=1)
        if self._holds:
            self._was_on = gc.isenabled()
            gc.disable()

    def __exit__(self, *error: object) -> None:
        if self._was_on:
            gc.enable()
        if self._holds:
            _collecting.release()


def frames_here(innermost: FrameType | None) -> list[FrameType]:
    """Return `innermost` and the frames that have called it."""
    found = []
    while innermost is not None:
        found.append(innermost)
        innermost = innermost.f_back
    return found


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
