"""Work in OS threads: a call that would block this thread blocks another one, and the task that wants its result parks.

Each hub that asks for it has a pool of worker threads of its own (`concurrent.futures` beneath), started at the first
use and ended with the hub. A task that is killed, or times out, leaves its job behind: a job nobody has begun is called
off; one that runs goes on to its end, where its outcome is dropped and the worker takes the next job. At the end of the
interpreter Python waits for the jobs that still run, as it does for every `concurrent.futures` pool.

Knows the hub. Knows no task: main and raw greenlets may call too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from greenswitch.hub import TIMED_OUT, Hub, OutsideWaiter, Waiter, get_hub

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")

_KEY: Final = "greenswitch.threads"


class ThreadPool:
    """The worker threads of one hub; `to_thread` makes it. `size` is how many there may be."""

    def __init__(self, size: int | None = None) -> None:
        self.size = min(32, (os.cpu_count() or 1) + 4) if size is None else size
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Hand `function(*args, **kwargs)` to a worker; return its future. Starts the workers as they are needed."""
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(self.size, thread_name_prefix="greenswitch")
        return self._executor.submit(function, *args, **kwargs)

    def retire(self) -> None:
        """Take no more jobs; let the workers go when those that were handed in have ended."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def close(self) -> None:
        """Call off the jobs that nobody has begun and let the workers go; wait for none of them. Twice does nothing."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def __repr__(self) -> str:
        return f"<ThreadPool of {self.size}, {'not started' if self._executor is None else 'started'}>"


def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function(*args, **kwargs)` in an OS thread, park until it has ended, and return or raise what it does.

    It sees a copy of the caller's context variables. For a time limit put `timeout(seconds)` around it: the job itself
    can't be stopped, its outcome is dropped. Not from inside the hub.
    """
    hub = get_hub()
    waiter = OutsideWaiter(hub, "run in a thread", function)
    hub.check(waiter)
    future: Future[T] = _pool(hub).submit(copy_context().run, function, *args, **kwargs)
    return _outcome(waiter, future, None)


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
    return _outcome(waiter, future, timeout)


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


def _outcome(waiter: Waiter, future: Future[T], timeout: float | None) -> T:
    hub = waiter.hub
    future.add_done_callback(waiter.wake)
    try:
        if hub.wait(waiter, timeout) is TIMED_OUT:
            raise TimeoutError(f"{future!r} was not done within {timeout} seconds")
    except BaseException:
        future.cancel()
        raise
    return future.result()
