"""asyncio in a patched program: a task runs an event loop, and parks where the loop would sleep.

asyncio stands on the patched modules like any other code, so its selector parks. Some things remain:

- The running loop is state of the OS thread, and it belongs to the greenlet that runs the loop. While that greenlet
  parks, in the selector or because a coroutine calls something that waits, the state is put away. So another task sees
  no running loop, and may run a loop of its own. The hooks for asynchronous generators and the tracking depth of
  asyncio's debug mode are kept in the same way.
- A loop catches whatever a coroutine raises. A kill or deadline that interrupts a coroutine in a patched call is meant
  for the greenlet that runs the loop, so it is raised there again.
- A busy loop never sleeps. Between its turns it gives the hub a turn.
- The default executor of a loop has OS threads: `asyncio.to_thread` is for calls that can't park. An executor that the
  program makes has patched threads, which are tasks.
- Some loops can't park: those of uvloop wait in C, and a selector that was made before patching blocks. If a task runs
  such a loop, the loop gets an OS thread. If main runs it, it stays there, because there it handles the signals. In
  either case it gives the hub of its thread a turn every few milliseconds: a coroutine may start patched threads.

Knows asyncio's event loops and uvloop's by name, and imports neither. Must not know what else is patched.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import wraps
from threading import main_thread
from time import monotonic
from typing import Any

from greenlet import getcurrent, greenlet

from greenswitch import tasks
from greenswitch.copies import Namespace, run_over
from greenswitch.green import _thread, selectors
from greenswitch.hub import current_hub, has_hub, leave_by, leave_no_more_by, step_aside
from greenswitch.threads import OSThread, wrap_future
from greenswitch.timeouts import shield, unswallowable

Replace = Callable[[object, str, object], None]

# -- the running loop --------------------------------------------------------------------------------------------------


class _RunningLoops:
    """Which loops run, in any thread, and how a greenlet that runs one leaves: with its loop put away."""

    def __init__(self, events: Any) -> None:
        self._get, self._put = events._get_running_loop, events._set_running_loop
        self._loops: dict[int, Any] = {}
        self._away: dict[greenlet, Any] = {}
        asyncio: Any = sys.modules.get("_asyncio")  # from Python 3.14 on it keeps the current task by OS thread, too
        self._swap_task: Any = getattr(asyncio, "_swap_current_task", None)
        self._current_task: Any = getattr(asyncio, "current_task", None)

    def set(self, loop: Any) -> None:
        """Set the running loop of whoever calls; None: it runs none."""
        before, current = self._get(), tasks.getcurrent()
        if before is not None:
            self.discard(before)
        if loop is not None:
            self.add(loop)
        if isinstance(current, tasks.Task):
            current.remove_link(self._end)
            if loop is not None:
                current.add_link(self._end)
        self._put(loop)

    def _end(self, task: tasks.Task) -> None:
        """Leave no running loop behind where a task ends: the next one would find it."""
        self.set(None)

    def add(self, loop: Any) -> None:
        """Note that a loop runs."""
        self._loops[id(loop)] = loop
        leave_by(self._leave, self._call_as)

    def discard(self, loop: Any) -> None:
        """Note that a loop runs no more."""
        self._loops.pop(id(loop), None)
        if not self._loops:
            leave_no_more_by(self._leave)
            if self._loops:  # another OS thread has added one in between
                leave_by(self._leave, self._call_as)

    def _leave(self, go: Callable[[], Any]) -> None:
        """Switch to the next greenlet without the running loop, and go on with it."""
        loop = self._get()
        if loop is None:
            go()
            return
        hooks, depth = sys.get_asyncgen_hooks(), sys.get_coroutine_origin_tracking_depth()
        task = self._current_task(loop) if self._swap_task is not None else None
        self._away[getcurrent()] = loop
        try:
            if task is not None:
                self._swap_task(loop, None)
            self._put(None)
            sys.set_asyncgen_hooks(None, None)
            sys.set_coroutine_origin_tracking_depth(0)
            go()
        finally:
            self._put(loop)
            self._away.pop(getcurrent(), None)
            if task is not None:
                self._swap_task(loop, task)
            sys.set_asyncgen_hooks(*hooks)
            sys.set_coroutine_origin_tracking_depth(depth)

    def _call_as(self, other: greenlet, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function, a signal handler, with the running loop of another greenlet."""
        loop = self._away.get(other)
        if loop is None:
            return function(*args)
        self._put(loop)
        try:
            return function(*args)
        finally:
            self._put(None)


def _adapt_events(events: Any, replace: Replace) -> None:
    """Make the running loop belong to the greenlet that runs it, and the current loop to the thread or task."""
    global _running
    _running = running = _RunningLoops(events)

    def _set_running_loop(loop: Any) -> None:
        """Set the running loop of the greenlet that calls it, as asyncio's own."""
        running.set(loop)

    replace(events, "_set_running_loop", _set_running_loop)
    policy = getattr(events, "BaseDefaultEventLoopPolicy", None)
    if policy is not None and not issubclass(policy._Local, _thread._local):
        _keep_current_loop_by_task(policy, events._event_loop_policy, replace)


_running: _RunningLoops


def _keep_current_loop_by_task(policy: Any, made: Any, replace: Replace) -> None:
    """Give a policy that was imported before patching a `local` of ours, and the one that is in use, too."""
    theirs = policy._Local
    names = {name: value for name, value in vars(theirs).items() if not name.startswith("__")}
    ours = type(theirs.__name__, (_thread._local,), names)
    replace(policy, "_Local", ours)
    if isinstance(getattr(made, "_local", None), theirs):
        local: Any = ours()
        vars(local).update(vars(made._local))
        replace(made, "_local", local)


# -- a loop's turns, and its executor ----------------------------------------------------------------------------------


def _adapt_base_events(base_events: Any, replace: Replace) -> None:
    """Let a loop be interrupted, and give the hub its turns; let the default executor have OS threads."""
    loop_class = base_events.BaseEventLoop
    run_forever, run_once, run_in_executor = loop_class.run_forever, loop_class._run_once, loop_class.run_in_executor
    interrupts: dict[int, unswallowable] = {}

    @wraps(run_forever)
    def run_until_interrupted(self: Any) -> None:
        if not has_hub():  # nobody could interrupt it
            run_forever(self)
            return
        with unswallowable() as interrupts[id(self)]:
            try:
                run_forever(self)
            finally:
                del interrupts[id(self)]

    @wraps(run_once)
    def run_once_and_let_others_go(self: Any) -> None:
        _give_the_hub_a_turn()
        if id(self) in interrupts:
            interrupts[id(self)].check()
        run_once(self)

    @wraps(run_in_executor)
    def run_in_os_thread_by_default(self: Any, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        if executor is None and self._default_executor is None and not self._executor_shutdown_called:
            self._default_executor = _os_threads(base_events.concurrent.futures)(thread_name_prefix="asyncio")
        return run_in_executor(self, executor, func, *args)

    replace(loop_class, "_run_once", run_once_and_let_others_go)
    replace(loop_class, "run_in_executor", run_in_os_thread_by_default)
    _run_beside_tasks(loop_class, run_until_interrupted, _blocks, replace)


def _blocks(loop: Any) -> bool:
    return selectors.blocks(getattr(loop, "_selector", None))


_LONGEST_STREAK = 0.001  # seconds that a busy loop keeps the hub from its turn


def _give_the_hub_a_turn() -> None:
    """Let the hub ask its poller and run those who are ready, if a busy loop has kept it from that for too long."""
    hub = current_hub()
    if hub is None or hub.closed:
        return
    turns, until = hub.local.get(_give_the_hub_a_turn, (-1, 0.0))
    now = monotonic()
    if hub.turns == turns:
        if now < until or getcurrent() is hub.greenlet:
            return
        hub.left = 0
        step_aside()
    hub.local[_give_the_hub_a_turn] = hub.turns, now + _LONGEST_STREAK


def _os_threads(futures: Any) -> type[Any]:
    """Return a subclass of `ThreadPoolExecutor` whose workers are threads of the OS."""
    plain = futures.ThreadPoolExecutor
    words = {**vars(sys.modules[plain.__module__]), "threading": Namespace(threading, {"Thread": OSThread}, {})}

    class ThreadPoolExecutor(plain):  # type: ignore[misc, valid-type]
        """As the standard library's, and its workers are threads of the OS."""

        _adjust_thread_count = run_over(plain._adjust_thread_count, words)

    return ThreadPoolExecutor


# -- signals of a loop -------------------------------------------------------------------------------------------------


def _adapt_unix_events(unix_events: Any, replace: Replace) -> None:
    """Refuse signal handlers of a loop in a patched thread, as in any thread: they would take those of main's loop."""
    loop_class = unix_events._UnixSelectorEventLoop
    add_signal_handler = loop_class.add_signal_handler

    @wraps(add_signal_handler)
    def add_in_main(self: Any, sig: int, callback: Callable[..., Any], *args: Any) -> Any:
        if isinstance(tasks.getcurrent(), _thread.ThreadTask) and threading.current_thread() is not main_thread():
            raise RuntimeError("set_wakeup_fd only works in main thread of the main interpreter")
        return add_signal_handler(self, sig, callback, *args)

    replace(loop_class, "add_signal_handler", add_in_main)


# -- loops that can't park ---------------------------------------------------------------------------------------------

_INTERVAL = 0.005  # seconds between two turns of the hub; the interpreter changes OS threads as often


def _adapt_uvloop(uvloop: Any, replace: Replace) -> None:
    """Run the loops of uvloop beside tasks."""
    _run_beside_tasks(uvloop.Loop, uvloop.Loop.run_forever, lambda loop: True, replace)


def _run_beside_tasks(
    loop_class: Any, run_forever: Callable[[Any], None], blocks: Callable[[Any], bool], replace: Replace
) -> None:
    """Replace `run_forever` by one that doesn't stop the tasks although the loop `blocks`."""

    @wraps(run_forever)
    def run_beside_tasks(self: Any) -> None:
        if not blocks(self):
            run_forever(self)
        elif getcurrent().parent is None:
            _run_and_give_turns(run_forever, self)
        else:
            _run_in_os_thread(run_forever, self)

    replace(loop_class, "run_forever", run_beside_tasks)


def _run_and_give_turns(run_forever: Callable[[Any], None], loop: Any) -> None:
    def give_turn() -> None:
        timers.append(loop.call_later(_INTERVAL, give_turn))
        _give_the_hub_a_turn()

    _running.add(loop)  # it may have asyncio's functions from before patching
    timers: deque[Any] = deque([loop.call_later(_INTERVAL, give_turn)], maxlen=1)
    try:
        run_forever(loop)
    finally:
        timers[0].cancel()
        _running.discard(loop)


def _run_in_os_thread(run_forever: Callable[[Any], None], loop: Any) -> None:
    future = _call_in_os_thread(_run_and_give_turns, run_forever, loop)
    try:
        wrap_future(future)
    except BaseException:
        if not future.done():
            loop.call_soon_threadsafe(loop.stop)
            with shield():
                wrap_future(future)
        raise


def _call_in_os_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a new OS thread, in a copy of the caller's context; return the future of its outcome."""
    future = sys.modules["concurrent.futures"].Future()
    future.set_running_or_notify_cancel()

    def call() -> None:
        try:
            future.set_result(context.run(function, *args))
        except BaseException as error:
            future.set_exception(error)

    context = copy_context()
    OSThread(target=call, name=threading.current_thread().name, daemon=True).start()
    return future


CHANGES: Mapping[str, Callable[[Any, Replace], None]] = {
    "asyncio.events": _adapt_events,
    "asyncio.base_events": _adapt_base_events,
    "asyncio.unix_events": _adapt_unix_events,
    "uvloop": _adapt_uvloop,
}
"""By module, what changes it: `change(module, replace)`, once, before or after patching, when it is imported."""
