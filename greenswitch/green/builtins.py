"""The twin of the standard library's `builtins`: `input` parks the task, and so does what `open` returns.

`open` of a descriptor or a FIFO returns a file that parks. It is `io.open` as well, and `io.FileIO` is replaced with
it. Everything else is the original's own.

Knows `greenswitch.files` and the standard library's `builtins`.
"""

from __future__ import annotations

import builtins as original
import io
from collections.abc import Callable

from greenswitch.files import FileIO, ask, open_fd
from greenswitch.green import rest_of

REPLACED: tuple[str, ...] = ("input", "open")

input, open = ask, open_fd


def patch(replace: Callable[[object, str, object], None]) -> None:
    """Replace `io.open` and `io.FileIO`, too."""
    replace(io, "open", open)
    replace(io, "FileIO", FileIO)


__all__ = [name for name in dir(original) if not name.startswith("_")]

__getattr__, __dir__ = rest_of(original, globals())
