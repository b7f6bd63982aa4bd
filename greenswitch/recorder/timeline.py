"""A recording as a picture: time from left to right, a lane for each task and greenlet.

What a lane does shows in the height of its bar as well as in its colour, so that it can be read in grey and by whoever
sees colours differently: running is a full bar (a pale one for the hub, which mostly sleeps then), ready a half one,
parked a grey band that says what for, suspended a line. Thin arrows lead from whoever woke to the woken.

Knows events, spans and matplotlib, which it imports when it draws.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from greenswitch.recorder.events import Event
from greenswitch.recorder.spans import Span


class _Look(NamedTuple):
    colour: str
    edge: str
    height: float


# Okabe and Ito's colours, which stay apart for every kind of colour blindness.
_LOOKS = {
    "running": _Look("#0072B2", "#0072B2", 0.74),
    "polling": _Look("#9ED0EE", "#56B4E9", 0.74),
    "ready": _Look("#E69F00", "#E69F00", 0.40),
    "parked": _Look("#E8E8E8", "#B0B0B0", 0.74),
    "suspended": _Look("#B0B0B0", "#B0B0B0", 0.06),
}
_RUNNING = ("running", "polling")  # shown even if it took no time, as it does where time is virtual
_LABELS = {"polling": "the hub: polling, or asleep"}
_ARROW = "#555555"
_UNITS = ((1.0, "s", 1.0), (1e-3, "ms", 1e3), (0.0, "µs", 1e6))
_LETTER = 0.075  # inches that a letter of a label takes, about


class Timeline:
    """A drawn recording. Jupyter shows it; `save` writes it; `figure` is matplotlib's, to go on with."""

    def __init__(
        self,
        events: Sequence[Event],
        lanes: Mapping[str, list[Span]],
        chosen: Iterable[str] | None,
        begin: float,
        end: float,
        most: int,
        width: float,
    ) -> None:
        shown = _chosen(lanes, chosen, most)
        self._rows = {lane: row for row, lane in enumerate(shown)}
        self._begin, self._end = begin, max(end, begin)
        unit = next(unit for unit in _UNITS if self._end - begin >= unit[0] or not unit[0])
        self._unit, self._scale = (unit[1:] if self._end > begin else ("s", 1.0))
        self._width = width
        left_out = len(lanes) - len(shown)
        self._states = {span.state for lane in shown for span in lanes[lane]}
        self.figure = _figure(width, 0.9 + 0.36 * max(1, len(shown)))
        axes = self.figure.subplots()
        for lane in shown:
            self._draw_lane(axes, self._rows[lane], lanes[lane])
        self._draw_arrows(axes, events)
        self._label(axes, f"{left_out} lanes more: timeline(lanes=…) or most=…" if left_out else "")

    # -- showing ---------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], dots_per_inch: int = 150) -> None:
        """Write the picture; the path's ending says how: `.svg`, `.png`, `.pdf`."""
        self.figure.savefig(path, dpi=dots_per_inch)

    def _repr_svg_(self) -> str:
        """Show it in Jupyter. The same recording gives the same text every time."""
        from matplotlib import rc_context

        file = io.StringIO()
        with rc_context({"svg.hashsalt": "greenswitch", "svg.fonttype": "none"}):
            self.figure.savefig(file, format="svg", metadata={"Date": None})
        text = file.getvalue()
        return text[text.index("<svg") :]

    def __repr__(self) -> str:
        return f"<Timeline of {len(self._rows)} lanes, {(self._end - self._begin) * self._scale:.3f} {self._unit}>"

    # -- drawing ---------------------------------------------------------------------------------------------------

    def _draw_lane(self, axes: Any, row: int, its: Sequence[Span]) -> None:
        """Draw a lane, the bars of each state as one object: a recording may hold tens of thousands."""
        bars: dict[tuple[str, bool], list[tuple[float, float]]] = {}
        for span in its:
            begin, end = max(span.begin, self._begin), min(span.end, self._end)
            if end > begin or (end == begin and span.state in _RUNNING):
                left, length = self._at(begin), self._at(end) - self._at(begin)
                bars.setdefault((span.state, length > 0), []).append((left, length))
                if span.state == "parked":
                    self._write_into(axes, row, left, length, span.why)
        for (state, has_length), pieces in bars.items():
            look = _LOOKS[state]
            axes.broken_barh(
                pieces, (row - look.height / 2, look.height), facecolor=look.colour, edgecolor=look.edge,
                linewidth=0.8 if has_length else 2.0, zorder=3 if state in _RUNNING else 2, label=f"{row} {state}",
            )  # fmt: skip

    def _write_into(self, axes: Any, row: int, left: float, length: float, text: str) -> None:
        """Write into a bar as much of the text as fits; nothing if that would be next to nothing."""
        room = int(length / (self._at(self._end) - self._at(self._begin)) * self._width * 0.78 / _LETTER)
        if len(text) > room:
            text = text[: room - 1] + "…" if room > 4 else ""
        if text:
            text = _unformatted(text)
            axes.text(left + length / 2, row, text, ha="center", va="center", fontsize=8, color="#222222", clip_on=True)

    def _draw_arrows(self, axes: Any, events: Sequence[Event]) -> None:
        arrows = [
            (self._at(event.time), self._rows[event.source], self._rows[event.target])
            for event in events
            if event.kind in ("wake", "spawn") and self._begin <= event.time <= self._end
            and event.source in self._rows and event.target in self._rows
        ]  # fmt: skip
        axes.vlines(*_columns(arrows), color=_ARROW, linewidth=0.8, zorder=4)
        for head, way in (("v", 1), ("^", -1)):
            at, _, to = _columns([arrow for arrow in arrows if (arrow[2] - arrow[1]) * way > 0])
            axes.scatter(at, [row - 0.1 * way for row in to], s=22, marker=head, color=_ARROW, linewidths=0, zorder=5)

    def _label(self, axes: Any, note: str) -> None:
        from matplotlib.patches import Patch

        axes.set_yticks(list(self._rows.values()), [_unformatted(lane) for lane in self._rows])
        axes.set_ylim(max(1, len(self._rows)) - 0.4, -0.6)  # the first lane on top
        begin, end = self._at(self._begin), self._at(self._end)
        margin = (end - begin) * 0.01 or 1.0
        axes.set_xlim(begin - margin, end + margin)
        axes.set_xlabel(f"{self._unit} since the recording began" + (f"   ({note})" if note else ""))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        handles = [
            Patch(facecolor=look.colour, edgecolor=look.edge, label=_LABELS.get(name, name))
            for name, look in _LOOKS.items()
            if name in self._states
        ]
        axes.legend(handles=handles, ncols=9, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8)
        if not self._rows:
            axes.text((begin + end) / 2, 0, "nobody switched", ha="center", va="center")

    def _at(self, time: float) -> float:
        return time * self._scale


def _chosen(lanes: Mapping[str, list[Span]], chosen: Iterable[str] | None, most: int) -> list[str]:
    if chosen is None:
        return list(lanes)[:most]
    wanted = list(chosen)
    unknown = [lane for lane in wanted if lane not in lanes]
    if unknown:
        raise ValueError(f"no such lane in this recording: {', '.join(map(repr, unknown))}; see recording.lanes")
    return wanted


def _columns(rows: Sequence[tuple[float, int, int]]) -> tuple[list[float], list[int], list[int]]:
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _unformatted(name: str) -> str:
    return name.replace("$", r"\$")  # matplotlib takes what stands between two of them for mathematics


def _figure(width: float, height: float) -> Any:
    """Return an empty figure of matplotlib's, with no window system and no global state behind it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "a timeline is drawn by matplotlib, which isn't installed: pip install 'greenswitch-toolkit[notebooks]'. "
            "print(recording) and recording.save(path) do without"
        ) from error
    return Figure((width, height), layout="constrained", facecolor="white")

