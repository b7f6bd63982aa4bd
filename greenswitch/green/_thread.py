"""The twin of the standard library's `_thread`: a thread is a task of the hub in which it is started.

Everything that `threading` does, it does by these: so the twin of `threading`, and `threading` itself when it is
patched, keep the standard library's own classes. Idents: a task's is the id of the task; what stands outside of tasks
has the OS thread's. What isn't here is the original's own.

The names that only some Python versions have (`_set_sentinel` until 3.12; `start_joinable_thread`, `_ThreadHandle` and
their kin from 3.13 on) are all here; `REPLACED` has those of this version.
"""

from __future__ import annotations

import _thread as original
import errno
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
from typing import Any, Final, NoReturn
from weakref import WeakSet

import greenlet

from greenswitch import locks
from greenswitch.errors import GreenswitchError
from greenswitch.green import rest_of
from greenswitch.hub import Hub, current_hub, get_hub, new_waiter, step_aside
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

# -- locks -------------------------------------------------------------------------------------------------------------

_FAILED: Final = 1000
_TAKEN: Final = 50_000
_calls = count(1)  # of `acquire`: each call gets a number, and a second one if it fails
_latest = 0  # the second number of the latest call that failed
_in_a_row = 0  # how many have failed one after another


def _fail() -> bool:
    """Return False, for a try that has failed; after many in a row give the hub a turn, and others theirs.

    A thread that tries again and again waits for another one to do its part. Real threads take turns by time. A kill or
    a time limit is raised here, as in any wait.
    """
    global _latest, _in_a_row
    number = next(_calls)
    _in_a_row = _in_a_row + 1 if number <= _latest + 2 else 1
    _latest = number
    if _in_a_row >= _FAILED:
        _in_a_row = 0
        hub = _hub_to_wait_in()
        if hub is not None:
            hub.left = 0
            step_aside()
    return False


def _end_spin() -> None:
    """Give the hub a turn, and others theirs, if nothing else has run in it since the last call: a thread polls.

    That raises nothing: a lock that is free is had without a kill or a time limit.
    """
    hub = _hub_to_wait_in()
    if hub is None:
        return
    if hub.local.get(_end_spin) == (hub.turns, hub.left):
        hub.left = 0
        with shield():
            step_aside()
    hub.local[_end_spin] = hub.turns, hub.left


def _hub_to_wait_in() -> Hub | None:
    hub = current_hub()
    if hub is None or hub.closed or greenlet.getcurrent() is hub.greenlet:
        return None
    # In a forked child, before the hub's handler has run, the others are the parent's tasks.
    return hub if hub.process_id == os.getpid() else None


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
        if next(_calls) % _TAKEN == 0:
            _end_spin()
        return super().acquire(blocking, timeout) or _fail()

    __enter__ = acquire
    acquire_lock = acquire

    def _wait(self, me: Any, timeout: float) -> bool:
        try:
            return super()._wait(me, timeout)
        except (GreenswitchError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # Released after the kill and before its turn. `Condition.notify` has released it for this waiter, and would
            # have to choose another one: so it goes on with the lock, and the kill comes at the next wait.
            if self._line or not self._take(me):
                raise
            get_hub().interrupt(greenlet.getcurrent(), error)
            return True

    # What the standard library's Condition uses if a lock has it: so a kill leaves its `with` with the lock held.

    def _is_owned(self) -> bool:
        return self._owner is not None

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
        if next(_calls) % _TAKEN == 0:
            _end_spin()
        return super().acquire(blocking, timeout) or _fail()

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
    """A lock that is held for moments, as that of a `queue.Queue`: a `put` that has room neither switches nor raises.

    When it is released it is free, and not the first waiter's: a task that puts twice would have to wait for the getter
    of the first item. A task that waits for it meets no kill and no time limit there: these come at its next wait.
    """

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, as `threading.Lock.acquire`."""
        if next(_calls) % _TAKEN == 0:
            _end_spin()
        me = getcurrent()
        if self._take(me):
            return True
        if timeout != -1 or not blocking:
            return super().acquire(blocking, timeout) or _fail()
        with shield():
            return self._wait(me, timeout)

    __enter__ = acquire

    def _wait(self, me: Any, timeout: float) -> bool:
        hub = get_hub()
        deadline = None if timeout == -1 else hub.clock() + timeout
        while not self._take(me):
            left = None if deadline is None else deadline - hub.clock()
            if left is not None and left <= 0:
                return False
            waiter = new_waiter("acquire", self)
            try:
                self._line.wait(waiter, left, self._wake_one_if_free)
            except BaseException:
                if waiter.value is True:  # Ctrl-C came as it went on: another one can have the lock
                    self._wake_one_if_free()
                raise
        return True

    def _pass_on(self) -> None:
        self._owner = None
        self._wake_one_if_free()

    def _wake_one_if_free(self) -> None:
        if self._line and self._owner is None:
            self._line.give()
        if self._links and self._owner is None:
            self._tell()

    # For conditions.

    def _is_owned(self) -> bool:
        return self._owner is not None

    def _release_save(self) -> None:
        self._owner = None
        if self._line or self._links:
            self._wake_one_if_free()

    def _acquire_restore(self, _: None) -> None:
        if not self._take(getcurrent()):
            whatever_comes(self.acquire)


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
    """Return the id that the OS gives the thread: all tasks of one hub have the same."""
    return _os_native_id()


def os_thread_of(ident: int) -> int:
    """Return the ident of the OS thread in which the thread `ident` runs, for calls that the OS looks at.

    Raises ProcessLookupError if there is no such thread: the C library would read what is not its own.
    """
    for task in list(_running):
        if id(task) == ident:
            return task.hub.thread_id
    if ident not in sys._current_frames():
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return ident


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
        return _fail()

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
        return self._ended.is_set() or _fail()

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
