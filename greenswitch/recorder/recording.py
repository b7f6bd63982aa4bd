"""A recording: the last events of one thread, in bounded memory, and the ways to look at them.

Knows what an event is. Keeps text and numbers only: nothing that was running lives longer for having been recorded.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from html import escape
from types import TracebackType
from typing import NamedTuple

from greenswitch.errors import ScopeError
from greenswitch.hub import current_hub, os_ident
from greenswitch.recorder import perfetto
from greenswitch.recorder.events import Event
from greenswitch.recorder.lanes import Lane
from greenswitch.recorder.spans import Span, spans
from greenswitch.recorder.timeline import Timeline
from greenswitch.recorder.tracing import Tracer

LIMIT = 20_000
ROWS = 100


class _Noted(NamedTuple):
    """An event as it is kept: with lanes rather than their names, which may be learnt later."""

    time: float
    kind: str
    source: Lane
    target: Lane | None
    state: str
    why: str
    passed: str


class Recording:
    """The switches of one thread, from the beginning of a `with` block to its end. `record()` makes it.

    Iterate it for its `Event`s, oldest first; `len()` counts them. It keeps the last `limit` of them, and `dropped`
    says how many earlier ones it has let go of. It can be looked at any time, inside the block too.
    """

    def __init__(self, limit: int, clock: Callable[[], float] | None) -> None:
        self._noted: deque[_Noted] = deque(maxlen=limit)
        self._count = 0
        self._clock = clock
        self._tracer: Tracer | None = None
        self._began: float | None = None
        self._ended: float | None = None
        self.complete = True
        """False if tracing was switched off inside the block: by somebody's `greenlet.settrace(None)`, or because a
        trace function had raised. Switches are missing from then on."""

    # -- recording -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Recording:
        if self._began is not None:
            raise ScopeError(f"{self!r} has been made already: each `with` block needs a record() of its own")
        if self._clock is None:
            hub = current_hub()
            self._clock = time.monotonic if hub is None else hub.clock
        self._thread = os_ident()
        self._began = self._clock()
        self._tracer = Tracer(self._note, self._clock)
        self._tracer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        tracer, self._tracer = self._tracer, None
        if tracer is None or self._clock is None:
            raise ScopeError(f"{self!r} has ended already")
        self.complete = tracer.stop()
        self._ended = self._clock()
        if os_ident() != self._thread:
            raise ScopeError("a recording is of one thread: leave its `with` block in the thread that has entered it")

    def _note(
        self, time: float, kind: str, source: Lane, target: Lane | None, state: str, why: str, passed: str, /
    ) -> None:
        self._count += 1
        self._noted.append(_Noted(time, kind, source, target, state, why, passed))

    # -- looking ---------------------------------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """How many events it has let go of, the oldest first, to keep within its limit."""
        return self._count - len(self._noted)

    @property
    def seconds(self) -> float:
        """How long it has recorded."""
        if self._began is None or self._clock is None:
            return 0.0
        return (self._clock() if self._ended is None else self._ended) - self._began

    @property
    def lanes(self) -> list[str]:
        """The names of the tasks and greenlets that appear in it, in the order in which they do."""
        return list(self._names(list(self._noted)).values())

    def __len__(self) -> int:
        return len(self._noted)

    def __iter__(self) -> Iterator[Event]:
        noted = list(self._noted)
        names = self._names(noted)
        for time_, kind, source, target, state, why, passed in noted:
            to = "" if target is None else names[target]
            yield Event(time_ - (self._began or 0.0), kind, names[source], to, state, why, passed)

    def _names(self, noted: Iterable[_Noted]) -> dict[Lane, str]:
        """Name each lane, so that no two that appear together have the same name."""
        names: dict[Lane, str] = {}
        used: set[str] = set()
        for event in noted:
            for lane in (event.source, event.target):
                if lane is not None and lane not in names:
                    name = wanted = lane.name or "greenlet"
                    number = 1
                    while name in used:
                        number += 1
                        name = f"{wanted} ({number})"
                    names[lane] = name
                    used.add(name)
        return names

    def spans(self) -> dict[str, list[Span]]:
        """Return what each lane did when, by its name: spans in the order of time, each with its state."""
        return spans(self, self.seconds, self.dropped == 0)

    def __repr__(self) -> str:
        state = "not begun" if self._began is None else "under way" if self._ended is None else f"{self.seconds:.6f} s"
        return f"<Recording of {len(self)} events, {state}{f', {self.dropped} dropped' if self.dropped else ''}>"

    # -- as a table ------------------------------------------------------------------------------------------------

    def table(self, rows: int | None = ROWS) -> str:
        """Return the events as a table, times in milliseconds; with more than `rows` (None: any), the middle is cut.

        `print(recording)` shows `ROWS` at most.
        """
        cells = [_HEAD, *(_cells(event) for event in self)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
        lines = [_line(row, widths) for row in cells]
        if rows is not None and len(lines) > rows + 1:
            half = rows // 2
            cut = f"{'…':>{widths[0]}}  {len(lines) - 1 - 2 * half} more: table(None) shows them all"
            lines[1 + half : len(lines) - half] = [cut]
        return "\n".join([*lines, *self._remarks()])

    def _remarks(self) -> list[str]:
        remarks = []
        if self.dropped:
            remarks.append(f"{self.dropped} earlier events dropped: record(limit=…) keeps more")
        if not self.complete:
            remarks.append("tracing was switched off meanwhile: switches are missing at the end")
        return remarks

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self, rows: int = ROWS) -> str:
        """Show the table in Jupyter."""
        events = list(self)
        shown = events if len(events) <= rows else [*events[: rows // 2], *events[-(rows // 2) :]]
        body = ["".join(f"<td>{escape(cell)}</td>" for cell in _cells(event)) for event in shown]
        if len(shown) < len(events):
            body.insert(rows // 2, f'<td colspan="6">… {len(events) - len(shown)} more</td>')
        head = "".join(f"<th>{name}</th>" for name in _HEAD)
        table = "".join(f"<tr>{row}</tr>" for row in [head, *body])
        remarks = "".join(f"<p>{escape(remark)}</p>" for remark in self._remarks())
        return f'<table style="text-align: left; font-variant-numeric: tabular-nums">{table}</table>{remarks}'

    # -- as a picture and as a file --------------------------------------------------------------------------------

    def timeline(
        self,
        lanes: Iterable[str] | None = None,
        *,
        begin: float = 0.0,
        end: float | None = None,
        most: int = 40,
        width: float = 8.5,
    ) -> Timeline:
        """Draw it, a lane for each of `lanes` (None: the first `most`), between two times in seconds; `width` inches.

        Needs matplotlib: ImportError without. Jupyter shows what is returned; elsewhere `save(path)` it.
        """
        return Timeline(list(self), self.spans(), lanes, begin, self.seconds if end is None else end, most, width)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as Chrome trace JSON: drop the file on https://ui.perfetto.dev. OSError if it can't be written."""
        perfetto.write(path, list(self), self.spans(), self.dropped)


_HEAD = ("ms", "who", "", "whom", "why", "with")
_VERBS = {"switch": "→", "throw": "throws into", "wake": "wakes", "spawn": "spawns", "end": "ends"}


def _cells(event: Event) -> tuple[str, ...]:
    state = "" if event.kind in ("wake", "spawn") or event.state == "suspended" else event.state
    why = ": ".join(filter(None, (state, event.why)))
    return (f"{event.time * 1000:.3f}", event.source, _VERBS[event.kind], event.target, why, event.passed)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    first, *others = cells
    return "  ".join(
        [first.rjust(widths[0]), *(cell.ljust(width) for cell, width in zip(others, widths[1:], strict=True))]
    ).rstrip()
