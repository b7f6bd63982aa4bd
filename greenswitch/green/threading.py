"""The twin of the standard library's `threading`: threads are tasks, and what they wait with parks them.

It is the standard library's own text, run once more over the twin of `_thread`: all that `threading` is, in each Python
version, follows from that. The copy is made when its first name is asked for; patching leaves the original where it is,
and replaces what that calls. Here is the little that differs (`adapt`), for both:

- KeyboardInterrupt in a thread goes on to main, as Ctrl-C that comes while the thread happens to run; and a kill ends a
  thread without a word.
- A task that is no thread is a dummy thread for `current_thread()`, which goes away with the task, and has its name.
- Who joins the main thread parks.
- The trace and profile functions that `settrace` and `setprofile` give to each new thread belong to that thread. The
  interpreter keeps them by OS thread, so a thread that parks puts its own away.

Knows the twin of `_thread`, and how to run a module again.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading as original
from _thread import get_ident as _os_ident
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import greenlet

from greenswitch.copies import Namespace, run_again
from greenswitch.green import _thread
from greenswitch.hub import leave_by, leave_no_more_by
from greenswitch.local import local
from greenswitch.tasks import Task, getcurrent

REPLACED: tuple[str, ...] = ()  # what it calls is; see `patch`
Replace = Callable[[object, str, object], None]


def patch(replace: Replace) -> None:
    """Have the original's threads behave as ours; monkey puts our locks and starters in their place."""
    adapt(original, replace)
    if hasattr(original, "_shutdown_locks"):
        _be_joinable_by_lock(replace)
    else:
        for name, value in vars(original.main_thread()).items():
            if type(value).__name__ == "_ThreadHandle":
                replace(original.main_thread(), name, _thread._make_thread_handle(_os_ident()))


def _be_joinable_by_lock(replace: Replace) -> None:
    """Give the main thread a lock of ours for those who join it, until Python 3.12."""
    main: Any = original.main_thread()
    theirs, ours = main._tstate_lock, _thread._Sentinel()
    ours.acquire()
    replace(main, "_tstate_lock", ours)
    locks: set[Any] = vars(original)["_shutdown_locks"]
    replace(original, "_shutdown_locks", {ours if one is theirs else one for one in locks})


def adapt(module: ModuleType, replace: Replace) -> None:
    """Replace in `module`, the original or a copy, what differs for tasks."""
    replace(module, "_make_invoke_excepthook", _making_invoke_excepthook(module))
    replace(module._DummyThread, "__init__", _dummy_init(module))
    replace(module, "_sys", Namespace(sys, _traced.names(), {}))
    if hasattr(module, "_thread_local_info"):  # by which dummies go away
        replace(module, "_thread_local_info", local())
    if hasattr(module, "_get_main_thread_ident"):  # asked in a forked child too, whose main thread is who forked
        replace(module, "_get_main_thread_ident", _thread.get_ident)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(_be_main_in_child, module))


def _be_main_in_child(module: Any) -> None:
    """Make of a dummy that has forked the main thread that it is in the child; Python 3.11 forgets that."""
    main = module._main_thread
    if isinstance(main, module._DummyThread):
        main.__class__ = module._MainThread
        main._name, main._daemonic = "MainThread", False
        if hasattr(main, "_set_tstate_lock"):
            main._set_tstate_lock()


def _making_invoke_excepthook(module: Any) -> Callable[[], Callable[[Any], None]]:
    make = module._make_invoke_excepthook

    def make_invoke_excepthook() -> Callable[[Any], None]:
        invoke = make()

        def invoke_excepthook(thread: Any) -> None:
            error = sys.exc_info()[1]
            if isinstance(error, (KeyboardInterrupt, greenlet.GreenletExit)) and isinstance(getcurrent(), Task):
                raise error  # see ThreadTask.finish
            invoke(thread)

        return invoke_excepthook

    return make_invoke_excepthook


class _Gone:
    """Is dropped when a dummy's task or greenlet ends, and takes the dummy out of the list of threads."""

    def __init__(self, active: dict[int, Any], ident: int, dummy: Any) -> None:
        self._of = active, ident, dummy

    def __del__(self) -> None:
        active, ident, dummy = self._of
        if active.get(ident) is dummy:
            del active[ident]


def _dummy_init(module: Any) -> Callable[[Any], None]:
    init = module._DummyThread.__init__
    tied = local()

    def __init__(self: Any) -> None:
        init(self)
        current = getcurrent()
        if isinstance(current, _thread.ThreadTask):
            return  # a thread of `_thread`'s: its dummy lives as long as it does in this Python version
        if isinstance(current, Task):
            self.name = current.name
        tied.gone = _Gone(module._active, self.ident, self)

    return __init__


# -- trace functions ---------------------------------------------------------------------------------------------------


class _Traced:
    """The threads that have a trace or profile function of their own."""

    def __init__(self) -> None:
        self._beneath: dict[_thread.ThreadTask, tuple[Any, Any]] = {}  # the functions of the OS thread
        self._own: dict[_thread.ThreadTask, tuple[Any, Any]] = {}  # those of threads that are parked

    def names(self) -> dict[str, Any]:
        """Return what `threading` is to find in `sys`."""
        names: dict[str, Any] = {"settrace": self.settrace, "setprofile": self.setprofile}
        for place, name in enumerate(("_settraceallthreads", "_setprofileallthreads")):
            if hasattr(sys, name):  # from Python 3.12 on
                names[name] = partial(self._set_for_all, getattr(sys, name), place)
        return names

    def _set_for_all(self, set_for_os_threads: Callable[[Any], None], place: int, function: Any) -> None:
        set_for_os_threads(function)
        for kept in (self._beneath, self._own):
            for task, (trace, profile) in list(kept.items()):
                kept[task] = (trace, function) if place else (function, profile)

    def settrace(self, function: Any) -> None:
        """As `sys.settrace`, for the running thread alone."""
        self._begin(function)
        sys.settrace(function)

    def setprofile(self, function: Any) -> None:
        """As `sys.setprofile`, for the running thread alone."""
        self._begin(function)
        sys.setprofile(function)

    def _begin(self, function: Any) -> None:
        task = getcurrent()
        if function is None or not isinstance(task, _thread.ThreadTask) or task in self._beneath:
            return
        self._beneath[task] = sys.gettrace(), sys.getprofile()
        task.add_link(self._end)
        leave_by(self._leave)

    def _end(self, task: Any) -> None:
        self._put(*self._beneath.pop(task))
        if not self._beneath:
            leave_no_more_by(self._leave)
            if self._beneath:  # another OS thread has added one in between
                leave_by(self._leave)

    def _leave(self, go: Callable[[], Any]) -> None:
        """Switch to the next greenlet without the thread's functions, and go on with them."""
        task = getcurrent()
        if task not in self._beneath:
            go()
            return
        self._own[task] = sys.gettrace(), sys.getprofile()
        self._put(*self._beneath[task])
        try:
            go()
        finally:
            self._beneath[task] = sys.gettrace(), sys.getprofile()
            self._put(*self._own.pop(task))

    @staticmethod
    def _put(trace: Any, profile: Any) -> None:
        if sys.gettrace() is not trace:
            sys.settrace(trace)
        if sys.getprofile() is not profile:
            sys.setprofile(profile)


_traced = _Traced()


# -- the copy ----------------------------------------------------------------------------------------------------------


def _make_copy() -> ModuleType:
    copy: Any = run_again("threading", {"_thread": sys.modules[_thread.__name__]})
    adapt(copy, setattr)
    copy.BrokenBarrierError = original.BrokenBarrierError
    atexit.register(copy._shutdown)
    return copy  # type: ignore[no-any-return]


__all__ = list(original.__all__)

if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in _names:
            raise AttributeError(f"{__name__} has no {name!r}, and neither has the standard library's threading")
        if "_copy" not in globals():
            globals()["_copy"] = _make_copy()
        return getattr(globals()["_copy"], name)


_names = frozenset(dir(original))


def __dir__() -> list[str]:
    return sorted({*globals(), *_names})
