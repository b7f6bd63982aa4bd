"""What crosses at a switch, as short text.

`greenlet` tells a trace function who switched to whom, but not with what. For a wake by the hub the waiter tells. For a
switch by hand the line tells that the greenlet stands in: `other.switch(ball + 1)` is read, and worked out once more
where that can't have any effect: names, literals, items of lists, arithmetic on plain numbers. Where it might have one
(a call, an attribute of an object) the text of the expression stands for its value, in backquotes.

Knows frames, source lines and values; keeps none of them: all that leaves this module is text. Must not know a task or
a hub: what is better called by a label than by its repr is told to `label_of`.
"""

from __future__ import annotations

import ast
import linecache
import operator
from collections.abc import Callable, Mapping
from functools import singledispatch
from inspect import CO_OPTIMIZED
from reprlib import Repr
from types import BuiltinMethodType, CodeType, FrameType, ModuleType
from typing import Any

from greenlet import greenlet

LONGEST = 60  # characters of one text
UNKNOWN = "?"

_NUMBERS: tuple[type, ...] = (int, float, complex, bool)
_PLAIN = (*_NUMBERS, str, bytes, type(None))
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@singledispatch
def label_of(value: object) -> str:
    """Return what to call a value instead of its repr; '' where the repr will do. Others register their types here."""
    return value.__name__ if isinstance(value, type) else ""


class _Short(Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = LONGEST - 10

    def repr1(self, x: Any, level: int) -> str:
        return label_of(x) or super().repr1(x, level)


_short = _Short()


def short(value: object) -> str:
    """Return a repr of at most `LONGEST` characters, on one line. One that raises is replaced by the type's name."""
    return shorten(_short.repr(value))


def shorten(text: str) -> str:
    """Return `text` on one line, cut to `LONGEST` characters."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return what a call is given, as it would be written between the parentheses."""
    return shorten(", ".join([*map(short, args), *(f"{name}={short(value)}" for name, value in kwargs.items())]))


class CallSites:
    """The calls of `switch` and `throw` that greenlets have been seen to stand in, each parsed once."""

    def __init__(self) -> None:
        self._parsed: dict[tuple[CodeType, int], ast.Call | None] = {}

    def passed(self, frame: FrameType) -> str:
        """Return what the switch that `frame` stands in passes on; `?` if there is no source."""
        site = frame.f_code, frame.f_lasti
        if site not in self._parsed:
            self._parsed[site] = _parse(frame)
        call = self._parsed[site]
        if call is None:
            return UNKNOWN
        names = frame.f_locals
        try:
            return _passed(call, _Names(names, frame))
        finally:
            # Before 3.13 the frame keeps this copy of its variables, hence the values that they once had.
            if frame.f_code.co_flags & CO_OPTIMIZED and type(names) is dict:
                names.clear()

    def clear(self) -> None:
        """Forget them all."""
        self._parsed.clear()


class _UnknownError(Exception):
    """It can't be worked out without a possible effect."""


class _Names:
    """What a name means in a frame."""

    def __init__(self, local: Mapping[str, Any], frame: FrameType) -> None:
        self._spaces = (local, frame.f_globals, frame.f_builtins)

    def __getitem__(self, name: str) -> Any:
        for space in self._spaces:
            if name in space:
                return space[name]
        raise _UnknownError


def _parse(frame: FrameType) -> ast.Call | None:
    """Return the call that a frame stands in, or None where there is no source for it."""
    positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    first, last, begin, end = positions
    if first is None or last is None or begin is None or end is None:
        return None
    lines = [
        linecache.getline(frame.f_code.co_filename, number, frame.f_globals).encode()
        for number in range(first, last + 1)
    ]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    try:
        tree = ast.parse("(" + b"".join(lines).decode() + ")", mode="eval")
    except (SyntaxError, ValueError):  # the file has changed since
        return None
    return tree.body if isinstance(tree.body, ast.Call) else None


def _passed(call: ast.Call, names: _Names) -> str:
    if not _is_switch(call.func, names):
        return f"`{shorten(ast.unparse(call))}`"  # somebody's C function that switches in the midst of it
    parts = [text for argument in call.args for text in _texts(argument, names)]
    for keyword in call.keywords:
        if keyword.arg is not None:
            parts.append(f"{keyword.arg}={_text(keyword.value, names)}")
        elif (more := _text(keyword.value, names)) != "{}":
            parts.append(f"**{more}")
    return shorten(", ".join(parts))


def _is_switch(function: ast.expr, names: _Names) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr in ("switch", "throw")
    try:
        named = _value(function, names)
    except Exception:
        return False
    return isinstance(named, BuiltinMethodType) and isinstance(named.__self__, greenlet)


def _texts(argument: ast.expr, names: _Names) -> list[str]:
    if isinstance(argument, ast.Starred):
        try:
            several = _value(argument.value, names)
        except Exception:
            several = None
        if type(several) in (tuple, list):
            return [short(one) for one in several]
        return [f"*{_text(argument.value, names)}"]
    return [_text(argument, names)]


def _text(node: ast.expr, names: _Names) -> str:
    try:
        return short(_value(node, names))
    except Exception:
        return f"`{shorten(ast.unparse(node))}`"


def _value(node: ast.expr, names: _Names) -> Any:
    """Work an expression out, if that can have no effect."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return names[node.id]
        case ast.Tuple():
            return tuple(_value(element, names) for element in node.elts)
        case ast.List():
            return [_value(element, names) for element in node.elts]
        case ast.Dict():
            keys = [_plain(key, names, _PLAIN) for key in node.keys if key is not None]
            return dict(zip(keys, [_value(value, names) for value in node.values], strict=True))
        case ast.Attribute():
            return vars(_plain(node.value, names, (ModuleType,)))[node.attr]
        case ast.Subscript():
            return _plain(node.value, names, (tuple, list, dict))[_plain(node.slice, names, _PLAIN)]
        case ast.UnaryOp(op=ast.USub()):
            return -_plain(node.operand, names, _NUMBERS)
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            kinds = _PLAIN if isinstance(node.op, ast.Add) else _NUMBERS
            return _ARITHMETIC[type(node.op)](_plain(node.left, names, kinds), _plain(node.right, names, kinds))
        case ast.JoinedStr():
            return "".join(_piece(piece, names) for piece in node.values)
    raise _UnknownError


def _piece(node: ast.expr, names: _Names) -> str:
    if isinstance(node, ast.FormattedValue):
        if node.format_spec is not None or node.conversion not in (-1, ord("s"), ord("r")):
            raise _UnknownError
        value = _plain(node.value, names, _PLAIN)
        return repr(value) if node.conversion == ord("r") else str(value)
    return str(_value(node, names))


def _plain(node: ast.expr, names: _Names, kinds: tuple[type, ...]) -> Any:
    """Work out what is of one of these types, and of no subclass, which might do anything when it is used."""
    value = _value(node, names)
    if type(value) not in kinds:
        raise _UnknownError
    return value
