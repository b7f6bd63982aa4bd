"""asyncio in a patched program: a task runs an event loop, and parks where the loop would sleep.

asyncio stands on the patched modules like any other code, so its selector parks. Four things remain:

- The running loop is state of the OS thread, and it belongs to the greenlet that runs the loop. While that greenlet
  parks, in the selector or because a coroutine calls something that waits, the state is put away. So another task sees
  no running loop, and may run a loop of its own. The hooks for asynchronous generators and the tracking depth of
  asyncio's debug mode are kept in the same way.
- A busy loop never sleeps. Between its turns it gives the hub a turn.
- The default executor of a loop has OS threads: `asyncio.to_thread` is for calls that can't park. An executor that the
  program makes has patched threads, which are tasks.
- uvloop waits in C, where no task can park. A loop of uvloop's that a task runs gets an OS thread.

Knows asyncio's event loops and uvloop's by name, and imports neither. Must not know what else is patched.
"""

from __future__ import annotations

import sys
import threading
from _queue import SimpleQueue  # the original, also after monkey patching
from collections.abc import Callable, Mapping
from contextvars import copy_context
from types import ModuleType
from typing import Any

from greenlet import getcurrent

from greenswitch.copies import Namespace, run_over
from greenswitch.green import _thread
from greenswitch.hub import Switchable, current_hub, leave_by, step_aside
from greenswitch.threads import OSThread, wrap_future
from greenswitch.timeouts import shield

Replace = Callable[[object, str, object], None]

# -- the running loop --------------------------------------------------------------------------------------------------


def _adapt_events(events: Any, replace: Replace) -> None:
    """Make the running loop belong to the greenlet that runs it, and the current loop to the thread or task."""
    get, put = events._get_running_loop, events._set_running_loop
    running: dict[int, Any] = {}

    def leave(next_one: Switchable) -> None:
        loop = get()
        if loop is None:
            next_one.switch()
            return
        hooks, depth = sys.get_asyncgen_hooks(), sys.get_coroutine_origin_tracking_depth()
        try:
            put(None)
            sys.set_asyncgen_hooks(None, None)
            sys.set_coroutine_origin_tracking_depth(0)
            next_one.switch()
        finally:
            put(loop)
            sys.set_asyncgen_hooks(*hooks)
            sys.set_coroutine_origin_tracking_depth(depth)

    def _set_running_loop(loop: Any) -> None:
        """Set the running loop of the greenlet that calls it, as asyncio's own."""
        running.pop(id(get()), None)
        if loop is not None:
            running[id(loop)] = loop
        put(loop)
        leave_by(leave if running else None)
        if running:  # another OS thread may have set one in between
            leave_by(leave)

    replace(events, "_set_running_loop", _set_running_loop)
    policy = getattr(events, "BaseDefaultEventLoopPolicy", None)
    if policy is not None and not issubclass(policy._Local, _thread._local):
        _keep_current_loop_by_task(policy, events._event_loop_policy, replace)


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


# -- a loop's turns and its executor -----------------------------------------------------------------------------------


def _adapt_base_events(base_events: Any, replace: Replace) -> None:
    """Let a busy loop give the hub its turns, and let the default executor have OS threads."""
    loop_class = base_events.BaseEventLoop
    run_once, run_in_executor = loop_class._run_once, loop_class.run_in_executor

    def _run_once(self: Any) -> None:
        _give_the_hub_a_turn()
        run_once(self)

    def executor_of_os_threads(self: Any, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        if executor is None and self._default_executor is None and not self._executor_shutdown_called:
            self._default_executor = _os_threads(base_events.concurrent.futures)(thread_name_prefix="asyncio")
        return run_in_executor(self, executor, func, *args)

    executor_of_os_threads.__name__ = run_in_executor.__name__
    executor_of_os_threads.__doc__ = run_in_executor.__doc__
    replace(loop_class, "_run_once", _run_once)
    replace(loop_class, "run_in_executor", executor_of_os_threads)


def _give_the_hub_a_turn() -> None:
    """Let the hub ask its poller and run who is ready, if it had no turn since the last call."""
    hub = current_hub()
    if hub is None or hub.closed or not (hub.ready or hub.parked or hub.timers):
        return
    if hub.local.get(_give_the_hub_a_turn) == hub.turns and getcurrent() is not hub.greenlet:
        hub.left = 0
        step_aside()
    hub.local[_give_the_hub_a_turn] = hub.turns


def _os_threads(futures: Any) -> type[Any]:
    """Return a subclass of `ThreadPoolExecutor` whose workers are threads of the OS."""
    plain = futures.ThreadPoolExecutor
    words = {**vars(sys.modules[plain.__module__]), "threading": Namespace(threading, {"Thread": OSThread}, {})}

    class ThreadPoolExecutor(plain):  # type: ignore[misc, valid-type]
        """As the standard library's, and its workers are threads of the OS."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._work_queue: Any = SimpleQueue()  # a worker needs no hub to wait for it

        _adjust_thread_count = run_over(plain._adjust_thread_count, words)

    return ThreadPoolExecutor


# -- uvloop ------------------------------------------------------------------------------------------------------------


def _adapt_uvloop(uvloop: Any, replace: Replace) -> None:
    """Run a loop of uvloop's in an OS thread if a task runs it. In main it blocks: there it handles the signals."""
    run_forever = uvloop.Loop.run_forever

    def in_os_thread(self: Any) -> None:
        hub = current_hub()
        if hub is None or hub.closed or getcurrent().parent is None:
            run_forever(self)
            return
        future = _call_in_os_thread(run_forever, self)
        try:
            wrap_future(future)
        except BaseException:
            if not future.done():
                self.call_soon_threadsafe(self.stop)
                with shield():
                    wrap_future(future)
            raise

    in_os_thread.__name__, in_os_thread.__doc__ = run_forever.__name__, run_forever.__doc__
    replace(uvloop.Loop, "run_forever", in_os_thread)


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
    "uvloop": _adapt_uvloop,
}
"""By module, what changes it: `change(module, replace)`, once, before or after patching, when it is imported."""


def adapt_imported(replace: Replace) -> None:
    """Change those modules that have been imported."""
    for name, change in CHANGES.items():
        module: ModuleType | None = sys.modules.get(name)
        if module is not None:
            change(module, replace)
