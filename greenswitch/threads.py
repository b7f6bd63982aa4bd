"""Work in OS threads: a call that would block this thread blocks another one, and the task that wants its result parks.

`to_thread` uses a pool of its hub's: at most four more threads than there are CPUs, 32 at most, started as they are
needed and ended with the hub. Look-ups of names have a pool of their own (see `greenswitch.names`), so neither holds up
the other. A `ThreadPool` is one of the program's own, with a size.

A task that is killed, or times out, leaves its job behind: a job that no thread has begun is called off; one that runs
goes on to its end, and its outcome is dropped. At exit the interpreter waits for the jobs that still run. The workers
are no `threading.Thread`s: the program never counts, lists or joins them, and they work for as long as any thread of
the program runs, `atexit` included. Where no thread can be started any more, a call runs in the thread that asks.

Knows the hub and the original threads of the OS, also under monkey patching. Main and raw greenlets may call, too.
"""

from __future__ import annotations

import atexit
import os
import threading
from _queue import Empty, SimpleQueue  # the originals, also after monkey patching
from _thread import LockType, allocate_lock, get_ident, start_new_thread
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from weakref import finalize

from greenlet import GreenletExit

from greenswitch.hub import TIMED_OUT, Hub, OutsideWaiter, get_hub
from greenswitch.hub.bystanders import pool_calls, pool_threads
from greenswitch.locks import AsyncResult
from greenswitch.queues import Queue

if TYPE_CHECKING:
    from concurrent.futures import Future

P = ParamSpec("P")
T = TypeVar("T")

_CALLS: Final = "greenswitch.threads"


class OSThread(threading.Thread):
    """A `threading.Thread` that is a thread of the operating system, also where monkey patching makes threads tasks."""


class _Call:
    """A call for a worker. `done(call)` is called in the worker's thread when it has ended; it must not raise."""

    __slots__ = ("_claimed", "args", "done", "error", "function", "kwargs", "value")

    def __init__(self, done: Callable[[_Call], Any], function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._claimed = False
        self.done = done
        self.function: Callable[..., Any] | None = function
        self.args = args
        self.kwargs = kwargs
        self.value: Any = None
        self.error: BaseException | None = None

    def claim(self) -> bool:
        """Return True once: to the worker that is to run it, or to whatever calls it off."""
        # One line, as in Waiter.wake: a worker and a task that come at once find different values.
        before, self._claimed = self._claimed, True
        return not before

    def run(self) -> None:
        """Make the call, and tell that it has ended."""
        function, self.function = self.function, None
        try:
            self.value = function(*self.args, **self.kwargs)  # type: ignore[misc]
        except BaseException as error:
            self.error = error
        del function
        self.args = self.kwargs = None
        self.end()

    def cancel(self) -> bool:
        """Call it off; return False if a worker has begun it."""
        claimed = self.claim()
        if claimed:
            pool_calls.discard(self)
        return claimed

    def end(self) -> None:
        """Tell that it has ended."""
        self.done(self)
        pool_calls.discard(self)

    def outcome(self) -> Any:
        """Return or raise what the function did, and keep nothing of it."""
        error, self.error = self.error, None
        if error is None:
            return self.value
        try:
            raise error
        finally:
            del error, self  # the traceback refers to this frame


# -- the workers -------------------------------------------------------------------------------------------------------

_running: set[LockType] = set()
"""A lock for each call that runs, free when it has ended."""


def count_workers() -> int:
    """Return how many workers live, of all pools: threads that the program has not started."""
    return len(pool_threads)


def _work(begun: LockType, calls: SimpleQueue[_Call | None], idle: deque[None]) -> None:
    me = get_ident()
    pool_threads.add(me)
    begun.release()  # from here on the interpreter counts this thread, and so does `count_workers`
    try:
        while (call := calls.get()) is not None:
            if call.claim():
                _run(call)
            del call
            # If the call has asked for `threading.current_thread()`, that has noted a thread of its own making.
            getattr(threading, "_active", {}).pop(me, None)
            idle.append(None)
    finally:
        pool_threads.discard(me)


def _run(call: _Call) -> None:
    runs = allocate_lock()
    runs.acquire()
    _running.add(runs)
    try:
        call.run()
    finally:
        _running.discard(runs)
        runs.release()


def _wait_for_running() -> None:
    for runs in list(_running):
        runs.acquire()


def _in_child() -> None:
    _running.clear()  # the threads are the parent's
    pool_threads.clear()
    pool_calls.clear()


atexit.register(_wait_for_running)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class ThreadPool:
    """At most `size` OS threads that make calls, started as they are needed. None: four more than CPUs, at most 32.

    `spawn` and `apply_async` return an `AsyncResult`, whose `get` parks. Any task, main, and other threads may call.

    >>> pool = ThreadPool(2)
    >>> pool.map(abs, [-1, -2, -3])
    [1, 2, 3]
    >>> pool.close()
    """

    def __init__(self, size: int | None = None) -> None:
        if size is None:
            size = min(32, (os.cpu_count() or 1) + 4)
        if size < 1:
            raise ValueError(f"a pool needs at least one thread, not {size!r}")
        self.size = size
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._idle: deque[None] = deque()
        self._started: list[int] = []
        self._results: set[AsyncResult] = set()
        self._closed = False
        self._let_go = finalize(self, _let_workers_go, self._calls, self._started)
        self._let_go.atexit = False

    def _submit(self, call: _Call) -> None:
        if self._closed:
            raise RuntimeError(f"{self!r} is closed: it takes no more calls")
        pool_calls.add(call)
        self._calls.put(call)
        try:
            self._idle.pop()
        except IndexError:
            if len(self._started) < self.size:
                self._start_worker(call)

    def _start_worker(self, call: _Call) -> None:
        begun = allocate_lock()
        begun.acquire()
        try:
            self._started.append(start_new_thread(_work, (begun, self._calls, self._idle)))
            begun.acquire()
        except RuntimeError:  # too many threads, or the interpreter starts none at its end
            if not self._started and call.claim():
                _run(call)

    def spawn(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Make the call in a thread; return its `AsyncResult` at once. The call sees the caller's context variables.

        RuntimeError if the pool is closed.
        """
        if not callable(function):
            raise TypeError(f"spawn needs a function and its arguments, not {function!r}")
        result = AsyncResult()
        results = self._results

        def done(call: _Call) -> None:
            results.discard(result)
            if call.error is None:
                result.set(call.value)
            else:
                result.set_exception(call.error)

        results.add(result)
        try:
            self._submit(_Call(done, copy_context().run, (function, *args), kwargs))
        except BaseException:
            results.discard(result)
            raise
        return result

    def apply(
        self, function: Callable[..., Any], args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Make the call in a thread, park until it has ended, and return or raise what it does."""
        return self.spawn(function, *args, **(kwargs or {})).get()

    def apply_async(
        self,
        function: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
    ) -> AsyncResult:
        """As `spawn`. `callback(value)` is called inside the hub, where nothing may wait, if the call succeeds."""
        result = self.spawn(function, *args, **(kwargs or {}))
        if callback is not None:
            result.add_link(partial(_call_back, get_hub(), callback))
        return result

    def map(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> list[Any]:
        """Return what `function` returns for each element, in order. The first failure is raised."""
        return [result.get() for result in [self.spawn(function, *args) for args in zip(*iterables, strict=False)]]

    def imap(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """As `map`, one result after another. At most twice `size` elements are taken ahead."""
        ahead: deque[AsyncResult] = deque()
        for args in zip(*iterables, strict=False):
            ahead.append(self.spawn(function, *args))
            if len(ahead) >= 2 * self.size:
                yield ahead.popleft().get()
        while ahead:
            yield ahead.popleft().get()

    def imap_unordered(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """As `imap`, each result as soon as there is one."""
        ended: Queue[AsyncResult] = Queue()
        missing = 0
        for args in zip(*iterables, strict=False):
            self.spawn(function, *args).add_link(ended.put)
            missing += 1
            if missing >= 2 * self.size:
                yield ended.get().get()
                missing -= 1
        for _ in range(missing):
            yield ended.get().get()

    def join(self, timeout: float | None = None) -> bool:
        """Park until no call is waiting or running, at most `timeout` seconds; return whether that is so."""
        hub = get_hub()
        deadline = None if timeout is None else hub.clock() + timeout
        while self._results:
            left = None if deadline is None else deadline - hub.clock()
            if left is not None and left <= 0:
                return False
            next(iter(self._results)).wait(left)
        return True

    def close(self) -> None:
        """Take no more calls; the threads end when those that have been handed in have ended. Twice does nothing."""
        self._closed = True
        self._let_go()

    def kill(self) -> None:
        """Close, and call off what no thread has begun: its `get` raises GreenletExit. What runs goes on to its end."""
        self._closed = True
        self._let_go.detach()
        while True:
            try:
                call = self._calls.get_nowait()
            except Empty:
                break
            if call is not None and call.cancel():
                call.error = GreenletExit()
                call.done(call)
        _let_workers_go(self._calls, self._started)

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._started) or 'none'} started"
        return f"<ThreadPool of {self.size}, {state}>"


def _let_workers_go(calls: SimpleQueue[_Call | None], started: list[int]) -> None:
    for _ in started:
        calls.put(None)


# -- what tasks call ---------------------------------------------------------------------------------------------------


def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function(*args, **kwargs)` in an OS thread, park until it has ended, and return or raise what it does.

    It sees a copy of the caller's context variables. For a time limit put `timeout(seconds)` around it: the job itself
    can't be stopped, its outcome is dropped. Not from inside the hub.
    """
    return in_pool(_CALLS, None, function, *args, **kwargs)


def in_pool(key: str, size: int | None, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As `to_thread`, by another pool of the hub's: the one under `key`, which gets `size` threads when it is made."""
    hub = get_hub()
    waiter = OutsideWaiter(hub, "run in a thread", function)
    hub.check(waiter)
    pool: ThreadPool | None = hub.local.get(key)
    if pool is None:
        pool = hub.local[key] = _OfHub(size)
    call = _Call(waiter.wake, copy_context().run, (function, *args), kwargs)
    pool._submit(call)
    try:
        hub.park(waiter)
    except BaseException:
        call.cancel()
        raise
    try:
        return call.outcome()  # type: ignore[no-any-return]
    finally:
        del call, waiter  # the traceback of what it raises refers to this frame


def _call_back(hub: Hub, callback: Callable[[Any], Any], ended: AsyncResult) -> None:
    if ended.successful():
        hub.call_soon(callback, ended.value)


class _OfHub(ThreadPool):
    """A pool of a hub's: closed with the hub, whose tasks wait for nothing any more."""

    close = ThreadPool.kill


def set_thread_pool_size(size: int) -> None:
    """Let this hub's `to_thread` use at most `size` worker threads; jobs that have been handed in end as they would.

    The default is four more than there are CPUs, at most 32. Raises ValueError for less than 1.
    """
    local = get_hub().local
    pool = _OfHub(size)
    previous: ThreadPool | None = local.pop(_CALLS, None)
    local[_CALLS] = pool
    if previous is not None:
        ThreadPool.close(previous)


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
