"""Work in OS threads: a call that would block this thread blocks another one, and the task that wants its result parks.

Each hub that asks for it has a `concurrent.futures.ThreadPoolExecutor` of its own, started as it is needed and ended
with the hub. A task that is killed, or times out, leaves its job behind: a job nobody has begun is called off; one that
runs goes on to its end, where its outcome is dropped and the worker takes the next job. At the end of the interpreter
Python waits for the jobs that still run.

Under monkey patching that executor's threads would be tasks, and its workers would wait like tasks. So it is the
standard library's text run once more (`greenswitch.copies`), over threads of the OS.

Knows the hub. Knows no task: main and raw greenlets may call too.
"""

from __future__ import annotations

import concurrent
import queue
import threading
from _queue import Empty, SimpleQueue  # the originals, also after monkey patching
from collections.abc import Callable
from contextvars import copy_context
from functools import cache
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from weakref import WeakSet

from greenswitch.copies import Namespace, run_again
from greenswitch.hub import TIMED_OUT, Hub, OSLock, OutsideWaiter, get_hub
from greenswitch.locks import Lock, Semaphore
from greenswitch.timeouts import shield

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")

_KEY: Final = "greenswitch.threads"


class OSThread(threading.Thread):
    """A `threading.Thread` that is a thread of the operating system, also where monkey patching makes threads tasks."""


class _Worker(OSThread):
    """A thread of a pool's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _workers.add(self)
        # What stands there, CPython's tests take for threads that somebody has forgotten to join.
        getattr(threading, "_dangling", set()).discard(self)


_workers: WeakSet[_Worker] = WeakSet()


def count_workers() -> int:
    """Return how many workers of all hubs' pools live: threads that no program of the user's has started."""
    return sum(worker.is_alive() for worker in list(_workers))


@cache
def _executor() -> type[ThreadPoolExecutor]:
    """Return the standard library's executor, over threads of the OS; made at the first use, as it imports logging."""
    # Under monkey patching, who starts a worker parks until it runs. What is held meanwhile, and what a worker touches
    # beside the future, is therefore of ours. A future's own lock is held for a few instructions, and workers have no
    # hub: they just wait for it.
    words = {
        "Thread": _Worker,
        "Lock": Lock,
        "Semaphore": Semaphore,
        "Condition": lambda: threading.Condition(OSLock()),
    }
    instead = {
        "threading": Namespace(threading, words, {}),
        "queue": Namespace(queue, {"SimpleQueue": SimpleQueue, "Empty": Empty}, {}),
    }
    futures = Namespace(concurrent, {"_base": run_again("concurrent.futures._base", instead)}, {})
    instead["concurrent"] = Namespace(concurrent, {"futures": futures}, {})
    executor: type[ThreadPoolExecutor] = run_again("concurrent.futures.thread", instead).ThreadPoolExecutor
    return executor


class ThreadPool:
    """The worker threads of one hub; `to_thread` makes it. `size` is how many there may be (None: as the executor)."""

    def __init__(self, size: int | None = None) -> None:
        self._executor = _executor()(size, "greenswitch")
        self.size: int = self._executor._max_workers

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Hand a call to a worker; start one if none is idle. RuntimeError if it can't have a thread."""
        return self._executor.submit(function, *args, **kwargs)

    def close(self) -> None:
        """Call off the jobs that nobody has begun and let the workers go; wait for none of them. Twice does nothing."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def retire(self) -> None:
        """Take no more jobs; let the workers go when those that were handed in have ended."""
        self._executor.shutdown(wait=False)

    def __repr__(self) -> str:
        return f"<ThreadPool of {self.size}, {len(self._executor._threads) or 'none'} started>"


def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function(*args, **kwargs)` in an OS thread, park until it has ended, and return or raise what it does.

    It sees a copy of the caller's context variables. For a time limit put `timeout(seconds)` around it: the job itself
    can't be stopped, its outcome is dropped. Not from inside the hub.
    """
    hub = get_hub()
    waiter = OutsideWaiter(hub, "run in a thread", function)
    hub.check(waiter)
    with shield():  # a worker whose start was interrupted would be nobody's
        future: Future[T] = _pool(hub).submit(copy_context().run, function, *args, **kwargs)
    return _outcome(hub, waiter, future, None)


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
    return _outcome(hub, waiter, future, timeout)


def _outcome(hub: Hub, waiter: OutsideWaiter, future: Future[T], timeout: float | None) -> T:
    """Park until `future` wakes the waiter."""
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


def set_thread_pool_size(size: int) -> None:
    """Let this hub's `to_thread` use at most `size` worker threads; jobs that have been handed in end as they would.

    The default is `ThreadPoolExecutor`'s: four more than there are CPUs, at most 32. Raises ValueError for less than 1.
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
