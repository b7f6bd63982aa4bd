"""Steps as HTML, for Jupyter: legible on a light page and on a dark one.

Knows the fields of a step, and nothing else of ours. All colour comes from the page: text keeps its own, and what lies
behind it is a thin layer of grey, blue or orange. What a colour says is said in words as well. Styles stand in the tags
themselves, because Jupyter takes <style> out of a notebook that isn't trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from greenswitch.core.steps import Side, Step

_MONO = "font-family:var(--jp-code-font-family,ui-monospace,Menlo,Consolas,monospace);font-size:90%"
_CELL = "padding:2px 12px 2px 6px;text-align:left;vertical-align:top;background:transparent;color:inherit"
_BOX = "border:1px solid rgba(128,128,128,.45);border-radius:4px;padding:6px 10px;margin:2px 0;display:inline-block"
_FAINT = "opacity:.72"
_BLUE, _ORANGE, _GREY = "rgba(40,120,220,.2)", "rgba(230,130,0,.22)", "rgba(128,128,128,.18)"
_BEHIND = {"ready": _BLUE, "parked": _ORANGE, "suspended": _GREY}


def of_step(step: Step) -> str:
    """Return one step: who left whom for whom, from which line to which, and who stands where."""
    rows = [_side("from" if step.entered is not None else "last", step.left)]
    if step.entered is not None:
        rows.append(_side("to", step.entered))
    if step.ready:
        rows.append(_row([_badge("ready"), _wide(_strong(", ".join(step.ready)))]))
    rows += [
        _row([_badge(state), _strong(name), escape(did), _faint(where), _code(source)])
        for state, name, did, where, source in step.others
    ]
    return f'<div style="{_BOX}"><div>{_title(step)}</div>{_table(rows)}</div>'


def of_steps(steps: Sequence[Step]) -> str:
    """Return several steps as a table, a row each."""
    if not steps:
        return "<i>no steps</i>"
    return f'<div style="{_BOX}">{_table(_summary(step) for step in steps)}</div>'


def _summary(step: Step) -> str:
    number = _faint(f"{step.number}")
    if step.entered is None:
        return _row([number, _wide(_arrow(step))])
    who = f'<span style="white-space:nowrap">{_arrow(step)}</span>'
    to = f"→ {_place(step.entered)}" if step.entered.where else ""
    return _row([number, who, _crossed(step), _place(step.left), to])


def _place(side: Side) -> str:
    return f'<span style="{_FAINT};white-space:nowrap">{escape(side.where)}</span> {_code(side.source)}'


def _title(step: Step) -> str:
    return f"{_faint(f'step {step.number}')} &ensp;{_arrow(step)} &ensp;{_crossed(step)}"


def _arrow(step: Step) -> str:
    if step.entered is None:
        return f"{_strong(step.left.name)} {escape(step.left.did)}: the program has ended"
    return f"{_strong(step.left.name)} → {_strong(step.entered.name)}"


def _crossed(step: Step) -> str:
    if not step.passed or step.entered is None:
        return ""
    return f"{_faint('throws' if step.thrown else 'passes')} {_code(step.passed)}"


def _side(label: str, side: Side) -> str:
    return _row([_faint(label), _strong(side.name), escape(side.did), _faint(side.where), _code(side.source)])


def _table(rows: Iterable[str]) -> str:
    return f'<table style="border-collapse:collapse;border:0;margin:4px 0 0 0;color:inherit">{"".join(rows)}</table>'


def _row(cells: Iterable[str]) -> str:
    inner = "".join(cell if cell.startswith("<td") else f'<td style="{_CELL}">{cell}</td>' for cell in cells)
    return f'<tr style="background:transparent;color:inherit">{inner}</tr>'


def _wide(inner: str) -> str:
    """Return a cell that takes the place of all that would follow."""
    return f'<td colspan="4" style="{_CELL}">{inner}</td>'


def _badge(state: str) -> str:
    return f'<span style="background:{_BEHIND[state]};border-radius:3px;padding:0 5px">{escape(state)}</span>'


def _code(text: str) -> str:
    return f'<span style="{_MONO};white-space:pre-wrap">{escape(text)}</span>' if text else ""


def _strong(text: str) -> str:
    return f"<b>{escape(text)}</b>"


def _faint(text: str) -> str:
    return f'<span style="{_FAINT}">{escape(text)}</span>' if text else ""
