"""The twin of the standard library's `os`: reading and writing pipes, and waiting for children, park the task.

Replaced: read, readv, write, writev, close, fdopen; wait, wait3, wait4, waitid, waitpid, system. Everything else is the
original's own: `popen` is cooperative where `subprocess` is patched, and the `spawn*` functions where `os` is.

Knows `greenswitch.files` and `greenswitch.processes`, and the standard library's `os`.
"""

from __future__ import annotations

import os as original

from greenswitch.files import CAN_WAIT, close, fdopen, read, readv, write, writev
from greenswitch.green import rest_of
from greenswitch.processes import system, wait, wait3, wait4, waitid, waitpid

_OURS: tuple[str, ...] = (
    *("read", "readv", "write", "writev", "close", "fdopen"),
    *("wait", "wait3", "wait4", "waitid", "waitpid", "system"),
)

REPLACED = tuple(name for name in _OURS if hasattr(original, name)) if CAN_WAIT else ()

for _name in set(_OURS) - set(REPLACED):
    del globals()[_name]  # found in the original, or not there either

__all__ = [
    "close",
    "fdopen",
    "read",
    "readv",
    "system",
    "wait",
    "wait3",
    "wait4",
    "waitid",
    "waitpid",
    "write",
    "writev",
]
__all__ = [name for name in __all__ if name in REPLACED]
__all__ += [name for name in dir(original) if not name.startswith("_") and name not in __all__]

__getattr__, __dir__ = rest_of(original, globals())
