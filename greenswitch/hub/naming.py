"""How greenlets, jobs and places are called in messages.

Knows what a greenlet and a job look like. Knows no hub.
"""

from __future__ import annotations

from types import FrameType

import greenlet

from greenswitch.hub.carriers import Job


def describe(one: greenlet.greenlet) -> str:
    """Return how to call `one` in a message: the job that it carries, or the greenlet itself."""
    job = getattr(one, "job", None)
    if job is not None:
        return brief(job)
    if one.parent is None:
        return "main greenlet"
    return f"greenlet {getattr(one, 'name', None) or hex(id(one))}"


def brief(target: object) -> str:
    """Return a job's label, else the repr of `target`: a job's repr says what it waits for, and may go in circles."""
    return target.label if isinstance(target, Job) else repr(target)


def where(waiting: greenlet.greenlet) -> str:
    """Where outside this package `waiting` stands, as ' at file:line in function'."""
    frame: FrameType | None = waiting.gr_frame
    while frame is not None and ours(frame):
        frame = frame.f_back
    return "" if frame is None else f" at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def ours(frame: FrameType) -> bool:
    """Return whether `frame` runs a line of this package."""
    return str(frame.f_globals.get("__name__", "")).startswith("greenswitch.")
