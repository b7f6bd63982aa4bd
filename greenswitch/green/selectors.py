"""The twin of the standard library's `selectors`: the same classes, standing on `green.select`.

Here they are subclasses of the originals; monkey patching leaves the originals in their place and changes what they
call. A `DefaultSelector` opens no file descriptor before something is registered. Where the system's best selector is
one that has no twin (kqueue, /dev/poll), the default is the one that stands on poll().

Knows `green.select` and the standard library's `selectors`.
"""

from __future__ import annotations

import selectors as original
import sys
from collections.abc import Callable
from typing import Any

from greenswitch.green import rest_of, select

REPLACED: tuple[str, ...] = ()


def _select_on_windows(selector: Any, r: Any, w: Any, _: Any, timeout: float | None = None) -> Any:
    """Look for failed connections too, as the original does there."""
    r, w, x = select.select(r, w, w, timeout)
    return r, w + x, []


# What stands beneath a SelectSelector is a method on Windows only.
_select_beneath: Any = _select_on_windows if sys.platform[:3] == "win" else staticmethod(select.select)
_beneath: dict[str, tuple[str, Any]] = {"SelectSelector": ("_select", _select_beneath)}
"""By class, the attribute in which it keeps what it calls, and ours."""


class SelectSelector(original.SelectSelector):
    """As `selectors.SelectSelector`; `select` parks the task."""

    _select = _select_beneath


DefaultSelector: type[original.BaseSelector] = SelectSelector

if hasattr(original, "PollSelector"):

    class PollSelector(original.PollSelector):
        """As `selectors.PollSelector`; `select` parks the task."""

        _selector_cls = staticmethod(select.poll)

    DefaultSelector = PollSelector
    _beneath["PollSelector"] = ("_selector_cls", select.poll)

if hasattr(original, "EpollSelector"):

    class EpollSelector(original.EpollSelector):
        """As `selectors.EpollSelector`; `select` parks the task."""

        _selector_cls = select.epoll

    DefaultSelector = EpollSelector
    _beneath["EpollSelector"] = ("_selector_cls", select.epoll)

if not issubclass(original.DefaultSelector, tuple(vars(original)[name] for name in _beneath)):
    REPLACED += ("DefaultSelector",)


def patch(replace: Callable[[object, str, object], None]) -> None:
    """Put ours beneath the original classes."""
    for name, (attribute, ours) in _beneath.items():
        kind = getattr(original, name)
        if attribute in vars(kind):
            replace(kind, attribute, ours)


_KINDS = "SelectSelector", "PollSelector", "EpollSelector", "DevpollSelector", "KqueueSelector"
_kinds: tuple[type[Any], ...] = tuple(vars(original)[name] for name in _KINDS if hasattr(original, name))


def blocks(selector: object) -> bool:
    """Return whether a selector of one of the original classes blocks the thread: it was made before patching."""
    if not isinstance(selector, _kinds):
        return False
    beneath: Any = getattr(selector, "_selector", None)
    if beneath is not None:
        return type(beneath).__module__ != select.__name__
    function: Any = getattr(selector, "_select", None)
    return getattr(function, "__func__", function) not in (select.select, _select_on_windows)


__all__ = [name for name in dir(original) if not name.startswith("_")]

__getattr__, __dir__ = rest_of(original, globals())
