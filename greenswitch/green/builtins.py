"""The twin of the standard library's `builtins`: `input` parks the task. Everything else is the original's own.

Knows `greenswitch.files` and the standard library's `builtins`.
"""

from __future__ import annotations

import builtins as original
from typing import Any

from greenswitch.files import ask

REPLACED: tuple[str, ...] = ("input",)

input = ask

__all__ = [name for name in dir(original) if not name.startswith("_")]


def __getattr__(name: str) -> Any:
    try:
        return getattr(original, name)
    except AttributeError:
        raise AttributeError(f"{__name__} has no {name!r}, and neither have the standard library's builtins") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(original)})
