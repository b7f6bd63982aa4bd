"""The modules that keep the originals under monkey patching: asyncio, multiprocessing, and process pools.

An event loop of asyncio's runs its own poller, and multiprocessing waits in C (its semaphores, its pipes between the
steps of one protocol): cooperation would only tear them apart. So for them `select`, `socket`, `os` and `time` are as
they were, and a `threading.Thread` is a thread of the OS, with the locks of ours, which work between OS threads too.
They block the thread that calls them, as ever: call them by `to_thread`, or run the hub as a guest of asyncio.

It is done by their imports: those that come later get these modules instead of the patched ones; in those that are
there already the globals are replaced. What of this package is imported after patching gets the originals, too, as what
was imported before has them; but for the twins.

Knows these packages' names, and what they import. Must not know what is patched.
"""

from __future__ import annotations

import _thread
import concurrent
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from greenswitch.copies import ImportingInstead, Namespace, is_in, run_again
from greenswitch.green._thread import OS_THREADS_OF
from greenswitch.threads import OSThread

_AS_THEY_WERE = ("os", "queue", "select", "signal", "socket", "time")


class Originals:
    """What these modules get instead of what is patched. Made before anything is."""

    def __init__(self) -> None:
        self.instead: dict[str, ModuleType] = {}
        for name in _AS_THEY_WERE:
            module = import_module(name)
            self.instead[name] = Namespace(module, vars(module), {})
        self.instead["selectors"] = run_again("selectors", self.instead)
        self.instead["threading"] = Namespace(threading, {"Thread": OSThread}, {})
        self.instead["concurrent"] = Namespace(concurrent, {}, {"futures": self._futures})
        ours = {**self.instead, "_thread": Namespace(_thread, vars(_thread), {})}
        self.finders = [
            ImportingInstead(OS_THREADS_OF, self.instead),
            ImportingInstead(("greenswitch",), ours, but=("greenswitch.green",)),
        ]

    def _futures(self) -> ModuleType:
        """A `concurrent.futures` whose workers are OS threads. The futures are the same as everybody's."""

        def executor() -> Any:
            return run_again("concurrent.futures.thread", self.instead).ThreadPoolExecutor

        from concurrent import futures

        return Namespace(futures, {}, {"ThreadPoolExecutor": executor})

    def patch(self, replace: Callable[[object, str, object], None]) -> None:
        """Replace the globals of such modules that have been imported already. `finders` see to the next ones."""
        theirs = {id(sys.modules[name]): module for name, module in self.instead.items()}
        for name, module in list(sys.modules.items()):
            if keeps_originals(name):
                for found, value in list(vars(module).items()):
                    if id(value) in theirs:
                        replace(module, found, theirs[id(value)])


def keeps_originals(module: str) -> bool:
    """Return whether a module is one of these."""
    return is_in(module, OS_THREADS_OF)


