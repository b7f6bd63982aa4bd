"""The twin of the standard library's `builtins`: `input` parks the task. Everything else is the original's own.

Knows `greenswitch.files` and the standard library's `builtins`.
"""

from __future__ import annotations

import builtins as original

from greenswitch.files import ask
from greenswitch.green import rest_of

REPLACED: tuple[str, ...] = ("input",)

input = ask

__all__ = [name for name in dir(original) if not name.startswith("_")]

__getattr__, __dir__ = rest_of(original, globals())
