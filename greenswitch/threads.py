"""Work in OS threads: a call that would block this thread blocks another one, and the task that wants its result parks.

`to_thread` uses threads of its hub's: at most four more than there are CPUs, 32 at most, started as they are needed and
ended with the hub. Look-ups of names have threads of their own (see `greenswitch.names`): neither holds up the other.
A `ThreadPool` has a size, and otherwise is a `Pool` whose calls run in threads.

A task that is killed, or times out, leaves its call behind: one that no thread has begun is called off; one that runs
goes on to its end, and its outcome is dropped. At exit the interpreter waits for the calls that still run, but for no
look-up. The workers are no `threading.Thread`s: the program never counts, lists or joins them, and they work for as
long as any thread of the program runs, `atexit` included. Where no thread can be started any more, a call runs in the
thread that asks.

Knows the hub and the original threads of the OS, also under monkey patching. Main and raw greenlets may call, too.
"""

from __future__ import annotations

import atexit
import os
import threading
from _queue import Empty, SimpleQueue  # the originals, also after monkey patching
from _thread import LockType, allocate_lock, get_ident, start_new_thread
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from weakref import WeakSet, finalize

from greenswitch.hub import TIMED_OUT, OutsideWaiter, get_hub
from greenswitch.hub.bystanders import pool_calls, pool_threads
from greenswitch.locks import Event
from greenswitch.pools import Call, Owner, Pool

if TYPE_CHECKING:
    from concurrent.futures import Future

P = ParamSpec("P")
T = TypeVar("T")

_CALLS: Final = "greenswitch.threads"


class OSThread(threading.Thread):
    """A `threading.Thread` that is a thread of the operating system, also where monkey patching makes threads tasks."""


class _Job:
    """A call for a worker, which wakes the waiter when it has ended."""

    __slots__ = ("_args", "_claimed", "_error", "_function", "_kwargs", "_value", "_waiter", "awaited")

    awaited: bool
    """Whether the interpreter waits for its end, if it runs at exit."""

    def __init__(self, waiter: OutsideWaiter, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._claimed = False
        self._waiter = waiter
        self._function: Callable[..., Any] | None = function
        self._args = args
        self._kwargs = kwargs
        self._value: Any = None
        self._error: BaseException | None = None

    def claim(self) -> bool:
        """Return True once: to the worker that is to run it, or to whatever calls it off."""
        # One line, as in Waiter.wake: a worker and a task that come at once find different values.
        before, self._claimed = self._claimed, True
        return not before

    def run(self) -> None:
        """Make the call, and wake the waiter."""
        ended = Event()
        if self.awaited:
            _running.add(ended)
        function, self._function = self._function, None
        try:
            self._value = function(*self._args, **self._kwargs)  # type: ignore[misc]
        except BaseException as error:
            self._error = error
        del function
        self._args = self._kwargs = None
        self._waiter.wake()
        pool_calls.discard(self)
        _running.discard(ended)
        ended.set()

    def cancel(self) -> None:
        """Call it off, unless a worker has begun it."""
        if self.claim():
            pool_calls.discard(self)

    def outcome(self) -> Any:
        """Return or raise what the function did, and keep nothing of it."""
        error, self._error = self._error, None
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error, self  # the traceback refers to this frame


# -- the workers -------------------------------------------------------------------------------------------------------

_running: set[Event] = set()
"""An event for each job that runs and is waited for at exit, set when it has ended."""


def count_workers() -> int:
    """Return how many workers live: threads that the program has not started."""
    return len(pool_threads)


class _Workers:
    """At most `size` threads, started as they are needed, that run the jobs of one queue.

    `awaited`: whether the interpreter waits at exit for jobs that run.
    """

    def __init__(self, size: int | None, awaited: bool = True) -> None:
        self.awaited = awaited
        self.size = min(32, (os.cpu_count() or 1) + 4) if size is None else size
        if self.size < 1:
            raise ValueError(f"a pool needs at least one thread, not {size!r}")
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._idle: deque[None] = deque()  # an entry for each worker that waits for a job
        self.started: list[int] = []
        self._let_go = finalize(self, _let_go, self._jobs, self.started)
        self._let_go.atexit = False

    def submit(self, job: _Job) -> None:
        """Hand a job to a worker. Never raises: where no thread can be started, the job runs here."""
        job.awaited = self.awaited
        pool_calls.add(job)
        self._jobs.put(job)
        try:
            self._idle.pop()
        except IndexError:
            if len(self.started) < self.size:
                self._start_worker(job)

    def _start_worker(self, job: _Job) -> None:
        begun = allocate_lock()
        begun.acquire()
        try:
            self.started.append(start_new_thread(_work, (begun, self._jobs, self._idle)))
            begun.acquire()
        except RuntimeError:  # too many threads, or the interpreter starts none at its end
            if not self.started and job.claim():
                job.run()

    def retire(self) -> None:
        """Let the threads end when the jobs that have been handed in have ended."""
        self._let_go()

    def close(self) -> None:
        """Call off what no thread has begun, and let the threads end. For the end of a hub."""
        try:
            while (job := self._jobs.get_nowait()) is not None:
                job.cancel()
        except Empty:
            pass
        self.retire()

    def forget(self) -> None:
        """In a forked child, begin anew: the threads are the parent's."""
        self._let_go.detach()
        self._begin()

    def __repr__(self) -> str:
        return f"<{len(self.started) or 'no'} threads, of at most {self.size}>"


_all: WeakSet[_Workers] = WeakSet()


def _work(begun: LockType, jobs: SimpleQueue[_Job | None], idle: deque[None]) -> None:
    me = get_ident()
    pool_threads.add(me)
    begun.release()  # from here on the interpreter counts this thread, and so does `count_workers`
    try:
        while (job := _next(jobs, idle)) is not None:
            if job.claim():
                job.run()
            del job
            _forget_dummy(me)
    finally:
        pool_threads.discard(me)


def _forget_dummy(me: int) -> None:
    """Take back what `threading.current_thread()` has noted, if the job has called it: a thread of its own making."""
    noted = getattr(threading, "_thread_local_info", None)
    if noted is not None:  # Python 3.13's dummy leaves the list when this does, and fails to at the interpreter's end
        noted.__dict__.clear()
    getattr(threading, "_active", {}).pop(me, None)


def _next(jobs: SimpleQueue[_Job | None], idle: deque[None]) -> _Job | None:
    try:
        return jobs.get_nowait()
    except Empty:
        idle.append(None)
        return jobs.get()


def _let_go(jobs: SimpleQueue[_Job | None], started: list[int]) -> None:
    for _ in started:
        jobs.put(None)


def _wait_for_running() -> None:
    for ended in list(_running):
        ended.wait()


def _in_child() -> None:
    _running.clear()
    pool_threads.clear()
    pool_calls.clear()
    for workers in list(_all):
        workers.forget()


atexit.register(_wait_for_running)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


# -- what tasks call ---------------------------------------------------------------------------------------------------


def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function(*args, **kwargs)` in an OS thread, park until it has ended, and return or raise what it does.

    It sees a copy of the caller's context variables. For a time limit put `timeout(seconds)` around it: the job itself
    can't be stopped, its outcome is dropped. Not from inside the hub.
    """
    return _call(lambda: _of_hub(_CALLS, None, True), function, args, kwargs)  # type: ignore[no-any-return]


def in_pool(key: str, size: int, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As `to_thread`, by other threads of the hub's: those under `key`, at most `size`. No exit waits for the call."""
    return _call(lambda: _of_hub(key, size, False), function, args, kwargs)  # type: ignore[no-any-return]


def _of_hub(key: str, size: int | None, awaited: bool) -> _Workers:
    local = get_hub().local
    workers: _Workers | None = local.get(key)
    if workers is None:
        workers = local[key] = _Workers(size, awaited)
    return workers


def _call(workers: Callable[[], _Workers], function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    hub = get_hub()
    waiter = OutsideWaiter(hub, "run in a thread", function)
    hub.check(waiter)
    job = _Job(waiter, copy_context().run, (function, *args), kwargs)
    workers().submit(job)
    try:
        hub.park(waiter)
    except BaseException:
        job.cancel()
        raise
    try:
        return job.outcome()
    finally:
        del job, waiter  # the traceback of what it raises refers to this frame


def set_thread_pool_size(size: int) -> None:
    """Let this hub's `to_thread` use at most `size` worker threads; jobs that have been handed in end as they would.

    The default is four more than there are CPUs, at most 32. Raises ValueError for less than 1.
    """
    local = get_hub().local
    workers = _Workers(size)
    previous: _Workers | None = local.pop(_CALLS, None)
    local[_CALLS] = workers
    if previous is not None:
        previous.retire()


class ThreadPool(Pool):
    """A `Pool` whose calls run in OS threads, at most `size` at a time. None: four more than CPUs, at most 32.

    Each call has a task, which waits for it; everything is done with tasks as in a `Pool`. To kill a task whose call
    runs already doesn't stop the call: it goes on, its outcome is dropped, and the next call waits for its thread. A
    `with` block closes the pool at its end. ValueError for a size below one.

    >>> import greenswitch
    >>> def main():
    ...     with ThreadPool(2) as pool:
    ...         return pool.map(abs, [-1, -2, -3])
    >>> greenswitch.run(main)
    [1, 2, 3]
    """

    def __init__(self, size: int | None = None) -> None:
        self._workers = _Workers(size)
        self._closed = False
        super().__init__(self._workers.size)

    def begin(
        self,
        owner: Owner,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        position: int = 0,
    ) -> Call:
        """Start a call on a place that has been taken; give the place back if that fails."""
        if self._closed:
            self.places.release()
            raise RuntimeError(f"{self!r} takes no more calls")
        return super().begin(owner, _InThread(self._workers, function), args, kwargs, position)

    def leave(self, call: Call) -> None:
        """Take a call's place back."""
        super().leave(call)
        if self._closed:
            self.close()

    def close(self) -> None:
        """Take no more calls; the threads end when those that have begun have ended. Waits for nothing."""
        self._closed = True
        if not self.tasks:
            self._workers.retire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, where)
        finally:
            self.close()

    def __repr__(self) -> str:
        state = "closed, " if self._closed else ""
        return f"<ThreadPool of {self.size}: {state}{len(self.tasks)} running{self.places._line.text}>"


class _InThread:
    """A function that runs in a thread when a task calls it; named as the function is."""

    __slots__ = ("__name__", "_function", "_workers")

    def __init__(self, workers: _Workers, function: Callable[..., Any]) -> None:
        self.__name__ = getattr(function, "__name__", None) or type(function).__name__
        self._workers = workers
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _call(lambda: self._workers, self._function, args, kwargs)


def wrap_future(future: Future[T], timeout: float | None = None) -> T:
    """Park until a `concurrent.futures.Future`, of any pool, is done; return its result or raise its exception.

    Raises TimeoutError after `timeout` seconds. A task that is killed or timed out here cancels a future that has not
    begun, as asyncio's `wrap_future` does. Not from inside the hub.
    """
    hub = get_hub()
    if future.done():
        return future.result()
    waiter = OutsideWaiter(hub, "get the result of", future)
    hub.check(waiter)
    future.add_done_callback(waiter.wake)
    try:
        if hub.wait(waiter, timeout) is TIMED_OUT:
            raise TimeoutError(f"{future!r} was not done within {timeout} seconds")
    except BaseException:
        future.cancel()
        raise
    try:
        return future.result()
    finally:
        del future, waiter  # the traceback of what it raises holds this frame
