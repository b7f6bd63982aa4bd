"""What one step of a stepper says, as data and as text: who left whom for whom, where, and who stands where.

Knows places in source. Everything in a step is text or numbers: it keeps no greenlet and no value alive, and doesn't
change when the program goes on. Must not know how a step comes about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from greenswitch.core import steps_html
from greenswitch.core.stacks import Frame

if TYPE_CHECKING:
    from typing import Protocol

    class Pretty(Protocol):
        """The printer that IPython hands to `_repr_pretty_`."""

        def text(self, text: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a switch: who it is, what became of it, and the line where it stands, as text too."""

    name: str
    did: str
    frame: Frame | None = None
    source: str = ""

    @property
    def where(self) -> str:
        """Return the place in short, as `file.py:12`; an empty string where there is none."""
        return "" if self.frame is None else self.frame.where

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Return the texts of one row of a table."""
        return self.name, self.did, self.where, self.source


@dataclass(frozen=True, slots=True)
class Step:
    """One switch. `entered` is None for the last one: then the program has ended, and `left.did` says how."""

    number: int
    left: Side
    entered: Side | None
    passed: str
    """What crossed, as text: a value, arguments, or the exception if `thrown`. Empty if nothing did."""
    thrown: bool = False
    ready: tuple[str, ...] = ()
    """Who could go on at once, in this order."""
    parked: tuple[Side, ...] = ()
    """Who waits for what; `did` says so."""
    suspended: tuple[Side, ...] = ()
    """Greenlets that stand somewhere until somebody switches to them by hand."""

    @property
    def ended(self) -> bool:
        """Return whether the program has ended by this."""
        return self.entered is None

    @property
    def title(self) -> str:
        """Return who left whom for whom, and what crossed, on one line."""
        if self.entered is None:
            return f"{self.left.name} {self.left.did}: the program has ended"
        crossed = f", {'throws' if self.thrown else 'passes'} {self.passed}" if self.passed else ""
        return f"{self.left.name} → {self.entered.name}{crossed}"

    @property
    def others(self) -> list[tuple[str, str, str, str, str]]:
        """Return rows (state, name, waits for what, place, source) of who can't go on yet, but for the one who left."""
        rows = [("parked", *side.cells) for side in self.parked if side.name != self.left.name]
        return rows + [("suspended", *side.cells) for side in self.suspended if side.name != self.left.name]

    def __str__(self) -> str:
        sides = [self.left] if self.entered is None else [self.left, self.entered]
        lines = [f"step {self.number}: {self.title}", *_aligned(side.cells for side in sides)]
        lines += [f"  ready: {', '.join(self.ready)}"] if self.ready else []
        return "\n".join(lines + _aligned(self.others))

    def _repr_html_(self) -> str:
        return steps_html.of_step(self)

    def _repr_pretty_(self, printer: Pretty, cycle: bool) -> None:
        printer.text(str(self))


class Steps(Sequence[Step]):
    """Several steps, one after the other; printed as a table, a line each."""

    __slots__ = ("_steps",)

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self._steps = tuple(steps)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> Steps: ...
    def __getitem__(self, index: int | slice) -> Step | Steps:
        return Steps(self._steps[index]) if isinstance(index, slice) else self._steps[index]

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Steps) and self._steps == other._steps

    def __hash__(self) -> int:
        return hash(self._steps)

    def __str__(self) -> str:
        rows = [(f"{step.number}:", step.title, step.left.where, _to(step.entered)) for step in self]
        return "\n".join(_aligned(rows, indent="")) or "no steps"

    def __repr__(self) -> str:
        return f"<{len(self)} steps>"

    def _repr_html_(self) -> str:
        return steps_html.of_steps(self)

    def _repr_pretty_(self, printer: Pretty, cycle: bool) -> None:
        printer.text(str(self))


def _to(side: Side | None) -> str:
    return f"→ {side.where}" if side is not None and side.where else ""


def _aligned(rows: Iterable[tuple[str, ...]], indent: str = "  ") -> list[str]:
    """Write rows in columns, without those columns that are empty in all of them."""
    columns = [column for column in zip(*rows, strict=True) if any(column)]
    padded = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns]
    return [indent + "  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]
