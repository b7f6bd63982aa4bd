"""Waiting for child processes: by a pidfd, which becomes readable when the child ends; nothing is done about SIGCHLD.

Everything here asks first, without waiting (WNOHANG), so results and errors are the originals'. Where there is no pidfd
(old kernels, other systems), and for waits that are for no single child's end, an OS thread waits for the child without
taking its status (WNOWAIT), and the one who is woken takes it.

Knows the hub and waiting for descriptors. Knows nothing of `subprocess`.
"""

from __future__ import annotations

import os
import sys
from _thread import start_new_thread  # the original, also after monkey patching
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from greenswitch.descriptors import forget, is_ready, wait_for
from greenswitch.hub import READ, TIMED_OUT, OutsideWaiter, Registration, current_hub, get_hub
from greenswitch.tasks import sleep

T = TypeVar("T")

# The originals, which monkey patching replaces.
_close, _system = os.close, os.system
_pidfd_open: Any = getattr(os, "pidfd_open", None)
_waitpid: Any = getattr(os, "waitpid", None)
_wait3: Any = getattr(os, "wait3", None)
_wait4: Any = getattr(os, "wait4", None)
_waitid: Any = getattr(os, "waitid", None)

CAN_TELL: Final = _pidfd_open is not None or _waitid is not None
"""Whether this platform can tell that a child has ended without reaping it."""

_PAUSE = 0.01  # seconds between two questions, where a system has neither pidfd nor waitid

Awaited = tuple[int, int, int]
"""What waitid is asked for: what kind of number, the number, and which changes."""


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """Park until child `pid` ends; return (pid, status) and reap it, as `os.waitpid`."""
    return _taken(pid, options, lambda flags: _waitpid(pid, flags))  # type: ignore[no-any-return]


def wait() -> tuple[int, int]:
    """Park until any child ends; return (pid, status) and reap it, as `os.wait`."""
    return waitpid(-1, 0)


def wait3(options: int) -> tuple[int, int, Any]:
    """As `wait`, with options and the child's resource usage, as `os.wait3`."""
    return _taken(-1, options, _wait3)  # type: ignore[no-any-return]


def wait4(pid: int, options: int) -> tuple[int, int, Any]:
    """As `waitpid`, with the child's resource usage, as `os.wait4`."""
    return _taken(pid, options, lambda flags: _wait4(pid, flags))  # type: ignore[no-any-return]


def waitid(idtype: int, id: int, options: int, /) -> Any:
    """Park until a child changes its state, as `os.waitid`; return what it did."""
    if options & os.WNOHANG or current_hub() is None:
        return _waitid(idtype, id, options)
    while True:
        done = _waitid(idtype, id, options | os.WNOHANG)
        if done is not None:
            return done
        if idtype == getattr(os, "P_PIDFD", None) and _is_for_end(options):
            wait_for(id, READ)
        else:
            _wait_for_change((idtype, id, options & ~os.WNOWAIT), None)


def has_ended(pid: int, timeout: float | None = None) -> bool:
    """Park until child `pid` has ended, at most `timeout` seconds; return whether it has. Its status is left to others.

    True too for a pid that is no child's, or no longer.
    """
    deadline = None if timeout is None else get_hub().clock() + timeout
    try:
        return _wait_for_change((os.P_PID, pid, os.WEXITED), deadline)
    except ChildProcessError:
        return True


def system(command: Any) -> int:
    """Run `command` in a shell, park until it ends, and return its wait status, as `os.system`.

    Unlike the original it leaves SIGINT alone: a Ctrl-C meanwhile reaches main as ever.
    """
    if current_hub() is None:
        return _system(command)
    sys.audit("os.system", command)
    line: str = os.fsdecode(command)
    return waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", line], os.environ), 0)[1]


def _taken(pid: int, options: int, attempt: Callable[[int], Any]) -> Any:
    """Return what `attempt(flags)` returns, when it returns something; park until it may."""
    if options & os.WNOHANG or current_hub() is None:
        return attempt(options)
    while True:
        done = attempt(options | os.WNOHANG)
        if done[0]:
            return done
        _wait_for_change(_awaited(pid, options), None)


def _awaited(pid: int, options: int) -> Awaited:
    """Say in waitid's words what waitpid is asked for."""
    flags = os.WEXITED
    if options & os.WUNTRACED:
        flags |= os.WSTOPPED
    if options & os.WCONTINUED:
        flags |= os.WCONTINUED
    if pid > 0:
        return os.P_PID, pid, flags
    if pid == -1:
        return os.P_ALL, 0, flags
    return os.P_PGID, -pid or os.getpgrp(), flags


def _is_for_end(flags: int) -> bool:
    return bool(flags & os.WEXITED) and not flags & (os.WSTOPPED | os.WCONTINUED)


def _wait_for_change(awaited: Awaited, deadline: float | None) -> bool:
    """Park until what is awaited may have happened; return False if the hub's clock shows `deadline` first."""
    kind, number, flags = awaited
    fd = _descriptor_of(number) if kind == os.P_PID and _is_for_end(flags) else None
    if fd is None:
        return _wait_for_thread(awaited, deadline)
    hub = get_hub()
    hub.registrations[fd] = Registration(hub, fd, kept=False, label=f"end of child {number}")
    try:
        while not is_ready(fd, READ):
            left = _left(deadline)
            if left is not None and left <= 0:
                return False
            wait_for(fd, READ, left)
        return True
    finally:
        forget(fd)
        _close(fd)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - get_hub().clock()


def _descriptor_of(pid: int) -> int | None:
    """Return a new pidfd, or None where there is none to be had. Raises ChildProcessError if `pid` is gone."""
    if _pidfd_open is None:
        return None
    try:
        return _pidfd_open(pid)  # type: ignore[no-any-return]
    except ProcessLookupError as error:
        raise ChildProcessError(*error.args) from None
    except OSError:  # an old kernel, a sandbox, or no more descriptors
        return None


# -- without pidfd -----------------------------------------------------------------------------------------------------

_asked: dict[Awaited, list[OutsideWaiter]] = {}
"""What a thread waits for, and who wants to know: a thread for each, not for each who asks."""


def _wait_for_thread(awaited: Awaited, deadline: float | None) -> bool:
    if _waitid is None:
        sleep(_PAUSE)
        return True
    kind, number, flags = awaited
    if _waitid(kind, number, flags | os.WNOWAIT | os.WNOHANG) is not None:
        return True
    hub, timeout = get_hub(), _left(deadline)
    waiter = OutsideWaiter(hub, "wait for child", number or None)
    hub.check(waiter)
    fresh: list[OutsideWaiter] = []
    waiters = _asked.setdefault(awaited, fresh)
    waiters.append(waiter)
    if waiters is fresh:
        _start_asking(awaited)
    elif _asked.get(awaited) is not waiters:  # the thread has gone, and perhaps not seen us
        waiter.wake()
    try:
        return hub.wait(waiter, None if timeout is None else max(timeout, 0.0)) is not TIMED_OUT
    finally:
        with suppress(ValueError):
            waiters.remove(waiter)


def _start_asking(awaited: Awaited) -> None:
    try:
        start_new_thread(_wait_in_thread, (awaited,))
    except BaseException:  # no more threads to be had
        del _asked[awaited]
        raise


def _wait_in_thread(awaited: Awaited) -> None:
    kind, number, flags = awaited
    with suppress(OSError):  # no such child any more: whoever asks is told
        _waitid(kind, number, flags | os.WNOWAIT)
    for waiter in list(_asked.pop(awaited, ())):
        waiter.wake()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_asked.clear)  # the threads are the parent's, and so are their children
