"""The modules that keep the originals under monkey patching: multiprocessing and process pools, and this package.

multiprocessing waits in C (its semaphores, its pipes between the steps of one protocol). So for it `select`, `socket`,
`os` and `time` are as they were, and a `threading.Thread` is a thread of the OS, with the locks of ours, which work
between OS threads too.

It is done by their imports: a module that is imported later gets these modules instead of the patched ones; in a module
that is there already the globals are replaced. What of this package is imported after patching gets the originals, too,
as what was imported before has them; but for the twins.

Knows these packages' names, and what they import. Must not know what is patched.
"""

from __future__ import annotations

import _thread
import concurrent
import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from greenswitch.copies import AsItWas, ImportingInstead, Namespace, is_in, run_again
from greenswitch.green._thread import OS_THREADS_OF
from greenswitch.threads import OSThread

_AS_THEY_WERE = ("os", "queue", "select", "signal", "socket", "time")


class Originals:
    """What these modules get instead of what is patched. Made before anything is."""

    def __init__(self) -> None:
        self.instead: dict[str, ModuleType] = {}
        for name in _AS_THEY_WERE:
            self.instead[name] = AsItWas(import_module(name))
        self.instead["selectors"] = run_again("selectors", self.instead)
        self.instead["threading"] = Namespace(threading, {"Thread": OSThread}, {})
        self.instead["concurrent"] = Namespace(concurrent, {}, {"futures": self._futures})
        ours = {**self.instead, "_thread": AsItWas(_thread)}
        self._as_they_were = [module for module in ours.values() if isinstance(module, AsItWas)]
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

    def hide(self, ours: Mapping[str, Mapping[str, Any]]) -> None:
        """Hide from these modules what is patched: by module the names and their new values."""
        for module in self._as_they_were:
            module.hide(ours.get(module.__name__, {}))

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


