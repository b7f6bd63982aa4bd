"""What a program prints in another thread, printed by the thread that waits for it.

Why: Jupyter shows a text under the cell whose thread, and whose context, has written it; a program in a thread of its
own would print under whichever cell started it. So while somebody waits for a step, `sys.stdout` and `sys.stderr` are
exchanged for ones that put the texts of the program's thread aside, and the one who waits writes them down.

Knows threads and streams, nothing else of ours. It uses what `_thread` was when this module was imported.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock, get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

Put = Callable[[Any, str], None]

_putting: dict[int, Put] = {}
_waiting = 0
_lock = allocate_lock()


class _Exchanged:
    """Stands for a stream: what other threads write passes through, and so does everything but writing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        put = _putting.get(get_ident())
        if put is None:
            return self._stream.write(text)
        put(self, text)  # itself: who waits may be waited for
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if get_ident() not in _putting:
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def handed_over(thread: int, put: Put) -> Iterator[None]:
    """Call `put(stream, text)` for what `thread` prints meanwhile, instead of printing it."""
    _putting[thread] = put
    _exchange()
    try:
        yield
    finally:
        _putting.pop(thread, None)
        _restore()


def _exchange() -> None:
    global _waiting
    with _lock:
        _waiting += 1
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, _Exchanged):
                setattr(sys, name, _Exchanged(stream))


def _restore() -> None:
    global _waiting
    with _lock:
        _waiting -= 1
        if _waiting == 0:
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                if isinstance(stream, _Exchanged):
                    setattr(sys, name, stream._stream)
