"""The twin of the standard library's `os`: reading and writing pipes, and waiting for children, park the task.

Replaced: read, readv, write, writev, close, fdopen, eventfd_read, eventfd_write, sendfile, splice; wait, wait3, wait4,
waitid, waitpid, system. Everything else is the original's own: `popen` is cooperative where `subprocess` is patched,
and the `spawn*` functions where `os` is.

Knows `greenswitch.files` and `greenswitch.processes`, and the standard library's `os`.
"""

from __future__ import annotations

import os as original

from greenswitch import files, processes
from greenswitch.green import rest_of

_OURS = {
    **{name: getattr(files, name) for name in ("read", "readv", "write", "writev", "close", "fdopen")},
    **{name: getattr(files, name) for name in ("eventfd_read", "eventfd_write", "sendfile", "splice")},
    **{name: getattr(processes, name) for name in ("wait", "wait3", "wait4", "waitid", "waitpid", "system")},
}

REPLACED: tuple[str, ...] = tuple(name for name in _OURS if hasattr(original, name)) if files.CAN_WAIT else ()

globals().update({name: _OURS[name] for name in REPLACED})  # the others are found in the original, or not there either

__all__ = [*REPLACED]
__all__ += [name for name in dir(original) if not name.startswith("_") and name not in __all__]

__getattr__, __dir__ = rest_of(original, globals())
