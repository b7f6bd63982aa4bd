"""Tasks: functions that run side by side on one thread, switched by the hub.

A task is a small object that runs on a carrier (see `greenswitch.hub.carriers`); code inside it sees the task by
`getcurrent()`, and never the carrier. Its result or exception is kept; an exception that nobody has looked at by the
time the task is released, or its hub ends, is reported once.

Knows the hub. Knows no lock, no socket.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from itertools import count
from typing import Any, Protocol
from weakref import WeakSet, ref

import greenlet
from greenlet import GreenletExit

from greenswitch.errors import HubError
from greenswitch.hub import (
    TIMED_OUT,
    Carrier,
    Hub,
    Job,
    Timer,
    get_hub,
    has_hub,
    new_waiter,
    step_aside,
)

_numbers = count(1)
_NO_KWARGS: dict[str, Any] = {}


class _Unseen:
    """A failure that nothing has looked at. Looking disarms it.

    It is reported once: when the hub has nothing else to do, at the latest a second later, if nothing waited for the
    task when it failed; else when the task is released or its hub ends.
    """

    __slots__ = ("__weakref__", "error", "hub", "name")

    def __init__(self, task: Task, error: BaseException) -> None:
        self.name = task.name
        self.hub = task.hub
        self.error: BaseException | None = error
        failures = self.hub.local.get(_UnseenOfHub)
        if failures is None:
            failures = self.hub.local[_UnseenOfHub] = _UnseenOfHub()
        failures.add(self)

    def report(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            self.hub.on_error(f"Task {self.name!r}, which nobody asked for its result,", error)

    __del__ = report


def _report_unheard(unseen: ref[_Unseen]) -> None:
    failure = unseen()
    if failure is not None:
        failure.report()


class _UnseenOfHub(WeakSet[_Unseen]):
    """The failures of one hub's tasks that nobody has looked at; closed with the hub."""

    def close(self) -> None:
        """Report them: from now on there is nobody left to look."""
        for unseen in list(self):
            unseen.report()


class Task(Job):
    """A function call that runs beside others. `spawn` makes it.

    States: *new* (its turn has not come), *running*, *ready*, *parked*, then *done*, *failed* or *killed*. Its methods
    may be called from any task, from main and from other threads; those that wait, not from inside the hub.
    """

    __slots__ = (
        "__weakref__", "_called", "_error", "_links", "_name", "_number", "_state", "_timer", "_told", "_traceback",
        "_unseen", "_value",
    )

    def __init__(self, hub: Hub, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.hub = hub
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.context = copy_context()
        self.carrier: Carrier | None = None
        self._number = next(_numbers)
        self._name: str | None = None
        self._called: str | None = None  # the function's name, once the function itself is let go
        self._state: str | None = None  # the final one, once there is one
        self._value: Any = None
        self._error: BaseException | None = None
        self._links: list[Callable[[Task], Any]] | None = None
        self._timer: Timer | None = None
        self._unseen: _Unseen | None = None
        self._told: list[_InHub] | None = None  # links that the hub is about to call

    # -- looking at it ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What it is called in messages: the function's name and a number, unless you set another."""
        if self._name is None:
            function = self.function
            called = self._called or getattr(function, "__name__", None) or type(function).__name__
            self._name = f"{called}-{self._number}"
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def state(self) -> str:
        """One of new, running, ready, parked, done, failed, killed."""
        if self._state is not None:
            return self._state
        carrier = self.carrier
        if carrier is None:
            return "new"
        if carrier is greenlet.getcurrent():
            return "running"
        waiter = self.hub.parked.get(carrier)
        return "parked" if waiter is not None and waiter.greenlet is not None else "ready"

    @property
    def value(self) -> Any:
        """What the function has returned; None until then, and if it failed or was killed."""
        return self._value

    @property
    def exception(self) -> BaseException | None:
        """The exception it failed with, or None. Looking at it here counts: it is not reported any more."""
        self._seen()
        return self._error if self._state == "failed" else None

    @property
    def started(self) -> bool:
        """True from its first step on, until it ends."""
        return self.carrier is not None

    @property
    def dead(self) -> bool:
        """True once it is done, failed or killed."""
        return self._state is not None

    def ready(self) -> bool:
        """Return whether it is done, failed or killed."""
        return self._state is not None

    def successful(self) -> bool:
        """Return whether its function has returned."""
        return self._state == "done"

    @property
    def label(self) -> str:
        """How it is called in messages about others."""
        return f"Task {self.name!r}"

    def __bool__(self) -> bool:
        """True while it runs: started, and not ended."""
        return self.carrier is not None

    def __repr__(self) -> str:
        state = self.state
        if state == "parked":
            waiter = self.hub.parked.get(self.carrier)  # type: ignore[arg-type]
            if waiter is not None:
                state = f"parked: {waiter.reason}"
        elif state == "failed":
            state = f"failed: {self._error!r}"
        return f"<Task {self.name!r} {state}>"

    # -- waiting for it --------------------------------------------------------------------------------------------

    def join(self, timeout: float | None = None) -> None:
        """Park until it has ended, or `timeout` seconds have passed. Raises nothing of the task's; see `get`."""
        if self._state is None:
            _wait_for(self, timeout)

    def get(self, timeout: float | None = None) -> Any:
        """Park until it has ended; return its value, or raise what it failed with.

        A killed task raises GreenletExit. TimeoutError after `timeout` seconds.
        """
        if self._state is None and not _wait_for(self, timeout):
            raise TimeoutError(f"{self!r} has not ended within {timeout} seconds")
        if self._error is not None:
            self._seen()
            error, traceback = self._error, self._traceback
            try:
                raise error.with_traceback(traceback)  # as the task left it: no call adds to what the next one shows
            finally:
                del self, error, traceback  # the traceback holds this frame: a task that failed would hold itself
        return self._value

    def link(self, callback: Callable[[Task], Any]) -> None:
        """Have `callback(task)` called inside the hub (so it must not wait) when, or now that, the task has ended."""
        self._link(callback, None)

    def link_value(self, callback: Callable[[Task], Any]) -> None:
        """As `link`, but only if its function returns."""
        self._link(callback, "done")

    def link_exception(self, callback: Callable[[Task], Any]) -> None:
        """As `link`, but only if it fails. To be killed is not to fail."""
        self._link(callback, "failed")

    def _link(self, callback: Callable[[Task], Any], state: str | None) -> None:
        if not callable(callback):
            raise TypeError(f"link needs a callable, not {callback!r}")
        self.add_link(_InHub(self.hub, callback, state))

    def unlink(self, callback: Callable[[Task], Any]) -> None:
        """Take `callback` back, until the hub has called it; one that isn't linked is no error."""
        link = _InHub(self.hub, callback)
        self.remove_link(link)
        if self._told is not None:
            self._take(self._told, link)

    def add_link(self, notify: Callable[[Task], Any]) -> None:
        """Have `notify(task)` called at once where the task ends: it must neither switch nor raise. For waiters."""
        # One line, as in Waiter.wake: two threads that come at once must find the same list.
        self._links = links = [] if self._links is None else self._links
        links.append(notify)
        # Ended meanwhile, maybe in another thread: whoever takes the link out of the list tells.
        if self._state is not None and self._take(links, notify):
            notify(self)

    def remove_link(self, notify: Callable[[Task], Any]) -> None:
        """Take `notify` back; one that isn't linked is no error."""
        if self._links is not None:
            self._take(self._links, notify)

    @staticmethod
    def _take(links: list[Any], notify: Callable[[Task], Any]) -> bool:
        try:
            links.remove(notify)
        except ValueError:
            return False
        return True

    # -- ending it -------------------------------------------------------------------------------------------------

    def kill(
        self,
        exception: BaseException | type[BaseException] = GreenletExit,
        block: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Raise `exception` in the task where it waits, and wait up to `timeout` seconds until it has ended.

        One that has not started never runs. One that has ended stays as it is. One that is ready to go on with
        something it has been given keeps it, and is killed at its next wait. To kill it twice with the same exception
        before it has met the first is to kill it once. With `block=False` return at once; needed
        inside the hub.
        """
        error = exception() if isinstance(exception, type) else exception
        if not isinstance(error, BaseException):
            raise TypeError(f"kill needs an exception, not {exception!r}")
        if self._state is not None:
            return
        if has_hub() and get_hub() is self.hub:
            self._kill(error)
        else:
            self.hub.call_threadsafe(self._kill, error)
        if block and self._state is None:
            self.join(timeout)

    def _kill(self, error: BaseException) -> None:
        if self._state is not None:
            return
        carrier = self.carrier
        if carrier is None:
            if self._timer is not None:
                self._timer.cancel()
            self.finish(None, error)
        elif carrier is greenlet.getcurrent():
            raise error
        elif not self.hub.will_meet(carrier, type(error)):  # a second one would cut its `finally` blocks short
            self.hub.interrupt(carrier, error)

    def finish(self, value: Any, error: BaseException | None) -> None:
        carrier, self.carrier = self.carrier, None
        self._called = getattr(self.function, "__name__", None) or type(self.function).__name__
        self.function = self.context = None
        self.args = ()
        self.kwargs = _NO_KWARGS
        self._timer = None
        self._value = value
        self._error = error
        if error is None:
            self._state = "done"
        elif isinstance(error, GreenletExit):
            self._state = "killed"
            self._traceback = error.__traceback__ = None  # the locals of its frames shall not live as long as the task
        else:
            self._state = "failed"
            self._traceback = error.__traceback__
            self._failed(error)
        hub = self.hub
        if carrier is not None and (hub.interrupts or hub.shields):
            pending = hub.withdraw(carrier)
            if pending and hub.main_job is self:
                hub.inherit(pending)
        links = self._links
        while links:
            try:
                notify = links.pop(0)
            except IndexError:  # taken back by another thread
                break
            notify(self)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self.hub.interrupt_main(error)
        else:
            self._unseen = unseen = _Unseen(self, error)
            if not self._is_awaited():
                self.hub.call_at_rest(1.0, _report_unheard, ref(unseen))

    def _is_awaited(self) -> bool:
        """Return True if something waits for it, and so hears of its failure."""
        return bool(self._links)

    def _seen(self) -> None:
        if self._unseen is not None:
            self._unseen.error = None
            self._unseen = None


class _InHub:
    """A user's link: two of the same callback are equal, so that it can be taken back."""

    __slots__ = ("callback", "hub", "state")

    def __init__(self, hub: Hub, callback: Callable[[Task], Any], state: str | None = None) -> None:
        self.hub = hub
        self.callback = callback
        self.state = state  # the only final state in which it is called; None: any

    def __call__(self, task: Task, in_hub: bool = False) -> None:
        if self.state is not None and self.state != task.state:
            return
        told = task._told = [] if task._told is None else task._told
        if not in_hub:
            told.append(self)
            self.hub.call_soon(self, task, True)
        elif task._take(told, self):  # it has not been taken back
            self.callback(task)

    def __repr__(self) -> str:
        return repr(self.callback)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _InHub) and other.callback == self.callback

    def __hash__(self) -> int:
        return hash(self.callback)


# -- starting ------------------------------------------------------------------------------------------------------


def spawn(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
    """Start `function(*args, **kwargs)` as a task at the hub's next turn; return the task.

    It gets a copy of the caller's context variables. May be called inside the hub. A callable is required: TypeError.
    """
    if not callable(function):
        raise TypeError(f"spawn needs a function and its arguments, not {function!r}")
    hub = get_hub()
    if hub.closed:
        raise HubError("this hub is closed: nothing can be spawned in it any more")
    task = Task(hub, function, args, kwargs)
    hub.ready.append(task)
    if hub.asleep:  # a signal handler spawns it
        hub.ring()
    return task


def spawn_later(seconds: float, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
    """Start `function(*args, **kwargs)` as a task in `seconds`, never early; return it. Killing it calls it off."""
    if not callable(function):
        raise TypeError(f"spawn_later needs seconds, a function and its arguments, not {function!r}")
    seconds = _checked(seconds)
    hub = get_hub()
    if hub.closed:
        raise HubError("this hub is closed: nothing can be spawned in it any more")
    task = Task(hub, function, args, kwargs)
    task._timer = hub.timers.add(hub.clock() + seconds, hub.ready.append, task)
    if hub.asleep:
        hub.ring()
    return task


def getcurrent() -> Any:
    """Return the task that is running; outside of tasks, the greenlet."""
    try:
        current = greenlet.getcurrent()
    except RuntimeError:  # as Python is torn down, when finalisers still take locks and there is nobody else left
        return _last
    job = getattr(current, "job", None)
    return getattr(current, "stands_for", current) if job is None else job


class _Last:
    """Stands for whoever runs when there are no greenlets any more."""

    parent = None
    dead = False


_last = _Last()


def sleep(seconds: float = 0) -> None:
    """Let others run for `seconds`, never less; 0 lets everybody go first who is ready now.

    Raises ValueError for a negative or NaN number, as `time.sleep` does. Not from inside the hub.
    """
    if seconds == 0:
        step_aside()
        return
    waiter = new_waiter("sleep", _checked(seconds))
    hub = waiter.hub
    timer = hub.timers.add(hub.clock() + seconds, waiter.wake)
    try:
        hub.park(waiter)
    finally:
        timer.cancel()


def _checked(seconds: float) -> float:
    if not seconds >= 0:
        raise ValueError(f"seconds must be a number from 0 on, not {seconds!r}")
    return seconds


# -- what can be waited for ------------------------------------------------------------------------------------------


class Waitable(Protocol):
    """What `wait` and `iwait` can wait for: tasks, events, semaphores, results."""

    def ready(self) -> bool:
        """Return whether waiting is over."""

    def add_link(self, notify: Callable[[Any], Any], /) -> None:
        """Have `notify(self)` called when it is, or now; it neither switches nor raises. Any thread."""

    def remove_link(self, notify: Callable[[Any], Any], /) -> None:
        """Take `notify` back."""


def _wait_for(one: Waitable, timeout: float | None) -> bool:
    """Park until `one` is ready; return False if `timeout` seconds came first."""
    if timeout is not None and timeout <= 0:
        return one.ready()
    waiter = new_waiter("join", one)
    hub = waiter.hub
    notify = waiter.wake
    one.add_link(notify)
    try:
        value = hub.park(waiter) if timeout is None else hub.wait(waiter, timeout)
    except BaseException:
        one.remove_link(notify)
        raise
    if value is TIMED_OUT:
        one.remove_link(notify)
        return False
    return True
