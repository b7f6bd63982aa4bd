"""The words of OS threads, taken before monkey patching can give them another meaning.

The hub is always imported before: whoever may be imported only after patching, when `_thread` speaks of tasks, takes
them from here. Knows nothing else.
"""

from __future__ import annotations

from _thread import RLock as OSLock
from _thread import get_ident as os_ident

__all__ = ["OSLock", "os_ident"]
