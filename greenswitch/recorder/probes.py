"""What `greenlet.settrace` doesn't see: a carrier that goes on to its next task, and the moment of a wake.

While anybody records, and only then, a few methods of the kernel are replaced by ones that also tell the recorders of
their thread. So the kernel pays nothing for being recorded when it isn't.

Nothing depends on a probe for being noted at all, but for the change of tasks on a carrier: who has become ready is
read off the ready queue. The probes only say *look now*, where the next switch might come long after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from greenlet import getcurrent

from greenswitch.hub import Carrier, Job, OSLock, Waiter, os_ident
from greenswitch.locks import Lock
from greenswitch.tasks import Task


class Watching(Protocol):
    """What wants to be told, by its thread."""

    def look(self) -> None:
        """See who has become ready."""

    def note_birth(self, job: Job) -> None:
        """Keep the time: a task has been made, and may enter the ready queue at once."""

    def change_jobs(self, carrier: Carrier, job: Job | None) -> None:
        """Be told that the running carrier leaves its job for another one, or for none."""


_watching: dict[int, tuple[Watching, ...]] = {}
_replaced: list[tuple[type, str, Any]] = []
_lock = OSLock()  # may be entered again, by a finaliser that ends a forgotten recording


def begin(one: Watching) -> None:
    """Tell `one` what happens in this thread from now on."""
    with _lock:
        if not _watching:
            _install()
        _watching[os_ident()] = (*_watching.get(os_ident(), ()), one)


def end(one: Watching, thread: int) -> None:
    """Tell `one` no more; it began in `thread`."""
    with _lock:
        left = tuple(other for other in _watching.pop(thread, ()) if other is not one)
        if left:
            _watching[thread] = left
        if not _watching:
            _remove()


def _install() -> None:
    for owner, name in ((Waiter, "wake"), (Waiter, "fail"), (Lock, "_hand_over")):
        _replace(owner, name, _looking(getattr(owner, name)))
    _replace(Task, "__init__", _noting_birth(Task.__init__))
    _replace(Carrier, "job", _JobOf(vars(Carrier)["job"]))


def _replace(owner: type, name: str, probe: Any) -> None:
    _replaced.append((owner, name, vars(owner)[name]))
    setattr(owner, name, probe)


def _remove() -> None:
    while _replaced:
        owner, name, original = _replaced.pop()
        setattr(owner, name, original)


def _looking(original: Callable[..., bool]) -> Callable[..., bool]:
    def wake(self: Any, *args: Any) -> bool:
        woken = original(self, *args)
        if woken:
            for one in _watching.get(os_ident(), ()):
                one.look()
        return woken

    return wake


def _noting_birth(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(self: Task, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        for one in _watching.get(os_ident(), ()):
            one.note_birth(self)

    return __init__


class _JobOf:
    """Stands before the slot `job` of carriers, where it is kept all the same."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot

    def __get__(self, carrier: Carrier | None, kind: type | None = None) -> Any:
        return self if carrier is None else self._slot.__get__(carrier, kind)

    def __set__(self, carrier: Carrier, job: Job | None) -> None:
        # Set from outside, it is the next task of a carrier at rest, and the switch to that one tells.
        if getcurrent() is carrier:
            for one in _watching.get(os_ident(), ()):
                one.change_jobs(carrier, job)
        self._slot.__set__(carrier, job)
