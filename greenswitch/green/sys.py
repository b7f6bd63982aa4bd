"""The twin of the standard library's `sys`: reading `stdin` parks the task. Everything else is the original's own.

Ours reads the same descriptor with the same settings; `sys.__stdin__` stays what it was. Where standard input is a
regular file, or no file at all (in pytest, in Jupyter), there is nothing to replace.

Knows `greenswitch.files` and the standard library's `sys`.
"""

from __future__ import annotations

import sys as original
from collections.abc import Callable
from typing import Any

from greenswitch import files
from greenswitch.green import rest_of

REPLACED: tuple[str, ...] = ()


def patch(replace: Callable[[object, str, object], None]) -> None:
    """Put ours in the place of `sys.stdin`, if that may have to wait."""
    ours = files.stdin()
    if ours is not original.stdin:
        replace(original, "stdin", ours)


__all__ = [name for name in dir(original) if not name.startswith("_")]
_of_original, __dir__ = rest_of(original, globals())


def __getattr__(name: str) -> Any:
    return files.stdin() if name == "stdin" else _of_original(name)
