"""Ctrl-C between two lines of the kernel's own.

Python raises KeyboardInterrupt between any two bytecodes: also just after the next entry has been taken out of the
ready queue, and then somebody's turn is lost. So while `run` runs, a Ctrl-C that comes in the midst of this package's
own lines waits for the hub's turn; one that comes anywhere else is raised there, as ever.

Knows signals and frames. Of the hub it knows `call_soon` and `interrupt_main`.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from greenswitch.hub.frames import ours

if TYPE_CHECKING:
    from greenswitch.hub.hub import Hub


class CtrlC:
    """A context manager: the SIGINT handler meanwhile. Does nothing outside the main thread, or if there is another."""

    wakes_nobody = True

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._pending = False

    def __enter__(self) -> None:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._caught)

    def __exit__(self, *error: object) -> None:
        if signal.getsignal(signal.SIGINT) == self._caught:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._pending:  # the hub has been closed before its turn came
            raise KeyboardInterrupt

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if frame is None or not ours(frame):
            raise KeyboardInterrupt
        self._pending = True
        self._hub.call_soon(self._raise_in_main)

    def _raise_in_main(self) -> None:
        if self._pending:
            self._pending = False
            self._hub.interrupt_main(KeyboardInterrupt())


def wakes_nobody(handler: Any) -> bool:
    """Return whether a signal's `handler` wakes nobody: it is no function, or its object has a true `wakes_nobody`."""
    return (
        not callable(handler)
        or handler is signal.default_int_handler
        or getattr(getattr(handler, "__self__", None), "wakes_nobody", False) is True
    )
