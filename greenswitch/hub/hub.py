"""The hub: it parks greenlets, and switches to the next one that can go on.

Knows greenlets, a poller, a clock and timers. Knows no socket, no task and no lock: those stand on the contract below.

The contract
============

1. A greenlet waits in one way only: it makes a `Waiter` and parks. Readiness, timers, locks, queues, joins and threads
   only decide who wakes it.
2. A waiter is woken at most once; later wakes do nothing. A timeout is no feature of each call: it is a second waker. A
   timer that lost its race never wakes the next park.
3. Whoever registers something unregisters it, on success, on error and on kill: nothing is left parked, timed or
   watched.
4. Tasks are started from the hub only: a greenlet inherits the recursion depth of the one that starts it. A parking
   greenlet may hand over straight to the next ready one.
5. Fair: what is ready runs first in, first out, in batches, and the poller is asked after every batch: as many entries
   as were ready at the hub's turn, or 61 if those were fewer, because asking costs as much as many switches. Other OS
   threads get their share, too (see `greenswitch.hub.os_threads`).
6. Calls that don't block never switch.
7. Nobody left who could wake anyone: `DeadlockError`, in the main greenlet, listing who waits for what and where. Not
   while a signal handler, another OS thread or the host loop could still wake someone.
8. An exception in a callback never ends the hub: it is reported, and the hub goes on.

How one switch goes
===================

The ready queue holds whatever has a `switch()`: greenlets to resume, jobs to start, callbacks to run. To park is to
take the first entry and switch to it, without passing through the hub: one switch, not two. Only when nobody is ready,
or the batch is over (`left` counts it down), the next to run is the hub. It asks the poller, fires the timers, and
begins the next batch.

What must run in the hub's own greenlet is a `Callback`, the start of a new greenlet included: its `switch()` adds it to
what the hub has to do, and enters the hub.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from _thread import get_ident  # the original: monkey patching changes what `threading` calls so
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from os import getpid
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakSet

import greenlet
from greenlet import GreenletExit, getcurrent

from greenswitch.errors import DeadlockError, HubError, SwitchError
from greenswitch.hub.alarm import Alarm
from greenswitch.hub.carriers import Carrier, Carriers, Job
from greenswitch.hub.deadlock import deadlock_report, others_could_wake
from greenswitch.hub.naming import describe
from greenswitch.hub.os_threads import count_os_threads, give_way
from greenswitch.hub.pollers import EpollPoller, Poller, SelectorPoller, make_poller
from greenswitch.hub.signals import PollerGone, SignalHandlers
from greenswitch.hub.timers import Timer, Timers
from greenswitch.hub.waiters import TIMED_OUT, BareWaiter, OutsideWaiter, Waiter

_BATCH = 61  # entries run before the poller is asked again, if there are so many; tokio's default event interval


class Switchable(Protocol):
    """What the ready queue holds."""

    def switch(self) -> Any:
        """Go on with it. Called in whatever greenlet parks, or in the hub."""


class Shield(Protocol):
    """What keeps interrupts from a greenlet for a while."""

    def postpone(self, error: BaseException, number: int) -> bool:
        """Keep an interrupt until the shield is taken away; return False if it doesn't stop this one."""

    def keeps(self, kind: type[BaseException]) -> bool:
        """Return whether it keeps an interrupt of this very class."""

    def withdraw(self, error: BaseException) -> bool:
        """Forget `error`; return False if it wasn't kept here."""


class Callback:
    """A function that the hub calls at its turn, in its own greenlet."""

    __slots__ = ("args", "function", "hub")

    def __init__(self, hub: Hub, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.hub = hub
        self.function = function
        self.args = args

    def switch(self) -> Any:
        """Have the hub call it now. In the hub itself this returns at once: a switch to oneself does."""
        hub = self.hub
        hub.arrivals.append(self)
        return hub.greenlet.switch()


class Hub:
    """One thread's hub.

    `poller` is how it asks for readiness (default: `make_poller()`), `clock` a callable that returns seconds and never
    goes back. The hub serves the thread that made it. `get_hub()` makes one where there is none; `with Hub(...):` puts
    this one in its place and closes it at the end.
    """

    def __init__(self, poller: Poller | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.thread_id = get_ident()
        self.ready: deque[Switchable] = deque()
        """Who goes on next. Append from anywhere; pop only by parking."""
        self.arrivals: deque[Callback] = deque()
        """Callbacks whose turn in `ready` has come."""
        self.asleep = False
        """True while the hub is about to sleep, or sleeps, in the poller: whoever appends to `ready` then rings."""
        self.parked: dict[greenlet.greenlet, Waiter] = {}
        """Every greenlet that waits, and its waiter."""
        self.registrations: dict[int, Any] = {}
        """By fd: whom to `notify(events)`. Kept by `greenswitch.hub.readiness`."""
        self.timers = Timers()
        self.at_rest: deque[tuple[float, Callback]] = deque()
        """What is to be called when nothing is ready, and by which time at the latest."""
        self.turns = 0
        """Counts the hub's turns; a watchdog in another thread reads it."""
        self.carriers = Carriers(self)
        self.on_error: Callable[[str, BaseException], None] = print_error
        """Told (what failed, the exception) of errors that nobody can catch: those of callbacks and raw greenlets."""
        self.closed = False
        self.local: dict[object, Any] = {}
        """What others keep per hub (a thread pool), under a key of their own; closed with it, if it has a `close`."""
        self.interrupts: dict[greenlet.greenlet, list[BaseException]] = {}
        """What is to be raised at the next park of whom. Kept by `interrupt` and `withdraw`."""
        self.met: WeakSet[greenlet.greenlet] = WeakSet()
        """Who was switched to in a wait without being woken: by hand, or at the turn of a wait further up his stack."""
        self.shields: dict[greenlet.greenlet, Shield] = {}
        """Who is not to be interrupted now. Kept by `greenswitch.timeouts`."""
        self.others_could_wake: Callable[[], bool] = others_could_wake
        """Asked before a deadlock is declared: could somebody whom the hub doesn't know wake a greenlet?"""
        self.previous: Hub | None = None
        """Whose place it has taken, by `with`."""
        self.gives_way = 0.0
        """When other OS threads get their share, if it stays busy until then, in seconds of `time.monotonic`."""
        self.left = 0
        """How many entries of the ready queue may still be switched to before it is the hub's turn."""
        self.main = main_greenlet()
        self.main_job: Job | None = None
        """The job that is the program, if `run` runs it: what a signal handler raises is raised there."""
        self.is_orphan = False
        """True in a child that a patched thread has forked: main never goes on, and the child ends with its threads."""
        self.owed: list[BaseException] = []
        """What signal handlers have raised and the main job has not met: if it ends before, main gets it."""
        self.open(make_poller() if poller is None else poller)

    def open(self, poller: Poller) -> None:
        """Begin with `poller` and a loop that nobody has entered yet: when it is made, and again in a forked child."""
        self.process_id = getpid()
        self.poller = poller
        self.alarm = Alarm(poller, self._replace_poller)
        self.registrations[self.alarm.fd] = self.alarm
        self.greenlet = greenlet.greenlet(self._run, self.main)
        _signal_handlers.attach(self)

    # -- what waits ------------------------------------------------------------------------------------------------

    def park(self, waiter: Waiter) -> Any:
        """Switch away until `waiter` is woken; return what it was woken with, or raise what it was failed with.

        Only the greenlet that made the waiter may call it, in the hub's thread. Called from the hub itself (a callback)
        it raises HubError: the hub can't wait for itself.
        """
        current = waiter.greenlet
        if current is None:  # woken before it has parked
            current = getcurrent()
        if current is self.greenlet or self.closed:
            raise self._cannot_wait(waiter)
        if self.interrupts and current in self.interrupts and waiter.cancel():
            raise self._next_interrupt(current)
        self.parked[current] = waiter
        self.left = left = self.left - 1
        ready = self.ready
        try:
            if waiter.greenlet is not None or current in ready or self._turn_will_come(current):
                next_one = ready.popleft() if left > 0 and ready else self.greenlet
                go = next_one.go if type(next_one) is Carrier else next_one.switch
                del next_one  # a parked frame must hold no carrier: see `greenswitch.hub.carriers`
                if _leaving_by is None:
                    go()
                else:
                    _leaving_by(go)
            if waiter.greenlet is not None:
                self.met.add(current)
                raise SwitchError(
                    f"{describe(current)} waits ({waiter.reason}) and was switched to by hand, "
                    "or by the end of a greenlet whose parent it is; wake it through its waiter"
                )
        except BaseException:
            if not waiter.cancel():
                self._drop_turn(current)
            raise
        finally:
            try:
                del self.parked[current]
            except KeyError:  # a finaliser of its own has waited in the midst of this
                pass
        if waiter.error is not None:
            raise waiter.take_error()
        return waiter.value

    def _turn_will_come(self, woken: greenlet.greenlet) -> bool:
        """Return whether one who was woken before he parked has his turn still to come, though he is not in the queue.

        He has if a thread was held up between claiming and queueing him, as a line tracer does. He has not if a
        finaliser or a signal handler of his own has waited meanwhile, and that turn has met him there.
        """
        met = woken in self.met
        self.met.discard(woken)
        return not met

    def wait(self, waiter: Waiter, timeout: float | None = None) -> Any:
        """Park at most `timeout` seconds (None: no limit) and return the value, or `TIMED_OUT`."""
        if timeout is None:
            return self.park(waiter)
        timer = self.timers.add(self.clock() + timeout, waiter.wake, TIMED_OUT)
        try:
            return self.park(waiter)
        finally:
            timer.cancel()

    def check(self, waiter: Waiter) -> None:
        """Raise what `park(waiter)` would raise without parking: for calls that start something before they park."""
        current = getcurrent()
        if current is self.greenlet or self.closed:
            raise self._cannot_wait(waiter)
        if self.interrupts and current in self.interrupts and waiter.cancel():
            raise self._next_interrupt(current)

    def _drop_turn(self, thrown_into: greenlet.greenlet) -> None:
        """Take from the ready queue who was thrown into by hand: its turn would come in the midst of its next wait."""
        with suppress(ValueError):
            self.ready.remove(thrown_into)

    def interrupt(self, target: greenlet.greenlet, error: BaseException, number: int = 0) -> None:
        """Raise `error` in `target` where it is parked; if it isn't (or has been woken already), at its next park.

        So whoever was given a lock or a message keeps it, and is interrupted the next time it would wait. A shield that
        is younger than the interrupting deadline postpones it: `number` was the newest timer's when that was set. Hub's
        thread only.
        """
        shield = self.shields.get(target)
        if shield is not None and shield.postpone(error, number):
            return
        waiter = self.parked.get(target)
        if waiter is None or not waiter.fail(error):
            self.interrupts.setdefault(target, []).append(error)

    def will_meet(self, target: greenlet.greenlet, kind: type[BaseException]) -> bool:
        """Return whether an interrupt of this very class is about to be raised in `target`. Hub's thread only."""
        waiter, shield = self.parked.get(target), self.shields.get(target)
        if shield is not None and shield.keeps(kind):
            return True
        if waiter is not None and type(waiter.error) is kind:
            return True
        return any(type(error) is kind for error in self.interrupts.get(target, ()))

    def interrupt_main(self, error: BaseException) -> None:
        """Raise `error` in the main greenlet, where Ctrl-C, SystemExit and DeadlockError belong. Hub's thread only.

        Main may have switched by hand to a greenlet that parked, and then is neither parked nor ready: the error is
        raised where it stands, since no wait of its own would ever do.
        """
        main = self.main
        if main in self.parked or main in self.ready or main is getcurrent():
            self.interrupt(main, error)
        else:
            self.call_soon(self._throw_into_main, error)

    def _throw_into_main(self, error: BaseException) -> None:
        if self.main in self.parked or self.main in self.ready:
            self.interrupt(self.main, error)
        else:
            self.main.throw(error)

    def withdraw(self, target: greenlet.greenlet, error: BaseException | None = None) -> list[BaseException]:
        """Take back an interrupt (None: all of them) that `target` has not met yet; return those taken back."""
        if target in self.shields:
            if error is None:
                del self.shields[target]
            elif self.shields[target].withdraw(error):
                return [error]
        pending = self.interrupts.pop(target, None)
        if not pending or error is None:
            return pending or []
        others = [other for other in pending if other is not error]
        if others:
            self.interrupts[target] = others
        return [other for other in pending if other is error]

    def inherit(self, pending: list[BaseException]) -> None:
        """Raise in the main greenlet what signal handlers have raised and the main job has not met before it ended."""
        owed, self.owed = self.owed, []
        for error in owed:
            if any(one is error for one in pending):
                self.interrupt_main(error)

    def _next_interrupt(self, current: greenlet.greenlet) -> BaseException:
        pending = self.interrupts[current]
        error = pending.pop(0)
        if not pending:
            del self.interrupts[current]
        return error

    def _cannot_wait(self, waiter: Waiter) -> HubError:
        waiter.cancel()
        if self.closed:
            return HubError(f"this hub is closed: nobody could wake you again ({waiter.reason})")
        return HubError(
            f"a callback runs inside the hub, which can't wait ({waiter.reason}): spawn a task for it, "
            "or use a call that doesn't block"
        )

    # -- what wakes ------------------------------------------------------------------------------------------------

    def call_soon(self, function: Callable[..., Any], *args: Any) -> None:
        """Have the hub call `function(*args)` at its turn, in its own greenlet, where nothing may wait. Any thread."""
        self.ready.append(Callback(self, function, args))
        if self.asleep:
            self.ring()

    call_threadsafe = call_soon

    def call_at_rest(self, seconds: float, function: Callable[..., Any], *args: Any) -> None:
        """Call `function(*args)` in the hub when nothing is ready, at the latest in `seconds`. Hub's thread only.

        Unlike a timer it keeps nothing going: neither the hub from its sleep, nor a deadlock from being found.
        """
        self.at_rest.append((self.clock() + seconds, Callback(self, function, args)))

    def begin(self, job: Switchable) -> None:
        """Append `job` to the ready queue. Rings, because a signal handler may call while the hub sleeps."""
        self.ready.append(job)
        if self.asleep:
            self.ring()

    def call_at(self, when: float, function: Callable[..., Any], *args: Any) -> Timer:
        """Have the hub call `function(*args)` when its clock shows `when` seconds, never early. Hub's thread only.

        The timer that is returned can be cancelled until it is due; from then on the call waits for its turn.
        """
        timer = self.timers.add(when, self.call_soon, function, *args)
        if self.asleep:  # a signal handler calls: the hub must look at its timers again
            self.ring()
        return timer

    def call_later(self, seconds: float, function: Callable[..., Any], *args: Any) -> Timer:
        """Have the hub call `function(*args)` in `seconds`, never early. Hub's thread only."""
        return self.call_at(self.clock() + seconds, function, *args)

    def start(self, started: greenlet.greenlet) -> Any:
        """Start a new greenlet in the hub now; return when the turn of the caller comes in the ready queue."""
        return self.call_now(started.switch)

    def call_now(self, function: Callable[[], Any]) -> Any:
        """Call `function()` in the hub's greenlet now; return when the turn of the caller comes in the ready queue."""
        return Callback(self, function, ()).switch()

    def leave(self, go: Callable[[], Any]) -> None:
        """Switch to another greenlet by `go()`, as one that parks does (see `leave_by`)."""
        if _leaving_by is None:
            go()
        else:
            _leaving_by(go)

    def call_as(self, other: greenlet.greenlet, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function(*args)` in the place of `other`, which waits, with the state that belongs to it."""
        return function(*args) if _calling_as is None else _calling_as(other, function, *args)

    def ring(self) -> None:
        """Get the hub out of the poller. Any thread."""
        self.alarm.ring()

    # -- the loop --------------------------------------------------------------------------------------------------

    def _run(self, *_: object) -> None:  # a greenlet that dies before its parent has begun hands over its result
        ready = self.ready
        arrivals = self.arrivals
        while not self.closed:
            try:
                if arrivals:
                    self._call(arrivals.popleft())
                elif ready and self.left > 0:
                    self.left -= 1
                    go: Any = ready.popleft()
                    go = go.go if type(go) is Carrier else go.switch
                    go()
                    go = None
                else:
                    self.turns += 1
                    self._poll()
                    self.left = max(len(ready), _BATCH)
            except BaseException as error:
                self._survive("a greenlet whose parent is the hub", error)

    def _call(self, callback: Callback) -> None:
        try:
            callback.function(*callback.args)
        except BaseException as error:
            self._survive(f"callback {callback.function!r}", error)

    def _poll(self) -> None:
        if self.at_rest:
            self._rest()
        if self.ready and count_os_threads():
            self.gives_way = give_way(self.gives_way)
        timers = self.timers
        timeout: float | None = None
        self.asleep = True
        # Both are looked at after saying so: what was added before that didn't ring, what is added from now on does.
        due = timers.next_due()
        if self.ready:
            timeout = 0.0
        elif due is not None:
            clock = self.clock
            timeout = due - clock()
            if timeout < 0.0:
                timeout = 0.0
        elif self.is_orphan and not self.carriers.jobs() and not count_os_threads():
            os._exit(0)  # as a process does whose last thread ends
        elif self.is_deadlocked() and not self.ready:  # the last thread may have woken somebody, and ended meanwhile
            self.asleep = False
            self.interrupt_main(DeadlockError(deadlock_report(self.parked)))
            return
        try:
            poller = self.poller
            events = poller.poll(timeout)
        except BaseException as error:
            self.asleep = False
            events = self._ask_again(error, poller)
        finally:
            self.asleep = False
        registrations = self.registrations
        for fd, bits in events:
            registration = registrations.get(fd)
            if registration is not None:
                registration.notify(bits)
        # Whoever slept until an event need not ask the clock again: what came due meanwhile is found at the next turn.
        if due is not None and (timeout == 0.0 or not events):
            for callback, args in timers.pop_due(self.clock()):
                callback(*args)

    def _rest(self) -> None:
        at_rest = self.at_rest
        while at_rest and (not self.ready or at_rest[0][0] <= self.clock()):
            self._call(at_rest.popleft()[1])

    def _ask_again(self, error: BaseException, asked: Poller) -> list[tuple[int, int]]:
        """Find out what `poll` has raised: a signal handler's exception goes to main, a dead poller is replaced."""
        events: list[tuple[int, int]] = []
        if isinstance(error, PollerGone) or asked is not self.poller:
            return events
        if isinstance(error, (OSError, ValueError)):
            if not isinstance(self.poller, (EpollPoller, SelectorPoller)):
                self._survive("asking the poller", error)
                return events
            try:
                events = self.poller.poll(0.0)
            except (OSError, ValueError):
                self._replace_poller()
                return events
        self.interrupt_main(error)
        return events

    def _replace_poller(self) -> None:
        """Go on with a new poller and a new wake-up fd: the program has closed all descriptors, as daemons do.

        The old ones are neither used nor closed: their numbers may belong to other files by now.
        """
        _lost.append((self.poller, self.alarm))
        registrations = self.registrations
        del registrations[self.alarm.fd]
        self.poller = make_poller()
        self.alarm = Alarm(self.poller, self._replace_poller)
        for fd, registration in list(registrations.items()):
            try:
                os.fstat(fd)
                registration.renew()
            except OSError:
                registrations.pop(fd, None)
                registration.forsake()
        registrations[self.alarm.fd] = self.alarm

    def _survive(self, what: str, error: BaseException) -> None:
        if self.closed and isinstance(error, GreenletExit):
            return  # thrown by close(), which has ended the batch
        if isinstance(error, PollerGone):
            return
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self.interrupt_main(error)
            return
        try:
            self.on_error(what, error)
        except (KeyboardInterrupt, SystemExit) as leaving:
            self.interrupt_main(leaving)
        except BaseException as broken:
            print_error("the hub's on_error", broken)

    def is_deadlocked(self) -> bool:
        """Return whether nobody could wake anyone, asked when nobody is ready and no timer runs."""
        # The latest parked first: in a server that is hardly ever a task that waits for another.
        for waiter in reversed(self.parked.values()):
            if isinstance(waiter, OutsideWaiter):
                return False
        return not self.others_could_wake()

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back the poller, the timers and the idle carriers. Greenlets still parked are never resumed.

        Call it from the hub's thread, not from inside the hub. Closing twice does nothing. `run(main)` kills what is
        left and closes; call this yourself only for a hub that you made.
        """
        if self.closed:
            return
        current = getcurrent()
        if self.thread_id != get_ident() or self._stands_beneath(current):
            raise HubError("a hub is closed from its own thread, and not from one of its tasks or callbacks")
        self.closed = True
        self.carriers.close()
        self.arrivals.clear()
        if self.greenlet:
            self.greenlet.parent = current
            self.greenlet.throw(GreenletExit)
        for kept in list(self.local.values()):
            try:
                getattr(kept, "close", int)()
            except Exception as error:
                self.on_error(f"closing {kept!r} with its hub", error)
        self.ready.clear()
        unmet = self.withdraw(self.main)
        self._forget()
        for waiter in self.parked.values():
            waiter.cancel()  # a lock that it stands in line for goes to the next
        self.alarm.close()
        self.poller.close()
        if getattr(_of_thread, "hub", None) is self:
            _of_thread.hub = self.previous
        _signal_handlers.detach(self, unmet)

    def _stands_beneath(self, one: greenlet.greenlet | None) -> bool:
        while one is not None and one is not self.greenlet:
            one = one.parent
        return one is not None

    def _forget(self) -> None:
        """Drop what waits, is timed or watched, without waking anyone."""
        self.timers.clear()
        for registration in self.registrations.values():
            registration.forsake()
        self.registrations.clear()
        self.interrupts.clear()
        self.shields.clear()
        self.at_rest.clear()
        self.local.clear()

    def __enter__(self) -> Hub:
        if self.closed or self.thread_id != get_ident() or getattr(_of_thread, "hub", None) is self:
            raise HubError(f"{self!r} can't take this thread: it is closed, another thread's, or in its place already")
        self.previous = getattr(_of_thread, "hub", None)
        _of_thread.hub = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<Hub closed>"
        return (
            f"<Hub of thread {self.thread_id}, {self.poller!r}: "
            f"{len(self.ready)} ready, {len(self.parked)} parked, {len(self.timers)} timed>"
        )


_of_thread = threading.local()
_lost: list[Any] = []
"""Pollers and wake-up fds whose descriptors the program has closed. To free them would close these numbers again."""


def get_hub() -> Hub:
    """Return this thread's hub; make one where there is none."""
    try:
        hub: Hub | None = _of_thread.hub
    except AttributeError:
        hub = None
    if hub is None:
        hub = _of_thread.hub = Hub()
        _of_thread.closer = _Closer(hub)
    return hub


def new_waiter(verb: str, target: object = None) -> Waiter:
    """Return a `Waiter` of whoever calls, in its hub: as `Waiter(get_hub(), verb, target)`, for half the price."""
    waiter: Waiter = BareWaiter()
    waiter.greenlet = current = getcurrent()
    try:
        waiter.hub = current.hub  # type: ignore[attr-defined]
    except AttributeError:  # no carrier
        waiter.hub = get_hub()
    waiter.verb = verb
    waiter.target = target
    waiter.value = waiter.error = None
    return waiter


def step_aside() -> None:
    """Let everybody else who is ready go first, then go on. Not from inside the hub."""
    current: Any = getcurrent()
    try:
        hub: Hub = current.hub
    except AttributeError:  # no carrier
        hub = get_hub()
    if current is hub.greenlet or hub.closed:
        raise hub._cannot_wait(Waiter(hub, "step aside"))
    ready = hub.ready
    ready.append(current)
    hub.left = left = hub.left - 1
    try:
        next_one = ready.popleft() if left > 0 else hub.greenlet
        go = next_one.go if type(next_one) is Carrier else next_one.switch
        del next_one
        if _leaving_by is None:
            go()
        else:
            _leaving_by(go)
    except BaseException:
        hub._drop_turn(current)
        raise
    if hub.interrupts and current in hub.interrupts:
        raise hub._next_interrupt(current)


_leaving_by: Callable[[Callable[[], Any]], Any] | None = None
_calling_as: Callable[..., Any] | None = None
_ways_to_leave: dict[Callable[[Callable[[], Any]], Any], Callable[..., Any] | None] = {}


def leave_by(function: Callable[[Callable[[], Any]], Any], call_as: Callable[..., Any] | None = None) -> None:
    """Make a greenlet that parks call `function(go)` instead of `go()`, which switches to the next one.

    For state that the interpreter keeps by OS thread although it belongs to a greenlet: `function` puts it away,
    switches, and puts it back. It is called for each park in each thread, so set it only while there is such state.
    `call_as(other, called, *args)` calls a function with the state that is put away for another greenlet; only one
    may be set. Several functions are called one inside another.
    """
    _ways_to_leave[function] = call_as
    _combine_ways_to_leave()


def leave_no_more_by(function: Callable[[Callable[[], Any]], Any]) -> None:
    """Take back what `leave_by` was given; one that isn't set is no error."""
    _ways_to_leave.pop(function, None)
    _combine_ways_to_leave()


def _combine_ways_to_leave() -> None:
    global _leaving_by, _calling_as
    ways: list[Any] | None = None
    while ways != (now := list(_ways_to_leave.items())):  # again if another OS thread has changed them in between
        ways = now
        leaving: Callable[[Callable[[], Any]], Any] | None = None
        calling: Callable[..., Any] | None = None
        for leave, call_as in ways:
            leaving = leave if leaving is None else partial(_leave_within, leave, leaving)
            calling = calling or call_as
        _leaving_by, _calling_as = leaving, calling


def _leave_within(outer: Callable[..., Any], inner: Callable[..., Any], go: Callable[[], Any]) -> None:
    outer(partial(inner, go))


def current_hub() -> Hub | None:
    """Return this thread's hub, or None where there is none."""
    return getattr(_of_thread, "hub", None)


_signal_handlers = SignalHandlers(current_hub, step_aside)
call_signal_handler = _signal_handlers.call


def has_hub() -> bool:
    """Return whether this thread has a hub; make none."""
    return current_hub() is not None


class _Closer:
    """Closes a thread's hub when the thread ends: thread-local values die with their thread, in it."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def __del__(self) -> None:
        hub = self.hub
        if hub.closed:
            return
        if hub.thread_id == get_ident() and not sys.is_finalizing():
            hub.close()
        else:  # another thread lets go of it, or a forked child does
            for waiter in hub.parked.values():
                waiter.cancel()  # a lock that it stands in line for goes to the next
            hub.alarm.close()
            hub.poller.close()


def print_error(what: str, error: BaseException) -> None:
    """Write `error` with its traceback to standard error, and what it was that failed."""
    if sys.stderr is not None:
        print(f"greenswitch: {what} failed:", file=sys.stderr)
        traceback.print_exception(error, file=sys.stderr)


def main_greenlet() -> greenlet.greenlet:
    """Return this thread's main greenlet."""
    main = getcurrent()
    while main.parent is not None:
        main = main.parent
    return main
