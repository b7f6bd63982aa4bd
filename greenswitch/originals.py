"""What this package itself gets under monkey patching: the originals.

What of it was imported before patching has the originals. So what is imported later gets them, too, instead of the
patched modules, and a `threading.Thread` is a thread of the OS. The twins are an exception.

It is done by the imports of those modules.

Knows what this package imports. Must not know what is patched.
"""

from __future__ import annotations

import concurrent
import threading
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from greenswitch.copies import AsItWas, ImportingInstead, Namespace, run_again
from greenswitch.threads import OSThread

_AS_THEY_WERE = ("_thread", "os", "queue", "select", "signal", "socket", "time")


class Originals:
    """What these modules get instead of what is patched. Made before anything is."""

    def __init__(self) -> None:
        instead: dict[str, ModuleType] = {name: AsItWas(import_module(name)) for name in _AS_THEY_WERE}
        self._as_they_were = [module for module in instead.values() if isinstance(module, AsItWas)]
        self._instead = instead
        instead["selectors"] = run_again("selectors", instead)
        instead["threading"] = Namespace(threading, {"Thread": OSThread}, {})
        instead["concurrent"] = Namespace(concurrent, {}, {"futures": self._futures})
        self.finder = ImportingInstead(("greenswitch",), instead, but=("greenswitch.green",))

    def _futures(self) -> ModuleType:
        """A `concurrent.futures` whose workers are OS threads. The futures are the same as everybody's."""

        def executor() -> Any:
            return run_again("concurrent.futures.thread", self._instead).ThreadPoolExecutor

        from concurrent import futures

        return Namespace(futures, {}, {"ThreadPoolExecutor": executor})

    def hide(self, ours: Mapping[str, Mapping[str, Any]]) -> None:
        """Hide from these modules what is patched: by module the names and their new values."""
        for module in self._as_they_were:
            module.hide(ours.get(module.__name__, {}))
