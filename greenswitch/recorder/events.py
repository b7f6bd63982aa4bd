"""One thing that happened on a thread: a switch, or a wake."""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """One thing that happened. All text: an event keeps nothing alive."""

    time: float
    """Seconds since the recording began, by its clock."""
    kind: str
    """`switch`: `source` stopped and `target` runs. `throw`: likewise, and an exception is raised there. `wake`:
    `source`, which runs, has made `target` ready to go on. `spawn`: likewise, to start. `end`: `source` was killed
    before it could start; it has no target."""
    source: str
    """The name of the task or greenlet that did it; `hub` is the hub."""
    target: str
    """To whom."""
    state: str
    """At a switch, what became of `source`: `parked` (see `why`), `ready` (it stepped aside), `suspended` (it named the
    next one itself; the hub always does), or how it ended: `done`, `failed`, `killed`. At a wake `ready`: the
    target's."""
    why: str
    """What a parked `source`, or a woken `target`, waits for; what a failed one failed with. Empty if nothing."""
    passed: str
    """What the target is given, as text: the arguments it starts with, the value it was woken or switched to with, or
    `raises …`. In backquotes where only the expression is known, not its value. Empty if nothing."""
