"""The standard library's twins, under the standard library's names: `from greenswitch.green import socket`.

A twin has every public name of its original. What would block the thread parks the task instead; all else *is* the
original's (`rest_of`). Importing one patches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


def rest_of(original: ModuleType, ours: dict[str, Any]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a twin's `__getattr__` and `__dir__`: what isn't among `ours`, its globals, is the original's own."""

    def __getattr__(name: str) -> Any:
        try:
            return getattr(original, name)
        except AttributeError:
            theirs = f"the standard library's {original.__name__}"
            raise AttributeError(f"{ours['__name__']} has no {name!r}, and neither has {theirs}") from None

    def __dir__() -> list[str]:
        return sorted({*ours, *dir(original)})

    return __getattr__, __dir__
