"""Work in OS threads: a call that would block this thread blocks another one, and the task that wants its result parks.

Each hub that asks for it has a pool of worker threads of its own, started as they are needed and ended with the hub. A
task that is killed, or times out, leaves its job behind: a job nobody has begun is called off; one that runs goes on to
its end, where its outcome is dropped and the worker takes the next job. At the end of the interpreter Python waits for
the jobs that still run, as it does for every `concurrent.futures` pool.

Knows the hub. Knows no task: main and raw greenlets may call too. The pool is none of `concurrent.futures`, whose
threads are tasks under monkey patching; and what it waits with are originals.
"""

from __future__ import annotations

import atexit
import os
import threading
from _queue import Empty, SimpleQueue  # the originals, also after monkey patching
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from itertools import count
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from weakref import WeakSet

from greenswitch.hub import TIMED_OUT, Hub, OutsideWaiter, Waiter, get_hub

if TYPE_CHECKING:
    from concurrent.futures import Future

P = ParamSpec("P")
T = TypeVar("T")

_KEY: Final = "greenswitch.threads"
_numbers = count(1)


class OSThread(threading.Thread):
    """A `threading.Thread` that is a thread of the operating system, also where monkey patching makes threads tasks."""


class _Job:
    """A call for a worker, and the waiter that its outcome wakes."""

    __slots__ = ("args", "error", "function", "kwargs", "value", "waiter")

    def __init__(self, waiter: Waiter, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.waiter = waiter
        self.function: Callable[..., Any] | None = function
        self.args = args
        self.kwargs = kwargs
        self.value: Any = None
        self.error: BaseException | None = None

    def claim(self) -> Callable[..., Any] | None:
        """Return the function, to one who asks first: the worker, or who calls the job off."""
        # One line on purpose, as in Waiter.wake: two threads may come at once.
        claimed, self.function = self.function, None
        return claimed

    def do(self) -> None:
        """Call it, in a worker, unless it has been called off."""
        function = self.claim()
        if function is None:
            return
        try:
            self.value = function(*self.args, **self.kwargs)
        except BaseException as error:
            self.error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        self.waiter.wake()

    def outcome(self) -> Any:
        """Return or raise what the function did, and keep nothing of it."""
        value, error, self.value, self.error = self.value, self.error, None, None
        if error is None:
            return value
        try:
            raise error
        finally:
            del self, error  # the traceback holds this frame


class ThreadPool:
    """The worker threads of one hub; `to_thread` makes it. `size` is how many there may be."""

    def __init__(self, size: int | None = None) -> None:
        self.size = min(32, (os.cpu_count() or 1) + 4) if size is None else size
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._idle: deque[None] = deque()  # an entry for each worker that waits for a job
        self._started = 0
        _pools.add(self)

    def submit(self, job: _Job) -> None:
        """Hand `job` to a worker; start one if none is idle. RuntimeError if it needs a thread and can't have one."""
        self._jobs.put(job)
        try:
            self._idle.pop()
        except IndexError:
            if self._started < self.size:
                self._start_worker()

    def _start_worker(self) -> None:
        worker = OSThread(target=_work, args=(self._jobs, self._idle), name=f"greenswitch_{next(_numbers)}")
        worker.daemon = True  # `_finish` sees to its end
        self._started += 1
        try:
            worker.start()
        except RuntimeError:
            self._started -= 1
            if not self._started:
                raise
        else:
            _workers.add(worker)
            # What stands there, CPython's tests take for threads that somebody has forgotten to join.
            getattr(threading, "_dangling", set()).discard(worker)

    def close(self) -> None:
        """Call off the jobs that nobody has begun and let the workers go; wait for none of them. Twice does nothing."""
        with suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job.claim()
        self.retire()

    def retire(self) -> None:
        """Take no more jobs; let the workers go when those that were handed in have ended."""
        workers, self._started = self._started, 0
        for _ in range(workers):
            self._jobs.put(None)

    __del__ = retire

    def __repr__(self) -> str:
        return f"<ThreadPool of {self.size}, {self._started or 'none'} started>"


_pools: WeakSet[ThreadPool] = WeakSet()
_workers: WeakSet[OSThread] = WeakSet()


def _work(jobs: SimpleQueue[_Job | None], idle: deque[None]) -> None:
    """Be a worker. It holds no reference to its pool, and none to a job that it has done."""
    while True:
        try:
            job = jobs.get_nowait()
        except Empty:
            idle.append(None)
            job = jobs.get()
        if job is None:
            return
        job.do()
        del job


def count_workers() -> int:
    """Return how many workers of all hubs' pools live: threads that no program of the user's has started."""
    return sum(worker.is_alive() for worker in list(_workers))


@atexit.register
def _finish() -> None:
    for pool in list(_pools):
        pool.close()
    for worker in list(_workers):
        worker.join()


def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function(*args, **kwargs)` in an OS thread, park until it has ended, and return or raise what it does.

    It sees a copy of the caller's context variables. For a time limit put `timeout(seconds)` around it: the job itself
    can't be stopped, its outcome is dropped. Not from inside the hub.
    """
    hub = get_hub()
    waiter = OutsideWaiter(hub, "run in a thread", function)
    hub.check(waiter)
    job = _Job(waiter, copy_context().run, (function, *args), kwargs)
    try:
        _pool(hub).submit(job)
        hub.park(waiter)
    except BaseException:
        job.claim()
        raise
    return job.outcome()  # type: ignore[no-any-return]


def wrap_future(future: Future[T], timeout: float | None = None) -> T:
    """Park until a `concurrent.futures.Future`, of any pool, is done; return its result or raise its exception.

    Raises TimeoutError after `timeout` seconds. Who is killed or timed out here cancels a future that has not begun, as
    asyncio's `wrap_future` does. Not from inside the hub.
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
    return future.result()


def set_thread_pool_size(size: int) -> None:
    """Let this hub's `to_thread` use at most `size` worker threads; jobs that have been handed in end as they would.

    The default is five to 32, four more than there are CPUs. Raises ValueError for less than one.
    """
    if size < 1:
        raise ValueError(f"a pool needs at least one thread, not {size!r}")
    local = get_hub().local
    previous = local.pop(_KEY, None)
    local[_KEY] = ThreadPool(size)
    if previous is not None:
        previous.retire()


def _pool(hub: Hub) -> ThreadPool:
    pool: ThreadPool | None = hub.local.get(_KEY)
    if pool is None:
        pool = hub.local[_KEY] = ThreadPool()
    return pool
