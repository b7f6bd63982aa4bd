"""The report: every hub's tasks, what each one waits for, where and since when; as text, and as JSON.

Knows what `greenswitch.dump.looking` finds. The report is data that has no tie to what it describes: plain dicts, lists
and strings, the same that its JSON holds, so that another process can print it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from greenlet import getcurrent

from greenswitch.dump import notes
from greenswitch.dump.looking import (
    Being,
    beings,
    call_of,
    deadline_of,
    deadlines,
    ends_of,
    snapshot,
    thread_name,
)
from greenswitch.hub import Direction, Hub, Job, current_hub, os_ident
from greenswitch.hub.carriers import open_hubs
from greenswitch.hub.deadlock import circle_text, circles, waits_of
from greenswitch.hub.frames import frames_here, frames_of_thread, outside
from greenswitch.hub.naming import brief

_FRAMES = 20  # in the JSON; the text has fewer
_SHOWN = 3

Row = dict[str, Any]


class Report:
    """What everybody is doing. `print` it, or take `to_json()`, or look at `data`."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the report of which `text` is the `to_json()`."""
        return cls(json.loads(text))

    def to_json(self) -> str:
        """Return it as JSON: what `data` holds. Times are in seconds."""
        return json.dumps(self.data)

    def __str__(self) -> str:
        return "\n".join(_lines(self.data))

    def __repr__(self) -> str:
        return f"<Report of {sum(len(hub['rows']) for hub in self.data['hubs'])} tasks and greenlets>"


def dump(frame: FrameType | None = None) -> Report:
    """Return what all tasks of all hubs are doing, those of other threads too. Anywhere: it neither waits nor switches.

    `frame` is where the calling thread stands, for a signal handler to hand on; the caller's own frame by default.
    """
    here = frames_here(frame or sys._getframe(1))
    threads = list(getattr(threading, "_active", {}).values())  # enumerate() would wait for a lock
    hubs = sorted(snapshot(open_hubs), key=_age)
    data = [_hub(hub, here, thread_name(hub.thread_id, threads)) for hub in hubs]
    return Report(
        {
            "pid": os.getpid(),
            "times_noted": notes.notes_times(),
            "spawns_noted": notes.notes_spawns(),
            "hubs": [hub for hub in data if hub is not None],
        }
    )


def _age(hub: Hub) -> tuple[bool, int, int]:
    """This thread's first, and of each thread's the one in place first."""
    depth, inner = 0, current_hub()
    while inner is not None and inner is not hub:
        depth, inner = depth + 1, inner.previous
    return hub.thread_id != os_ident(), hub.thread_id, depth


def _hub(hub: Hub, here: list[FrameType], thread: str) -> dict[str, Any] | None:
    is_here = hub.thread_id == os_ident()
    running = here if is_here else frames_of_thread(hub.thread_id)
    if not running:
        return None  # its thread is gone, and has left it open
    found = sorted(beings(hub, running), key=lambda being: getattr(being.who, "_number", 0))
    looking = is_here and getcurrent() is hub.greenlet
    doing = "asleep" if hub.asleep else "running a callback" if looking else "awake"
    return {
        "hub": repr(hub),
        "thread": hub.thread_id,
        "thread_name": thread,
        "here": is_here,
        "doing": doing,
        "turns": hub.turns,
        "rows": _rows(hub, found),
        "circles": [circle_text(ring) for ring in circles(waits_of(_parked(found)))],
    }


def _parked(found: list[Being]) -> dict[Any, Any]:
    return {being.standing: being.waiter for being in found if being.state == "parked"}


# -- a row -----------------------------------------------------------------------------------------------------------


def _rows(hub: Hub, found: list[Being]) -> list[Row]:
    now = hub.clock()
    of_waits, of_blocks = deadlines(hub)
    starts = {id(job): when - now for job, when in hub.carriers.starting_later()}
    rows = []
    for being in found:
        until = of_blocks.get(id(being.standing), [])
        if being.waiter is not None and (own := deadline_of(being.waiter, of_waits)) is not None:
            until = [own, *until]
        rows.append(
            {
                "id": id(being.who),
                "name": brief(being.who),
                "is_task": isinstance(being.who, Job),
                "state": being.state,
                "waits": None if being.waiter is None else _waits(being),
                "deadlines": [{"left": one.when - now, "of": one.scope} for one in until],
                "starts_in": starts.get(id(being.who)),
                "since": _since(hub, being, now),
                "where": [_place(frame) for frame in outside(being.frames)[:_FRAMES]],
                "spawned": _spawned(being.who),
            }
        )
    return rows


def _waits(being: Being) -> dict[str, Any]:
    waiter = being.waiter
    assert waiter is not None
    wait = waits_of({being.standing: waiter})[0]  # type: ignore[dict-item]
    told: dict[str, Any] = {
        "verb": waiter.verb,
        "on": None if waiter.target is None else brief(waiter.target),
        "in": call_of(being.frames, waiter.target),
        "keepers": [brief(keeper) for keeper in wait.keepers],
        "lacks": wait.lacks,
    }
    if isinstance(waiter, Direction):
        told["fd"] = waiter.registration.fd
        told["ends"] = ends_of(told["fd"], waiter.registration.kept)
        told["on"] = f"fd {told['fd']}" + (f" ({told['ends']})" if told["ends"] else "")
    return told


def _since(hub: Hub, being: Being, now: float) -> dict[str, Any] | None:
    since = notes.since_of(hub, being.standing) if being.state == "parked" else None
    return None if since is None else {"seconds": now - since.time, "exact": since.exact}


def _place(frame: FrameType) -> list[Any]:
    return [frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name]


def _spawned(who: object) -> dict[str, Any] | None:
    spawn = notes.spawn_of(who) if isinstance(who, Job) else None
    if spawn is None:
        return None
    by = spawn.by()
    return {"by": spawn.name, "at": spawn.at, "by_id": None if by is None else id(by)}


# -- as text ---------------------------------------------------------------------------------------------------------


def _lines(data: dict[str, Any]) -> Iterator[str]:
    if not data["hubs"]:
        yield f"no hub in process {data['pid']}"
    for hub in data["hubs"]:
        thread = f" ({hub['thread_name']})" if hub["thread_name"] else ""
        yield f"{hub['hub']}{thread}, {hub['doing']}, turn {hub['turns']:,}"
        if not data["times_noted"]:
            yield "  since when: unknown, since greenswitch.dump.note_times() has not been called"
        for depth, row in _tree(hub["rows"]):
            indent = "  " * (depth + 1)
            yield indent + _heading(row)
            yield from (f"{indent}    {line}" for line in _standing(row, data["spawns_noted"]))
        yield from (f"  in a circle: {text}" for text in hub["circles"])


def _tree(rows: list[Row]) -> Iterator[tuple[int, Row]]:
    """Yield each row with its depth, below the one who has spawned it."""
    ids = {row["id"] for row in rows}
    children: dict[int | None, list[Row]] = {}
    for row in rows:
        parent = row["spawned"] and row["spawned"]["by_id"]
        children.setdefault(parent if parent in ids and parent != row["id"] else None, []).append(row)
    left = [(0, row) for row in reversed(children.get(None, []))]
    while left:
        depth, row = left.pop()
        yield depth, row
        left += [(depth + 1, child) for child in reversed(children.get(row["id"], []))]


def _heading(row: Row) -> str:
    state = "has switched away by hand" if row["state"] == "away" else row["state"]
    if row["since"] is not None:
        state += f" for {'' if row['since']['exact'] else 'at least '}{_seconds(row['since']['seconds'])}"
    parts = [state]
    if row["waits"] is not None:
        parts.append(_waiting(row["waits"]))
    for deadline in row["deadlines"]:
        parts.append(f"{_seconds(deadline['left'])} left" + (f" of {deadline['of']}" if deadline["of"] else ""))
    if row["starts_in"] is not None:
        parts.append(f"starts in {_seconds(row['starts_in'])}")
    return f"{row['name']}: {', '.join(parts)}"


def _waiting(waits: dict[str, Any]) -> str:
    text = waits["verb"] if waits["on"] is None else f"{waits['verb']} {waits['on']}"
    return text if waits["in"] in (None, waits["verb"]) else f"{text} in {waits['in']}"


def _standing(row: Row, with_spawns: bool) -> Iterator[str]:
    for number, (file, line, function) in enumerate(row["where"][:_SHOWN]):
        yield f"{'at  ' if number == 0 else 'from'} {file}:{line} in {function}"
    if row["spawned"] is not None:
        yield f"spawned by {row['spawned']['by']} at {row['spawned']['at']}"
    elif with_spawns and row["is_task"]:
        yield "spawned by: unknown, before it was noted"


def _seconds(number: float) -> str:
    return f"{max(0.0, number):.3g} s" if number < 999.5 else f"{number:,.0f} s"
