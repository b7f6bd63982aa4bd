"""The twin of the standard library's `_thread`: a thread is a task of the hub in which it is started.

Everything that `threading` does, it does by these: so the twin of `threading`, and `threading` itself when it is
patched, keep the standard library's own classes. Idents: a task's is the id of the task; what stands outside of tasks
has the OS thread's. What isn't here is the original's own.

The names that only some Python versions have (`_set_sentinel` until 3.12; `start_joinable_thread`, `_ThreadHandle` and
their kin from 3.13 on) are all here; `REPLACED` has those of this version.
"""

from __future__ import annotations

import _thread as original
import os
import sys
from _thread import _count as _os_count
from _thread import allocate_lock as _allocate_os_lock
from _thread import get_ident as _os_ident
from _thread import get_native_id as _os_native_id
from _thread import start_new_thread as _start_os_thread
from collections.abc import Callable
from contextvars import Context
from itertools import count
from time import monotonic
from typing import Any, Final, NoReturn
from weakref import WeakSet

import greenlet

from greenswitch import locks
from greenswitch.green import rest_of
from greenswitch.hub import Hub, current_hub, get_hub, step_aside
from greenswitch.local import local
from greenswitch.locks import Event
from greenswitch.locks.mutexes import whatever_comes
from greenswitch.tasks import Task, getcurrent
from greenswitch.threads import OSThread, count_workers
from greenswitch.timeouts import shield

_os_shutdown: Callable[[], None] = getattr(original, "_shutdown", lambda: None)
_start_joinable_os_thread: Any = getattr(original, "start_joinable_thread", None)
_OSThreadHandle: Any = getattr(original, "_ThreadHandle", ())
_JOINABLE: Final = sys.version_info >= (3, 13)

_OFTEN: Final = 1000
_acquires = count(1)


def _be_fair() -> None:
    """Let others go on if the task that calls has not waited for so long that a real thread would lose the GIL.

    It may spin on a lock until another thread does its part. A pending kill or deadline is kept: the lock may be free,
    and then the call must not raise.
    """
    hub = current_hub()
    if hub is None or hub.closed or greenlet.getcurrent() is hub.greenlet:
        return
    if hub.process_id != os.getpid():
        return  # a forked child, before the hub's handler: the others are the parent's tasks
    switches = hub.turns, hub.left  # one of them changes at each switch
    before, since = hub.local.get(_be_fair, (None, 0.0))
    if before != switches:
        hub.local[_be_fair] = switches, monotonic()
    elif monotonic() - since > sys.getswitchinterval():
        with shield():
            step_aside()


class lock(locks.Lock):  # the original's name
    """`_thread.lock`, for tasks."""

    __slots__ = ()
    __module__ = "_thread"  # whose place it takes, also for whoever looks there for the names of its module

    if not _JOINABLE:

        def __new__(cls) -> lock:
            """Refuse, until Python 3.12: `allocate_lock` makes them."""
            raise TypeError(f"cannot create '{cls.__module__}.{cls.__qualname__}' instances")

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, as `greenswitch.locks.Lock.acquire`."""
        if next(_acquires) % _OFTEN == 0:
            _be_fair()
        return super().acquire(blocking, timeout)

    __enter__ = acquire
    acquire_lock = acquire

    # What the standard library's Condition uses if a lock has it: so a kill leaves its `with` with the lock held.

    def _release_save(self) -> None:
        self.release()

    def _acquire_restore(self, _: None) -> None:
        whatever_comes(self.acquire)

    release_lock = locks.Lock.release
    locked_lock = locks.Lock.locked

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("type '_thread.lock' is not an acceptable base type")

    def __repr__(self) -> str:
        return _repr(self)


class RLock(locks.RLock):
    """`_thread.RLock`, for tasks."""

    __slots__ = ()
    __module__ = "_thread"

    def __new__(cls, *args: Any, **kwargs: Any) -> RLock:
        return super().__new__(cls)  # arguments mean nothing to the original's either

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, as `greenswitch.locks.RLock.acquire`."""
        if next(_acquires) % _OFTEN == 0:
            _be_fair()
        return super().acquire(blocking, timeout)

    __enter__ = acquire

    def _acquire_restore(self, again: int) -> None:
        whatever_comes(super()._acquire_restore, again)

    def __repr__(self) -> str:
        return _repr(self)


def _repr(one: locks.Lock) -> str:
    """Return the original's repr, and who holds it."""
    state = "locked" if one.locked() else "unlocked"
    return f"<{state} {type(one).__module__}.{type(one).__qualname__} object {one.text} at {id(one):#x}>"


class BriefLock(locks.Lock):
    """A lock that no task holds while it waits, as that of a `queue.Queue`: whoever wants it has it in a moment.

    So what would interrupt the wait for it is kept for the next wait: a `put` that has room must not raise a kill.
    """

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, as `threading.Lock.acquire`."""
        if next(_acquires) % _OFTEN == 0:
            _be_fair()
        if not blocking or timeout != -1:
            return super().acquire(blocking, timeout)
        if not super().acquire(False):
            whatever_comes(super().acquire)
        return True

    __enter__ = acquire

    def _release_save(self) -> None:
        self.release()

    def _acquire_restore(self, _: None) -> None:
        self.acquire()


LockType = lock


def allocate_lock() -> lock:
    """Return a new lock."""
    made: lock = object.__new__(lock)
    made.__init__()  # type: ignore[misc]
    return made


allocate = allocate_lock


class _local(local):
    """`_thread._local`, for tasks."""

    __slots__ = ()
    __module__ = "_thread"


# -- who runs ----------------------------------------------------------------------------------------------------------


def get_ident() -> int:
    """Return a number, not zero, that no other thread has now: a task's own, or the OS thread's outside of tasks."""
    current = getcurrent()
    if isinstance(current, Task):
        return id(current)
    if current.parent is None:
        return _os_ident()
    hub = current_hub()
    return _os_ident() if hub is not None and hub.greenlet is current else id(current)


def get_native_id() -> int:
    """Return the OS thread's id outside of tasks; in a task a number that is no OS thread's, and no other task's."""
    ident = get_ident()
    return _os_native_id() if ident == _os_ident() else ident


class ThreadTask(Task):
    """A thread. What it raises is reported as a thread's errors are, and SystemExit just ends it."""

    __slots__ = ()

    is_thread = True

    def __init__(self, hub: Hub, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(hub, function, args, kwargs)
        self.context = Context()
        thread = getattr(function, "__self__", None)
        name = getattr(thread, "_name", None)
        if name is not None:
            self.name = name
        _running.add(self)

    def finish(self, value: Any, error: BaseException | None) -> None:
        _running.discard(self)
        if isinstance(error, KeyboardInterrupt):
            self.hub.ready.appendleft(_Interruption(self.hub, error))
        elif error is not None and not isinstance(error, (greenlet.GreenletExit, SystemExit)):
            _report(self.function, error)
        super().finish(value, error if isinstance(error, greenlet.GreenletExit) else None)


class _Interruption:
    """Ctrl-C that came while a thread ran. It has the next turn: main is to meet it before it does anything else."""

    __slots__ = ("args", "hub")

    def __init__(self, hub: Hub, error: KeyboardInterrupt) -> None:
        self.hub = hub
        self.args = error.args  # a new one will be raised: the thread's traceback is no part of main's

    def switch(self) -> Any:
        hub, main = self.hub, self.hub.main
        if main in hub.ready and main is not greenlet.getcurrent():  # it would go on without looking for interrupts
            return main.throw(KeyboardInterrupt(*self.args))
        hub.interrupt_main(KeyboardInterrupt(*self.args))
        return hub.greenlet.switch()


_running: set[ThreadTask] = set()


def _report(function: Any, error: BaseException) -> None:
    message, subject = "Exception ignored in thread started by", function
    if _JOINABLE:
        message, subject = f"{message} {function!r}", None
    sys.unraisablehook(_hook_args_type()((type(error), error, error.__traceback__, message, subject)))


def _hook_args_type() -> Any:
    """Return the type of what `sys.unraisablehook` takes. It has no public name: let the interpreter make one."""

    class Fails:
        def __del__(self) -> None:
            raise ValueError

    seen: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: seen.append(type(args))
    try:
        Fails()
    finally:
        sys.unraisablehook = hook
    return seen[0]


def _count() -> int:
    """Return how many threads run, as tasks or in the OS; neither the main thread counts nor the hub's workers."""
    return len(_running) + _os_count() - count_workers()


# -- starting ----------------------------------------------------------------------------------------------------------


def start_new_thread(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Any = None, /) -> int:
    """Start `function(*args, **kwargs)` as a task at the hub's next turn; return its ident. Never switches."""
    if not callable(function):
        raise TypeError("first arg must be callable")
    if not isinstance(args, tuple):
        raise TypeError("2nd arg must be a tuple")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError("optional 3rd arg must be a dictionary")
    return _start(function, args, kwargs or {}, None)


start_new = start_new_thread


def _start(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], handle: _ThreadHandle | None
) -> int:
    if _wants_os_thread(function):
        begun = _allocate_os_lock()
        begun.acquire()
        ident = _start_os_thread(_in_os_thread, ([begun, function, args, kwargs, handle],))
        begun.acquire()  # from here on the interpreter counts it, and a hub that looks for a deadlock knows of it
        return ident
    hub = get_hub()
    task = ThreadTask(hub, function, args, kwargs)
    if handle is not None:
        handle.begin(id(task))
        task.add_link(handle.end)
    hub.begin(task)
    return id(task)


def _wants_os_thread(function: Callable[..., Any]) -> bool:
    """Return whether it is a Thread that shall be one of the OS, or that was made with originals before patching."""
    thread = getattr(function, "__self__", None)
    started = getattr(thread, "_started", None)  # an Event, over a Condition, over a lock
    waits_with = getattr(getattr(started, "_cond", None), "_lock", None)
    return isinstance(thread, OSThread) or (waits_with is not None and not isinstance(waits_with, locks.Lock))


def _in_os_thread(call: list[Any]) -> None:
    begun, function, args, kwargs, handle = call
    call.clear()  # the interpreter keeps it until the thread is over
    begun.release()
    ident = _os_ident()
    if handle is not None:
        handle.begin(ident)
    try:
        function(*args, **kwargs)
    finally:
        del function, args, kwargs  # as with the original: what only the thread holds is freed before it can be joined
        sentinel = _sentinels.pop(ident, None)
        if sentinel is not None:
            sentinel.release()
        if handle is not None:
            handle.end()


# -- the end of a thread, until Python 3.12 ----------------------------------------------------------------------------


class _Sentinel:
    """A lock that is held while a thread runs, and free from then on.

    It isn't handed over: when it is released all who wait are woken, and find it free one after another, for each lets
    go of it at once. (`Thread.join` says then that it is not locked.)
    """

    __slots__ = ("__weakref__", "_freed", "_held")

    def __init__(self) -> None:
        self._held = False
        self._freed = Event()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; park until it is free, at most `timeout` seconds; return whether it was."""
        if self._take():
            return True
        while blocking and self._freed.wait(None if timeout < 0 else timeout):
            if self._take():
                return True
        return False

    def _take(self) -> bool:
        # One line on purpose, as in Waiter.wake: nobody comes between looking and taking.
        before, self._held = self._held, True
        if not before:
            self._freed.clear()
        return not before

    def release(self) -> None:
        """Set it free."""
        self._held = False
        self._freed.set()

    def locked(self) -> bool:
        """Return whether the thread runs."""
        return self._held

    def _at_fork_reinit(self) -> None:
        self.__init__()  # type: ignore[misc]


_sentinels: dict[int, _Sentinel] = {}


def _set_sentinel() -> _Sentinel:
    """Return a lock that is released when the calling thread has ended."""
    sentinel = _Sentinel()
    current = getcurrent()
    if isinstance(current, Task):
        current.add_link(lambda _: sentinel.release())
    else:
        _sentinels[get_ident()] = sentinel
    return sentinel


# -- the end of a thread, from Python 3.13 on --------------------------------------------------------------------------


class _ThreadHandle:
    """What a thread is joined by."""

    __slots__ = ("__weakref__", "_begun", "_ended", "ident")

    def __init__(self) -> None:
        self.ident = 0
        self._begun = False
        self._ended = Event()
        _handles.add(self)

    def begin(self, ident: int) -> None:
        """The thread runs, or is about to."""
        self.ident = ident
        self._begun = True

    def end(self, _: object = None) -> None:
        """The thread has ended."""
        _awaited.discard(self)
        self._ended.set()

    def join(self, timeout: float | None = None, /) -> None:
        """Park until the thread has ended, at most `timeout` seconds."""
        self._must_have_begun()
        if self._ended.is_set():
            return
        if self.ident == get_ident():
            raise RuntimeError("Cannot join current thread")
        self._ended.wait(None if timeout is None or timeout < 0 else timeout)

    def is_done(self) -> bool:
        """Return whether the thread has ended."""
        return self._ended.is_set()

    def _set_done(self) -> None:
        self._must_have_begun()
        self.end()

    def _must_have_begun(self) -> None:
        if not self._begun:
            raise RuntimeError("thread not started")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} object: ident={self.ident}>"


_handles: WeakSet[_ThreadHandle] = WeakSet()
_awaited: set[_ThreadHandle] = set()
"""Those of threads that the interpreter waits for when it ends."""


def _make_thread_handle(ident: int) -> _ThreadHandle:
    """Return the handle of a thread that runs already."""
    handle = _ThreadHandle()
    handle.begin(ident)
    return handle


def start_joinable_thread(
    function: Callable[[], Any], handle: _ThreadHandle | None = None, daemon: bool = True
) -> _ThreadHandle:
    """Start `function()` as a task at the hub's next turn; return what it can be joined by. Never switches."""
    if not callable(function):
        raise TypeError("thread function must be callable")
    if handle is None:
        handle = _ThreadHandle()
    if isinstance(handle, _OSThreadHandle):  # of a Thread that was made before patching
        return _start_joinable_in_os(function, handle, daemon)  # type: ignore[no-any-return]
    if not isinstance(handle, _ThreadHandle):
        raise TypeError("'handle' must be a _ThreadHandle")
    if handle._begun:
        raise RuntimeError("thread already started")
    handle._begun = True
    if not daemon:
        _awaited.add(handle)
    try:
        _start(function, (), {}, handle)
    except BaseException:
        handle._begun = False
        _awaited.discard(handle)
        raise
    return handle


def _start_joinable_in_os(function: Callable[[], Any], handle: Any, daemon: bool) -> Any:
    def begin() -> None:
        begun.release()
        function()

    begun = _allocate_os_lock()
    begun.acquire()
    _start_joinable_os_thread(begin, handle=handle, daemon=daemon)
    begun.acquire()  # as in `_start`
    return handle


def _shutdown() -> None:
    """Park until all threads have ended but daemons."""
    while _awaited:
        for handle in list(_awaited):
            handle.join()
    _os_shutdown()


def _in_child() -> None:
    """In a forked child, only the thread that forked goes on."""
    mine = get_ident()
    _running.intersection_update([getcurrent()])
    for handle in list(_handles):
        if handle.ident != mine and handle._begun:
            handle.end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


_OURS = (
    *("LockType", "RLock", "allocate", "allocate_lock", "get_ident", "get_native_id", "lock", "start_new"),
    *("start_new_thread", "start_joinable_thread", "_ThreadHandle", "_count", "_local", "_make_thread_handle"),
    *("_set_sentinel", "_shutdown"),
)
REPLACED = tuple(name for name in _OURS if hasattr(original, name))

__getattr__, __dir__ = rest_of(original, globals())
